use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{Span, redact};

/// Which inputs and outputs of spans are kept.
///
/// It rules over all of them: those that durable-spans captures by itself (of runs and activities),
/// and those that code sets. Default: both are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// Inputs and outputs.
    #[default]
    All,
    /// Outputs only.
    Outputs,
    /// Neither: where they may hold what nobody else shall see.
    Nothing,
}

impl Capture {
    /// Whether inputs are kept.
    pub const fn inputs(self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether outputs are kept.
    pub const fn outputs(self) -> bool {
        matches!(self, Self::All | Self::Outputs)
    }
}

/// What changes spans as they are recorded: a function without state of its own, since workflow code
/// is replayed. So there is nothing in it that could reach a network, a clock or a channel; what
/// needs those is a `SpanProcessor`, which sees spans when they are delivered.
pub type SpanHook = fn(&mut Span);

/// What happens to spans as they are recorded, before they are kept, in this order: the hooks, the
/// choice of inputs and outputs, the redaction of credentials, the redactors. A hook that panics is
/// passed over; where a redactor panics, input, output and metadata are taken out as a whole.
///
/// ```
/// use durable_spans_model::{Capture, Span, SpanHooks, SpanId, Timestamp, TraceId};
///
/// let hooks = SpanHooks::new()
///     .capture(Capture::Outputs)
///     .redactor(|span| {
///         span.metadata.remove("customer");
///     });
/// let at = Timestamp::from_unix_ns(0);
/// let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "pay", at);
/// span.input.insert("card".into(), "4242".into());
/// span.metadata.insert("customer".into(), "Ada".into());
/// hooks.keep(&mut span);
/// assert!(span.input.is_empty() && span.metadata.is_empty());
/// ```
#[derive(Clone, Default)]
pub struct SpanHooks {
    capture: Capture,
    keeps_credentials: bool,
    on_start: Vec<SpanHook>,
    on_end: Vec<SpanHook>,
    redactors: Vec<SpanHook>,
}

impl SpanHooks {
    /// All inputs and outputs, without what looks like a credential.
    pub const fn new() -> Self {
        Self {
            capture: Capture::All,
            keeps_credentials: false,
            on_start: Vec::new(),
            on_end: Vec::new(),
            redactors: Vec::new(),
        }
    }

    /// Which inputs and outputs are kept. Default: [`Capture::All`].
    #[must_use]
    pub const fn capture(mut self, capture: Capture) -> Self {
        self.capture = capture;
        self
    }

    /// Whether values that look like credentials, or have the name of one, are kept. Default false:
    /// see [`redact`].
    #[must_use]
    pub const fn keep_credentials(mut self, keep: bool) -> Self {
        self.keeps_credentials = keep;
        self
    }

    /// Calls `hook` with each span that begins, as described by then. Several are called in the order
    /// in which they were added.
    #[must_use]
    pub fn on_start(mut self, hook: SpanHook) -> Self {
        self.on_start.push(hook);
        self
    }

    /// Calls `hook` with each span that has ended. Several are called in the order in which they were
    /// added.
    #[must_use]
    pub fn on_end(mut self, hook: SpanHook) -> Self {
        self.on_end.push(hook);
        self
    }

    /// Calls `hook` with each span before it is kept: when it has ended, and with a copy of it when
    /// it is announced while it is open. So nothing that it takes out reaches a buffer, history or
    /// a sink.
    #[must_use]
    pub fn redactor(mut self, hook: SpanHook) -> Self {
        self.redactors.push(hook);
        self
    }

    /// See [`SpanHooks::capture`].
    pub const fn captured(&self) -> Capture {
        self.capture
    }

    /// To be called with each span that has begun.
    pub fn begin(&self, span: &mut Span) {
        for hook in &self.on_start {
            call(*hook, span);
        }
    }

    /// To be called with each span that has ended.
    pub fn end(&self, span: &mut Span) {
        for hook in &self.on_end {
            call(*hook, span);
        }
        self.keep(span);
    }

    /// To be called with what is kept of a span that is open.
    pub fn keep(&self, span: &mut Span) {
        if !self.capture.inputs() {
            span.input.clear();
        }
        if !self.capture.outputs() {
            span.output.clear();
        }
        if !self.keeps_credentials {
            redact::span(span);
        }
        for redactor in &self.redactors {
            if call(*redactor, span) == Called::Panicked {
                // What it would have taken out must not leave.
                span.input.clear();
                span.output.clear();
                span.metadata.clear();
                span.metadata.insert("redaction_failed".into(), true.into());
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Called {
    Well,
    Panicked,
}

/// Tracing never fails a workflow: a hook that panics is passed over.
fn call(hook: SpanHook, span: &mut Span) -> Called {
    match catch_unwind(AssertUnwindSafe(|| hook(span))) {
        Ok(()) => Called::Well,
        Err(_) => Called::Panicked,
    }
}

impl fmt::Debug for SpanHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpanHooks")
            .field("capture", &self.capture)
            .field("keeps_credentials", &self.keeps_credentials)
            .field("on_start", &self.on_start.len())
            .field("on_end", &self.on_end.len())
            .field("redactors", &self.redactors.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SpanId, Timestamp, TraceId};

    fn span() -> Span {
        let at = Timestamp::from_unix_ns(0);
        let mut span = Span::new(TraceId::from_bits(1), SpanId::from_bits(2), "s", at);
        span.input.insert("a".into(), 1.into());
        span.output.insert("b".into(), 2.into());
        span.metadata.insert("api_key".into(), "hunter2".into());
        span
    }

    #[test]
    fn one_switch_rules_over_inputs_and_outputs() {
        for (capture, inputs, outputs) in
            [(Capture::All, 1, 1), (Capture::Outputs, 0, 1), (Capture::Nothing, 0, 0)]
        {
            let mut span = span();
            SpanHooks::new().capture(capture).end(&mut span);
            assert_eq!((span.input.len(), span.output.len()), (inputs, outputs));
        }
    }

    #[test]
    fn credentials_are_taken_out_unless_one_says_otherwise() {
        let mut redacted = span();
        SpanHooks::new().keep(&mut redacted);
        assert_eq!(redacted.metadata["api_key"], redact::MARK);
        let mut kept = span();
        SpanHooks::new().keep_credentials(true).keep(&mut kept);
        assert_eq!(kept, span());
    }

    #[test]
    fn a_hook_that_panics_fails_nothing_and_leaks_nothing() {
        let hooks = SpanHooks::new()
            .on_start(|_| panic!("start"))
            .on_end(|_| panic!("end"))
            .redactor(|_| panic!("redactor"));
        let mut span = span();
        hooks.begin(&mut span);
        hooks.end(&mut span);
        assert!(span.input.is_empty() && span.output.is_empty());
        assert_eq!(span.metadata["redaction_failed"], true);
    }

    #[test]
    fn hooks_are_called_in_order_and_redactors_come_last() {
        let hooks = SpanHooks::new()
            .on_start(|span| span.name.to_mut().push_str(" began"))
            .redactor(|span| span.name.to_mut().push_str(", redacted"))
            .on_end(|span| span.name.to_mut().push_str(", ended"))
            .on_end(|span| span.name.to_mut().push_str(", twice"));
        let mut span = span();
        hooks.begin(&mut span);
        hooks.end(&mut span);
        assert_eq!(span.name, "s began, ended, twice, redacted");
    }
}
