//! Ladders of spans that are encoded and packed.

use std::{hint::black_box, io::Write};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use durable_spans::{EncodedSpan, Span, SpanId, SpanType, Timestamp, TraceId};
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use crate::sample;

pub(crate) fn benches(criterion: &mut Criterion) {
    encode(criterion);
    gzip(criterion);
}

/// A span as a recorder makes it.
pub(crate) fn span(number: u32) -> Span {
    let id = |n: u32| u128::from(n).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060);
    let start = Timestamp::from_unix_ns(1_795_248_000_000_000_000 + i64::from(number) * 1_001_000);
    let mut span =
        Span::new(TraceId::from_bits(id(7)), SpanId::from_bits(id(number)), sample::NAME, start);
    span.span_type = SpanType::Custom;
    // Of ten spans each.
    span.parent_id = Some(SpanId::from_bits(id(u32::MAX - number / 10)));
    span.end_timestamp = Some(start);
    span.input.insert(sample::FIELD.into(), sample::text(number).into());
    span
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for bytes in [0, 4_000, 60_000] {
        let mut span = span(1);
        if bytes > 0 {
            span.output.insert("text".into(), "a line of text \n".repeat(bytes / 16).into());
        }
        let json = serde_json::to_string(&span).unwrap();
        let size = json.len();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("EncodedSpan::new", size), &span, |b, span| {
            // So few at once that their memory is used again.
            let at_once = BatchSize::NumIterations((50_000 / size as u64).max(1));
            b.iter_batched(|| span.clone(), EncodedSpan::new, at_once);
        });
        // Floors: the same JSON from a tree that holds the texts as they are written, and its bytes.
        let tree: Value = serde_json::from_str(&json).unwrap();
        group.bench_with_input(BenchmarkId::new("serde_json of texts", size), &tree, |b, tree| {
            b.iter(|| serde_json::to_vec(black_box(tree)).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("copy of the bytes", size), &json, |b, json| {
            b.iter(|| black_box(json).clone());
        });
    }
    group.finish();
}

fn gzip(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gzip");
    for spans in [50, 500, 1000] {
        let json: Vec<u8> =
            (0..spans).flat_map(|n| serde_json::to_vec(&span(n)).unwrap()).collect();
        group.throughput(Throughput::Elements(spans.into()));
        group.bench_with_input(BenchmarkId::new("spans", spans), &json, |b, json| {
            b.iter(|| {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::new(2));
                gzip.write_all(json).unwrap();
                gzip.finish().unwrap()
            });
        });
    }
    group.finish();
}
