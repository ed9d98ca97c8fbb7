"""Spans as fast as scale-gp-beta takes them: throughput.py (direct | library) SINK COUNT.

Prints the seconds until all were sent; the sink knows how many arrived.
"""

import sys
import time
import uuid
from datetime import datetime, timezone

import spans
from scale_gp_beta import SGPClient


def direct(client, count):
    for first in range(0, count, 500):
        items = [item(number) for number in range(first, min(first + 500, count))]
        client.spans.upsert_batch(items=items)


TRACE = str(uuid.uuid4())
ROOT = str(uuid.uuid4())


def item(number):
    now = datetime.now(timezone.utc).isoformat(timespec="microseconds")
    return {
        "name": spans.NAME,
        "id": str(uuid.uuid4()),
        "trace_id": TRACE,
        "start_timestamp": now,
        "end_timestamp": now,
        "input": {"document": spans.text(number)},
        "output": {},
        "metadata": {},
        "status": "SUCCESS",
        "type": "CUSTOM",
        "parent_id": ROOT,
    }


def library(client, count):
    from scale_gp_beta.lib import tracing

    tracing.init(client)
    for number in range(count):
        with tracing.create_span(spans.NAME, input={"document": spans.text(number)}, trace_id=TRACE):
            pass
    tracing.flush_queue()


mode, sink, count = sys.argv[1:]
client = SGPClient(api_key="key", account_id="account", base_url=sink)
began = time.perf_counter()
{"direct": direct, "library": library}[mode](client, int(count))
print(time.perf_counter() - began, flush=True)
