//! How fast spans come in over HTTP, and how long searches and pages take among many of them.
//!
//! ```text
//! cargo bench -p durable-spans-collector                  # a million spans
//! cargo bench -p durable-spans-collector -- 100000        # fewer
//! ```
//!
//! Prints figures and judges nothing.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::{
    collections::VecDeque,
    ops::Range,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use durable_spans_collector::{Collector, RunningCollector};
use reqwest::Client;
use serde_json::{Value, json};

const SPANS_PER_TRACE: usize = 100;
const SPANS_PER_BATCH: usize = 500;
const SPANS_PER_RUNG: usize = 100_000;
const CLIENTS: usize = 4;
const SERVER: &str = "collector";
const ROUNDS: usize = 11;

/// Spans of the one trace that is large.
const LARGE: usize = 10_000;

/// Nanoseconds between two spans: a million of them take a bit over a quarter of an hour.
const STEP_NS: i64 = 1_000_000;

const FIRST_NS: i64 = 1_795_248_000_000_000_000;

fn main() {
    let spans = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(1_000_000);
    let _ = rustls::crypto::ring::default_provider().install_default();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("spans.sqlite");
    // Its threads have a name, so that their time can be told from that of the clients.
    let server = tokio::runtime::Builder::new_multi_thread()
        .thread_name(SERVER)
        .thread_keep_alive(Duration::from_secs(3600))
        .enable_all()
        .build()
        .unwrap();
    let collector = Collector::open(&path).unwrap();
    let running = server.block_on(collector.serve(([127, 0, 0, 1], 0))).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(measure(&path, &running, spans));
    server.block_on(running.shutdown());
}

async fn measure(path: &Path, running: &RunningCollector, spans: usize) {
    let client = Client::builder().no_proxy().build().unwrap();
    println!(
        "{CLIENTS} clients send batches of {SPANS_PER_BATCH} spans of about {} bytes",
        span(12_345).to_string().len()
    );
    println!("{:>10} {:>10} {:>14}", "spans", "spans/s", "CPU us/span");
    let (mut took, mut cpu) = (Duration::ZERO, Duration::ZERO);
    for first in (0..spans).step_by(SPANS_PER_RUNG) {
        let last = (first + SPANS_PER_RUNG).min(spans);
        let cpu_before = server_cpu();
        let rung = ingest(running, &client, first..last).await;
        let rung_cpu = server_cpu().saturating_sub(cpu_before);
        row(&last.to_string(), last - first, rung, rung_cpu);
        took += rung;
        cpu += rung_cpu;
    }
    row("all", spans, took, cpu);
    ingest_large(running, &client, spans).await;
    let began = Instant::now();
    while waiting(path) > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("index of words complete after {:.1} s more", began.elapsed().as_secs_f64());
    let bytes = std::fs::metadata(path).unwrap().len();
    println!("file: {} MB", bytes / 1_000_000);

    println!("{:58} {:>7} {:>10} {:>10}", "search", "found", "median ms", "max ms");
    for (what, query, filters) in searches(spans) {
        search(running, &client, what, &query, &filters).await;
    }
    println!("{:58} {:>7} {:>10} {:>10}", "page", "KB", "median ms", "max ms");
    for (what, path) in pages(spans) {
        page(running, &client, what, &path).await;
    }
    summaries(running, &client).await;
    let rare = format!("run:run-{}", spans / 2 / SPANS_PER_TRACE);
    println!(
        "{:58} {:>7} {:>10} {:>10}",
        "list to its end, over several requests", "found", "", ""
    );
    for (what, q) in [
        ("metadata, rare", &*rare),
        ("metadata that never occurs", "run:nowhere"),
        ("a word that never occurs", "nowhere"),
        ("a name that never occurs", "name:nowhere"),
        ("figures of the whole trace", "spans:%3E5000"),
    ] {
        to_the_end(running, &client, what, q).await;
    }
    news(running, &client, spans).await;
    for (what, count) in [("Store::traces(100)", 100)] {
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let began = Instant::now();
            assert!(!running.store().traces(count).unwrap().is_empty());
            times.push(began.elapsed());
        }
        report(what, count, times);
    }
}

/// Sends these spans. What is sent is made before the clock starts.
async fn ingest(running: &RunningCollector, client: &Client, spans: Range<usize>) -> Duration {
    let last = spans.end;
    let batch = |first: usize| {
        let items: Vec<_> = (first..(first + SPANS_PER_BATCH).min(last)).map(span).collect();
        json!({ "items": items }).to_string()
    };
    let batches: VecDeque<String> = spans.step_by(SPANS_PER_BATCH).map(batch).collect();
    let batches = Arc::new(Mutex::new(batches));
    let url = format!("{}/v5/spans/batch", running.url());
    let began = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (batches, url, client) = (batches.clone(), url.clone(), client.clone());
            tokio::spawn(async move {
                let next = || batches.lock().unwrap().pop_front();
                while let Some(body) = next() {
                    let response = client.put(&url).body(body).send().await.unwrap();
                    assert_eq!(response.status(), 200);
                    response.bytes().await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    began.elapsed()
}

/// One trace of many spans, which the list shows first.
async fn ingest_large(running: &RunningCollector, client: &Client, first: usize) {
    let url = format!("{}/v5/spans/batch", running.url());
    for start in (0..LARGE).step_by(SPANS_PER_BATCH) {
        let items: Vec<_> = (start..start + SPANS_PER_BATCH)
            .map(|n| {
                let mut span = span(first + n);
                span["trace_id"] = "large".into();
                // A tree of ten to each.
                span["parent_id"] = id(first + n / 10).into();
                if n == 0 {
                    span.as_object_mut().unwrap().remove("parent_id");
                }
                span
            })
            .collect();
        let body = json!({ "items": items }).to_string();
        assert_eq!(client.put(&url).body(body).send().await.unwrap().status(), 200);
    }
}

fn row(what: &str, spans: usize, took: Duration, cpu: Duration) {
    let per_second = spans as f64 / took.as_secs_f64();
    let cpu_us = cpu.as_secs_f64() * 1e6 / spans as f64;
    println!("{what:>10} {per_second:>10.0} {cpu_us:>14.1}");
}

/// What the threads of the collector have computed, in user and system time. Nothing where there
/// is no `/proc`.
fn server_cpu() -> Duration {
    let Ok(threads) = std::fs::read_dir("/proc/self/task") else { return Duration::ZERO };
    let nanoseconds = threads.filter_map(|thread| {
        let thread = thread.ok()?.path();
        let name = std::fs::read_to_string(thread.join("comm")).ok()?;
        let spent = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        (name.trim() == SERVER).then(|| spent.split(' ').next()?.parse::<u64>().ok()).flatten()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Spans that the index of words does not know yet.
fn waiting(path: &Path) -> i64 {
    let file = rusqlite::Connection::open(path).unwrap();
    let sql = "SELECT (SELECT max(rowid) FROM span) - up_to FROM text_progress";
    file.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn id(n: usize) -> String {
    // Scattered over all ids, as real ones are.
    uuid::Uuid::from_u128((n as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
        .to_string()
}

fn word(n: usize) -> String {
    format!("word{}", n.wrapping_mul(2_654_435_761) % 5_000)
}

fn time(ns: i64) -> String {
    durable_spans_model::Timestamp::from_unix_ns(ns).to_string()
}

/// The n-th span. A hundred in a row are a trace.
fn span(n: usize) -> Value {
    let trace = n / SPANS_PER_TRACE;
    let start_ns = FIRST_NS + n as i64 * STEP_NS;
    let text: Vec<String> = (0..20).map(|k| word(n * 31 + k)).collect();
    let mut span = json!({
        "id": id(n),
        "trace_id": id(usize::MAX - trace),
        "name": if n.is_multiple_of(SPANS_PER_TRACE) { "pipeline".into() } else { format!("step-{}", n % 50) },
        "start_timestamp": time(start_ns),
        "end_timestamp": time(start_ns + 1_000 * (n as i64 * 7_919 % 100_000)),
        "status": if n % 100 == 99 { "ERROR" } else { "SUCCESS" },
        "type": if n % 10 == 3 { "COMPLETION" } else { "CUSTOM" },
        "input": {"prompt": text.join(" "), "n": n},
        "output": {"answer": text[0]},
        "metadata": {"run": format!("run-{trace}"), "attempt": n % 3},
    });
    if n % 10 == 3 {
        span["output"]["usage"] = json!({"input_tokens": n % 1000, "output_tokens": n % 77});
    }
    if !n.is_multiple_of(SPANS_PER_TRACE) {
        span["parent_id"] = id(n - n % SPANS_PER_TRACE).into();
    }
    span
}

fn searches(spans: usize) -> Vec<(&'static str, String, Value)> {
    let middle = spans / 2;
    let text = |term: String| json!({ "search_texts": [term] });
    let none = String::new;
    vec![
        ("newest", none(), json!({})),
        ("next page from the middle", format!("starting_after={}", id(middle)), json!({})),
        ("a trace", none(), json!({"trace_ids": [id(usize::MAX - middle / SPANS_PER_TRACE)]})),
        ("roots", none(), json!({"parents_only": true})),
        ("by id", none(), json!({"span_ids": [id(middle)]})),
        ("children", none(), json!({"parent_ids": [id(middle - middle % SPANS_PER_TRACE)]})),
        ("a name", none(), json!({"names": ["step-7"]})),
        (
            "two names and a status",
            none(),
            json!({"names": ["step-49", "step-1"], "statuses": ["ERROR"]}),
        ),
        ("status that never occurs", none(), json!({"statuses": ["CANCELED"]})),
        ("type that never occurs", none(), json!({"types": ["GUARDRAIL"]})),
        ("too long to occur", none(), json!({"min_duration_ms": 3_600_000})),
        ("longest", "sort_by=duration_ms".into(), json!({})),
        ("most tokens, errors only", "sort_by=input_tokens".into(), json!({"statuses": ["ERROR"]})),
        (
            "longest within a minute",
            format!(
                "sort_by=duration_ms&from_ts={}&to_ts={}",
                time(FIRST_NS + middle as i64 * STEP_NS).replace('+', "%2B"),
                time(FIRST_NS + middle as i64 * STEP_NS + 60_000_000_000).replace('+', "%2B"),
            ),
            json!({}),
        ),
        (
            "metadata, rare",
            none(),
            json!({"extra_metadata": {"run": format!("run-{}", middle / SPANS_PER_TRACE)}}),
        ),
        ("metadata, common", none(), json!({"extra_metadata": {"attempt": 1}})),
        ("metadata that never occurs", none(), json!({"extra_metadata": {"run": "nowhere"}})),
        ("a word, common", none(), text(word(0))),
        (
            "a phrase, rare",
            none(),
            text(format!("{} {}", word(middle * 31), word(middle * 31 + 1))),
        ),
        ("a word that never occurs", none(), text("nowhere".into())),
        ("a part of names", none(), text("ipelin".into())),
        ("a part of a value, common", none(), text(format!("run-{}", middle / SPANS_PER_TRACE))),
        ("punctuated, never occurs", none(), text("no/where/else".into())),
    ]
}

async fn search(
    running: &RunningCollector,
    client: &Client,
    what: &str,
    query: &str,
    filters: &Value,
) {
    let url = format!("{}/v5/spans/search?limit=100&{query}", running.url());
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let response = client.post(&url).body(filters.to_string()).send().await.unwrap();
        assert_eq!(response.status(), 200, "{what}");
        let page = response.bytes().await.unwrap();
        times.push(began.elapsed());
        let page: Value = serde_json::from_slice(&page).unwrap();
        found = page["items"].as_array().unwrap().len();
    }
    report(what, found, times);
}

/// What the traces page asks for.
fn pages(spans: usize) -> Vec<(&'static str, String)> {
    let list = |query: &str| format!("/page/traces?q={query}");
    let middle = spans / 2;
    let trace = id(usize::MAX - middle / SPANS_PER_TRACE);
    vec![
        ("list of traces", "/page/traces".into()),
        ("list: a name", list("name:pipeline")),
        ("list: a word, common", list(&word(0))),
        ("list: a word that never occurs", list("nowhere")),
        ("list: metadata, rare", list(&format!("run:run-{}", middle / SPANS_PER_TRACE))),
        ("list: metadata that never occurs", list("run:nowhere")),
        ("list: failed", "/page/traces?status=error".into()),
        ("list: long traces", list("duration:%3E1h")),
        ("list: figures of the whole trace", list("spans:%3E5000")),
        ("statistics by name", "/page/names".into()),
        ("statistics of a search", "/page/names?q=name:pipeline".into()),
        ("has anything changed", "/page/changes".into()),
        ("a trace of 100 spans", format!("/page/trace?id={trace}")),
        ("a trace of 10,000 spans", "/page/trace?id=large".into()),
        ("search within 10,000 spans", format!("/page/search?trace=large&text={}", word(0))),
        ("a span", format!("/page/span?trace={trace}&id={}", id(middle))),
        ("export of 10,000 spans, OTLP", "/page/export?format=otlp&trace=large".into()),
    ]
}

/// A list to its end, request by request, as the page goes on until it has found what it shows.
async fn to_the_end(running: &RunningCollector, client: &Client, what: &str, q: &str) {
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..3 {
        let began = Instant::now();
        let mut next = String::new();
        found = 0;
        loop {
            let url = format!("{}/page/traces?q={q}&after={next}", running.url());
            let list = client.get(url).send().await.unwrap().bytes().await.unwrap();
            let list: Value = serde_json::from_slice(&list).unwrap();
            found += list["traces"].as_array().unwrap().len();
            match list["next"].as_str() {
                Some(cursor) => next = cursor.to_owned(),
                None => break,
            }
        }
        times.push(began.elapsed());
    }
    report(what, found, times);
}

async fn page(running: &RunningCollector, client: &Client, what: &str, path: &str) {
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let response = client.get(format!("{}{path}", running.url())).send().await.unwrap();
        assert_eq!(response.status(), 200, "{what}");
        bytes = response.bytes().await.unwrap().len();
        times.push(began.elapsed());
    }
    report(what, bytes / 1_000, times);
}

/// The figures of the traces that the list shows, each time of others, since they are kept.
async fn summaries(running: &RunningCollector, client: &Client) {
    let mut next = String::new();
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let list = format!("{}/page/traces?after={next}", running.url());
        let list = client.get(list).send().await.unwrap().bytes().await.unwrap();
        let list: Value = serde_json::from_slice(&list).unwrap();
        let ids: Vec<&Value> =
            list["traces"].as_array().unwrap().iter().map(|trace| &trace["id"]).collect();
        next = list["next"].as_str().unwrap().to_owned();
        let url = format!("{}/page/summaries", running.url());
        let began = Instant::now();
        let response = client.post(url).body(json!(ids).to_string()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        bytes = response.bytes().await.unwrap().len();
        times.push(began.elapsed());
    }
    report("summaries of a page of traces", bytes / 1_000, times);
}

/// From a span that is sent to the list that has it, as the page asks when something has changed.
async fn news(running: &RunningCollector, client: &Client, spans: usize) {
    let mut times = Vec::new();
    for n in 0..ROUNDS {
        let mut span = span(spans + LARGE + n);
        let trace_id = id(usize::MAX - spans - n);
        span["trace_id"] = (&*trace_id).into();
        span.as_object_mut().unwrap().remove("parent_id");
        let body = json!({ "items": [span] }).to_string();
        let began = Instant::now();
        let url = format!("{}/v5/spans/batch", running.url());
        assert_eq!(client.put(url).body(body).send().await.unwrap().status(), 200);
        for path in ["/page/changes", "/page/traces"] {
            let response = client.get(format!("{}{path}", running.url())).send().await.unwrap();
            let text = response.text().await.unwrap();
            assert!(path == "/page/changes" || text.contains(&trace_id));
        }
        times.push(began.elapsed());
    }
    report("a new trace: stored, noticed, listed", 1, times);
}

fn report(what: &str, found: usize, mut times: Vec<Duration>) {
    times.sort();
    let ms = |time: Duration| time.as_secs_f64() * 1000.0;
    let (median, max) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what:58} {found:>7} {:>10.1} {:>10.1}", ms(median), ms(max));
}
