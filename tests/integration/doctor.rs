//! What the doctor says of fleets in good and in bad order.

use std::time::{Duration, SystemTime};

use durable_spans::{Doctor, DurableSpans, MemorySink, SinkError, Timestamp, Verdict};
use temporalio_client::{
    ClientOptions, WorkflowGetResultOptions, WorkflowHandle, WorkflowSignalOptions,
    WorkflowTerminateOptions,
};

use crate::{
    couriers::couriers,
    harness::{Fleet, client, while_running},
    workflows::{Paused, PausedRun, Quiet, Work},
};

/// The findings of a task queue: those of the namespace are about other tests, too.
async fn findings(fleet: &Fleet, since: Option<Timestamp>) -> Vec<(Verdict, String)> {
    let doctor = Doctor::new(fleet.client.clone())
        .task_queue(fleet.queue.clone())
        .since(since)
        .patience(Duration::from_secs(3));
    let findings = doctor.examine().await.unwrap().into_iter();
    let of_queue = findings.filter(|finding| finding.subject == fleet.queue);
    of_queue.map(|finding| (finding.verdict, finding.text)).collect()
}

async fn run_quiet(fleet: &Fleet) {
    let start = fleet.client.start_workflow(Quiet::run, 1, fleet.start_options());
    start.await.unwrap().get_result(WorkflowGetResultOptions::default()).await.unwrap();
}

/// Visibility follows the runs with a delay: asks until the findings are as expected.
async fn until_found(fleet: &Fleet, since: Option<Timestamp>, verdict: Verdict, text: &str) {
    loop {
        let findings = findings(fleet, since).await;
        if findings.iter().any(|(found, said)| *found == verdict && said.contains(text)) {
            return;
        }
        println!("waiting for {text:?} in {findings:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_in_order_is_good_and_a_start_without_header_is_pointed_out() {
    let fleet = Fleet::new("doctor-good").await;
    let mut options = fleet.worker_options();
    options.register_workflow::<Quiet>().unwrap();
    while_running(fleet.worker(options), async {
        run_quiet(&fleet).await;
        until_found(&fleet, None, Verdict::Good, "1 closed runs are in order").await;
        assert!(findings(&fleet, None).await.iter().all(|(verdict, _)| *verdict == Verdict::Good));
        let plain = client(ClientOptions::new("default").build()).await;
        let start = plain.start_workflow(Quiet::run, 1, fleet.start_options());
        start.await.unwrap().get_result(WorkflowGetResultOptions::default()).await.unwrap();
        until_found(&fleet, None, Verdict::Warning, "without a trace context").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_tracing_is_found() {
    let fleet = Fleet::new("doctor-untraced").await;
    let mut options = fleet.worker_options();
    options.register_workflow::<Quiet>().unwrap();
    while_running(fleet.untraced_worker(options), async {
        run_quiet(&fleet).await;
        until_found(&fleet, None, Verdict::Problem, "closed without a flush").await;
        let findings = findings(&fleet, None).await;
        assert_eq!(findings[0].0, Verdict::Problem);
        assert!(findings[0].1.contains("a courier did not arrive within 3s"), "{findings:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_date_that_came_too_late_is_found() {
    let fleet = Fleet::new("doctor-date").await;
    let mut options = fleet.worker_options();
    options.register_activities(Work).register_workflow::<Paused>().unwrap();
    let spans = DurableSpans::new(MemorySink::new())
        .flush_policy(durable_spans::FlushPolicy::new().operations(1));
    let fleet = Fleet::with("doctor-date", spans, MemorySink::new(), Default::default()).await;
    options.task_queue = fleet.queue.clone();
    while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Paused::run, 2u32, fleet.start_options());
        let handle: WorkflowHandle<_, PausedRun> = start.await.unwrap();
        let signal = WorkflowSignalOptions::default();
        handle.signal(Paused::release, "go".to_owned(), signal).await.unwrap();
        let late = Timestamp::from(SystemTime::now() + Duration::from_secs(60));
        until_found(&fleet, Some(late), Verdict::Problem, "was traced already").await;
        handle.terminate(WorkflowTerminateOptions::default()).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn couriers_at_work_are_told() {
    let fleet = Fleet::new("doctor-couriers").await;
    fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
    let mut options = fleet.worker_options();
    options.register_workflow::<Quiet>().unwrap();
    while_running(fleet.worker(options), async {
        let start = fleet.client.start_workflow(Quiet::run, 1, fleet.start_options());
        let handle = start.await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        let started = couriers(&fleet.events(&handle.info().workflow_id).await);
        assert_eq!(started.len(), 1);
        let at_work = async || {
            let findings = Doctor::new(fleet.client.clone()).examine().await.unwrap();
            findings.iter().any(|f| f.verdict == Verdict::Warning && f.text.contains("at work"))
        };
        while !at_work().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        fleet.sink.fail_with(|_| None);
        crate::couriers::until_ended(&fleet.client, &started[0]).await;
    })
    .await;
}
