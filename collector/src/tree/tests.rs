use super::*;
use durable_spans_model::{SpanError, SpanType, Timestamp, TraceId};

const MS: i64 = 1_000_000;

/// A span that began at `start_ms` and took `took_ms`.
fn span(id: &str, parent: Option<&str>, start_ms: i64, took_ms: Option<i64>) -> Span {
    let start = Timestamp::from_unix_ns(start_ms * MS);
    let mut span = Span::new(TraceId::from_bits(1), id.parse().unwrap(), id.to_owned(), start);
    span.parent_id = parent.map(|id| id.parse().unwrap());
    span.end_timestamp = took_ms.map(|took| Timestamp::from_unix_ns((start_ms + took) * MS));
    span
}

fn activity(id: &str, parent: &str, start_ms: i64, took_ms: Option<i64>) -> Span {
    let mut span = span(id, Some(parent), start_ms, took_ms);
    span.metadata.insert("temporal.kind".into(), "activity".into());
    span
}

fn attempt(parent: &str, number: u64, start_ms: i64) -> Span {
    let mut span = span(&format!("{parent}#{number}"), Some(parent), start_ms, Some(100));
    span.metadata.insert("temporal.kind".into(), "activity_attempt".into());
    span.metadata.insert("temporal.attempt".into(), number.into());
    span
}

fn failed(mut span: Span, message: &str) -> Span {
    span.set_error(SpanError::new("Error", message));
    span
}

#[test]
fn a_trace_is_drawn_as_an_indented_tree() {
    let mut workflow = span("order", None, 0, Some(125_000));
    workflow.span_type = SpanType::AgentWorkflow;
    let mut cancelled = span("ship", Some("order"), 20, Some(1_234));
    cancelled.status = SpanStatus::Canceled;
    let spans = [
        span("late", Some("elsewhere"), 30, Some(12)),
        cancelled,
        failed(attempt("charge", 3, 15), "card declined\n  at bank.rs:7"),
        failed(attempt("charge", 1, 11), "bank is closed"),
        failed(activity("charge", "order", 10, Some(412)), "card declined"),
        activity("notify", "order", 10, None),
        workflow,
        span("rank", Some("ship"), 21, None),
    ];
    assert_eq!(
        render(&spans),
        "\
order [AGENT_WORKFLOW] 2m 05s SUCCESS
  charge [STANDALONE] 412ms ERROR, attempts 3, attempt 2 lost with its worker: card declined
    charge#1 [STANDALONE] 100ms ERROR, attempt 1: bank is closed
    charge#3 [STANDALONE] 100ms ERROR, attempt 3: card declined
  notify [STANDALONE] open
  ship [STANDALONE] 1.234s CANCELED
    rank [STANDALONE] open
late [STANDALONE] 12ms SUCCESS (parent pending)
"
    );
}

#[test]
fn calls_continued_runs_and_queue_times_are_told() {
    let marked = |name: &'static str, value: serde_json::Value| {
        let mut span = span("s", None, 0, Some(5));
        span.metadata.insert(name.into(), value);
        render(&[span])
    };
    let call = marked("temporal.kind", "child_workflow".into());
    assert_eq!(call, "s (call) [STANDALONE] 5ms SUCCESS\n");
    let continued = marked("temporal.continued", true.into());
    assert_eq!(continued, "s (continued) [STANDALONE] 5ms SUCCESS\n");
    let mut queued = attempt("act", 1, 0);
    queued.metadata.insert("temporal.queue_ms".into(), 1_500.into());
    assert_eq!(
        rows(&[queued])[0].to_string(),
        "act#1 [STANDALONE] 100ms SUCCESS, attempt 1, queued 1.500s (parent pending)"
    );
}

#[test]
fn siblings_come_by_start_then_as_they_are_given() {
    let mut second = span("x", None, 5, Some(1));
    second.name = "b".into();
    let mut first = span("y", None, 5, Some(1));
    first.name = "a".into();
    let spans = [second, first, span("early", None, 4, Some(1))];
    let names: Vec<_> = rows(&spans).iter().map(|row| row.span().name.clone()).collect();
    assert_eq!(names, ["early", "b", "a"]);
}

#[test]
fn attempts_that_left_no_span_are_named_by_runs() {
    let line = |numbers: &[u64]| {
        let mut spans = vec![activity("act", "gone", 0, Some(1))];
        spans.extend(numbers.iter().map(|number| attempt("act", *number, 0)));
        rows(&spans)[0].to_string()
    };
    let plain = "act [STANDALONE] 1ms SUCCESS";
    let pending = "(parent pending)";
    assert_eq!(line(&[]), format!("{plain} {pending}"));
    assert_eq!(line(&[1]), format!("{plain} {pending}"));
    assert_eq!(line(&[1, 2, 3]), format!("{plain}, attempts 3 {pending}"));
    assert_eq!(
        line(&[5]),
        format!("{plain}, attempts 5, attempts 1-4 lost with their worker {pending}")
    );
    assert_eq!(
        line(&[1, 3, 6]),
        format!(
            "{plain}, attempts 6, attempt 2 lost with its worker, attempts 4-5 lost with their worker {pending}"
        )
    );
    let huge = line(&[1, u64::MAX]);
    assert!(huge.contains(&format!("attempts 2-{} lost", u64::MAX - 1)), "{huge}");
}

#[test]
fn what_a_lost_attempt_did_hangs_below_its_activity() {
    let of = |activity: &str, number: u32| {
        let id = durable_spans_model::attempt_span_id(&activity.parse().unwrap(), number);
        move |name: &str| span(name, Some(&id.to_string()), 5, Some(1))
    };
    let spans = [
        span("run", None, 0, Some(9)),
        activity("ended", "run", 1, Some(200)),
        attempt("ended", 1, 1),
        of("ended", 2)("fetch"),
        activity("open", "run", 2, None),
        of("open", 1)("load"),
        span("late", Some("elsewhere"), 6, Some(1)),
    ];
    assert_eq!(
        render(&spans),
        "\
run [STANDALONE] 9ms SUCCESS
  ended [STANDALONE] 200ms SUCCESS, attempts 2, attempt 2 lost with its worker
    ended#1 [STANDALONE] 100ms SUCCESS, attempt 1
    fetch [STANDALONE] 1ms SUCCESS (in attempt 2, lost with its worker)
  open [STANDALONE] open
    load [STANDALONE] 1ms SUCCESS (in attempt 1, pending)
late [STANDALONE] 1ms SUCCESS (parent pending)
"
    );
}

#[test]
fn only_attempts_of_an_activity_are_counted() {
    let mut numberless = attempt("act", 2, 0);
    numberless.metadata.remove("temporal.attempt");
    let mut inner = span("inner", Some("act"), 0, Some(1));
    inner.metadata.insert("temporal.attempt".into(), 9.into());
    let second = attempt("act", 2, 0);
    let spans = [activity("act", "gone", 0, Some(1)), second, numberless, inner];
    let text = render(&spans);
    assert!(
        text.starts_with(
            "act [STANDALONE] 1ms SUCCESS, attempts 2, attempt 1 lost with its worker (parent pending)\n"
        ),
        "{text}"
    );

    let not_an_activity = [span("step", None, 0, Some(1)), attempt("step", 2, 0)];
    assert!(render(&not_an_activity).starts_with("step [STANDALONE] 1ms SUCCESS\n"));
}

#[test]
fn an_activity_and_its_only_attempt_share_a_line_where_they_ended_alike() {
    let lines = |activity: Span, attempt: Span| {
        let inner = span("inner", Some("act#1"), 5, Some(1));
        render(&[span("run", None, 0, Some(9)), activity, attempt, inner])
    };
    let done = || activity("act", "run", 0, Some(200));
    let mut queued = attempt("act", 1, 1);
    queued.metadata.insert("temporal.queue_ms".into(), 19.into());
    let run = "run [STANDALONE] 9ms SUCCESS\n";
    let inner = "    inner [STANDALONE] 1ms SUCCESS\n";
    assert_eq!(
        lines(done(), queued.clone()),
        format!("{run}  act [STANDALONE] 200ms SUCCESS\n{inner}")
    );
    queued.metadata.insert("temporal.queue_ms".into(), 20.into());
    assert_eq!(
        lines(done(), queued),
        format!("{run}  act [STANDALONE] 200ms SUCCESS, queued 20ms\n{inner}")
    );
    assert_eq!(
        lines(failed(done(), "declined"), failed(attempt("act", 1, 1), "declined")),
        format!("{run}  act [STANDALONE] 200ms ERROR: declined\n{inner}")
    );

    let open = activity("act", "run", 0, None);
    let timed_out = failed(done(), "timed out");
    for activity in [open, timed_out] {
        let text = lines(activity, attempt("act", 1, 1));
        assert!(text.contains("    act#1 [STANDALONE] 100ms SUCCESS, attempt 1\n"), "{text}");
    }
}

#[test]
fn a_child_workflow_has_one_line_where_its_call_and_its_run_ended_alike() {
    let of_kind = |mut span: Span, kind: &str| {
        span.name = "Section".into();
        span.metadata.insert("temporal.kind".into(), kind.into());
        span
    };
    let lines = |call: Span, run: Span| {
        let call = of_kind(call, "child_workflow");
        let inner = span("inner", Some("run"), 45, Some(1));
        let text =
            render(&[span("top", None, 0, Some(999)), call, of_kind(run, "workflow"), inner]);
        text.strip_prefix("top [STANDALONE] 999ms SUCCESS\n").unwrap().to_owned()
    };
    let call = |took| span("call", Some("top"), 10, took);
    let run = |start, took| span("run", Some("call"), start, took);
    let inner = "    inner [STANDALONE] 1ms SUCCESS\n";
    assert_eq!(
        lines(call(Some(90)), run(29, Some(60))),
        format!("  Section [STANDALONE] 79ms SUCCESS\n{inner}")
    );
    assert_eq!(
        lines(call(Some(90)), run(30, Some(60))),
        format!("  Section [STANDALONE] 80ms SUCCESS, queued 20ms\n{inner}")
    );
    assert_eq!(lines(call(None), run(12, None)), format!("  Section [STANDALONE] open\n{inner}"));
    assert_eq!(
        lines(failed(call(Some(90)), "no"), failed(run(12, Some(60)), "no")),
        format!("  Section [STANDALONE] 62ms ERROR: no\n{inner}")
    );
    let mut continued = run(12, Some(60));
    continued.metadata.insert("temporal.continued_as_new".into(), true.into());
    assert_eq!(
        lines(call(None), continued),
        format!("  Section [STANDALONE] 62ms SUCCESS\n{inner}")
    );

    let text = lines(failed(call(Some(90)), "timed out"), run(12, None));
    assert_eq!(
        text,
        format!(
            "  Section (call) [STANDALONE] 90ms ERROR: timed out\n    Section [STANDALONE] open\n  {inner}"
        )
    );
    // Two runs, of which the first one failed and was started again.
    let spans = [call(Some(90)), run(12, Some(5)), span("again", Some("call"), 20, Some(70))];
    let [first, runs @ ..] = spans;
    let mut spans = vec![of_kind(first, "child_workflow")];
    spans.extend(runs.map(|run| of_kind(run, "workflow")));
    assert_eq!(rows(&spans).len(), 3);
    let shared = rows(&spans[..2]);
    assert_eq!(shared.len(), 1);
    assert_eq!((&shared[0].span().id, &shared[0].call().unwrap().id), (&spans[1].id, &spans[0].id));
}

#[test]
fn a_cycle_is_drawn_once_and_marked() {
    let spans = [
        span("a", Some("c"), 1, Some(1)),
        span("b", Some("a"), 2, Some(1)),
        span("c", Some("b"), 3, Some(1)),
        span("self", Some("self"), 9, Some(1)),
    ];
    assert_eq!(
        render(&spans),
        "\
a [STANDALONE] 1ms SUCCESS (cycle)
  b [STANDALONE] 1ms SUCCESS
    c [STANDALONE] 1ms SUCCESS
self [STANDALONE] 1ms SUCCESS (cycle)
"
    );
}

#[test]
fn a_chain_of_a_hundred_thousand_spans_is_drawn_with_a_bounded_indent() {
    let chain: Vec<_> = (0..100_000)
        .map(|n: i64| span(&n.to_string(), Some(&(n - 1).to_string()), n, Some(1)))
        .collect();
    let text = render(&chain);
    assert_eq!(text.lines().count(), chain.len());
    assert!(text.lines().all(|line| line.len() < 150));
    assert_eq!(
        text.lines().last().unwrap().trim_start(),
        "(level 99999) 99999 [STANDALONE] 1ms SUCCESS"
    );
}

#[test]
fn nothing_is_drawn_of_nothing() {
    assert_eq!(render(&[]), "");
}

#[test]
fn names_and_messages_cannot_steer_a_terminal() {
    let mut span = failed(span("x", None, 0, Some(0)), "\u{1b}[2Jboom\rmore\nsecond");
    span.name = "a\nb\u{9b}c".into();
    assert_eq!(
        render(&[span]),
        "a\u{fffd}b\u{fffd}c [STANDALONE] 0us ERROR: \u{fffd}[2Jboom\u{fffd}more\n"
    );
}

#[test]
fn a_long_message_is_cut_with_a_mark() {
    let text = render(&[failed(span("x", None, 0, Some(0)), &"é".repeat(201))]);
    assert_eq!(text, format!("x [STANDALONE] 0us ERROR: {}…\n", "é".repeat(200)));
}

#[test]
fn durations_read_as_a_human_says_them() {
    for (micros, text) in [
        (0, "0us"),
        (850, "850us"),
        (12_999, "12ms"),
        (999_999, "999ms"),
        (1_000_000, "1.000s"),
        (59_999_999, "59.999s"),
        (60_000_000, "1m 00s"),
        (3_599_000_000, "59m 59s"),
        (3_600_000_000, "1h 00m"),
        (86_399_000_000, "23h 59m"),
        (90_000_000_000, "1d 01h"),
    ] {
        assert_eq!(human(Duration::from_micros(micros)), text);
    }
}
