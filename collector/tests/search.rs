//! Every filter, order and cursor of a search, over HTTP, with a real file.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use durable_spans_collector::{Collector, RunningCollector};
use reqwest::Client;
use serde_json::{Value, json};

const OBS_TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const OBS_SPAN: &str = "00f067aa0ba902b7";
const UUID: &str = "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea";

struct Setup {
    _dir: tempfile::TempDir,
    running: RunningCollector,
    client: Client,
}

impl Setup {
    /// A collector with the spans of [`spans`], all of which begin a second after the other.
    async fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let collector = Collector::open(dir.path().join("spans.sqlite")).unwrap();
        let running = collector.serve(([127, 0, 0, 1], 0)).await.unwrap();
        let setup =
            Self { _dir: dir, running, client: Client::builder().no_proxy().build().unwrap() };
        setup.put(spans()).await;
        setup
    }

    async fn put(&self, items: Vec<Value>) {
        let url = format!("{}/v5/spans/batch", self.running.url());
        let body = json!({ "items": items }).to_string();
        let response = self.client.put(url).body(body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{}", response.text().await.unwrap());
    }

    async fn page(&self, query: &str, filters: &Value) -> Value {
        let url = format!("{}/v5/spans/search?{query}", self.running.url());
        let response = self.client.post(url).body(filters.to_string()).send().await.unwrap();
        let status = response.status();
        let page: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(status, 200, "{page}");
        page
    }

    /// The ids of what is found, from the oldest on.
    async fn found(&self, filters: Value) -> String {
        ids(&self.page("sort_order=asc", &filters).await)
    }

    /// The ids of all pages of two, as the cursors lead from one to the next.
    async fn all_pages(&self, parameters: &str, filters: &Value) -> String {
        let mut found = Vec::new();
        let mut query = format!("{parameters}&limit=2");
        loop {
            let page = self.page(&query, filters).await;
            found.push(ids(&page));
            if page["has_more"] == false {
                assert_eq!(page["next_cursor"], Value::Null);
                return found.join(" ");
            }
            let next = page["next_cursor"].as_str().unwrap();
            query = format!("{parameters}&limit=2&starting_after={next}");
        }
    }
}

fn ids(page: &Value) -> String {
    let items = page["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

/// The spans `a` to `f`.
fn spans() -> Vec<Value> {
    let span = |n: usize, more: Value| {
        let id = char::from(b'a' + u8::try_from(n).unwrap()).to_string();
        let mut span = json!({
            "id": id, "name": "step", "trace_id": "t", "start_timestamp": format!("2026-11-21T08:00:0{n}Z"),
        });
        span.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        span
    };
    vec![
        span(
            0,
            json!({"name": "Rank-Documents", "type": "AGENT_WORKFLOW", "group_id": "g",
            "end_timestamp": "2026-11-21T08:00:10Z", "metadata": {"run": "r-1", "n": 3},
            "output": {"usage": {"input_tokens": 9, "output_tokens": 1}}}),
        ),
        span(
            1,
            json!({"parent_id": "a", "status": "ERROR", "obs_trace_id": OBS_TRACE,
            "obs_span_id": OBS_SPAN, "end_timestamp": "2026-11-21T08:00:01.250Z",
            "output": {"error": "The card was Declined, sorry"}}),
        ),
        span(
            2,
            json!({"parent_id": "a", "type": "COMPLETION", "status": "CANCELED",
            "end_timestamp": "2026-11-21T08:00:02.100Z", "metadata": {"model": "gpt-4o-mini"},
            "input": {"usage": "café"}, "output": {"usage": {"prompt_tokens": 20, "completion_tokens": 5}}}),
        ),
        span(
            3,
            json!({"trace_id": UUID, "application_variant_id": "v",
            "metadata": {"run": "r-2", "__acp_type__": "sync", "__agent_name__": "bot", "__agent_id__": "7"}}),
        ),
        span(
            4,
            json!({"trace_id": UUID, "parent_id": "d", "name": "declined",
            "end_timestamp": "2026-11-21T08:00:04.250Z", "metadata": {"tags": ["x", "y"]}}),
        ),
        // The id of another span, in a trace of its own.
        span(5, json!({"id": "a", "trace_id": "u", "end_timestamp": "2026-11-21T08:00:05Z"})),
    ]
}

/// Waits until the index of words knows all spans, so that searches take that way.
async fn indexed(setup: &Setup) {
    let path = setup._dir.path().join("spans.sqlite");
    for _ in 0..1000 {
        let file = rusqlite::Connection::open(&path).unwrap();
        let waiting: i64 = file
            .query_row(
                "SELECT (SELECT count(*) FROM span WHERE rowid > up_to)
                    + (SELECT count(*) FROM stale_text) FROM text_progress",
                [],
                |row| row.get(0),
            )
            .unwrap();
        if waiting == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the index of words does not keep up");
}

#[tokio::test]
async fn each_filter_lets_pass_what_it_says() {
    let setup = Setup::new().await;
    for (filters, expected) in [
        (json!({}), "a b c d e a"),
        (json!({"trace_ids": ["t"]}), "a b c"),
        (json!({"trace_ids": ["t", "u", "nobody's"]}), "a b c a"),
        (json!({"span_ids": ["a", "e"]}), "a e a"),
        (
            json!({"spans": [{"trace_id": "u", "span_id": "a"}, {"trace_id": "u", "span_id": "b"}]}),
            "a",
        ),
        (json!({"span_ids": ["b"], "spans": [{"trace_id": "u", "span_id": "a"}]}), ""),
        (json!({"parent_ids": ["a", "nobody"]}), "b c"),
        (json!({"parents_only": true}), "a d a"),
        (json!({"parents_only": true, "trace_ids": ["t", "u"]}), "a a"),
        (json!({"excluded_trace_ids": ["t"]}), "d e a"),
        (json!({"excluded_span_ids": ["a", "c"]}), "b d e"),
        (json!({"excluded_spans": [{"trace_id": "u", "span_id": "a"}]}), "a b c d e"),
        (
            json!({"excluded_spans": [{"trace_id": "u", "span_id": "a"}], "excluded_span_ids": ["b"]}),
            "a b c d e",
        ),
        (json!({"names": ["step"]}), "b c d a"),
        (json!({"names": ["declined", "Rank-Documents"]}), "a e"),
        (json!({"statuses": ["ERROR", "CANCELED"]}), "b c"),
        (json!({"statuses": ["SUCCESS"]}), "a d e a"),
        (json!({"types": ["COMPLETION", "AGENT_WORKFLOW"]}), "a c"),
        (json!({"types": ["STANDALONE"], "trace_ids": ["t"]}), "b"),
        (json!({"group_id": "g"}), "a"),
        (json!({"application_variant_ids": ["v"]}), "d"),
        (json!({"obs_trace_ids": [OBS_TRACE]}), "b"),
        (json!({"obs_span_ids": [OBS_SPAN], "obs_trace_ids": [OBS_TRACE]}), "b"),
        // An open span has no duration.
        (json!({"min_duration_ms": 250}), "a b e"),
        (json!({"max_duration_ms": 250}), "b c e a"),
        (json!({"min_duration_ms": 250, "max_duration_ms": 250}), "b e"),
        (json!({"acp_types": ["sync", "async"]}), "d"),
        (json!({"agentex_agent_names": ["bot"], "agentex_agent_ids": ["7"]}), "d"),
        (json!({"agentex_agent_ids": ["8"]}), ""),
        (json!({"extra_metadata": {"run": "r-1"}}), "a"),
        (json!({"extra_metadata": {"run": ["r-1", "r-2"]}}), "a d"),
        (json!({"extra_metadata": {"n": 3.0, "run": "r-1"}}), "a"),
        (json!({"extra_metadata": {"tags": ["x", "y"]}}), "e"),
        (json!({"extra_metadata": {"$or": [{"n": 3}, {"model": "gpt-4o-mini"}]}}), "a c"),
        (json!({"assessment_types": ["rating"]}), ""),
    ] {
        assert_eq!(setup.found(filters.clone()).await, expected, "{filters}");
    }
    for (query, expected) in [
        ("from_ts=2026-11-21T08:00:04Z", "e a"),
        ("to_ts=2026-11-21T08:00:01Z", "a b"),
        ("from_ts=2026-11-21T09:00:01%2B01:00&to_ts=2026-11-21T08:00:01.5Z", "b"),
    ] {
        let page = setup.page(&format!("{query}&sort_order=asc"), &json!({})).await;
        assert_eq!(ids(&page), expected, "{query}");
    }
}

#[tokio::test]
async fn texts_are_found_before_and_after_they_are_indexed() {
    let setup = Setup::new().await;
    for round in 0..2 {
        for (terms, expected) in [
            (json!(["declined"]), "b e"),
            (json!(["was declined"]), "b"),
            (json!(["\"card was\""]), "b"),
            (json!(["\"rank\""]), ""),
            (json!(["rank"]), "a"),
            (json!(["ocume"]), "a"),
            (json!(["card", "SORRY"]), "b"),
            (json!(["card", "gpt-4o"]), ""),
            (json!(["t-4o-m"]), "c"),
            (json!(["afé"]), "c"),
            (json!(["r-1"]), "a"),
            (json!([UUID]), "d e"),
            (json!([UUID, "card"]), "b d e"),
            (json!([format!("\"{UUID}\"")]), ""),
        ] {
            let found = setup.found(json!({ "search_texts": terms })).await;
            assert_eq!(found, expected, "{terms} in round {round}");
        }
        let in_trace = json!({"search_texts": ["declined"], "trace_ids": ["t"]});
        assert_eq!(setup.found(in_trace).await, "b");
        indexed(&setup).await;
    }
    // What replaces a span is found, what was replaced is not.
    let mut changed = spans()[1].clone();
    changed["output"] = json!({"fine": "approved"});
    setup.put(vec![changed]).await;
    for round in 0..2 {
        assert_eq!(setup.found(json!({"search_texts": ["approved"]})).await, "b", "round {round}");
        assert_eq!(setup.found(json!({"search_texts": ["declined"]})).await, "e", "round {round}");
        indexed(&setup).await;
    }
}

#[tokio::test]
async fn answers_are_sorted_by_time_duration_and_tokens() {
    let setup = Setup::new().await;
    for (sort_by, descending) in [
        ("start_timestamp", "a e d c b a"),
        // The open span comes last, those that are alike by trace and id.
        ("duration_ms", "a b e c a d"),
        ("input_tokens", "c a a b e d"),
        ("output_tokens", "c a a b e d"),
    ] {
        let page = setup.page(&format!("sort_by={sort_by}"), &json!({})).await;
        assert_eq!(ids(&page), descending, "{sort_by}");
        let page = setup.page(&format!("sort_by={sort_by}&sort_order=asc"), &json!({})).await;
        let ascending: Vec<_> = descending.split(' ').rev().collect();
        assert_eq!(ids(&page), ascending.join(" "), "{sort_by}");
        // Through another index, the order is the same.
        let filters = json!({"trace_ids": ["t"]});
        let page = setup.page(&format!("sort_by={sort_by}"), &filters).await;
        let of_trace: Vec<_> = page["items"].as_array().unwrap().iter().collect();
        assert_eq!(of_trace.len(), 3, "{sort_by}");
    }
    let page = setup.page("", &json!({"span_ids": ["c"]})).await;
    let item = &page["items"][0];
    assert_eq!((&item["input_tokens"], &item["output_tokens"]), (&json!(20), &json!(5)));
}

#[tokio::test]
async fn cursors_lead_forward_and_back_through_every_order() {
    let setup = Setup::new().await;
    let filters = json!({"trace_ids": ["t", UUID]});
    for sort_by in ["start_timestamp", "duration_ms", "input_tokens", "output_tokens"] {
        for order in ["asc", "desc"] {
            let base = format!("sort_by={sort_by}&sort_order={order}");
            let all = ids(&setup.page(&base, &filters).await);
            let forward = setup.all_pages(&base, &filters).await;
            assert_eq!(forward, all, "{base}");
            // Without a filter the spans are walked in the order of the answer.
            let everything = json!({});
            let all_spans = ids(&setup.page(&base, &everything).await);
            assert_eq!(setup.all_pages(&base, &everything).await, all_spans, "{base}");

            let mut back = Vec::new();
            let last = all.split(' ').next_back().unwrap();
            let mut query = format!("{base}&limit=2&ending_before={last}");
            loop {
                let page = setup.page(&query, &filters).await;
                let ids = ids(&page);
                back.splice(0..0, ids.split(' ').map(str::to_owned));
                if page["has_more"] == false {
                    break;
                }
                // The client takes the first item, the page names the same place.
                assert!(page["prev_cursor"].is_string());
                query = format!("{base}&limit=2&ending_before={}", back[0]);
            }
            assert_eq!(format!("{} {last}", back.join(" ")), all, "{base}");
        }
    }
}

#[tokio::test]
async fn a_cursor_that_names_no_span_or_several_is_refused() {
    let setup = Setup::new().await;
    let url = |cursor: &str| {
        format!("{}/v5/spans/search?sort_order=asc&starting_after={cursor}", setup.running.url())
    };
    for (cursor, reason) in [("a", "several traces"), ("nobody", "no span"), ("@99", "no span")] {
        let response = setup.client.post(url(cursor)).send().await.unwrap();
        assert_eq!(response.status(), 422);
        let answer = response.text().await.unwrap();
        assert!(answer.contains(reason), "{answer}");
    }
    // The filters tell which one is meant, even if it does not match any more.
    let of_u = json!({"trace_ids": ["u"]});
    assert_eq!(ids(&setup.page("starting_after=a", &of_u).await), "");
    let gone = json!({"names": ["step"], "trace_ids": ["t", UUID]});
    assert_eq!(ids(&setup.page("starting_after=e", &gone).await), "d c b");
}

#[tokio::test]
async fn a_page_that_is_too_big_is_refused_or_ends_early() {
    let setup = Setup::new().await;
    for id in ["x", "y", "z"] {
        let text = "x".repeat(7_000_000);
        setup
            .put(vec![json!({
                "id": id, "name": "big", "trace_id": "big", "input": {"text": text},
                "start_timestamp": "2026-11-21T08:00:00Z",
            })])
            .await;
    }
    let filters = json!({"trace_ids": ["big"]});
    let url = format!("{}/v5/spans/search", setup.running.url());
    let response = setup.client.post(url).body(filters.to_string()).send().await.unwrap();
    assert_eq!(response.status(), 400);
    let answer: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(answer["code"], "SEARCH_RESULT_TOO_LARGE");

    let page = setup.page("allow_partial_results=true", &filters).await;
    assert_eq!((ids(&page), &page["has_more"]), ("z y".to_owned(), &json!(true)));
    let cursor = page["next_cursor"].as_str().unwrap();
    let page =
        setup.page(&format!("allow_partial_results=true&starting_after={cursor}"), &filters).await;
    assert_eq!((ids(&page), &page["has_more"]), ("x".to_owned(), &json!(false)));
}

#[tokio::test]
async fn assessments_are_kept_listed_changed_and_searched_for() {
    let setup = Setup::new().await;
    let url = format!("{}/v5/span-assessments", setup.running.url());
    let send = |request: reqwest::RequestBuilder| async {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_slice::<Value>(&response.bytes().await.unwrap()).unwrap())
    };
    let create = |body: Value| send(setup.client.post(&url).body(body.to_string()));

    let (status, rating) =
        create(json!({"assessment_type": "rating", "trace_id": "t", "rating": 4, "comment": "ok"}))
            .await;
    assert_eq!(status, 200, "{rating}");
    assert_eq!((&rating["span_id"], &rating["object"]), (&json!("a"), &json!("span.assessment")));
    let overwrite = json!({
        "assessment_type": "overwrite", "trace_id": "t", "span_id": "b", "overwrite": {"x": 1},
    });
    assert_eq!(create(overwrite.clone()).await.0, 200);
    assert_eq!(create(overwrite).await.0, 409);
    let unknown =
        json!({"assessment_type": "comment", "comment": "c", "trace_id": "t", "span_id": "e"});
    assert_eq!(create(unknown).await.0, 404);
    let wrong = create(json!({"assessment_type": "rating", "trace_id": "t", "comment": "c"})).await;
    assert_eq!((wrong.0, &wrong.1["field"]), (422, &json!("rating")));

    let one = format!("{url}/{}", rating["assessment_id"].as_str().unwrap());
    assert_eq!(send(setup.client.get(&one)).await.1, rating);
    let list = |query: &str| send(setup.client.get(format!("{url}?{query}")));
    assert_eq!(list("trace_id=t").await.1["items"].as_array().unwrap().len(), 2);
    assert_eq!(list("span_id=a").await.1["items"], json!([rating]));
    assert_eq!(list("trace_id=t&assessment_type=comment").await.1["items"], json!([]));
    assert_eq!(list("").await.0, 400);

    assert_eq!(setup.found(json!({"assessment_types": ["rating"]})).await, "a");
    assert_eq!(setup.found(json!({"assessment_types": ["overwrite", "rating"]})).await, "a b");
    assert_eq!(setup.found(json!({"assessment_types": ["rating"], "trace_ids": ["u"]})).await, "");

    let change = |body: Value| send(setup.client.patch(&one).body(body.to_string()));
    let (status, changed) = change(json!({"rating": 5})).await;
    assert_eq!((status, &changed["rating"], &changed["comment"]), (200, &json!(5), &json!("ok")));
    assert_eq!(change(json!({"approval": "approved"})).await.0, 422);
    let (status, deleted) = send(setup.client.delete(&one)).await;
    assert_eq!((status, &deleted["deleted"]), (200, &json!(true)));
    assert_eq!(send(setup.client.get(&one)).await.0, 404);
    assert_eq!(send(setup.client.delete(&one)).await.0, 404);
}
