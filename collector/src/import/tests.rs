use super::*;
use crate::{
    batch,
    store::{Mode, Store, tests::store},
    web::export::{self, Format},
};
use serde_json::{Value, json};

/// Spans with what is hard to write down.
fn spans() -> Vec<String> {
    let full = r#"{"name":"=cmd(\"x\"), '1'","id":"d7b120b6-aaee-4219-a7ce-b3252a18c3fa","trace_id":"t",
        "start_timestamp":"2026-11-21T09:03:54.911208123+01:00","end_timestamp":"2026-11-21T08:04:00Z",
        "input":{"big":12345678901234567890123,"z":1.10,"text":"two\nlines, \"quoted\" é"},
        "output":{"input":[1,{"a":null}]},"expected":{"answer":42},
        "metadata":{"input":"of the metadata","session.id":"another","list":[1],"text":"[1]",
            "deep":{"er":[{}]},"durable_spans.type":"x","huge":123456789012345678901},
        "status":"ERROR","type":"COMPLETION","parent_id":"-p","group_id":"g",
        "application_interaction_id":"i","application_variant_id":"v",
        "obs_trace_id":"0af7651916cd43dd8448eb211c80319c","obs_span_id":"00f067aa0ba902b7"}"#;
    let mut spans = vec![full.to_owned()];
    let least = |id: &str, name: &str| json!({"name": name, "id": id, "trace_id": "t", "start_timestamp": "2026-11-21T08:00:00Z"});
    spans.push(least("-p", "'quoted'").to_string());
    spans.push(least("''=x", "''=x").to_string());
    let mut empty = least("e", " blanks \r\n");
    empty["input"] = json!({});
    empty["output"] = json!({});
    empty["metadata"] = json!({});
    empty["status"] = "SUCCESS".into();
    empty["type"] = "STANDALONE".into();
    spans.push(empty.to_string());
    let mut other = least("o", "of another trace");
    other["trace_id"] = "@u".into();
    other["status"] = "CANCELED".into();
    spans.push(other.to_string());
    spans
}

fn put(store: &Store, body: &str) {
    store.write(batch::parse(body.as_bytes(), "local").unwrap(), Mode::Upsert).unwrap();
}

fn import(file: &str) -> Result<(tempfile::TempDir, Store), ImportError> {
    let (dir, store) = store();
    let mut file = SpanFile::open(file.as_bytes())?;
    while let Some(batch) = file.next_batch()? {
        put(&store, &batch.body());
    }
    Ok((dir, store))
}

fn exported(store: &Store, format: Format) -> String {
    let trace = |id| store.read(|c| export::trace(c, format, id, None)).unwrap().unwrap();
    [format.head(), &trace("t"), &trace("@u")].concat()
}

/// Each line of the export in JSON lines, in which spans stand to the letter.
fn rows(store: &Store) -> Vec<String> {
    exported(store, Format::JsonLines).lines().map(str::to_owned).collect()
}

#[test]
fn what_is_exported_comes_back_to_the_letter() {
    let (_dir, before) = store();
    put(&before, &format!(r#"{{"items":[{}]}}"#, spans().join(",")));
    for format in [Format::JsonLines, Format::Otlp] {
        let (_dir, after) = import(&exported(&before, format)).unwrap();
        let values = |store| -> Vec<Value> {
            rows(store).iter().map(|row| serde_json::from_str(row).unwrap()).collect()
        };
        assert_eq!(values(&after), values(&before), "{format:?}");
        assert_eq!(exported(&after, format), exported(&before, format));
        assert!(rows(&after).iter().any(|row| row.contains("12345678901234567890123")));
        assert!(rows(&after).iter().any(|row| row.contains("1.10")));
    }
}

#[test]
fn csv_comes_back_with_defaults_named_and_times_in_utc() {
    let (_dir, before) = store();
    put(&before, &format!(r#"{{"items":[{}]}}"#, spans().join(",")));
    let file = exported(&before, Format::Csv);
    let (_dir, after) = import(&file).unwrap();
    assert_eq!(exported(&after, Format::Csv), file);
    let told = |row: &String| {
        let mut span: Value = serde_json::from_str(row).unwrap();
        for (field, default) in [("status", "SUCCESS"), ("type", "STANDALONE")] {
            if span.get(field).is_none() {
                span[field] = default.into();
            }
        }
        for field in ["start_timestamp", "end_timestamp"] {
            if let Some(text) = span.get(field).and_then(Value::as_str) {
                let time: durable_spans_model::Timestamp = text.parse().unwrap();
                span[field] = time.unix_ns().into();
            }
        }
        span
    };
    let values = |store| rows(store).iter().map(told).collect::<Vec<_>>();
    assert_eq!(values(&after), values(&before));
    assert!(rows(&after).iter().any(|row| row.contains("12345678901234567890123")));
    assert!(rows(&after).iter().any(|row| row.contains("08:03:54.911208123+00:00")));
}

#[test]
fn columns_come_in_any_order_and_others_are_left_alone() {
    let file = "\u{feff}\nmine,name,start,id,trace_id,input\r\n1,n,2026-11-21T08:00:00Z,a,t,\"{\"\"x\"\": 1.0}\"\r\n";
    let mut file = SpanFile::open(file.as_bytes()).unwrap();
    let batch = file.next_batch().unwrap().unwrap();
    assert_eq!((batch.len(), batch.first_line()), (1, 3));
    let body = batch.body();
    assert!(body.contains(r#""input":{"x": 1.0}"#), "{body}");
    assert!(!body.contains("mine"), "{body}");
}

#[test]
fn otlp_of_other_programs_is_read_like_any_that_is_sent() {
    let request = json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "00f067aa0ba902b7", "name": "GET",
        "kind": 3, "startTimeUnixNano": "1795248000000000000", "endTimeUnixNano": "1795248001000000000",
        "attributes": [{"key": "http.request.method", "value": {"stringValue": "GET"}}],
        "status": {},
    }]}]}]});
    let mut file = SpanFile::open(io::Cursor::new(request.to_string())).unwrap();
    let body: Value = serde_json::from_str(&file.next_batch().unwrap().unwrap().body()).unwrap();
    assert_eq!(body["items"][0]["id"], "00f067aa0ba902b7");
    assert_eq!(body["items"][0]["metadata"]["http.request.method"], "GET");
    assert_eq!(body["items"][0]["type"], "EXTERNAL_ENDPOINT");
}

/// What a file is refused with, after its last good batch.
fn refused(file: &str) -> (usize, String) {
    let mut good = 0;
    let mut file = match SpanFile::open(file.as_bytes()) {
        Ok(file) => file,
        Err(error) => return (good, error.to_string()),
    };
    loop {
        match file.next_batch() {
            Ok(Some(batch)) => good += batch.len(),
            Ok(None) => panic!("not refused"),
            Err(error) => return (good, error.to_string()),
        }
    }
}

#[test]
fn a_line_at_fault_is_named_after_the_spans_before_it_were_given() {
    let good = spans().pop().unwrap();
    let bad = good.replace("2026-11-21T08:00:00Z", "yesterday");
    let (before, error) = refused(&format!("{good}\n\n{good}\n{bad}\n{good}"));
    assert_eq!(before, 2);
    assert_eq!(error, "line 4: start_timestamp must be an RFC 3339 time with an offset");
    for (file, expected) in [
        ("{\n  \"name\": 1\n}", "line 1: is not valid JSON at column 1: one span"),
        ("name;start\n1;2", "line 1: is neither a JSON object nor CSV with a column trace_id"),
        (&format!("{good}\n[1]"), "line 2: holds no JSON object"),
        (r#"{"name":"x"}"#, "line 1: trace_id is missing"),
        (r#"{"resourceSpans":[{"scopeSpans":7}]}"#, "line 1: is no trace export of OTLP/JSON"),
        ("trace_id,id,name,start\nt,a,n", "line 2: has 3 cells, where the first line has 4"),
        (
            "trace_id,id,name,start,input\nt,a,n,2026-11-21T08:00:00Z,{",
            "line 2: input is not valid JSON",
        ),
        ("trace_id,id,name,start\n\"two\nlines\",a,n,x", "line 2: start must be"),
        ("trace_id,id,name,start\n,a,n,2026-11-21T08:00:00Z", "line 2: trace_id is missing"),
    ] {
        let (_, error) = refused(file);
        assert!(error.starts_with(expected), "{file}: {error}");
    }
}

#[test]
fn long_files_come_in_batches_that_know_their_lines() {
    let good = spans().pop().unwrap();
    let file = vec![good; BATCH_SPANS + 7].join("\n");
    let mut file = SpanFile::open(file.as_bytes()).unwrap();
    assert_eq!(file.next_batch().unwrap().unwrap().len(), BATCH_SPANS);
    let rest = file.next_batch().unwrap().unwrap();
    assert_eq!((rest.len(), rest.first_line()), (7, BATCH_SPANS as u64 + 1));
    assert_eq!(rest.line_at_fault("409: items[2].parent_id belongs to another trace"), Some(503));
    assert_eq!(rest.line_at_fault("answered 500"), None);
    assert!(file.next_batch().unwrap().is_none());
    assert!(SpanFile::open(&b""[..]).unwrap().next_batch().unwrap().is_none());
}
