//! What the log says: which spans are lost, by name.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer, filter::LevelFilter, layer, layer::SubscriberExt, util::SubscriberInitExt,
};

/// A layer that keeps what is logged of spans that are dropped. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct LossLog {
    lost: Arc<Mutex<Vec<Loss>>>,
}

/// A span that the log names as lost.
#[derive(Clone, Default)]
struct Loss {
    trace_id: String,
    span_id: String,
    name: String,
    reason: String,
}

impl LossLog {
    /// Listens to the whole process. Prints as well what `RUST_LOG` asks for.
    pub(crate) fn install() -> Self {
        let log = Self::default();
        let printed = std::env::var_os("RUST_LOG").map(|_| {
            let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
            layer.with_filter(EnvFilter::from_default_env())
        });
        let heard = log.clone().with_filter(LevelFilter::WARN);
        tracing_subscriber::registry().with(heard).with(printed).init();
        log
    }

    /// The lost spans of a trace that it tells with a reason, by id and name.
    pub(crate) fn of_trace(&self, trace_id: &str) -> Vec<(String, String)> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let told = lost.iter().filter(|loss| loss.trace_id == trace_id && !loss.reason.is_empty());
        // A span that is announced while it is open may be refused twice.
        let spans: BTreeSet<_> =
            told.map(|loss| (loss.span_id.clone(), loss.name.clone())).collect();
        spans.into_iter().collect()
    }
}

impl<S: Subscriber> Layer<S> for LossLog {
    fn on_event(&self, event: &Event<'_>, _ctx: layer::Context<'_, S>) {
        let mut loss = Loss::default();
        event.record(&mut loss);
        if !loss.span_id.is_empty() {
            self.lost.lock().unwrap_or_else(PoisonError::into_inner).push(loss);
        }
    }
}

impl Visit for Loss {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "trace_id" => self.trace_id = value.to_owned(),
            "span_id" => self.span_id = value.to_owned(),
            "name" => self.name = value.to_owned(),
            "reason" => self.reason = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
