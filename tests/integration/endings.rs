//! Every end that runs code delivers every span, with the right status on the root.

use durable_spans::{Span, SpanStatus};
use temporalio_client::{WorkflowCancelOptions, WorkflowGetResultOptions};

use crate::{
    harness::{Fleet, all_ended, assert_tree, named, of_workflow, while_running},
    workflows::{Doomed, Endings, Race, Ship, Work},
};

async fn run_to_the_end(how: &str) -> Vec<Span> {
    let fleet = Fleet::new(&format!("ending-{how}")).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Doomed>().unwrap();
    while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Doomed::run, how.to_owned(), fleet.start_options());
        let handle = start.await.unwrap();
        if how == "cancel" {
            handle.cancel(WorkflowCancelOptions::default()).await.unwrap();
        }
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap_err();
    })
    .await;
    let spans = fleet.sink.spans();
    assert!(all_ended(&spans));
    assert_eq!(fleet.spans.statistics().delivered, spans.len() as u64);
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_run_closes_with_error_type_message_and_category() {
    let spans = run_to_the_end("fail").await;
    assert_tree(
        &spans,
        "
        Doomed AGENT_WORKFLOW ERROR workflow
          before STANDALONE SUCCESS
          open STANDALONE SUCCESS
          risky STANDALONE ERROR
            explode CUSTOM ERROR activity
              explode CUSTOM ERROR activity_attempt
        ",
    );
    let failed = spans.iter().filter(|span| span.status == SpanStatus::Error);
    for span in failed {
        assert_eq!(span.metadata["error_type"], "Impossible", "{span:?}");
        assert_eq!(span.metadata["error_message"], "no way", "{span:?}");
        assert_eq!(span.metadata["error_category"], "application", "{span:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_is_canceled() {
    let spans = run_to_the_end("cancel").await;
    assert_tree(
        &spans,
        "
        Doomed AGENT_WORKFLOW CANCELED workflow
          before STANDALONE SUCCESS
          open STANDALONE SUCCESS
        ",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_benign_failure_is_no_error() {
    let spans = run_to_the_end("benign").await;
    let root = named(&spans, "Doomed");
    assert_eq!(root.status, SpanStatus::Success);
    assert_eq!(root.metadata["temporal.benign_failure"], "nothing to do");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_any_more_is_canceled() {
    let fleet = Fleet::new("race").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Race>().unwrap();
    while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Race::run, (), fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
    })
    .await;
    let spans = of_workflow(&fleet.sink.spans());
    assert_tree(
        &spans,
        "
        Race AGENT_WORKFLOW SUCCESS workflow
          winner STANDALONE SUCCESS
          loser STANDALONE CANCELED
            look_up CUSTOM CANCELED activity
          after STANDALONE SUCCESS
        ",
    );
    assert_eq!(named(&spans, "look_up").metadata["temporal.abandoned"], true);
    assert!(!named(&spans, "loser").metadata.contains_key("temporal.abandoned"));
}

/// Runs `Endings`, which may fail, and returns the spans of workflows.
async fn ending(how: &str) -> Vec<Span> {
    let fleet = Fleet::new(&format!("ending-{how}")).await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Endings>().unwrap();
    options.register_workflow::<Ship>().unwrap().register_workflow::<Doomed>().unwrap();
    while_running(fleet.worker(options), async {
        let start =
            fleet.client.start_workflow(Endings::run, how.to_owned(), fleet.start_options());
        let handle = start.await.unwrap();
        let _ = handle.get_result(WorkflowGetResultOptions::default()).await;
    })
    .await;
    let spans = of_workflow(&fleet.sink.spans());
    for span in &spans {
        let told = serde_json::to_string(&(&span.name, &span.metadata)).unwrap();
        assert!(!told.contains("4711"), "an argument in {told}");
    }
    spans
}

/// Status, type, message and category of the span with this kind.
fn error_of<'a>(spans: &'a [Span], kind: &str) -> [&'a str; 4] {
    let span =
        spans.iter().find(|span| span.metadata.get("temporal.kind") == Some(&kind.into())).unwrap();
    let text = |name| span.metadata.get(name).and_then(|value| value.as_str()).unwrap_or("");
    [span.status.as_str(), text("error_type"), text("error_message"), text("error_category")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_of_an_activity_is_a_platform_error_with_its_kind() {
    for (how, message) in [
        ("start_to_close", "activity StartToClose timeout (StartToClose)"),
        ("schedule_to_start", "activity ScheduleToStart timeout (ScheduleToStart)"),
        ("heartbeat", "activity Heartbeat timeout (Heartbeat)"),
    ] {
        let spans = ending(how).await;
        let expected = ["ERROR", "TimeoutError", message, "platform"];
        assert_eq!(error_of(&spans, "activity"), expected, "{how}");
        assert_eq!(error_of(&spans, "workflow"), expected, "{how}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_activity_whose_retries_are_exhausted_has_the_last_error() {
    let spans = ending("exhausted").await;
    let expected = ["ERROR", "Broken", "card reader is broken", "application"];
    assert_eq!(error_of(&spans, "activity"), expected);
    assert_eq!(error_of(&spans, "workflow"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_outlives_its_parent_is_not_canceled_and_one_that_is_left_is() {
    let spans = ending("child_abandoned").await;
    assert_eq!(error_of(&spans, "child_workflow")[0], "SUCCESS");
    let spans = ending("child_left").await;
    assert_eq!(error_of(&spans, "child_workflow")[0], "CANCELED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_cancelled_or_fails_says_so_in_both_runs() {
    let spans = ending("child_cancelled").await;
    assert_tree(
        &spans,
        "
        Endings AGENT_WORKFLOW SUCCESS workflow
          Doomed AGENT_WORKFLOW CANCELED child_workflow
            Doomed AGENT_WORKFLOW CANCELED workflow
              before STANDALONE SUCCESS
              open STANDALONE SUCCESS
        ",
    );
    let spans = ending("child_failed").await;
    let expected = ["ERROR", "Impossible", "no way", "application"];
    assert_eq!(error_of(&spans, "child_workflow"), expected);
    assert_eq!(error_of(&spans, "workflow"), expected);
}
