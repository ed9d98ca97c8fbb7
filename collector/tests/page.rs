//! The data of the traces page over HTTP. The page itself is tested in a browser: `tests/browser/`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use durable_spans_collector::{Collector, RunningCollector};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

struct Setup {
    _dir: tempfile::TempDir,
    running: RunningCollector,
    client: Client,
}

impl Setup {
    async fn new() -> Self {
        Self::with(|collector| collector).await
    }

    async fn with(configure: fn(Collector) -> Collector) -> Self {
        // Fails only where a test before has done it in this process.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let collector = configure(Collector::open(dir.path().join("spans.sqlite")).unwrap());
        let running = collector.serve(([127, 0, 0, 1], 0)).await.unwrap();
        Self { _dir: dir, running, client: Client::builder().no_proxy().build().unwrap() }
    }

    async fn store(&self, items: Value) {
        let url = format!("{}/v5/spans/batch", self.running.url());
        let body = json!({ "items": items }).to_string();
        assert_eq!(self.client.put(url).body(body).send().await.unwrap().status(), 200);
    }

    async fn get(&self, path: &str) -> Response {
        self.client.get(format!("{}{path}", self.running.url())).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
    }

    async fn refusal(&self, path: &str) -> (StatusCode, String) {
        let response = self.get(path).await;
        let status = response.status();
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        (status, body["detail"].as_str().unwrap().to_owned())
    }
}

fn span(trace_id: &str, id: &str, parent: Option<&str>, took_s: Option<u32>) -> Value {
    let mut span = json!({
        "name": format!("span {id}"),
        "id": id,
        "trace_id": trace_id,
        "start_timestamp": "2026-11-21T08:00:00Z",
    });
    if let Some(parent) = parent {
        span["parent_id"] = parent.into();
    }
    if let Some(took_s) = took_s {
        span["end_timestamp"] = format!("2026-11-21T08:00:{took_s:02}Z").into();
    }
    span
}

#[tokio::test]
async fn the_page_and_each_file_that_it_names_are_served_under_a_strict_policy() {
    let setup = Setup::new().await;
    let mut todo = vec!["/".to_owned(), "/traces/any%2Ftrace?span=x".to_owned()];
    let mut seen = Vec::new();
    while let Some(path) = todo.pop() {
        let response = setup.get(&path).await;
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers().clone();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let text = response.text().await.unwrap();
        assert!(!text.is_empty() && !text.contains("innerHTML"), "{path}");
        for part in text.split(['"', '\'']) {
            let file = part.strip_prefix("./").map(|name| format!("/assets/{name}"));
            let file = file.or_else(|| part.starts_with("/assets/").then(|| part.to_owned()));
            if let Some(file) = file
                && !seen.contains(&file)
            {
                seen.push(file.clone());
                todo.push(file);
            }
        }
        seen.push(path);
    }
    for file in ["/assets/app.js", "/assets/waterfall.js", "/assets/style.css", "/assets/icon.svg"]
    {
        assert!(seen.iter().any(|path| path == file), "{file} is not reached");
    }
    assert_eq!(setup.get("/assets/../lib.rs").await.status(), 404);
}

#[tokio::test]
async fn the_version_changes_with_each_write_and_not_without() {
    let setup = Setup::new().await;
    let version = async || setup.json("/page/changes").await["version"].clone();
    let before = version().await;
    assert_eq!(version().await, before);
    setup.store(json!([span("t", "a", None, None)])).await;
    let open = version().await;
    assert_ne!(open, before);
    setup.store(json!([span("t", "a", None, Some(1))])).await;
    assert_ne!(version().await, open);
}

#[tokio::test]
async fn a_trace_is_sent_again_only_when_it_has_changed() {
    let setup = Setup::new().await;
    setup.store(json!([span("t", "a", None, Some(3)), span("t", "b", Some("a"), None)])).await;
    let trace = setup.json("/page/trace?id=t").await;
    assert_eq!(
        trace["spans"],
        json!([
            {"id": "a", "name": "span a", "type": "STANDALONE", "status": "SUCCESS", "start": 0,
             "end": 3_000_000_000_i64},
            {"id": "b", "parent": "a", "name": "span b", "type": "STANDALONE", "status": "SUCCESS",
             "start": 0},
        ])
    );
    let again = format!("/page/trace?id=t&version={}", trace["version"].as_str().unwrap());
    assert_eq!(setup.get(&again).await.status(), 204);
    setup.store(json!([span("u", "a", None, None)])).await;
    assert_eq!(setup.get(&again).await.status(), 204);
    setup.store(json!([span("t", "b", Some("a"), Some(2))])).await;
    assert_eq!(setup.get(&again).await.status(), 200);
}

#[tokio::test]
async fn a_wrong_question_is_refused_with_what_to_do() {
    let setup = Setup::new().await;
    setup.store(json!([span("t", "a", None, None)])).await;
    for (path, status, part) in [
        ("/page/traces?status=green", 422, "status must be ok"),
        ("/page/traces?q=duration:1s", 422, "duration takes > or <"),
        ("/page/traces?limit=0", 422, "limit must be a number from 1 to 500"),
        ("/page/traces?after=x", 422, "after must be"),
        ("/page/names?range=soon", 422, "range must be"),
        ("/page/trace", 422, "id is missing"),
        ("/page/trace?id=nowhere", 404, "no such trace"),
        ("/page/span?trace=t&id=nowhere", 404, "no such span"),
        ("/page/export?format=xml", 422, "format must be"),
        ("/page/export?format=compact", 422, "compact is for one trace"),
        ("/page/export?format=csv&trace=nowhere", 404, "no such trace"),
    ] {
        let (got, detail) = setup.refusal(path).await;
        assert_eq!(got, status, "{path}");
        assert!(detail.contains(part), "{path}: {detail}");
    }
}

#[tokio::test]
async fn data_needs_the_key_where_there_is_one_and_the_page_itself_does_not() {
    let setup = Setup::with(|collector| collector.api_key("hunter2")).await;
    assert_eq!(setup.get("/").await.status(), 200);
    for path in
        ["changes", "traces", "names", "trace?id=t", "search?trace=t&text=x", "export?format=csv"]
    {
        let (status, _) = setup.refusal(&format!("/page/{path}")).await;
        assert_eq!(status, 401, "{path}");
    }
    let url = format!("{}/page/traces", setup.running.url());
    // With a key, a proxy may call the collector by any name.
    let request =
        setup.client.get(url).header("x-api-key", "hunter2").header("host", "traces.example");
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn without_a_key_a_name_that_is_not_local_is_refused() {
    let setup = Setup::new().await;
    let url = format!("{}/page/traces", setup.running.url());
    let request = setup.client.get(url).header("host", "evil.example");
    assert_eq!(request.send().await.unwrap().status(), 403);
}

#[tokio::test]
async fn a_query_of_many_traces_is_exported_whole() {
    let setup = Setup::new().await;
    for batch in 0..5 {
        let items: Vec<_> =
            (0..1000).map(|n| span(&format!("{batch}-{n}"), "a", None, Some(n % 60))).collect();
        setup.store(json!(items)).await;
    }
    let text = setup.get("/page/export?format=jsonl&q=trace:3-").await.text().await.unwrap();
    assert_eq!(text.lines().count(), 1000);
    let text = setup.get("/page/export?format=csv").await.text().await.unwrap();
    assert_eq!(text.lines().count(), 5001);
}

#[tokio::test]
async fn what_was_sent_on_several_lines_is_exported_on_one() {
    let setup = Setup::new().await;
    let url = format!("{}/v5/spans/batch", setup.running.url());
    let body = "{\"items\":[{\"name\":\"n\",\"id\":\"a\",\"trace_id\":\"t\",\
        \"start_timestamp\":\"2026-11-21T08:00:00Z\",\"input\":{\n  \"x\":\r\n 1.10\n}}]}";
    assert_eq!(setup.client.put(url).body(body).send().await.unwrap().status(), 200);
    let text = setup.get("/page/export?format=jsonl&trace=t").await.text().await.unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains("1.10"), "{text}");
    let span: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(span["input"], json!({"x": 1.1}));
}

#[tokio::test]
async fn a_file_of_any_length_is_imported_and_a_line_at_fault_is_named() {
    let setup = Setup::new().await;
    let import = async |file: String| {
        let url = format!("{}/page/import", setup.running.url());
        let response = setup.client.post(url).body(file).send().await.unwrap();
        let status = response.status().as_u16();
        let answer = serde_json::from_slice::<Value>(&response.bytes().await.unwrap()).unwrap();
        (status, answer)
    };
    // More than any request of the API may hold.
    let mut lines: Vec<String> = (0..1_200)
        .map(|n| {
            let mut span = span("t", &n.to_string(), None, Some(1));
            span["input"]["text"] = "x".repeat(16_000).into();
            span.to_string()
        })
        .collect();
    assert_eq!(import(lines.join("\n")).await, (200, json!({"spans": 1_200})));
    assert_eq!(setup.running.store().spans(&"t".parse().unwrap()).unwrap().len(), 1_200);

    lines[700] = lines[700].replace("2026", "later");
    let (status, answer) = import(lines.join("\n").replace("\"t\"", "\"u\"")).await;
    assert_eq!(status, 422);
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.starts_with("line 701: start_timestamp must be"), "{detail}");
    assert!(detail.contains("700 spans were imported: mend the file"), "{detail}");
    assert_eq!(setup.running.store().spans(&"u".parse().unwrap()).unwrap().len(), 700);

    let cycle = [span("v", "a", Some("b"), Some(1)), span("v", "b", Some("a"), Some(1))];
    let (status, answer) = import(cycle.map(|span| span.to_string()).join("\n\n")).await;
    let detail = answer["detail"].as_str().unwrap();
    assert_eq!(status, 409);
    assert_eq!(
        detail,
        "line 1: parent_id makes the span its own ancestor; spans from line 1 on were not \
         imported, 0 before them were"
    );
    assert_eq!(import(String::new()).await, (200, json!({"spans": 0})));
}
