//! Spans from the hand-over to the answer of a sink over loopback HTTP.

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use durable_spans::{SgpOptions, SgpSink, Span};
use durable_spans_activity::Deliverer;
use durable_spans_workflow::{FlushGroup, digest};
use tokio::runtime::Runtime;

use crate::{encoding::span, sink::Sink};

const SPANS_PER_GROUP: u32 = 1_000;

pub(crate) fn benches(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let sink = runtime.block_on(Sink::start()).unwrap();
    let mut group = criterion.benchmark_group("deliver");
    group.sample_size(10);
    for spans in [1_000, 10_000, 100_000] {
        group.throughput(Throughput::Elements(spans.into()));
        let groups: Vec<FlushGroup> = (0..spans / SPANS_PER_GROUP).map(flush_group).collect();
        group.bench_with_input(BenchmarkId::new("spans", spans), &groups, |b, groups| {
            b.iter_custom(|rounds| runtime.block_on(deliver(&sink, groups, rounds)));
        });
    }
    group.finish();
}

fn flush_group(number: u32) -> FlushGroup {
    let first = number * SPANS_PER_GROUP;
    let spans: Vec<Span> = (first..first + SPANS_PER_GROUP).map(span).collect();
    FlushGroup { flush: number, digest: digest(&spans), part_of: None, spans: spans.into() }
}

async fn deliver(sink: &Sink, groups: &[FlushGroup], rounds: u64) -> Duration {
    let spans: u64 = groups.iter().map(|group| group.spans.len() as u64).sum();
    let mut took = Duration::ZERO;
    for _ in 0..rounds {
        let deliverer = Deliverer::new(SgpSink::new(SgpOptions::new(sink.url())).unwrap());
        let before = sink.arrived();
        let began = Instant::now();
        for group in groups {
            deliverer.take_last("run", group);
        }
        let statistics = deliverer.flush(Duration::from_secs(60)).await;
        took += began.elapsed();
        assert_eq!((statistics.delivered, sink.arrived().since(before).spans), (spans, spans));
    }
    took
}
