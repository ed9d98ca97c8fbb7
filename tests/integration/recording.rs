//! Makes the histories of a version: runs of many kinds on a real server.

use std::{path::Path, time::Duration};

use durable_spans::{
    DurableSpans, FlushPolicy, MemorySink, Sampling, SinkError, TraceContext, in_trace,
};
use serde_json::Value;
use temporalio_client::{
    ClientOptions, WorkflowCancelOptions, WorkflowExecuteUpdateOptions, WorkflowGetResultOptions,
    WorkflowSignalOptions,
};
use temporalio_common::HasWorkflowDefinition;
use temporalio_sdk::Worker;

use crate::{
    fuzz,
    harness::{Fleet, client, unique, while_running},
    sampling::Risky,
    workflows::{
        Doomed, Endings, Mutable, Named, Order, Paused, Quiet, Race, Recorded, Ship, Work,
    },
};

/// Names and histories, as JSON without the identity of this process, of all that the folder does
/// not hold yet.
pub(crate) async fn histories(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut made = Recordings { known: folder, histories: Vec::new() };
    let small = FlushPolicy::new().operations(4);
    let lingering = FlushPolicy::new().linger(Duration::from_secs(1));

    made.run("order-last", Site::new(FlushPolicy::new()).await, Order::run, 0).await;
    made.run("versioned-default", Site::new(FlushPolicy::new()).await, Recorded::run, 5).await;
    made.run("versioned-flushes", Site::new(small).await, Recorded::run, 12).await;
    // The server fires a timer when its second is over, so that a round takes about one.
    made.run("versioned-linger", Site::new(lingering).await, Recorded::run, 30).await;
    made.run("versioned-no-cache", Site::new(small).await.cache(0), Recorded::run, 8).await;
    made.run("versioned-outage", Site::new(small).await.outage(), Recorded::run, 8).await;
    made.run("versioned-headerless", Site::new(small).await.headerless().await, Recorded::run, 5)
        .await;
    made.run("versioned-untraced", Site::new(small).await.untraced(), Recorded::run, 5).await;
    let headerless = Site::new(small).await.headerless().await.untraced();
    made.run("order-headerless-untraced", headerless, Order::run, 0).await;
    made.run("versioned-unsampled", Site::new(small).await.unsampled(), Recorded::run, 5).await;
    made.run("order-unsampled", Site::new(small).await.unsampled(), Order::run, 0).await;
    let by_activity = small.by_activity();
    made.run("versioned-by-activity", Site::new(by_activity).await, Recorded::run, 8).await;
    let nobody = Site::through("nobody is here", by_activity).await;
    made.run("versioned-egress-down", nobody, Recorded::run, 3).await;
    let outage = Site::new(by_activity).await.outage();
    made.run("versioned-by-activity-outage", outage, Recorded::run, 5).await;
    let buffered = FlushPolicy::new().when_buffered(10);
    made.run("buffered-ten", Site::new(buffered).await, Recorded::run, 8).await;
    made.run("mutable-default", Site::new(FlushPolicy::new()).await, Mutable::run, 5).await;
    made.run("quiet-ten", Site::new(FlushPolicy::new()).await, Quiet::run, 10).await;
    made.run("quiet-outage", Site::new(FlushPolicy::new()).await.outage(), Quiet::run, 100).await;
    made.run("race-default", Site::new(FlushPolicy::new()).await, Race::run, ()).await;
    made.run("race-small", Site::new(small).await, Race::run, ()).await;
    for how in ["fail", "benign", "cancel"] {
        let site = Site::new(FlushPolicy::new()).await;
        made.run(&format!("doomed-{how}"), site, Doomed::run, how.to_owned()).await;
    }
    for how in ["start_to_close", "exhausted", "child_abandoned", "child_cancelled", "child_failed"]
    {
        let site = Site::new(small).await;
        made.run(&format!("endings-{how}"), site, Endings::run, how.to_owned()).await;
    }
    made.run("paused-messages", Site::new(small).await, Paused::run, 4).await;
    for seed in 1..=8 {
        let name = format!("random-{seed}");
        if made.is_wanted(&name) {
            made.keep(name, Box::pin(fuzz::one_run(seed)).await);
        }
    }
    // From here on, results count when they arrive.
    made.run("mutable-arrivals", Site::new(small).await, Mutable::run, 5).await;
    made.run("versioned-arrivals", Site::new(small).await, Recorded::run, 12).await;
    made.run("versioned-arrivals-by-activity", Site::new(by_activity).await, Recorded::run, 8)
        .await;
    for seed in [9, 10, 11, 13, 14] {
        let name = format!("random-arrivals-{seed}");
        if made.is_wanted(&name) {
            made.keep(name, Box::pin(fuzz::one_run(seed)).await);
        }
    }
    // From here on, runs that sampling has not chosen are kept if they fail.
    let small = FlushPolicy::new().operations(1);
    for (name, policy) in [("on-error", small), ("on-error-by-activity", small.by_activity())] {
        let kept = Site::new_keeping_errors(policy).await;
        made.run(&format!("risky-failed-{name}"), kept, Risky::run, (true, true)).await;
        let let_go = Site::new_keeping_errors(policy).await;
        made.run(&format!("risky-succeeded-{name}"), let_go, Risky::run, (false, true)).await;
    }
    let outage = Site::new_keeping_errors(small).await.outage();
    made.run("risky-failed-on-error-outage", outage, Risky::run, (true, true)).await;
    made.histories
}

struct Recordings<'a> {
    known: &'a Path,
    histories: Vec<(String, Vec<u8>)>,
}

impl Recordings<'_> {
    fn is_wanted(&self, name: &str) -> bool {
        !self.known.join(format!("{name}.history.json")).exists()
    }

    fn keep(&mut self, name: String, history: Vec<u8>) {
        let mut events: Value = serde_json::from_slice(&history).unwrap();
        anonymise(&mut events);
        self.histories.push((name, serde_json::to_vec(&events).unwrap()));
    }

    async fn run<W>(&mut self, name: &str, site: Site, workflow: W, input: W::Input)
    where
        W: HasWorkflowDefinition,
        W::Input: Send,
    {
        if self.is_wanted(name) {
            println!("making {name}");
            let history = site.run(name, workflow, input).await;
            self.keep(name.to_owned(), history);
        }
    }
}

/// Where and how a run is made.
struct Site {
    fleet: Fleet,
    cache: usize,
    traced: bool,
    sampled: bool,
}

impl Site {
    async fn new(policy: FlushPolicy) -> Self {
        let sink = MemorySink::new();
        Self::of(DurableSpans::new(sink.clone()).flush_policy(policy), sink).await
    }

    /// Of runs that sampling has not chosen.
    async fn new_keeping_errors(policy: FlushPolicy) -> Self {
        let sink = MemorySink::new();
        let spans = DurableSpans::new(sink.clone()).flush_policy(policy);
        Self::of(spans.sampling(Sampling::ratio(0.0).keep_errors()), sink).await.unsampled()
    }

    async fn through(egress: &str, policy: FlushPolicy) -> Self {
        Self::of(DurableSpans::through(egress).flush_policy(policy), MemorySink::new()).await
    }

    async fn of(spans: DurableSpans, sink: MemorySink) -> Self {
        let fleet = Fleet::with("fixture", spans, sink, Default::default()).await;
        Self { fleet, cache: 1000, traced: true, sampled: true }
    }

    fn cache(self, cache: usize) -> Self {
        Self { cache, ..self }
    }

    fn outage(self) -> Self {
        self.fleet.sink.fail_with(|_| Some(SinkError::retryable("down")));
        self
    }

    fn untraced(self) -> Self {
        Self { traced: false, ..self }
    }

    fn unsampled(self) -> Self {
        Self { sampled: false, ..self }
    }

    async fn headerless(mut self) -> Self {
        self.fleet.client = client(ClientOptions::new("default").build()).await;
        self
    }

    fn worker(&self) -> Worker {
        let mut options = self.fleet.worker_options();
        options.client_identity_override = Some("worker".to_owned());
        options.max_cached_workflows = self.cache;
        options.register_activities(Work);
        options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
        options.register_workflow::<Recorded>().unwrap().register_workflow::<Race>().unwrap();
        options.register_workflow::<Mutable>().unwrap().register_workflow::<Doomed>().unwrap();
        options.register_workflow::<Endings>().unwrap().register_workflow::<Paused>().unwrap();
        options.register_workflow::<Quiet>().unwrap().register_workflow::<Named>().unwrap();
        options.register_workflow::<Risky>().unwrap();
        if self.traced { self.fleet.worker(options) } else { self.fleet.untraced_worker(options) }
    }

    async fn run<W>(&self, name: &str, workflow: W, input: W::Input) -> Vec<u8>
    where
        W: HasWorkflowDefinition,
        W::Input: Send,
    {
        let trace = name.parse().unwrap();
        let caller = TraceContext { sampled: self.sampled, ..TraceContext::new(trace) };
        let id = while_running(self.worker(), async {
            let start =
                self.fleet.client.start_workflow(workflow, input, self.fleet.start_options());
            let handle = in_trace(caller, start).await.unwrap();
            if name == "doomed-cancel" {
                handle.cancel(WorkflowCancelOptions::default()).await.unwrap();
            }
            let id = handle.info().workflow_id.clone();
            if name == "paused-messages" {
                self.send_messages(&id).await;
            }
            let _ = handle.get_result(WorkflowGetResultOptions::default()).await.map_err(drop);
            id
        })
        .await;
        self.fleet.history(&id, None).to_json().await.unwrap()
    }

    async fn send_messages(&self, workflow_id: &str) {
        let handle =
            self.fleet.client.get_workflow_handle::<crate::workflows::PausedRun>(workflow_id);
        for item in 0..4 {
            let update = WorkflowExecuteUpdateOptions::default();
            // The last one is refused.
            let _ = handle.execute_update(Paused::ask, item * 40, update).await;
            let signal = WorkflowSignalOptions::default();
            handle.signal(Paused::release, unique("note"), signal).await.unwrap();
        }
    }
}

/// Takes out which process on which machine it was.
fn anonymise(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if name == "identity" && field.is_string() {
                    *field = "worker".into();
                }
                anonymise(field);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(anonymise),
        _ => {}
    }
}
