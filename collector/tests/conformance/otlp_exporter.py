"""OpenTelemetry's own SDK and exporter: nested spans, an error, a model call, an event and a link."""

import os

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator


class TraceOne(RandomIdGenerator):
    """The first trace has an id that the test knows."""

    first = True

    def generate_trace_id(self):
        if self.first:
            self.first = False
            return 1
        return super().generate_trace_id()


exporter = OTLPSpanExporter(
    endpoint=os.environ["COLLECTOR_URL"] + "/v1/traces",
    headers={"x-api-key": os.environ["SGP_API_KEY"]},
    compression=Compression.Gzip,
)
provider = TracerProvider(
    resource=Resource.create({"service.name": "shop"}), id_generator=TraceOne()
)
provider.add_span_processor(BatchSpanProcessor(exporter))
tracer = provider.get_tracer("shop.orders", "1.2.3")

with tracer.start_as_current_span("order", attributes={"session.id": "chat-1", "items": [1, 2]}):
    with tracer.start_as_current_span("chat gpt", kind=trace.SpanKind.CLIENT) as span:
        span.set_attributes(
            {
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": "gpt",
                "gen_ai.usage.input_tokens": 7,
                "gen_ai.usage.output_tokens": 3,
                "gen_ai.input.messages": '[{"role": "user", "content": "hi"}]',
                "gen_ai.output.messages": '[{"role": "assistant", "content": "yo"}]',
                "api_key": "hunter2",
            }
        )
        span.add_event("first token", {"after_ms": 12.5})
    try:
        with tracer.start_as_current_span("charge"):
            raise ValueError("card declined")
    except ValueError:
        pass
    with tracer.start_as_current_span("ship", links=[trace.Link(span.get_span_context())]):
        pass
with tracer.start_as_current_span("GET /", kind=trace.SpanKind.CLIENT):
    pass
assert provider.force_flush()
provider.shutdown()
