use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::InvalidSpan;

macro_rules! span_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What kind of work a span covers: the span types of SGP.
        ///
        /// The list is the one of Scale's official Python client 0.7. The default, as there, is
        /// [`SpanType::Standalone`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum SpanType {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl SpanType {
            /// Every type, in the order of SGP's documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name on the wire, such as `AGENT_WORKFLOW`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }
        }
    };
}

span_types! {
    /// Text that a user typed.
    TextInput = "TEXT_INPUT",
    /// Text shown to a user.
    TextOutput = "TEXT_OUTPUT",
    /// What goes into a completion.
    CompletionInput = "COMPLETION_INPUT",
    /// A call of a language model.
    Completion = "COMPLETION",
    /// A search in a knowledge base.
    KbRetrieval = "KB_RETRIEVAL",
    /// What goes into a knowledge base search.
    KbInput = "KB_INPUT",
    /// Ordering search results.
    Reranking = "RERANKING",
    /// A call to a service outside.
    ExternalEndpoint = "EXTERNAL_ENDPOINT",
    /// Building a prompt.
    PromptEngineering = "PROMPT_ENGINEERING",
    /// Reading a document.
    DocumentInput = "DOCUMENT_INPUT",
    /// Fan out and merge.
    MapReduce = "MAP_REDUCE",
    /// A search in documents.
    DocumentSearch = "DOCUMENT_SEARCH",
    /// Building a prompt from documents.
    DocumentPrompt = "DOCUMENT_PROMPT",
    /// Work of the user's own kind.
    Custom = "CUSTOM",
    /// Running code.
    CodeExecution = "CODE_EXECUTION",
    /// Transforming data.
    DataManipulation = "DATA_MANIPULATION",
    /// Judging a result.
    Evaluation = "EVALUATION",
    /// Fetching a file.
    FileRetrieval = "FILE_RETRIEVAL",
    /// Adding to a knowledge base.
    KbAddChunk = "KB_ADD_CHUNK",
    /// Managing a knowledge base.
    KbManagement = "KB_MANAGEMENT",
    /// A check on input.
    Guardrail = "GUARDRAIL",
    /// A check on output.
    OutputGuardrail = "OUTPUT_GUARDRAIL",
    /// The root of a trace.
    Tracer = "TRACER",
    /// The root of an agent's trace.
    AgentTracer = "AGENT_TRACER",
    /// A workflow, of an agent or not.
    AgentWorkflow = "AGENT_WORKFLOW",
    /// Anything else.
    #[default]
    Standalone = "STANDALONE",
}

impl fmt::Display for SpanType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for SpanType {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .iter()
            .find(|kind| kind.as_str() == text)
            .copied()
            .ok_or_else(|| InvalidSpan::new("type", "is not a span type of SGP"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_reads_back_from_its_name_and_its_json() {
        for kind in SpanType::ALL {
            assert_eq!(kind.as_str().parse::<SpanType>().unwrap(), *kind);
            let json = serde_json::to_string(kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
            assert_eq!(serde_json::from_str::<SpanType>(&json).unwrap(), *kind);
        }
        assert_eq!("NOPE".parse::<SpanType>().unwrap_err().field(), "type");
    }
}
