use super::{SpanData, Usage, fields::Fields};
use crate::{Span, SpanType};

/// An agent at work: [`SpanType::AgentWorkflow`]. The default names none.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Agent(Fields);

impl Agent {
    /// The agent of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Self::default().0.field("name", name.into()))
    }

    /// The agents that it may hand over to.
    pub fn handoffs<S: Into<String>>(self, agents: impl IntoIterator<Item = S>) -> Self {
        Self(self.0.field("handoffs", texts(agents)))
    }

    /// The tools that it may call.
    pub fn tools<S: Into<String>>(self, tools: impl IntoIterator<Item = S>) -> Self {
        Self(self.0.field("tools", texts(tools)))
    }

    /// The name of the type that it answers with.
    pub fn output_type(self, name: impl Into<String>) -> Self {
        Self(self.0.field("output_type", name.into()))
    }

    /// Tokens and cost of all that it did. Figures of a whole trace do not count them twice.
    pub fn usage(self, usage: Usage) -> Self {
        Self(self.0.usage(usage))
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self(Fields::openai("agent"))
    }
}

impl SpanData for Agent {
    const SPAN_TYPE: SpanType = SpanType::AgentWorkflow;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}

/// One agent hands over to another: [`SpanType::Custom`]. The default names neither.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Handoff(Fields);

impl Handoff {
    /// From this agent to that one.
    pub fn new(from_agent: impl Into<String>, to_agent: impl Into<String>) -> Self {
        Self::from(from_agent).to(to_agent)
    }

    /// From this agent; to which one may become known later.
    pub fn from(agent: impl Into<String>) -> Self {
        Self(Self::default().0.field("from_agent", agent.into()))
    }

    /// To that agent.
    pub fn to(self, agent: impl Into<String>) -> Self {
        Self(self.0.field("to_agent", agent.into()))
    }
}

impl Default for Handoff {
    fn default() -> Self {
        Self(Fields::openai("handoff"))
    }
}

impl SpanData for Handoff {
    const SPAN_TYPE: SpanType = SpanType::Custom;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}

/// A task for agents, from the question to the answer: [`SpanType::Custom`]. The default names none.
///
/// OpenAI's SDK sends it as a custom span named `task`, and so do we.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Task(Fields);

impl Task {
    /// The task of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(Self::default().0.field("name", name.into()))
    }

    /// Tokens and cost of the whole task. Figures of a whole trace do not count them twice.
    pub fn usage(self, usage: Usage) -> Self {
        Self(self.0.usage(usage))
    }
}

impl Default for Task {
    fn default() -> Self {
        Self(Fields::openai_custom("task"))
    }
}

impl SpanData for Task {
    const SPAN_TYPE: SpanType = SpanType::Custom;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}

/// One turn of an agent's loop: a call of the model and of the tools that it asked for:
/// [`SpanType::Custom`]. The default names none.
///
/// OpenAI's SDK sends it as a custom span named `turn`, and so do we.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Turn(Fields);

impl Turn {
    /// The turn of that agent with that number; the first is 1.
    pub fn new(turn: u32, agent_name: impl Into<String>) -> Self {
        Self(Self::default().0.field("turn", turn).field("agent_name", agent_name.into()))
    }

    /// Tokens and cost of the whole turn. Figures of a whole trace do not count them twice.
    pub fn usage(self, usage: Usage) -> Self {
        Self(self.0.usage(usage))
    }
}

impl Default for Turn {
    fn default() -> Self {
        Self(Fields::openai_custom("turn"))
    }
}

impl SpanData for Turn {
    const SPAN_TYPE: SpanType = SpanType::Custom;

    fn write_to(self, span: &mut Span) {
        self.0.write_to(span);
    }
}

pub(super) fn texts<S: Into<String>>(texts: impl IntoIterator<Item = S>) -> Vec<String> {
    texts.into_iter().map(Into::into).collect()
}
