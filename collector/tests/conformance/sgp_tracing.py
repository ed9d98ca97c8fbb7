"""The tracing library of the official client: nested spans, an error, many spans at once."""

import scale_gp_beta.lib.tracing as tracing
from scale_gp_beta import SGPClient

tracing.init(client=SGPClient())
with tracing.create_trace("agent", trace_id="traced", group_id="session", metadata={"run": "r-1"}):
    with tracing.create_span("think", span_type="COMPLETION", input={"question": "why"}) as span:
        span.output = {"answer": 42}
    try:
        with tracing.create_span("act", span_type="CODE_EXECUTION"):
            raise ValueError("the tool is broken")
    except ValueError:
        pass
with tracing.create_trace("many", trace_id="many"):
    for n in range(1000):
        with tracing.create_span(f"step {n}"):
            pass
        if n % 100 == 99:
            # Its queue drops what does not fit.
            tracing.flush_queue()
tracing.flush_queue()
