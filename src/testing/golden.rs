use std::{env, fs, io, path::Path};

use super::{AsTrace, Trace, compare, expected::parse, line::Line};

/// Set to rewrite golden traces.
const UPDATE: &str = "UPDATE_GOLDEN";

/// Asserts that a trace is the one in a file: its tree, line by line, with the data that
/// [`Trace::show`] asks for. Ids and times are not in it, so it is the same live, after restarts
/// of the worker and in replay ([`Trace::without_attempts`] of a live one).
///
/// With the environment variable `UPDATE_GOLDEN` set, to anything but nothing or `0`, the file is
/// written instead, its folder too. A relative path is taken from the current folder, which under
/// `cargo test` is the one of the package's `Cargo.toml`.
///
/// ```
/// use durable_spans::{MemorySink, DurableSpans, testing::{Trace, assert_golden_trace}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let folder = tempfile::tempdir().unwrap();
/// # let golden = folder.path().join("greeting.txt");
/// # std::fs::write(&golden, "greet SUCCESS input.name=\"Ada\"\n").unwrap();
///
/// let sink = MemorySink::new();
/// DurableSpans::new(sink.clone()).trace("greet").input("name", "Ada").start().end();
/// let trace = Trace::complete(&sink, std::time::Duration::from_secs(5)).await;
/// // greet SUCCESS input.name="Ada"
/// assert_golden_trace(golden, trace.show("input.name"));
/// # }
/// ```
///
/// # Panics
///
/// When the trace is another one, with what differs, line by line. When the file cannot be read or
/// written.
#[track_caller]
pub fn assert_golden_trace(path: impl AsRef<Path>, trace: impl AsTrace) {
    let update = env::var(UPDATE).is_ok_and(|value| !["", "0"].contains(&value.trim()));
    if let Err(report) = check(path.as_ref(), &trace.as_trace(), update) {
        panic!("{report}");
    }
}

fn check(path: &Path, trace: &Trace, update: bool) -> Result<(), String> {
    let shown = path.display();
    if update {
        return write(path, trace).map_err(|error| format!("{shown} cannot be written: {error}"));
    }
    let golden = fs::read_to_string(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            format!("{shown} does not exist: set {UPDATE}=1 to make it, of this trace:\n{trace}")
        }
        _ => format!("{shown} cannot be read: {error}"),
    })?;
    let expected = parse(&golden).map_err(|error| format!("{shown} is no tree: {error}"))?;
    let rows = trace.rows();
    let line = |j: usize| Line::of(&rows[j]).short(trace.fields());
    let lines: Vec<String> = (0..rows.len()).map(line).collect();
    let depths: Vec<usize> = rows.iter().map(|row| row.depth).collect();
    let steps = compare::compare(&expected, &depths, |i, j| expected[i].text == lines[j]);
    let report = compare::report(&steps, &expected, |j| (depths[j], lines[j].clone()));
    report.map_or(Ok(()), |report| {
        Err(format!(
            "the trace is not the one in {shown} (- expected, + recorded); set {UPDATE}=1 if it \
             shall be:\n{report}"
        ))
    })
}

fn write(path: &Path, trace: &Trace) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, trace.to_string())
}

#[cfg(test)]
mod tests {
    use durable_spans_model::{Span, SpanType, Timestamp};

    use super::*;

    fn trace(span_type: SpanType) -> Trace {
        let at = Timestamp::from_unix_ns(0);
        let mut span = Span::new("t".parse().unwrap(), "a".parse().unwrap(), "pay", at);
        span.span_type = span_type;
        [span].into_iter().collect()
    }

    #[test]
    fn a_golden_trace_is_written_on_demand_and_holds_until_the_trace_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("golden/pay.txt");
        let check = |span_type, update| check(&path, &trace(span_type), update);
        let missing = check(SpanType::Custom, false).unwrap_err();
        assert!(missing.contains("UPDATE_GOLDEN=1") && missing.ends_with("pay CUSTOM open\n"));
        check(SpanType::Custom, true).unwrap();
        check(SpanType::Custom, false).unwrap();
        let other = check(SpanType::Standalone, false).unwrap_err();
        assert!(other.ends_with(":\n- pay CUSTOM open\n+ pay open\n"), "{other}");
        // Every column counts, unlike in `assert_trace!`: what is left out is not there.
        check(SpanType::Standalone, true).unwrap();
        let other = check(SpanType::Custom, false).unwrap_err();
        assert!(other.ends_with(":\n- pay open\n+ pay CUSTOM open\n"), "{other}");
        // As a checkout on Windows may have it.
        fs::write(&path, "pay CUSTOM open\r\n").unwrap();
        check(SpanType::Custom, false).unwrap();
    }
}
