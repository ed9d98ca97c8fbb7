//! The built command: serve on a free port, send spans, list and show them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

const TRACE: &str = "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea";

/// The command, without the settings of whoever runs the tests.
fn durable_spans() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-spans"));
    for name in ["DURABLE_SPANS_API_KEY", "SGP_API_KEY", "SGP_ACCOUNT_ID", "SGP_CLIENT_BASE_URL"] {
        command.env_remove(name);
    }
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A collector in a process of its own, killed when dropped.
struct Serving {
    process: Child,
    url: String,
    key: Option<&'static str>,
}

impl Serving {
    fn start(db: &Path, key: Option<&'static str>) -> Self {
        Self::start_with(db, key, &[])
    }

    fn start_with(db: &Path, key: Option<&'static str>, args: &[&str]) -> Self {
        let mut command = durable_spans();
        command.args(["serve", "--port", "0", "--db"]).arg(db).args(args).stdout(Stdio::piped());
        if let Some(key) = key {
            command.env("DURABLE_SPANS_API_KEY", key);
        }
        let mut process = command.spawn().unwrap();
        // It says where it is once it serves, so there is nothing else to wait for.
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = lines
            .map(Result::unwrap)
            .find_map(|line| Some(line.split_once("SGP_CLIENT_BASE_URL=")?.1.to_owned()))
            .unwrap();
        Self { process, url, key }
    }

    async fn put(&self, items: Value) {
        // Fails only where a test before has done it in this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = client.put(format!("{}/v5/spans/batch", self.url));
        if let Some(key) = self.key {
            request = request.header("x-api-key", key);
        }
        let body = json!({ "items": items }).to_string();
        assert_eq!(request.body(body).send().await.unwrap().status(), 200);
    }

    fn run(&self, args: &[&str]) -> Output {
        durable_spans().args(args).env("SGP_CLIENT_BASE_URL", &self.url).output().unwrap()
    }

    /// What a command that must go well prints.
    fn print(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout).to_owned()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn span(trace_id: &str, id: &str, parent: Option<&str>, took_ms: Option<u32>) -> Value {
    let mut span = json!({
        "name": id,
        "id": id,
        "trace_id": trace_id,
        "start_timestamp": "2026-11-21T08:03:54.000000+00:00",
    });
    if let Some(parent) = parent {
        span["parent_id"] = parent.into();
    }
    if let Some(ms) = took_ms {
        span["end_timestamp"] = format!("2026-11-21T08:03:54.{ms:03}000+00:00").into();
    }
    span
}

#[tokio::test]
async fn traces_are_listed_and_shown_as_trees() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(&dir.path().join("spans.sqlite"), None);
    let empty = serving.run(&["traces", "list"]);
    assert_eq!((empty.status.code(), text(&empty.stdout)), (Some(0), ""));
    assert!(text(&empty.stderr).contains("no traces"));

    let mut charge = span(TRACE, "charge", Some("order"), Some(12));
    charge["status"] = "ERROR".into();
    charge["metadata"] = json!({"error_message": "card declined"});
    serving.put(json!([charge, span(TRACE, "order", None, None)])).await;
    let mut newer = span("newer", "root", None, Some(1));
    newer["start_timestamp"] = "2026-11-21T08:03:54.001000+00:00".into();
    serving.put(json!([newer])).await;

    assert_eq!(
        serving.print(&["traces", "list"]),
        format!(
            "2026-11-21T08:03:54.001000+00:00  newer  root [STANDALONE] 0us SUCCESS\n\
             2026-11-21T08:03:54.000000+00:00  {TRACE}  order [STANDALONE] open\n"
        )
    );
    assert_eq!(serving.print(&["traces", "list", "--limit", "1"]).lines().count(), 1);
    assert_eq!(
        serving.print(&["traces", "show", TRACE]),
        "order [STANDALONE] open\n  charge [STANDALONE] 12ms ERROR: card declined\n"
    );

    let json: Value =
        serde_json::from_str(&serving.print(&["traces", "show", TRACE, "--json"])).unwrap();
    let charge = json.as_array().unwrap().iter().find(|span| span["id"] == "charge").unwrap();
    assert_eq!(charge["metadata"]["error_message"], "card declined");
    let json: Value = serde_json::from_str(&serving.print(&["traces", "list", "--json"])).unwrap();
    assert_eq!(
        (json[0]["trace_id"].as_str(), json[1]["id"].as_str()),
        (Some("newer"), Some("order"))
    );
}

#[tokio::test]
async fn a_trace_of_several_pages_is_shown_whole_and_listed_once() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(&dir.path().join("spans.sqlite"), None);
    for batch in 0..3 {
        let id = |n: u32| format!("{:04}", 1000 * batch + n);
        let items: Vec<_> = (0..1000).map(|n| span("t", &id(n), None, Some(1))).collect();
        serving.put(json!(items)).await;
    }
    let tree = serving.print(&["traces", "show", "t"]);
    let ids: Vec<_> = tree.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(ids, (0..3000).map(|n| format!("{n:04}")).collect::<Vec<_>>());
    // A root each, and one trace.
    serving.put(json!([span("u", "root", None, Some(1))])).await;
    let list = serving.print(&["traces", "list"]);
    let traces: Vec<_> = list.lines().map(|line| line.split("  ").nth(1).unwrap()).collect();
    assert_eq!(traces, ["u", "t"]);
}

#[tokio::test]
async fn a_key_is_needed_on_both_sides_and_never_printed() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(&dir.path().join("spans.sqlite"), Some("hunter2"));
    serving.put(json!([span("t", "a", None, None)])).await;

    let refused = serving.run(&["traces", "list"]);
    assert_eq!(refused.status.code(), Some(1));
    let message = text(&refused.stderr);
    assert!(message.contains("answered 401") && message.contains("SGP_API_KEY"), "{message}");

    let mut list = durable_spans();
    list.args(["traces", "list", "--url", &serving.url]).env("SGP_API_KEY", "hunter2");
    assert_eq!(text(&list.output().unwrap().stdout).lines().count(), 1);
    let help =
        durable_spans().args(["serve", "--help"]).env("DURABLE_SPANS_API_KEY", "hunter2").output();
    assert!(!text(&help.unwrap().stdout).contains("hunter2"));
}

#[tokio::test]
async fn old_traces_are_forgotten_and_siblings_are_shown_as_they_came() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("spans.sqlite");
    let serving = Serving::start(&db, None);
    // Same start, ids the other way round.
    serving.put(json!([span("t", "b", None, Some(1)), span("t", "a", None, Some(1))])).await;
    let shown = serving.print(&["traces", "show", "t"]);
    assert_eq!(shown, "b [STANDALONE] 1ms SUCCESS\na [STANDALONE] 1ms SUCCESS\n");
    drop(serving);

    let file = rusqlite::Connection::open(&db).unwrap();
    file.execute("UPDATE trace SET written_s = unixepoch() - 7200", []).unwrap();
    drop(file);
    let args = [
        "--max-age",
        "1h",
        "--max-size",
        "1GB",
        "--max-requests-per-second",
        "1000",
        "--max-requests-in-flight",
        "1000",
    ];
    let serving = Serving::start_with(&db, None, &args);
    for _ in 0..1000 {
        if serving.print(&["traces", "list"]).is_empty() {
            return;
        }
    }
    panic!("the trace is still there");
}

#[test]
fn failures_end_with_1_and_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("spans.sqlite");
    let serving = Serving::start(&db, None);
    let failure = |output: Output| {
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout), "");
        text(&output.stderr).to_owned()
    };

    let message = failure(serving.run(&["traces", "show", "nowhere"]));
    assert!(
        message.starts_with("durable-spans: trace nowhere was not found at http://127"),
        "{message}"
    );

    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://user:hunter2@{free}");
    let message = failure(serving.run(&["traces", "list", "--url", &url]));
    assert!(message.contains("durable-spans serve") && !message.contains("hunter2"), "{message}");

    let serve = |args: &[&str]| {
        failure(durable_spans().arg("serve").args(args).arg("--db").arg(&db).output().unwrap())
    };
    let port = serving.url.rsplit(':').next().unwrap();
    assert!(serve(&["--port", port]).contains("another address or port"));
    assert!(serve(&["--port", "0", "--host", "0.0.0.0"]).contains("without an api key"));
}

#[test]
fn wrong_usage_ends_with_2() {
    for args in [
        &["traces", "show"][..],
        &["traces", "list", "--limit", "many"],
        &["traces", "show", ""],
        &["traces", "export"],
        &["traces", "export", "t", "--query", "q"],
        &["traces", "export", "t", "--format", "yaml"],
        &["completions", "csh"],
        &["serve", "--port", "70000"],
        &["serve", "--max-age", "7 days"],
        &["serve", "--max-size", "2"],
        &["serve", "--max-requests-per-second", "0"],
        &["dance"],
    ] {
        let output = durable_spans().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn serving_ends_cleanly_on_sigterm_and_keeps_the_spans() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().join("spans.sqlite");
    let mut serving = Serving::start(&db, None);
    serving.put(json!([span("t", "a", None, Some(1))])).await;
    let pid = serving.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(serving.process.wait().unwrap().code(), Some(0));
    // SQLite folds its log into the file when the last one closes it.
    assert!(!dir.path().join("spans.sqlite-wal").exists());

    let again = Serving::start(&db, None);
    assert_eq!(again.print(&["traces", "show", "t"]), "a [STANDALONE] 1ms SUCCESS\n");
}

#[tokio::test]
async fn what_is_exported_is_imported_to_the_letter() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(&dir.path().join("spans.sqlite"), None);
    let items: Vec<_> =
        (0..1200).map(|n| span("t", &format!("{n:04}"), None, Some(n % 900))).collect();
    serving.put(json!(items[..1000])).await;
    serving.put(json!(items[1000..])).await;
    serving.put(json!([span("other", "a", None, Some(1))])).await;

    let exported = serving.print(&["traces", "export", "t"]);
    assert_eq!(exported.lines().count(), 1200);
    let file = dir.path().join("spans.jsonl");
    let file = file.to_str().unwrap();
    assert_eq!(serving.print(&["traces", "export", "--query", "trace:t", "-o", file]), "");
    assert_eq!(std::fs::read_to_string(file).unwrap(), exported);
    let all = serving.print(&["traces", "export", "--query", "", "--format", "csv"]);
    assert_eq!(all.lines().count(), 1202);
    let compact = serving.print(&["traces", "export", "other", "--format", "compact"]);
    assert_eq!(serde_json::from_str::<Value>(&compact).unwrap()["took_ms"], 1.0);

    let other = Serving::start(&dir.path().join("other.sqlite"), None);
    let imported = other.run(&["traces", "import", file]);
    assert_eq!(imported.status.code(), Some(0), "{}", text(&imported.stderr));
    assert_eq!(text(&imported.stderr), "1200 spans imported\n");
    assert_eq!(other.print(&["traces", "export", "t"]), exported);
    for format in ["otlp", "csv"] {
        let file = dir.path().join(format);
        let file = file.to_str().unwrap();
        let written = serving.print(&["traces", "export", "t", "--format", format]);
        std::fs::write(file, &written).unwrap();
        let other = Serving::start(&dir.path().join(format!("{format}.sqlite")), None);
        let imported = other.run(&["traces", "import", file]);
        assert_eq!(text(&imported.stderr), "1200 spans imported\n", "{format}");
        assert_eq!(other.print(&["traces", "export", "t", "--format", format]), written);
        if format == "otlp" {
            assert_eq!(other.print(&["traces", "export", "t"]), exported);
        }
    }

    let failure = |args: &[&str]| {
        let output = other.run(args);
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), ""), "{args:?}");
        text(&output.stderr).to_owned()
    };
    assert!(failure(&["traces", "export", "nowhere"]).contains("no such trace"));
    let message = failure(&["traces", "export", "--query", "status:green", "-o", file]);
    assert!(message.contains("status must be ok"), "{message}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), exported, "a refusal leaves the file alone");
    let bad = dir.path().join("bad.jsonl");
    std::fs::write(&bad, format!("{}\n\n[1]\n", exported.lines().next().unwrap())).unwrap();
    let message = failure(&["traces", "import", bad.to_str().unwrap()]);
    assert!(message.contains("line 3: holds no JSON object"), "{message}");
    assert!(message.contains("1 spans were: mend it"), "{message}");
    let child = |id, parent| span("t2", id, parent, Some(1)).to_string();
    // A parent that is known in another trace.
    std::fs::write(&bad, [child("x", None), child("y", Some("0001"))].join("\n\n")).unwrap();
    let message = failure(&["traces", "import", bad.to_str().unwrap()]);
    assert!(message.contains("line 3 was refused"), "{message}");
    assert!(failure(&["traces", "import", "/no/such/file"]).contains("cannot read /no/such/file"));
}

#[tokio::test]
async fn a_watch_prints_what_arrives_as_it_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(&dir.path().join("spans.sqlite"), None);
    let mut watch = durable_spans()
        .args(["traces", "watch", TRACE, "--url", &serving.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut notes = BufReader::new(watch.stderr.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(notes.next().unwrap().unwrap().starts_with(&format!("waiting for trace {TRACE}")));

    serving.put(json!([span(TRACE, "order", None, None)])).await;
    assert_eq!(next(), "order [STANDALONE] open");
    serving.put(json!([span(TRACE, "charge", Some("order"), Some(7))])).await;
    assert_eq!(next(), "  charge [STANDALONE] 7ms SUCCESS");
    serving.put(json!([span(TRACE, "order", None, Some(9))])).await;
    assert_eq!(next(), "order [STANDALONE] 9ms SUCCESS");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = durable_spans().args(["completions", shell]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        for name in ["serve", "export", "watch", "--api-key", "temporal-ui"] {
            let name = if shell == "fish" { name.trim_start_matches("--") } else { name };
            assert!(text(&output.stdout).contains(name), "{shell} {name}");
        }
    }
    // A reader that has seen enough is no failure.
    let mut command = durable_spans();
    command.args(["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[tokio::test]
async fn colour_is_for_terminals_only() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(&dir.path().join("spans.sqlite"), None);
    let mut failed = span("t", "a", None, Some(1));
    failed["status"] = "ERROR".into();
    serving.put(json!([failed])).await;
    for args in [&["traces", "list"][..], &["traces", "show", "t"]] {
        assert!(!serving.print(args).contains('\u{1b}'));
        let forced = durable_spans()
            .args(args)
            .env("SGP_CLIENT_BASE_URL", &serving.url)
            .env("CLICOLOR_FORCE", "1")
            .output()
            .unwrap();
        assert!(text(&forced.stdout).contains("\u{1b}[31m"), "{}", text(&forced.stdout));
    }
}
