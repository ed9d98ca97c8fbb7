use std::{panic::AssertUnwindSafe, time::Duration};

use durable_spans_activity::{MemorySink, SpanBatch, SpanSink};
use durable_spans_model::{Span, SpanType, Timestamp};
use futures::FutureExt;

use super::{Trace, assert_trace, check};

fn span(id: &str, parent: Option<&str>, name: &'static str, start: i64) -> Span {
    let at = Timestamp::from_unix_ns(start);
    let mut span = Span::new("t".parse().unwrap(), id.parse().unwrap(), name, at);
    span.parent_id = parent.map(|parent| parent.parse().unwrap());
    span
}

fn ended(mut span: Span) -> Span {
    span.end_timestamp = Some(span.start_timestamp);
    span
}

/// Arrived in an order that is not the one of the tree.
fn order() -> Trace {
    let mut pay = ended(span("pay", Some("order"), "pay", 1));
    pay.span_type = SpanType::Custom;
    pay.input.insert("amount".into(), 7.into());
    let spans = [
        ended(span("send", Some("order"), "send", 3)),
        ended(span("check", Some("pay"), "check", 1)),
        pay,
        ended(span("pack 1", Some("order"), "pack", 2)),
        ended(span("pack 0", Some("order"), "pack", 2)),
        ended(span("order", None, "order", 0)),
    ];
    spans.into_iter().collect()
}

fn message(panic: Box<dyn std::any::Any + Send>) -> String {
    *panic.downcast::<String>().unwrap()
}

fn panic_of(f: impl FnOnce()) -> String {
    message(std::panic::catch_unwind(AssertUnwindSafe(f)).unwrap_err())
}

#[test]
fn children_stand_below_their_parent_by_start_then_by_arrival() {
    let tree = "order SUCCESS\n  pay CUSTOM SUCCESS\n    check SUCCESS\n  pack SUCCESS\n  pack SUCCESS\n  send SUCCESS\n";
    assert_eq!(order().to_string(), tree);
    let packs: Vec<_> = order().named("pack").map(|span| span.id.to_string()).collect();
    assert_eq!(packs, ["pack 1", "pack 0"]);
    let trace = order();
    let children: Vec<_> = trace.children(trace.span("order")).iter().map(|s| &s.id).collect();
    assert_eq!(
        children.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["pay", "pack 1", "pack 0", "send"]
    );
    assert_eq!(trace.parent(trace.span("check")), Some(trace.span("pay")));
    assert_eq!(trace.parent(trace.span("order")), None);
}

#[test]
fn a_trace_a_sink_and_spans_are_taken_by_value_and_by_reference() {
    let (trace, sink) = (order(), MemorySink::new());
    let batch: SpanBatch = trace.spans().iter().cloned().collect();
    sink.upsert_batch(&batch).now_or_never().unwrap().unwrap();
    let tree = "order\n  pay\n    check\n  pack\n  pack\n  send";
    assert_trace!(trace, tree);
    assert_trace!(&trace, tree);
    assert_trace!(sink, tree);
    assert_trace!(&sink, tree);
    assert_trace!(trace.spans(), tree);
    assert_trace!(sink.spans(), tree, "with a message of {}", "its own");
}

#[test]
fn a_failure_tells_line_by_line_what_differs_with_the_data_that_was_asked_for() {
    let failure = panic_of(|| {
        assert_trace!(
            order(),
            "
            order
              pay CUSTOM SUCCESS input.amount=8
                check
              send
              ship
            ",
            "order {}",
            17
        );
    });
    assert_eq!(
        failure,
        "order 17: the trace is another one (- expected, + recorded):
  order
-   pay CUSTOM SUCCESS input.amount=8
+   pay CUSTOM SUCCESS input.amount=7
      check
+   pack STANDALONE SUCCESS
+   pack STANDALONE SUCCESS
    send
-   ship
"
    );
    let failure = check(&order(), "order\n    pay\n  send").unwrap_err();
    assert_eq!(failure, "the expected tree is none: `send` is indented like no line above it");
}

#[test]
fn one_finds_a_span_by_its_name_and_is_shown_the_tree_otherwise() {
    let trace = order();
    assert_eq!(trace.span("pay").input["amount"], 7);
    let none = panic_of(|| {
        trace.span("ship");
    });
    assert!(none.starts_with("no span is named `ship` in\norder SUCCESS\n  pay"), "{none}");
    let several = panic_of(|| {
        trace.span("pack");
    });
    assert!(several.starts_with("2 spans are named `pack` in\norder"), "{several}");
}

#[test]
fn a_trace_is_cut_down_to_what_a_test_is_about() {
    let trace = order().show("input.amount");
    assert_eq!(
        trace.below("pay").to_string(),
        "pay CUSTOM SUCCESS (parent elsewhere) input.amount=7\n  check SUCCESS\n"
    );
    let rest = trace.without(|span| ["pay", "send"].contains(&&*span.name));
    assert_eq!(rest.to_string(), "order SUCCESS\n  pack SUCCESS\n  pack SUCCESS\n");
    assert!(panic_of(|| drop(order().show("amount"))).contains("`input.amount`"));
}

#[test]
fn spans_that_hang_under_nothing_or_under_themselves_are_shown() {
    let spans = vec![
        span("a", Some("b"), "a", 1),
        span("b", Some("a"), "b", 2),
        ended(span("c", Some("gone"), "c", 3)),
    ];
    let tree = "c SUCCESS (parent elsewhere)\na open (cycle)\n  b open\n";
    assert_eq!(Trace::from(spans).to_string(), tree);
}

#[tokio::test]
async fn a_complete_trace_is_waited_for() {
    let sink = MemorySink::new();
    let filled = sink.clone();
    let waiting = Trace::complete(&sink, Duration::from_secs(5));
    let filling = async move {
        let mut open = order().spans().to_vec();
        open[5].end_timestamp = None;
        // First without the root, then with an open one.
        for spans in [&order().spans()[..5], &open, order().spans()] {
            let batch: SpanBatch = spans.iter().cloned().collect();
            tokio::task::yield_now().await;
            filled.upsert_batch(&batch).await.unwrap();
        }
    };
    let (trace, ()) = tokio::join!(waiting, filling);
    assert_eq!(trace.to_string(), order().to_string());
    assert!(trace.is_complete());
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_one_is_told_what_is_lacking() {
    let sink = MemorySink::new();
    let wait = || AssertUnwindSafe(Trace::complete(&sink, Duration::from_secs(5))).catch_unwind();
    assert_eq!(
        message(wait().await.unwrap_err()),
        "not all has arrived after 5s; the trace has no span:\n"
    );
    let batch: SpanBatch =
        [span("a", None, "a", 0), span("b", Some("c"), "b", 0)].into_iter().collect();
    sink.upsert_batch(&batch).await.unwrap();
    assert_eq!(
        message(wait().await.unwrap_err()),
        "not all has arrived after 5s; the trace is not complete: open spans: 2, spans without \
         their parent: 1:\na open\nb open (parent elsewhere)\n"
    );
}
