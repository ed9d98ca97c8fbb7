//! The same words in client, workflow and activity code, and one tree of all three.

use std::time::Duration;

use durable_spans::{
    SpanError, SpanId, SpanStatus, TraceContext, WorkflowSpans, current_span,
    data::{Generation, Usage},
    span, within,
};
use temporalio_client::WorkflowGetResultOptions;
use temporalio_common::error::ApplicationFailure;
use temporalio_macros::{activities, workflow, workflow_methods};
use temporalio_sdk::{
    WorkflowContext, WorkflowResult,
    activities::{ActivityContext, ActivityError},
};

use crate::{
    harness::{
        Fleet, all_ended, assert_tree, facts, named, of_workflow, replayed_spans, while_running,
    },
    workflows::quickly,
};

struct Desk;

#[activities]
impl Desk {
    #[activity(name = "answer")]
    async fn answer(_ctx: ActivityContext, question: String) -> Result<String, ActivityError> {
        let draft = span("draft")
            .data(Generation::new("gpt-4o").messages(&question))
            .scope(async {
                current_span().usage(Usage::new(12, 34).cost_usd(0.5));
                current_span().event("cache miss", serde_json::json!({"key": "q"}));
                "42".to_owned()
            })
            .await;
        let spawned_in = current_span();
        tokio::spawn(async move {
            within(&spawned_in, async { span("in another task").start().end() }).await;
        })
        .await
        .unwrap();
        span("proofread").in_scope(|proof| {
            proof.metric("quality", 4.5);
            proof.tag("checked");
            span("spelling").when(false).in_scope(|_| span("grammar").start().end());
        });
        let failed: Result<(), ActivityError> = span("fact check")
            .try_scope(async {
                let failure = ApplicationFailure::builder("no source");
                Err(failure.type_name("Unsourced".to_owned()).build().into())
            })
            .await;
        assert!(failed.is_err());
        let late = span("too slow").scope(std::future::pending::<()>());
        assert!(tokio::time::timeout(Duration::from_millis(1), late).await.is_err());
        Ok(draft)
    }
}

#[workflow]
#[derive(Default)]
struct Letter;

#[workflow_methods]
impl Letter {
    #[run(name = "Letter")]
    async fn run(ctx: &mut WorkflowContext<Self>, question: String) -> WorkflowResult<String> {
        let guard = ctx.span("read").tag("mail").start();
        guard.metric("pages", 2.0);
        guard.event("opened", ());
        guard.end_with(&Err::<(), _>("unreadable".to_owned()));
        ctx.span("file").id("file-17".parse().unwrap()).in_scope(|file| {
            file.error(SpanError::new("Full", "the cabinet is full").data("drawer", 3));
            ctx.span("skipped").when(false).in_scope(|_| ctx.span("label").start().end());
        });
        let refused: Result<(), String> =
            ctx.span("fold").try_in_scope(|_| Err("too thick".to_owned()));
        assert!(refused.is_err());
        let thought = ctx.span("think").data(Generation::new("gpt-4o"));
        let answer = thought
            .scope(async {
                ctx.current_span().usage(Usage::new(1, 2));
                ctx.execute_activity(Desk::answer, question, quickly()).await
            })
            .await?;
        Ok(answer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn client_workflow_and_activity_code_make_one_tree_with_the_same_words() {
    let fleet = Fleet::new("words").await;
    let mut options = fleet.worker_options();
    options.register_activities(Desk).register_workflow::<Letter>().unwrap();
    let workflow_id = while_running(fleet.worker(options), async {
        let context = TraceContext::new("letter-1".parse().unwrap()).group_id("customer").unwrap();
        fleet
            .spans
            .trace_in(context, "answer a letter")
            .input("from", "Ada")
            .scope(async {
                span("open the envelope").start().end();
                let start = fleet.start_options();
                let question = "why?".to_owned();
                let handle =
                    fleet.client.start_workflow(Letter::run, question, start).await.unwrap();
                let answer = handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
                current_span().output("answer", answer);
                handle.info().workflow_id.clone()
            })
            .await
    })
    .await;
    fleet.spans.flush(Duration::from_secs(5)).await;

    let spans = fleet.sink.spans();
    assert!(all_ended(&spans));
    assert_tree(
        &spans,
        "
        answer a letter STANDALONE SUCCESS
          open the envelope STANDALONE SUCCESS
          Letter AGENT_WORKFLOW SUCCESS workflow
            read STANDALONE ERROR
            file STANDALONE ERROR
              label STANDALONE SUCCESS
            fold STANDALONE ERROR
            think COMPLETION SUCCESS
              answer CUSTOM SUCCESS activity
                answer CUSTOM SUCCESS activity_attempt
                  draft COMPLETION SUCCESS
                  in another task STANDALONE SUCCESS
                  proofread STANDALONE SUCCESS
                    grammar STANDALONE SUCCESS
                  fact check STANDALONE ERROR
                  too slow STANDALONE CANCELED
        ",
    );
    assert!(spans.iter().all(|span| span.trace_id.to_string() == "letter-1"));
    assert!(spans.iter().all(|span| span.group_id.as_deref() == Some("customer")));
    let root = named(&spans, "answer a letter");
    assert_eq!((&root.input["from"], &root.output["answer"]), (&"Ada".into(), &"42".into()));
    let read = named(&spans, "read");
    assert_eq!(read.metadata["error_message"], "unreadable");
    assert_eq!(
        (&read.metadata["tags"][0], &read.metadata["metrics"]["pages"]),
        (&"mail".into(), &2.0.into())
    );
    assert_eq!(read.metadata["events"][0]["name"], "opened");
    let file = named(&spans, "file");
    assert_eq!(file.id, "file-17".parse::<SpanId>().unwrap());
    assert_eq!(file.metadata["error_data"]["drawer"], 3);
    let draft = named(&spans, "draft");
    assert_eq!(Usage::of(draft).total_tokens(), Some(46));
    assert_eq!(draft.metadata["events"][0]["key"], "q");
    assert_eq!(Usage::of(named(&spans, "think")).total_tokens(), Some(3));
    assert_eq!(named(&spans, "fact check").metadata["error_type"], "Unsourced");

    let replayed = replayed_spans(fleet.history(&workflow_id, None), |options| {
        options.register_workflow::<Letter>().unwrap();
    });
    let live: Vec<_> = of_workflow(&spans)
        .into_iter()
        .filter(|span| span.start_timestamp >= named(&spans, "Letter").start_timestamp)
        .filter(|span| !in_attempt(&spans, span))
        .filter(|span| span.name != "open the envelope" && span.name != "answer a letter")
        .collect();
    assert_eq!(facts(&replayed.await), facts(&live));
}

fn in_attempt(spans: &[durable_spans::Span], span: &durable_spans::Span) -> bool {
    let parent = |span: &durable_spans::Span| {
        spans.iter().find(|other| Some(&other.id) == span.parent_id.as_ref())
    };
    let mut next = parent(span);
    while let Some(span) = next {
        if span.metadata.get("temporal.kind") == Some(&"activity_attempt".into()) {
            return true;
        }
        next = parent(span);
    }
    false
}

#[tokio::test]
async fn a_span_that_panics_is_an_error() {
    let sink = durable_spans::MemorySink::new();
    let spans = durable_spans::DurableSpans::new(sink.clone());
    let work = spans.trace("work").scope(async { span("step").in_scope(|_| panic!("no")) });
    let panicked = std::panic::AssertUnwindSafe(work);
    assert!(futures::FutureExt::catch_unwind(panicked).await.is_err());
    spans.flush(Duration::from_secs(5)).await;
    for name in ["work", "step"] {
        let span = named(&sink.spans(), name).clone();
        assert_eq!(
            (span.status, &span.metadata["error_type"]),
            (SpanStatus::Error, &"Panic".into())
        );
    }
}

#[test]
fn outside_of_a_runtime_spans_wait_for_one() {
    let sink = durable_spans::MemorySink::new();
    let spans = durable_spans::DurableSpans::new(sink.clone());
    spans.trace("sync").in_scope(|_| span("below").start().end());
    assert!(sink.spans().is_empty());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let statistics = runtime.block_on(spans.flush(Duration::from_secs(5)));
    assert_eq!((statistics.delivered, sink.spans().len()), (2, 2));
}
