"""Opper's client: spans and traces, nested by its own context managers and by hand."""

import os

from opperai import Opper

client = Opper(api_key=os.environ["SGP_API_KEY"], base_url=os.environ["COLLECTOR_URL"])

made = client.spans.create(
    name="direct",
    type="call",
    input='{"a": 1}',
    start_time="2026-11-21T08:00:00+00:00",
    meta={"k": 1},
    metadata={"md": 1},
    tags={"env": "test"},
)
assert made.id and made.trace_id and made.name == "direct" and made.type == "call"
child = client.spans.create(
    name="child",
    trace_id=made.trace_id,
    parent_id=made.id,
    start_time="2026-11-21T08:00:00.5+00:00",
)
assert child.trace_id == made.trace_id and child.parent_id == made.id
client.spans.update(child.id, error="bad", end_time="2026-11-21T08:00:00.75+00:00")
client.spans.update(made.id, output="out", end_time="2026-11-21T08:00:01+00:00", meta={"k": 2})

span = client.spans.get(made.id)
assert (span.input, span.output, span.status) == ('{"a": 1}', "out", "success"), span
assert (span.meta, span.metadata, span.tags) == ({"k": 2}, {"md": 1}, {"env": "test"}), span
failed = client.spans.get(child.id)
assert (failed.error, failed.status) == ("bad", "error"), failed

trace = client.traces.get(made.trace_id)
assert (trace.name, trace.span_count, trace.duration_ms) == ("direct", 2, 1000), trace
assert [span.name for span in trace.spans] == ["direct", "child"]
listed = client.traces.list(limit=10, name="direct").data
assert [one.id for one in listed] == [made.trace_id], listed
assert client.traces.list(offset=1).data == []

with client.trace("outer") as outer:
    with client.trace("inner"):
        pass
assert client.traces.get(outer.trace_id).span_count == 2

client.spans.delete(child.id)
assert client.traces.get(made.trace_id).span_count == 1
client.traces.delete(outer.trace_id)
for gone in (
    lambda: client.traces.get(outer.trace_id),
    lambda: client.spans.get(child.id),
    lambda: client.spans.delete(child.id),
):
    try:
        gone()
    except Exception as error:
        assert "404" in str(error) or getattr(error, "status_code", None) == 404, repr(error)
    else:
        raise AssertionError("it is still there")
print(made.trace_id)
