//! What the user sees at the end.

use std::io::{self, Write};

use durable_spans::{Span, Statistics, TraceId};
use durable_spans_collector::tree;
use serde::Serialize;
use serde_json::Value;

use crate::cost::Cost;

/// All that is known of a pipeline that has ended.
pub(crate) struct Outcome {
    pub(crate) trace_id: TraceId,
    /// What the pipeline returned.
    pub(crate) result: String,
    pub(crate) statistics: Statistics,
    pub(crate) cost: Cost,
    pub(crate) spans: Vec<Span>,
    /// The spans as the collector's API answers with them.
    pub(crate) items: Vec<Value>,
}

impl Outcome {
    /// Whether every span is accounted for, and none is left behind.
    pub(crate) fn is_complete(&self) -> bool {
        let Statistics { recorded, delivered, deferred, .. } = self.statistics;
        deferred == 0 && recorded == delivered + deferred + self.statistics.dropped_total()
    }

    /// The tree, the result and the figures, for people.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { trace_id, result, statistics, cost, spans, .. } = self;
        writeln!(out, "trace {trace_id}\n\n{}\n{result}\n", tree::render(spans))?;
        writeln!(out, "spans: {statistics}")?;
        writeln!(
            out,
            "history: tracing added {} of {} events and {} of {} bytes, over {} runs",
            cost.events_added, cost.events, cost.bytes_added, cost.bytes, cost.runs
        )?;
        out.flush()
    }

    /// The same as one JSON object on one line, for programs.
    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let object = Object {
            trace_id: &self.trace_id,
            recorded: self.statistics.recorded,
            delivered: self.statistics.delivered,
            deferred: self.statistics.deferred,
            dropped: self.statistics.dropped_total(),
            history_bytes_added: self.cost.bytes_added,
            history_events_added: self.cost.events_added,
            spans: &self.items,
        };
        serde_json::to_writer(&mut *out, &object)?;
        writeln!(out)?;
        out.flush()
    }
}

#[derive(Serialize)]
struct Object<'a> {
    trace_id: &'a TraceId,
    recorded: u64,
    delivered: u64,
    deferred: u64,
    dropped: u64,
    history_bytes_added: usize,
    history_events_added: usize,
    spans: &'a [Value],
}
