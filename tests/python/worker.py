"""A worker in Python whose spans come from scale-gp-beta: trace_id and parent_span_id are plain inputs.

Prints "ready" when it works, and ends with its standard input.
"""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    import scale_gp_beta.lib.tracing as tracing
    from scale_gp_beta import SGPClient

SOON = timedelta(seconds=20)


@activity.defn
def py_answer(request: dict) -> str:
    """Called by a workflow in Rust, which passes the context of its current span."""
    context = request["trace_context"]
    trace_id = context["trace_id"]
    with tracing.create_span(
        "python answers", trace_id=trace_id, parent_id=context["span_id"], input={"q": request["question"]}
    ) as span:
        # The parent comes from the scope; the trace would only where create_trace began it.
        with tracing.create_span("python looks up", trace_id=trace_id):
            pass
        span.output = {"answer": 42}
    tracing.flush_queue()
    return "42"


@activity.defn
def py_record(span: dict) -> None:
    """Records a span of the workflow below, which must do no I/O itself."""
    with tracing.create_span(**span):
        pass
    tracing.flush_queue()


@workflow.defn
class PyPipeline:
    """Runs a child workflow and an activity in Rust under a span of its own."""

    @workflow.run
    async def run(self, request: dict) -> str:
        trace_id, span_id = request["trace_id"], str(workflow.uuid4())
        span = {"name": "python pipeline", "trace_id": trace_id, "span_id": span_id}
        await workflow.execute_activity(py_record, span, start_to_close_timeout=SOON)
        child = await workflow.execute_child_workflow(
            "RustStep",
            {"question": "why", "trace_id": trace_id, "parent_span_id": span_id},
            task_queue=request["rust_queue"],
            result_type=str,
        )
        measured = await workflow.execute_activity(
            "rust_measure",
            {"trace_context": {"trace_id": trace_id, "parent_span_id": span_id}},
            task_queue=request["rust_queue"],
            start_to_close_timeout=SOON,
            result_type=str,
        )
        step = {"name": "python step", "trace_id": trace_id, "parent_id": span_id}
        await workflow.execute_activity(py_record, step, start_to_close_timeout=SOON)
        return f"{child} {measured}"


async def main() -> None:
    tracing.init(client=SGPClient())
    # Without the scheme of the URL.
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"].split("://")[-1])
    with ThreadPoolExecutor(4) as threads:
        async with Worker(
            client,
            task_queue=os.environ["TASK_QUEUE"],
            workflows=[PyPipeline],
            activities=[py_answer, py_record],
            activity_executor=threads,
        ):
            print("ready", flush=True)
            await asyncio.to_thread(sys.stdin.read)


# Temporal's sandbox imports this file again.
if __name__ == "__main__":
    asyncio.run(main())
