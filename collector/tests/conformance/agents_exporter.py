"""An agent of the OpenAI Agents SDK, traced by the SDK's own exporter to OpenAI."""

import os

from agents import function_span, trace
from agents.tracing import set_trace_processors
from agents.tracing.processors import BackendSpanExporter, BatchTraceProcessor

import scripted_agent

exporter = BackendSpanExporter(
    api_key=os.environ["SGP_API_KEY"],
    endpoint=os.environ["COLLECTOR_URL"] + "/v1/traces/ingest",
)
processor = BatchTraceProcessor(exporter)
set_trace_processors([processor])
scripted_agent.run()
# In two requests, and with an error.
with trace("manual", trace_id="trace_" + "0" * 31 + "2", group_id="g", metadata={"k": "v"}):
    with function_span("first", input="plain", output='{"b": 2}'):
        pass
    processor.force_flush()
    with function_span("second") as span:
        span.set_error({"message": "tool failed", "data": {"code": 5}})
processor.force_flush()
processor.shutdown()
