//! Histories that earlier versions made. They replay for ever, to the same spans with the same ids,
//! whatever the code records today and whatever the options are.
//!
//! `UPDATE_FIXTURES=0.2.0 cargo test --test integration fixtures` records those that a version does
//! not have yet. Those of `0.1.0-alpha` were made before ids and digests became what they are, so that no flush in
//! them is acknowledged: their spans are what this code makes of them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use durable_spans::{
    Capture, DurableSpans, FlushPolicy, Limits, MemorySink, Sampling, Timestamp, Timetable,
};
use durable_spans_model::{HEADER, RULE_VERSION};
use durable_spans_workflow::from_payload;
use serde_json::Value;
use temporalio_client::WorkflowHistory;
use temporalio_common::protos::temporal::api::history::v1::history_event::Attributes;
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};

use crate::{
    fuzz::{Random, RandomDropped, RandomMore, RandomReversed, RandomSilent},
    harness::{facts, replayed_spans},
    recording,
    sampling::{Risky, RiskyBenign, RiskyFewer, RiskyMore, RiskySilent},
    workflows::{
        Doomed, Endings, Fewer, Mutable, Mutated, Order, Paused, Quiet, Race, Recorded, Renamed,
        Reordered, Retyped, Silent, TenTimesMore,
    },
};

/// How the names of histories end.
const HISTORY: &str = ".history.json";

type Register = fn(&mut WorkflowReplayerOptions);

macro_rules! code {
    ($workflow:ty) => {
        |options| {
            options.register_workflow::<$workflow>().unwrap();
        }
    };
}

/// The code that made the history, by the first word of its name, and other versions of it.
fn versions(name: &str) -> (Register, Vec<Register>) {
    match name.split('-').next().unwrap_or_default() {
        "order" => (code!(Order), vec![]),
        "versioned" => (
            code!(Recorded),
            vec![
                code!(TenTimesMore),
                code!(Fewer),
                code!(Renamed),
                code!(Retyped),
                code!(Reordered),
                code!(Silent),
            ],
        ),
        // By choice, its instrumentation may not change.
        "buffered" => (code!(Recorded), vec![code!(Renamed), code!(Retyped)]),
        "mutable" => (code!(Mutable), vec![code!(Mutated)]),
        "random" if name.contains("arrivals") => (
            code!(Random),
            vec![
                code!(RandomMore),
                code!(RandomSilent),
                code!(RandomReversed),
                code!(RandomDropped),
            ],
        ),
        "random" => (code!(Random), vec![code!(RandomMore), code!(RandomSilent)]),
        "risky" => (
            code!(Risky),
            vec![code!(RiskyMore), code!(RiskyFewer), code!(RiskySilent), code!(RiskyBenign)],
        ),
        "race" => (code!(Race), vec![]),
        "doomed" => (code!(Doomed), vec![]),
        "endings" => (code!(Endings), vec![]),
        "paused" => (code!(Paused), vec![]),
        "quiet" => (code!(Quiet), vec![]),
        other => panic!("which code made {other}?"),
    }
}

/// Installations of today that a history of a traced run may meet. Where flushes count spans, by
/// choice, what makes spans may not change.
fn installations(counts_spans: bool) -> Vec<DurableSpans> {
    let spans = || DurableSpans::new(MemorySink::new());
    let future: Timestamp = "2100-01-01T00:00:00Z".parse().unwrap();
    let other = FlushPolicy::new().operations(1).linger(std::time::Duration::from_secs(60));
    vec![
        spans().flush_policy(other),
        spans().flush_policy(FlushPolicy::new().by_activity()),
        spans().limits(Limits::new().buffer_spans(2).field_bytes(10)),
        spans().timer_spans(!counts_spans),
        // Tracing is turned off for new runs.
        spans().timetable(Timetable::new().until(future)),
        // The entries that came later cover later runs only.
        spans().timetable(Timetable::new().policy_from(future, other)),
        DurableSpans::through("egress"),
        spans().sampling(Sampling::ratio(0.0)),
        spans().sampling(Sampling::ratio(0.0).keep_errors()),
        spans().disabled(true),
        spans()
            .capture(Capture::Nothing)
            .on_start(|span| span.add_tag("new"))
            .on_end(|span| span.name = "".into())
            .redactor(|_| panic!("what hooks do is no matter")),
    ]
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Of all versions.
fn history_files() -> Vec<PathBuf> {
    let versions = fs::read_dir(folder()).unwrap().map(|version| version.unwrap().path());
    let files = versions.flat_map(|version| fs::read_dir(version).unwrap());
    let files = files.map(|file| file.unwrap().path());
    files.filter(|file| file.to_str().unwrap().ends_with(HISTORY)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_of_earlier_versions_replay_to_the_same_spans_whatever_today_records() {
    if let Ok(version) = std::env::var("UPDATE_FIXTURES") {
        let folder = folder().join(version);
        fs::create_dir_all(&folder).unwrap();
        for (name, history) in recording::histories(&folder).await {
            if !is_untraced(&name) {
                let spans = lines_of(&history, versions(&name).0).await;
                fs::write(folder.join(format!("{name}.spans.txt")), spans).unwrap();
            }
            fs::write(folder.join(format!("{name}.history.json")), history).unwrap();
        }
    }
    let files = history_files();
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        replays(file, name.strip_suffix(HISTORY).unwrap()).await;
    }
    let histories = files.len();
    assert!(histories >= 30, "{histories} histories");
}

#[tokio::test]
async fn each_version_of_the_flush_rule_has_histories() {
    let mut versions = BTreeSet::new();
    for file in history_files() {
        let history = WorkflowHistory::from_json(&fs::read(file).unwrap()).unwrap();
        let events = history.into_events().await.unwrap();
        let Some(Attributes::WorkflowExecutionStartedEventAttributes(started)) =
            &events[0].attributes
        else {
            panic!("a history begins with the start of its run");
        };
        let header = started.header.as_ref().and_then(|header| header.fields.get(HEADER));
        let policy = header.and_then(|header| from_payload(header).unwrap().policy);
        versions.extend(policy.map(|policy| policy.rule_version()));
    }
    assert_eq!(versions, (1..=RULE_VERSION).collect());
}

/// Whether the run was made without tracing.
fn is_untraced(name: &str) -> bool {
    name.ends_with("untraced")
}

async fn replays(file: &Path, name: &str) {
    let history = fs::read(file).unwrap();
    let (made_by, other_versions) = versions(name);
    if is_untraced(name) {
        // Whatever its header says: it began before tracing was installed.
        let date = "2100-01-01T00:00:00Z".parse().unwrap();
        let spans = DurableSpans::new(MemorySink::new()).timetable(Timetable::since(date));
        return replay(&history, made_by, &spans, name).await;
    }
    let expected = fs::read_to_string(file.with_file_name(format!("{name}.spans.txt"))).unwrap();
    assert_kept(&expected, &lines_of(&history, made_by).await, name);
    let spans = DurableSpans::new(MemorySink::new());
    for code in other_versions {
        replay(&history, code, &spans, name).await;
    }
    for spans in installations(name.starts_with("buffered")) {
        replay(&history, made_by, &spans, name).await;
    }
}

async fn replay(history: &[u8], code: Register, spans: &DurableSpans, name: &str) {
    let mut options = WorkflowReplayerOptions::new().build();
    code(&mut options);
    spans.install_replayer(&mut options);
    let history = WorkflowHistory::from_json(history).unwrap();
    let result = WorkflowReplayer::new(options).unwrap().replay_workflow(history).await;
    result.unwrap_or_else(|error| panic!("{name}: {error:?}"));
}

/// Each span is as it was, but for inputs, outputs and metadata that later versions add.
fn assert_kept(expected: &str, spans: &str, name: &str) {
    let parse = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (expected, mut spans) = (parse(expected), parse(spans));
    assert_eq!(spans.len(), expected.len(), "{name}");
    for (span, expected) in spans.iter_mut().zip(&expected) {
        for part in ["input", "output", "metadata"] {
            let known = expected[part].as_object().unwrap();
            span[part].as_object_mut().unwrap().retain(|name, _| known.contains_key(name));
        }
        assert_eq!(span, expected, "{name}");
    }
}

/// The spans of the replayed history, a line each, in the order of their text.
async fn lines_of(history: &[u8], made_by: Register) -> String {
    let history = WorkflowHistory::from_json(history).unwrap();
    let spans = replayed_spans(history, made_by).await;
    facts(&spans).into_iter().map(|fact| fact + "\n").collect()
}
