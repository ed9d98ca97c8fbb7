//! What is recorded, and what is not: sampling, inputs and outputs, credentials, redactors, and who
//! is told. No server: a program's own spans are enough to see it.
//!
//! `cargo run --example privacy`

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, ensure};
use durable_spans::{Capture, DurableSpans, MemorySink, Sampling, Span, SpanProcessor, span};
use durable_spans_collector::tree;

/// Counts what the program did, without a look at what it was about.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl SpanProcessor for Counter {
    fn on_end(&self, _span: &Span) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let (sink, counter) = (MemorySink::new(), Counter::default());
    let spans = DurableSpans::new(sink.clone())
        // A tenth of the traces, but every payment, and no health check.
        .sampling(Sampling::ratio(0.1).rule(|starting| match starting.name {
            "pay" => Some(1.0),
            "health" => Some(0.0),
            _ => None,
        }))
        // Of inputs and outputs, outputs only.
        .capture(Capture::Outputs)
        // A function without state, so that workflow code records the same at each replay.
        .redactor(|span| {
            if let Some(customer) = span.metadata.get_mut("customer") {
                *customer = "(somebody)".into();
            }
        })
        .processor(counter.clone());

    for _ in 0..10 {
        spans.trace("health").in_scope(|_| ());
    }
    spans.trace("pay").metadata("customer", "Ada Lovelace").in_scope(|pay| {
        pay.input("card", "4242 4242 4242 4242");
        pay.metadata("api_key", "hunter2");
        span("receipt").in_scope(|receipt| receipt.output("number", 17));
        // Not worth a span; what is inside of it hangs under the payment.
        span("format").when(false).in_scope(|_| span("print").start().end());
    });
    spans.shutdown(Duration::from_secs(5)).await;

    let recorded = sink.spans();
    print!("{}", tree::render(&recorded));
    for span in &recorded {
        println!("{}: {:?} {:?} {:?}", span.name, span.input, span.output, span.metadata);
    }
    let told = format!("{recorded:?}");
    for secret in ["4242", "Ada", "hunter2"] {
        ensure!(!told.contains(secret), "{secret} is in a span");
    }
    ensure!(recorded.len() == 3, "{} spans instead of 3", recorded.len());
    ensure!(counter.0.load(Ordering::Relaxed) == 3, "the processor was not told of 3 spans");
    Ok(())
}
