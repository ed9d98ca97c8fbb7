use std::{env, fmt, path::Path, time::Duration};

use opentelemetry_proto::tonic::{common::v1::KeyValue, resource::v1::Resource};
use percent_encoding::percent_decode_str;
use reqwest::Url;

use super::{
    attributes::{Dialect, attribute},
    genai::Kind,
};
use crate::{
    Contract, InvalidOptions,
    http::tls::File,
    options::{HttpOptions, Service, http_setters, read_variable},
};

/// Where OpenTelemetry's own exporters send to if nothing else is set.
const DEFAULT_ENDPOINT: &str = "http://localhost:4318";

const OTLP: Service = Service {
    name: "the OTLP backend",
    key: "OTEL_EXPORTER_OTLP_HEADERS",
    identity: "OTEL_EXPORTER_OTLP_HEADERS",
    url: "OTEL_EXPORTER_OTLP_ENDPOINT",
    example_url: DEFAULT_ENDPOINT,
};

/// OpenInference's names, which several backends read beside OpenTelemetry's.
const OPEN_INFERENCE: Dialect = Dialect {
    input: "input.value",
    output: "output.value",
    kind: ("openinference.span.kind", |kind| match kind {
        Kind::Model => "LLM",
        Kind::Agent => "AGENT",
        Kind::Tool => "TOOL",
        Kind::Retriever => "RETRIEVER",
        Kind::Reranker => "RERANKER",
        Kind::Guardrail => "GUARDRAIL",
        Kind::Evaluator => "EVALUATOR",
        Kind::Chain => "CHAIN",
    }),
};

const CERTIFICATE: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
const CLIENT_CERTIFICATE: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"];
const CLIENT_KEY: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"];

/// How spans are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OtlpProtocol {
    /// `http/protobuf`, which every backend takes.
    #[default]
    Protobuf,
    /// `http/json`, which is easier to read on its way.
    Json,
}

/// Where an [`OtlpSink`](crate::OtlpSink) sends spans, and how.
///
/// Nothing is checked before [`OtlpSink::new`](crate::OtlpSink::new). `Debug` shows neither values
/// of headers, nor a user name, password or query of the URL.
///
/// ```
/// use durable_spans_activity::{OtlpOptions, OtlpProtocol, OtlpSink};
///
/// let options = OtlpOptions::new("http://127.0.0.1:4318")
///     .protocol(OtlpProtocol::Json)
///     .service_name("ranking")
///     .namespace("default")
///     .task_queue("rank");
/// let sink = OtlpSink::new(options)?;
/// # Ok::<(), durable_spans_activity::InvalidOptions>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct OtlpOptions {
    http: HttpOptions,
    /// What is added to the URL.
    path: &'static [&'static str],
    protocol: OtlpProtocol,
    resource: Vec<(String, String)>,
    dialect: Dialect,
    name: &'static str,
    oldest: Option<Duration>,
}

impl OtlpOptions {
    /// Sends to `{endpoint}/v1/traces`. A user name and password in the URL become an
    /// `Authorization` header, a query is kept.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            http: HttpOptions::new(OTLP, endpoint),
            path: &["v1", "traces"],
            protocol: OtlpProtocol::default(),
            resource: Vec::new(),
            dialect: OPEN_INFERENCE,
            name: "otlp",
            oldest: None,
        }
    }

    /// Sends to this very URL.
    pub fn to_url(url: impl Into<String>) -> Self {
        Self { path: &[], ..Self::new(url) }
    }

    /// Options of a backend of that name, which has names of its own for some attributes.
    pub(super) fn of(
        service: Service,
        name: &'static str,
        dialect: Dialect,
        base_url: String,
        path: &'static [&'static str],
    ) -> Self {
        Self { http: HttpOptions::new(service, base_url), dialect, name, path, ..Self::new("") }
    }

    /// Reads the variables that OpenTelemetry's own exporters read:
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` (default `http://localhost:4318`, to which `/v1/traces` is
    /// added), `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_PROTOCOL` (`http/protobuf` or
    /// `http/json`), `OTEL_EXPORTER_OTLP_COMPRESSION` (`gzip` or `none`, default none),
    /// `OTEL_EXPORTER_OTLP_TIMEOUT` (milliseconds), `OTEL_EXPORTER_OTLP_CERTIFICATE` (a file in PEM, see
    /// [`certificate`](Self::certificate)), `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE` with
    /// `OTEL_EXPORTER_OTLP_CLIENT_KEY` (the same), of each the form with `OTLP_TRACES_` first, whose
    /// endpoint is taken as it is, and `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES`. White
    /// space around a value is cut off; an empty variable counts as missing.
    ///
    /// # Errors
    ///
    /// Names the variable that cannot be used, and says what to do.
    pub fn from_env() -> Result<Self, InvalidOptions> {
        Self::from_variables(env::var)
    }

    pub(super) fn from_variables(
        variable: impl Fn(&'static str) -> Result<String, env::VarError>,
    ) -> Result<Self, InvalidOptions> {
        let read = |name| read_variable(&variable, name);
        // The variable that is set, and its value: that for traces wins.
        let either = |traces, all| -> Result<_, InvalidOptions> {
            Ok(match read(traces)? {
                Some(value) => Some((traces, value)),
                None => read(all)?.map(|value| (all, value)),
            })
        };
        let mut options = match read("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")? {
            Some(url) => Self::to_url(url),
            None => Self::new(
                read("OTEL_EXPORTER_OTLP_ENDPOINT")?.unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            ),
        };
        if let Some((name, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")?
        {
            options.http.headers = pairs(name, &value)?;
        }
        if let Some((name, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")?
        {
            options.protocol = match &*value {
                "http/protobuf" => OtlpProtocol::Protobuf,
                "http/json" => OtlpProtocol::Json,
                _ => {
                    return Err(InvalidOptions::new(format!(
                        "{name} is neither http/protobuf nor http/json, and no other is spoken: \
                         set it to one of them, and the endpoint to the port for HTTP (often 4318)"
                    )));
                }
            };
        }
        let compression =
            either("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")?;
        options.http.gzip = match compression.as_ref().map(|(name, value)| (name, &**value)) {
            None | Some((_, "none")) => false,
            Some((_, "gzip")) => true,
            Some((name, _)) => {
                return Err(InvalidOptions::new(format!(
                    "{name} is neither gzip nor none: mend it"
                )));
            }
        };
        if let Some((name, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")?
        {
            let millis = value.parse().ok().filter(|millis| *millis > 0);
            options.http.timeout = millis.map(Duration::from_millis).ok_or_else(|| {
                InvalidOptions::new(format!("{name} is no number of milliseconds above 0: mend it"))
            })?;
        }
        let file = |[traces, all]: [&'static str; 2]| -> Result<_, InvalidOptions> {
            Ok(either(traces, all)?.map(|(name, path)| File::new(path, name)))
        };
        options.http.tls.authorities = file(CERTIFICATE)?;
        options.http.tls.identity = match (file(CLIENT_CERTIFICATE)?, file(CLIENT_KEY)?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(File { setting, .. }), None) | (None, Some(File { setting, .. })) => {
                let [certificate, key] = [CLIENT_CERTIFICATE[1], CLIENT_KEY[1]];
                return Err(InvalidOptions::new(format!(
                    "{setting} is set alone: set both {certificate} and {key}, or neither"
                )));
            }
        };
        options.read_resource(&variable)?;
        Ok(options)
    }

    /// Reads what every OpenTelemetry process says about itself.
    pub(super) fn read_resource(
        &mut self,
        variable: &impl Fn(&'static str) -> Result<String, env::VarError>,
    ) -> Result<(), InvalidOptions> {
        if let Some(value) = read_variable(variable, "OTEL_RESOURCE_ATTRIBUTES")? {
            self.resource = pairs("OTEL_RESOURCE_ATTRIBUTES", &value)?;
        }
        if let Some(name) = read_variable(variable, "OTEL_SERVICE_NAME")? {
            self.resource.push(("service.name".to_owned(), name));
        }
        Ok(())
    }

    /// How spans are written. Default: protobuf.
    pub fn protocol(mut self, protocol: OtlpProtocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// The backend drops spans that ended longer ago than this without a word, as Pydantic Logfire does
    /// after about a day: they are counted as dropped instead. Default: no limit.
    pub fn oldest(mut self, age: Duration) -> Self {
        self.oldest = Some(age);
        self
    }

    /// The name of the service, as the resource attribute `service.name`. Default:
    /// `unknown_service:` and the name of the program.
    pub fn service_name(self, name: impl Into<String>) -> Self {
        self.resource_attribute("service.name", name)
    }

    /// The Temporal namespace of the workers, as the resource attribute `temporal.namespace`. Default:
    /// none.
    pub fn namespace(self, namespace: impl Into<String>) -> Self {
        self.resource_attribute("temporal.namespace", namespace)
    }

    /// The task queue of the workers, as the resource attribute `temporal.task_queue`. Default: none.
    pub fn task_queue(self, task_queue: impl Into<String>) -> Self {
        self.resource_attribute("temporal.task_queue", task_queue)
    }

    /// The build id of the workers, as the resource attribute `temporal.worker.build_id`. Default:
    /// none.
    pub fn build_id(self, build_id: impl Into<String>) -> Self {
        self.resource_attribute("temporal.worker.build_id", build_id)
    }

    /// An attribute of the resource, which stands for all spans of the process. Of one name, the last
    /// value is sent.
    pub fn resource_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.resource.push((name.into(), value.into()));
        self
    }

    /// Trusts a server with one of the certificates in this file, in PEM, or with one that they vouch
    /// for, and no other. Default: what the machine trusts.
    pub fn certificate(mut self, path: impl AsRef<Path>) -> Self {
        self.http.tls.authorities = Some(File::new(path, "the certificate"));
        self
    }

    /// Shows this certificate to servers that ask for one. Both files are in PEM. Default: none.
    pub fn client_certificate(
        mut self,
        certificate: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Self {
        let certificate = File::new(certificate, "the client certificate");
        self.http.tls.identity = Some((certificate, File::new(key, "the client key")));
        self
    }

    http_setters!();

    pub(super) fn endpoint(&self) -> Result<Url, InvalidOptions> {
        self.http.url_of(self.path)
    }

    pub(super) fn http(&self) -> &HttpOptions {
        &self.http
    }

    pub(super) fn http_mut(&mut self) -> &mut HttpOptions {
        &mut self.http
    }

    pub(super) fn chosen_protocol(&self) -> OtlpProtocol {
        self.protocol
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn contract(&self) -> Contract {
        let contract = Contract::append_only().id_bits(64);
        self.oldest.map_or(contract, |age| contract.oldest(age))
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn resource(&self) -> Resource {
        let mut attributes: Vec<KeyValue> = [
            ("telemetry.sdk.name", "durable-spans"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
        ]
        .map(|(name, value)| attribute(name, value))
        .into();
        attributes.push(attribute("service.name", unknown_service()));
        for (name, value) in &self.resource {
            attributes.retain(|known| known.key != *name);
            attributes.push(attribute(name.as_str(), value.as_str()));
        }
        Resource { attributes, ..Resource::default() }
    }
}

impl fmt::Debug for OtlpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpOptions")
            .field("endpoint", &self.http.shown_url())
            .field("protocol", &self.protocol)
            .field("timeout", &self.http.timeout)
            .field("headers", &self.http.header_names())
            .field("gzip", &self.http.gzip)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

/// What OpenTelemetry calls a service that did not say its name.
fn unknown_service() -> String {
    let program = env::current_exe().ok();
    match program.as_deref().and_then(|path| path.file_name()) {
        Some(name) => format!("unknown_service:{}", name.to_string_lossy()),
        None => "unknown_service".to_owned(),
    }
}

/// Reads `name=value,name=value`, with values percent-encoded.
fn pairs(variable: &str, text: &str) -> Result<Vec<(String, String)>, InvalidOptions> {
    let invalid = || {
        // Without the text, which may hold a key.
        InvalidOptions::new(format!(
            "{variable} is not of the form name=value,name=value with values percent-encoded: mend \
             it"
        ))
    };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').ok_or_else(invalid)?;
        let value = percent_decode_str(value.trim()).decode_utf8().map_err(|_| invalid())?;
        Ok((name.trim().to_owned(), value.into_owned()))
    };
    text.split(',').filter(|part| !part.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::variables;

    fn from(given: &[(&str, &str)]) -> Result<OtlpOptions, InvalidOptions> {
        OtlpOptions::from_variables(variables(given))
    }

    fn attribute_of(options: &OtlpOptions, name: &str) -> Option<String> {
        let found = options.resource().attributes.into_iter().find(|known| known.key == name)?;
        Some(format!("{:?}", found.value?.value?))
    }

    #[test]
    fn without_variables_spans_go_where_opentelemetrys_exporters_send() {
        let options = from(&[]).unwrap();
        assert_eq!(options.endpoint().unwrap().as_str(), "http://localhost:4318/v1/traces");
        assert_eq!(options.chosen_protocol(), OtlpProtocol::Protobuf);
        assert_eq!((options.http.gzip, options.http.timeout.as_secs()), (false, 10));
        let service = attribute_of(&options, "service.name").unwrap();
        assert!(service.contains("unknown_service:"), "{service}");
    }

    #[test]
    fn every_variable_is_read_and_that_for_traces_wins() {
        let options = from(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/here"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "authorization=Bearer%20k, x = 2,"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,team=b%20c"),
            ("OTEL_SERVICE_NAME", "ranking"),
        ])
        .unwrap();
        assert_eq!(options.endpoint().unwrap().as_str(), "http://traces/here");
        let headers = [("authorization".into(), "Bearer k".into()), ("x".into(), "2".into())];
        assert_eq!(options.http.headers, headers);
        assert_eq!(options.chosen_protocol(), OtlpProtocol::Json);
        assert_eq!((options.http.gzip, options.http.timeout.as_millis()), (true, 2500));
        assert_eq!(attribute_of(&options, "service.name").unwrap(), r#"StringValue("ranking")"#);
        assert_eq!(attribute_of(&options, "team").unwrap(), r#"StringValue("b c")"#);
        let base = from(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all/base/")]).unwrap();
        assert_eq!(base.endpoint().unwrap().as_str(), "http://all/base/v1/traces");
    }

    #[test]
    fn what_cannot_be_used_is_named_and_not_shown() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_HEADERS", "secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=secret%ff"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "0"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "ten"),
            ("OTEL_RESOURCE_ATTRIBUTES", "secret"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "c.pem"),
            ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "k.pem"),
        ] {
            let error = from(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(name) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let options = OtlpOptions::new("http://user:secret@h/p?k=secret").header("x-k", "secret");
        let shown = format!("{options:?}");
        assert!(!shown.contains("secret") && shown.contains("x-k"), "{shown}");
    }
}
