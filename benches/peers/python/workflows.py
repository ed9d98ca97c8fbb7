"""The workflows in Python: buffered by the guide's pattern, or traced by nobody."""

from datetime import timedelta

from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    import asyncio
    import spans
    from flush import flush_spans

# As the guide has it.
THRESHOLD = 200


class Buffer:
    """Buffer in workflow state, flush by an activity."""

    def __init__(self):
        self.trace_id = str(workflow.uuid4())
        self.items = []

    def start(self, name, kind, parent=None, **values):
        item = {
            "name": name,
            "id": str(workflow.uuid4()),
            "trace_id": self.trace_id,
            "start_timestamp": workflow.now().isoformat(timespec="microseconds"),
            "input": values,
            "output": {},
            "metadata": {},
            "status": "SUCCESS",
            "type": kind,
        }
        if parent is not None:
            item["parent_id"] = parent["id"]
        return item

    async def end(self, item):
        item["end_timestamp"] = workflow.now().isoformat(timespec="microseconds")
        self.items.append(item)
        if len(self.items) >= THRESHOLD:
            await self.flush()

    async def flush(self):
        items, self.items = self.items, []
        if items:
            timeout = timedelta(seconds=30)
            await workflow.execute_activity(flush_spans, items, start_to_close_timeout=timeout)


@workflow.defn(name="Spans")
class Buffered:
    @workflow.run
    async def run(self, count: int) -> None:
        buffer = Buffer()
        root = buffer.start("Spans", "AGENT_WORKFLOW")
        for number in range(count):
            item = buffer.start(spans.NAME, "CUSTOM", root, document=spans.text(number))
            await buffer.end(item)
        await buffer.end(root)
        await buffer.flush()


@workflow.defn(name="Spans")
class Untraced:
    @workflow.run
    async def run(self, count: int) -> None:
        for number in range(count):
            spans.text(number)


@workflow.defn(name="Steps")
class Steps:
    @workflow.run
    async def run(self, steps: int) -> None:
        timeout = timedelta(seconds=10)
        for step in range(steps):
            await workflow.execute_activity(work, step, start_to_close_timeout=timeout)


@activity.defn
async def work(step: int) -> int:
    await asyncio.sleep(0.1)
    return step
