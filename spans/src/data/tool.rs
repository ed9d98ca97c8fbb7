use serde::Serialize;

use super::{SpanData, agent::texts, fields::Fields};
use crate::{Span, SpanType};

/// A call of a function or tool: [`SpanType::CodeExecution`].
///
/// The default names none: it adds to a span whose function is known.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Function(Fields);

impl Function {
    /// The function of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Self::default().0.field("name", name.into()))
    }

    /// The arguments. An object is the span's input itself. A text that is JSON, as models write
    /// arguments, is taken for what it says.
    pub fn input(self, arguments: impl Serialize) -> Self {
        Self(self.0.arguments(arguments))
    }

    /// The result, in the same way.
    pub fn output(self, result: impl Serialize) -> Self {
        Self(self.0.result(result))
    }

    /// The id that the model gave to this call.
    pub fn call_id(self, id: impl Into<String>) -> Self {
        Self(self.0.field("call_id", id.into()))
    }

    /// What is known of the MCP server that has the function, such as `{"server": "files"}`.
    pub fn mcp_data(self, data: impl Serialize) -> Self {
        Self(self.0.field("mcp_data", data))
    }
}

impl Default for Function {
    fn default() -> Self {
        Self(Fields::openai("function"))
    }
}

impl SpanData for Function {
    const SPAN_TYPE: SpanType = SpanType::CodeExecution;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}

/// Asking an MCP server for its tools: [`SpanType::Standalone`]. The default names none.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct McpTools(Fields);

impl McpTools {
    /// The server of that name.
    pub fn new(server: impl Into<String>) -> Self {
        Self(Self::default().0.field("server", server.into()))
    }

    /// The names of its tools.
    pub fn result<S: Into<String>>(self, tools: impl IntoIterator<Item = S>) -> Self {
        Self(self.0.field("result", texts(tools)))
    }
}

impl Default for McpTools {
    fn default() -> Self {
        Self(Fields::openai("mcp_tools"))
    }
}

impl SpanData for McpTools {
    const SPAN_TYPE: SpanType = SpanType::Standalone;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}
