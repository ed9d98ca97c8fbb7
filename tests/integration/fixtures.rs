//! Histories that earlier versions made. They replay for ever, to the same spans with the same ids.
//!
//! `UPDATE_FIXTURES=0.2.0 cargo test --test integration fixtures` records those of a new version.

use std::{fs, path::PathBuf};

use durable_spans::{TraceContext, in_trace};
use serde_json::Value;
use temporalio_client::{WorkflowGetResultOptions, WorkflowHistory};

use crate::{
    harness::{Fleet, facts, replayed_spans, while_running},
    workflows::{Order, Ship, Work},
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_earlier_versions_replay_to_the_same_spans() {
    if let Ok(version) = std::env::var("UPDATE_FIXTURES") {
        record(&version).await;
    }
    let mut versions = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let folder = entry.unwrap().path();
        let history = fs::read(folder.join("order.history.json")).unwrap();
        let expected = fs::read_to_string(folder.join("order.spans.txt")).unwrap();
        let spans = spans_of(&history).await;
        assert_kept(&expected, &spans);
        versions += 1;
    }
    assert!(versions > 0);
}

/// Each span is as it was, but for metadata that later versions add.
#[track_caller]
fn assert_kept(expected: &str, spans: &str) {
    let parse = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (expected, mut spans) = (parse(expected), parse(spans));
    assert_eq!(spans.len(), expected.len());
    for (span, expected) in spans.iter_mut().zip(&expected) {
        let known = expected["metadata"].as_object().unwrap();
        span["metadata"].as_object_mut().unwrap().retain(|name, _| known.contains_key(name));
        assert_eq!(span, expected);
    }
}

/// A line each, in the order of the flushes.
async fn spans_of(history: &[u8]) -> String {
    let history = WorkflowHistory::from_json(history).unwrap();
    let spans = replayed_spans(history, |options| {
        options.register_workflow::<Order>().unwrap();
    })
    .await;
    facts(&spans).into_iter().map(|fact| fact + "\n").collect()
}

async fn record(version: &str) {
    let fleet = Fleet::new("fixture").await;
    let mut options = fleet.worker_options();
    options.client_identity_override = Some("worker".to_owned());
    options.register_activities(Work);
    options.register_workflow::<Order>().unwrap().register_workflow::<Ship>().unwrap();
    let handle = while_running(fleet.worker(options), async {
        let caller =
            TraceContext::new("caller".parse().unwrap()).under("caller-span".parse().unwrap());
        let start = fleet.client.start_workflow(Order::run, 1u32, fleet.start_options());
        let handle = in_trace(caller, start).await.unwrap();
        handle.get_result(WorkflowGetResultOptions::default()).await.unwrap();
        handle
    })
    .await;
    let history = fleet.history(handle.info().workflow_id.as_str(), handle.run_id());
    let mut events: Value = serde_json::from_slice(&history.to_json().await.unwrap()).unwrap();
    anonymise(&mut events);
    let history = serde_json::to_vec(&events).unwrap();
    let folder = folder().join(version);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("order.spans.txt"), spans_of(&history).await).unwrap();
    fs::write(folder.join("order.history.json"), history).unwrap();
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
