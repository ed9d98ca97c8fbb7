use durable_spans_workflow::is_replaying;
use tracing::{Metadata, Subscriber, subscriber::Interest};
use tracing_subscriber::{
    Layer,
    layer::{Context, Filter},
};

/// Leaves out the events of workflow code that is being replayed. Use it as the filter of one layer
/// or, as a layer, of all of them.
///
/// Each event comes once then, though evictions, restarts and deployments replay the code. What
/// the code logs in a workflow task that fails, or is lost with its worker, comes again when the task
/// is done again, since that is no replay. The `#[init]` of a workflow is not known to be
/// replayed, so its events come each time. Queries are answered during replay and log as ever.
///
/// ```
/// use durable_spans_activity::logs;
/// use tracing_subscriber::{EnvFilter, filter::FilterExt, prelude::*};
///
/// let filter = EnvFilter::new("info").and(logs::not_replayed());
/// let one = tracing_subscriber::registry()
///     .with(tracing_subscriber::fmt::layer().with_filter(filter));
///
/// let all = tracing_subscriber::registry()
///     .with(logs::not_replayed())
///     .with(tracing_subscriber::fmt::layer());
/// # drop((one, all));
/// ```
pub fn not_replayed() -> NotReplayed {
    NotReplayed { _private: () }
}

/// See [`not_replayed`].
#[derive(Clone, Copy, Debug)]
pub struct NotReplayed {
    _private: (),
}

impl NotReplayed {
    /// Spans stay: one that replay opens may still be there when the code goes on.
    fn lets_through(metadata: &Metadata<'_>) -> bool {
        !metadata.is_event() || !is_replaying()
    }

    /// What may be remembered of the answer.
    fn interest(metadata: &Metadata<'_>) -> Interest {
        if metadata.is_event() { Interest::sometimes() } else { Interest::always() }
    }
}

impl<S> Filter<S> for NotReplayed {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::lets_through(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        Self::interest(metadata)
    }
}

impl<S: Subscriber> Layer<S> for NotReplayed {
    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        Self::lets_through(metadata)
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        Self::interest(metadata)
    }
}
