use durable_spans_model::Timestamp;
use serde_json::value::RawValue;

use crate::web::{queries::Stored, record::Record};

/// The columns. Times are RFC 3339 in UTC; what is JSON stays JSON.
pub(super) const HEAD: &str = "trace_id,id,parent_id,group_id,name,type,status,start,end,\
    duration_ms,kind,attempt,queue_ms,tokens,cost,error_type,error_message,input,output,metadata,\
    expected,application_interaction_id,application_variant_id,obs_trace_id,obs_span_id\r\n";

pub(super) fn write(spans: &[Stored]) -> String {
    spans.iter().filter_map(row).collect()
}

fn row(span: &Stored) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Rest<'a> {
        trace_id: String,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
        application_interaction_id: Option<String>,
        application_variant_id: Option<String>,
        obs_trace_id: Option<String>,
        obs_span_id: Option<String>,
    }
    let rest: Rest<'_> = serde_json::from_str(&span.body).ok()?;
    let record = Record::parse(&span.body).ok()?;
    let usage = record.usage();
    let number = |key| record.number(key).map(|number| number.to_string()).unwrap_or_default();
    let text = |key| cell(record.text(key).unwrap_or_default());
    let raw = |part: Option<&RawValue>| part.map(|part| cell(part.get())).unwrap_or_default();
    let given = |text: &Option<String>| cell(text.as_deref().unwrap_or_default());
    let duration = span.end_ns.map(|end| end.saturating_sub(span.start_ns) as f64 / 1e6);
    let cells = [
        cell(&rest.trace_id),
        cell(&record.id),
        cell(record.parent_id.as_deref().unwrap_or_default()),
        cell(record.group_id.as_deref().unwrap_or_default()),
        cell(&record.name),
        cell(record.span_type()),
        cell(record.status()),
        time(span.start_ns),
        span.end_ns.map(time).unwrap_or_default(),
        duration.map(|ms| ms.to_string()).unwrap_or_default(),
        text("temporal.kind"),
        number("temporal.attempt"),
        number("temporal.queue_ms"),
        if usage.tokens > 0 { usage.tokens.to_string() } else { String::new() },
        if usage.cost > 0.0 { usage.cost.to_string() } else { String::new() },
        text("error_type"),
        text("error_message"),
        raw(record.input),
        raw(record.output),
        raw(rest.metadata),
        raw(record.expected),
        given(&rest.application_interaction_id),
        given(&rest.application_variant_id),
        given(&rest.obs_trace_id),
        given(&rest.obs_span_id),
    ];
    Some(cells.join(",") + "\r\n")
}

/// Text for a cell. What a spreadsheet would take for a formula gets an apostrophe before it: spans
/// come from anywhere.
fn cell(text: &str) -> String {
    let formula = is_formula(text);
    let guard = if formula { "'" } else { "" };
    if formula || text.contains([',', '"', '\n', '\r']) {
        format!("\"{guard}{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

/// The text of a cell, without the apostrophe that [`cell`] has put before it.
pub(crate) fn unguarded(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|text| is_formula(text)).unwrap_or(cell)
}

/// Whether it is one, or has been one before it got apostrophes.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// RFC 3339 in UTC, to the microsecond or, where there is more, to the nanosecond.
fn time(ns: i64) -> String {
    let text = Timestamp::from_unix_ns(ns).to_string();
    match (ns.rem_euclid(1_000), text.split_once('+')) {
        (1.., Some((time, offset))) => format!("{time}{:03}+{offset}", ns.rem_euclid(1_000)),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_quotes_what_needs_it_and_defuses_formulas() {
        let body = r#"{"name":"=cmd()","id":"a","trace_id":"t","status":"ERROR",
            "input":{"say":"\"hi\", he"},"metadata":{"error_message":"two\nlines","temporal.attempt":2}}"#;
        let span = Stored { body: body.into(), start_ns: 0, end_ns: Some(1_500_000) };
        let row = write(&[span]);
        assert_eq!(
            row,
            "t,a,,,\"'=cmd()\",STANDALONE,ERROR,1970-01-01T00:00:00.000000+00:00,\
             1970-01-01T00:00:00.001500+00:00,1.5,,2,,,,,\"two\nlines\",\
             \"{\"\"say\"\":\"\"\\\"\"hi\\\"\", he\"\"}\",,\
             \"{\"\"error_message\"\":\"\"two\\nlines\"\",\"\"temporal.attempt\"\":2}\",,,,,\r\n"
        );
        assert_eq!(HEAD.split(',').count(), 25);
    }
}
