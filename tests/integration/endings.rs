//! Every end that runs code delivers every span, with the right status on the root.

use durable_spans::{Span, SpanStatus};
use temporalio_client::{WorkflowCancelOptions, WorkflowGetResultOptions};

use crate::{
    harness::{Fleet, all_ended, assert_tree, named, of_workflow, while_running},
    workflows::{Doomed, Race, Work},
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
