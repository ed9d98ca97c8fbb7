"""A worker until its standard input ends: worker.py (seed | untraced | opentelemetry) JOB."""

import asyncio
import json
import os
import resource
import sys
import threading

import opentelemetry.trace
from temporalio.client import Client
from temporalio.worker import Worker


def answer():
    for _ in sys.stdin:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        cpu_us = round((usage.ru_utime + usage.ru_stime) * 1e6)
        print(json.dumps({"cpu_us": cpu_us}), flush=True)
    os._exit(0)


def opentelemetry_plugin(sink):
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from temporalio.contrib.opentelemetry import OpenTelemetryPlugin, create_tracer_provider

    provider = create_tracer_provider()
    exporter = OTLPSpanExporter(endpoint=f"{sink}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    opentelemetry.trace.set_tracer_provider(provider)
    return OpenTelemetryPlugin(add_temporal_spans=True)


async def main(mode, job):
    threading.Thread(target=answer, daemon=True).start()
    os.environ["BENCH_SINK"] = job["sink"] or ""
    plugins = [opentelemetry_plugin(job["sink"])] if mode == "opentelemetry" else []
    client = await Client.connect(job["server"].removeprefix("http://"), plugins=plugins)
    from flush import flush_spans
    from workflows import Buffered, Steps, Untraced, work

    worker = Worker(
        client,
        task_queue=job["queue"],
        workflows=[Buffered if mode == "seed" else Untraced, Steps],
        activities=[flush_spans, work],
    )
    await worker.run()


asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
