//! Backends for language models that take OpenTelemetry traces, with their addresses, headers and
//! names.

use std::env;

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{OtlpOptions, attributes::Dialect, genai::Kind};
use crate::{
    InvalidOptions,
    options::{Service, read_variable, require_variable},
};

const LANGFUSE: Service = Service {
    name: "Langfuse",
    key: "LANGFUSE_SECRET_KEY",
    identity: "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY",
    url: "LANGFUSE_BASE_URL",
    example_url: "https://cloud.langfuse.com",
};

const LANGFUSE_NAMES: Dialect = Dialect {
    input: "langfuse.observation.input",
    output: "langfuse.observation.output",
    kind: ("langfuse.observation.type", |kind| match kind {
        Kind::Model => "generation",
        Kind::Agent => "agent",
        Kind::Tool => "tool",
        Kind::Retriever => "retriever",
        Kind::Guardrail => "guardrail",
        Kind::Evaluator => "evaluator",
        Kind::Reranker | Kind::Chain => "span",
    }),
};

const LANGSMITH: Service = Service {
    name: "LangSmith",
    key: "LANGSMITH_API_KEY",
    identity: "LANGSMITH_API_KEY and LANGSMITH_WORKSPACE_ID",
    url: "LANGSMITH_ENDPOINT",
    example_url: "https://api.smith.langchain.com",
};

const LANGSMITH_NAMES: Dialect = Dialect {
    input: "gen_ai.prompt",
    output: "gen_ai.completion",
    kind: ("langsmith.span.kind", |kind| match kind {
        Kind::Model => "llm",
        Kind::Tool => "tool",
        Kind::Retriever => "retriever",
        _ => "chain",
    }),
};

const BRAINTRUST: Service = Service {
    name: "Braintrust",
    key: "BRAINTRUST_API_KEY",
    identity: "BRAINTRUST_API_KEY and BRAINTRUST_PARENT",
    url: "BRAINTRUST_API_URL",
    example_url: "https://api.braintrust.dev",
};

const BRAINTRUST_NAMES: Dialect = Dialect {
    input: "braintrust.input_json",
    output: "braintrust.output_json",
    kind: ("braintrust.span_attributes", |kind| match kind {
        Kind::Model => r#"{"type":"llm"}"#,
        Kind::Tool => r#"{"type":"tool"}"#,
        Kind::Evaluator => r#"{"type":"eval"}"#,
        _ => r#"{"type":"task"}"#,
    }),
};

type Variable<'a> = &'a dyn Fn(&'static str) -> Result<String, env::VarError>;

impl OtlpOptions {
    /// Sends to Langfuse at `https://cloud.langfuse.com`, or where
    /// [`with_base_url`](Self::with_base_url) says: `{base_url}/api/public/otel/v1/traces`.
    pub fn langfuse(public_key: impl AsRef<str>, secret_key: impl Into<String>) -> Self {
        let secret_key = secret_key.into();
        let keys = BASE64_STANDARD.encode(format!("{}:{secret_key}", public_key.as_ref()));
        let mut options = Self::of(
            LANGFUSE,
            "langfuse",
            LANGFUSE_NAMES,
            LANGFUSE.example_url.to_owned(),
            &["api", "public", "otel", "v1", "traces"],
        )
        .header("authorization", format!("Basic {keys}"))
        // Spans appear at once, and not some minutes later.
        .header("x-langfuse-ingestion-version", "4");
        options.http_mut().secrets.push(secret_key);
        options
    }

    /// Reads the variables that Langfuse's own clients read: `LANGFUSE_PUBLIC_KEY`,
    /// `LANGFUSE_SECRET_KEY`, and `LANGFUSE_BASE_URL` or `LANGFUSE_HOST` (default
    /// `https://cloud.langfuse.com`); and `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
    ///
    /// # Errors
    ///
    /// Names the variable that is missing or cannot be used.
    pub fn langfuse_from_env() -> Result<Self, InvalidOptions> {
        Self::langfuse_from(&|name| env::var(name))
    }

    fn langfuse_from(variable: Variable<'_>) -> Result<Self, InvalidOptions> {
        let require = |name| require_variable(&variable, name, "your Langfuse project");
        let public_key = require("LANGFUSE_PUBLIC_KEY")?;
        let mut options = Self::langfuse(public_key, require("LANGFUSE_SECRET_KEY")?);
        let base_url = match read_variable(&variable, "LANGFUSE_BASE_URL")? {
            None => read_variable(&variable, "LANGFUSE_HOST")?,
            base_url => base_url,
        };
        options.read_base_url(base_url);
        options.read_resource(&variable)?;
        Ok(options)
    }

    /// Sends to LangSmith at `https://api.smith.langchain.com`, or where
    /// [`with_base_url`](Self::with_base_url) says: `{base_url}/otel/v1/traces`. `project` is where
    /// the traces appear, `default` if there is none.
    pub fn langsmith(api_key: impl Into<String>, project: Option<&str>) -> Self {
        let options = Self::of(
            LANGSMITH,
            "langsmith",
            LANGSMITH_NAMES,
            LANGSMITH.example_url.to_owned(),
            &["otel", "v1", "traces"],
        )
        .header("x-api-key", api_key);
        match project {
            Some(project) => options.header("langsmith-project", project),
            None => options,
        }
    }

    /// Reads the variables that LangSmith's own clients read: `LANGSMITH_API_KEY`,
    /// `LANGSMITH_PROJECT`, `LANGSMITH_WORKSPACE_ID` and `LANGSMITH_ENDPOINT` (default
    /// `https://api.smith.langchain.com`); and `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
    ///
    /// # Errors
    ///
    /// Names the variable that is missing or cannot be used.
    pub fn langsmith_from_env() -> Result<Self, InvalidOptions> {
        Self::langsmith_from(&|name| env::var(name))
    }

    fn langsmith_from(variable: Variable<'_>) -> Result<Self, InvalidOptions> {
        let api_key = require_variable(&variable, "LANGSMITH_API_KEY", "your LangSmith account")?;
        let project = read_variable(&variable, "LANGSMITH_PROJECT")?;
        let mut options = Self::langsmith(api_key, project.as_deref());
        if let Some(workspace) = read_variable(&variable, "LANGSMITH_WORKSPACE_ID")? {
            options = options.header("x-tenant-id", workspace);
        }
        options.read_base_url(read_variable(&variable, "LANGSMITH_ENDPOINT")?);
        options.read_resource(&variable)?;
        Ok(options)
    }

    /// Sends to Braintrust at `https://api.braintrust.dev`, or where
    /// [`with_base_url`](Self::with_base_url) says: `{base_url}/otel/v1/traces`. `parent` says where
    /// the traces belong: `project_name:…`, `project_id:…` or `experiment_id:…`.
    pub fn braintrust(api_key: impl Into<String>, parent: impl Into<String>) -> Self {
        let api_key = api_key.into();
        Self::of(
            BRAINTRUST,
            "braintrust",
            BRAINTRUST_NAMES,
            BRAINTRUST.example_url.to_owned(),
            &["otel", "v1", "traces"],
        )
        .header("authorization", format!("Bearer {api_key}"))
        .header("x-bt-parent", parent)
    }

    /// Reads the variables that Braintrust's own clients read: `BRAINTRUST_API_KEY`,
    /// `BRAINTRUST_PARENT` and `BRAINTRUST_API_URL` (default `https://api.braintrust.dev`); and
    /// `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`.
    ///
    /// # Errors
    ///
    /// Names the variable that is missing or cannot be used.
    pub fn braintrust_from_env() -> Result<Self, InvalidOptions> {
        Self::braintrust_from(&|name| env::var(name))
    }

    fn braintrust_from(variable: Variable<'_>) -> Result<Self, InvalidOptions> {
        let whose = "your Braintrust organization";
        let api_key = require_variable(&variable, "BRAINTRUST_API_KEY", whose)?;
        let whose = "your project, such as project_name:traces";
        let parent = require_variable(&variable, "BRAINTRUST_PARENT", whose)?;
        let mut options = Self::braintrust(api_key, parent);
        options.read_base_url(read_variable(&variable, "BRAINTRUST_API_URL")?);
        options.read_resource(&variable)?;
        Ok(options)
    }

    /// The same backend at another address: another region, or one of your own.
    pub fn with_base_url(mut self, base_url: impl Into<String>) -> Self {
        self.http_mut().url = base_url.into();
        self
    }

    fn read_base_url(&mut self, base_url: Option<String>) {
        if let Some(base_url) = base_url {
            self.http_mut().url = base_url;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::variables;

    #[test]
    fn a_missing_variable_is_named() {
        let none = variables(&[]);
        let refusals = [
            (OtlpOptions::langfuse_from(&none), "LANGFUSE_PUBLIC_KEY is not set"),
            (OtlpOptions::langsmith_from(&none), "LANGSMITH_API_KEY is not set"),
            (OtlpOptions::braintrust_from(&none), "BRAINTRUST_API_KEY is not set"),
        ];
        for (options, expected) in refusals {
            let error = options.unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        let key = variables(&[("LANGFUSE_PUBLIC_KEY", "pk-secret")]);
        let error = OtlpOptions::langfuse_from(&key).unwrap_err().to_string();
        assert!(
            error.starts_with("LANGFUSE_SECRET_KEY is not set") && !error.contains("pk-secret")
        );
        let key = variables(&[("BRAINTRUST_API_KEY", "secret")]);
        let error = OtlpOptions::braintrust_from(&key).unwrap_err().to_string();
        assert!(error.starts_with("BRAINTRUST_PARENT is not set") && !error.contains("secret"));
    }

    #[test]
    fn each_backend_is_where_its_documentation_says() {
        let endpoint = |options: OtlpOptions| options.endpoint().unwrap().to_string();
        let langfuse =
            [("LANGFUSE_PUBLIC_KEY", "pk"), ("LANGFUSE_SECRET_KEY", "sk"), ("LANGFUSE_HOST", "")];
        assert_eq!(
            endpoint(OtlpOptions::langfuse_from(&variables(&langfuse)).unwrap()),
            "https://cloud.langfuse.com/api/public/otel/v1/traces"
        );
        let langsmith = [("LANGSMITH_API_KEY", "k"), ("LANGSMITH_ENDPOINT", "https://h/api/v1")];
        assert_eq!(
            endpoint(OtlpOptions::langsmith_from(&variables(&langsmith)).unwrap()),
            "https://h/api/v1/otel/v1/traces"
        );
        assert_eq!(
            endpoint(OtlpOptions::langsmith("k", None)),
            "https://api.smith.langchain.com/otel/v1/traces"
        );
        assert_eq!(
            endpoint(OtlpOptions::braintrust("k", "project_name:p")),
            "https://api.braintrust.dev/otel/v1/traces"
        );
    }
}
