"""Makes traces like those of durable-spans, and sends them to a collector.

    python3 traces.py http://127.0.0.1:8790 [TRACES]     # TRACES small ones, and a large one
"""

import json
import random
import sys
import urllib.request
from datetime import datetime, timedelta, timezone

# Straight to the collector on this machine, whatever proxy leads to the internet.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
BATCH = 500


def at(base, ms):
    return (base + timedelta(milliseconds=ms)).isoformat(timespec="microseconds")


class Trace:
    """Spans of one trace, with times in milliseconds after `base`."""

    def __init__(self, trace_id, base, seed=0):
        self.id = trace_id
        self.base = base
        self.spans = []
        self.random = random.Random(seed)

    def span(self, name, parent, start, end, kind=None, **fields):
        span_id = f"{self.random.getrandbits(128):032x}"
        span_id = "-".join([span_id[:8], span_id[8:12], span_id[12:16], span_id[16:20], span_id[20:]])
        metadata = dict(fields.pop("metadata", {}))
        if kind:
            metadata["temporal.kind"] = kind
        span = {
            "name": name,
            "id": fields.pop("id", span_id),
            "trace_id": self.id,
            "start_timestamp": at(self.base, start),
            "input": fields.pop("input", {}),
            "output": fields.pop("output", {}),
            "metadata": metadata,
            "status": fields.pop("status", "SUCCESS"),
            "type": fields.pop("type", "STANDALONE"),
        }
        if end is not None:
            span["end_timestamp"] = at(self.base, max(start, end))
        if parent is not None:
            span["parent_id"] = parent
        span.update(fields)
        self.spans.append(span)
        return span

    def fail(self, span, message, kind="Error"):
        span["status"] = "ERROR"
        span["metadata"].update(error=True, error_type=kind, error_message=message, error_category="application")
        return span

    def run(self, name, parent, start, end, workflow_id, **metadata):
        metadata = {"temporal.workflow_id": workflow_id, "temporal.run_id": f"run-{len(self.spans)}", **metadata}
        return self.span(name, parent, start, end, "workflow", type="AGENT_WORKFLOW", metadata=metadata)

    def activity(self, name, parent, start, end, failures=(), lost=0, queue=3, **fields):
        """An activity whose first attempts left no span or failed; gives the last attempt."""
        activity = self.span(name, parent, start, end, "activity", type="CUSTOM", **fields)
        numbers = lost + len(failures) + 1
        each = (end - start - queue) / numbers
        for index, message in enumerate(failures):
            begin = start + queue + each * (lost + index)
            attempt = self.attempt(name, activity, lost + index + 1, begin, begin + each * 0.5, queue)
            self.fail(attempt, message, "Busy")
        return self.attempt(name, activity, numbers, end - each * 0.9, end - 0.2, queue)

    def attempt(self, name, activity, number, start, end, queue):
        metadata = {"temporal.attempt": number, "temporal.queue_ms": round(queue), "temporal.activity_id": "1"}
        return self.span(name, activity["id"], start, end, "activity_attempt", type="CUSTOM", metadata=metadata)


def research(trace_id, base, sections=3, steps=12, seed=0):
    """A run that continues as new, with children, activities, model calls and all that can go wrong."""
    trace = Trace(trace_id, base, seed)
    rand = trace.random
    t = 0.0
    parent = None
    generations = 2 if sections > 1 else 1
    for generation in range(1, generations + 1):
        first, last = generation == 1, generation == generations
        marks = {}
        if not first:
            marks["temporal.continued"] = True
        if not last:
            marks["temporal.continued_as_new"] = True
        run = trace.run("ResearchPipeline", parent, t, None, "research-7", **marks)
        run["input"] = {"question": "Which suppliers are at risk?", "sections": sections}
        run["metadata"]["tags"] = ["beta", "eu"]
        run["metadata"]["tenant"] = "acme"
        parent = run["id"]
        t += 4
        plan = trace.activity("plan", run["id"], t, t + 240, queue=180 if first else 2)
        model_call(trace, plan["id"], t + 190, t + 230, rand)
        t += 250
        joined = t
        for section in range(sections):
            start = t + section * 3
            call = trace.span("Section", run["id"], start, None, "child_workflow", type="AGENT_WORKFLOW")
            child = trace.run("Section", call["id"], start + 18, None, f"research-7/{generation}.{section}")
            now = start + 22
            for step in range(steps):
                took = rand.uniform(20, 160)
                odd = (section, step) if first else None
                failures = ["search index is busy, try again"] if odd in [(0, 2), (1, 5)] else []
                lost = 1 if odd == (1, 5) else 0
                name = ["search", "read_page", "rank", "summarize"][step % 4]
                if failures:
                    took += 300
                attempt = trace.activity(
                    name, child["id"], now, now + took, failures, lost,
                    queue=rand.choice([1, 2, 4, 60]) if step % 5 == 0 else 2,
                    input={"query": f"supplier {section}-{step}", "limit": 20},
                    output={"hits": rand.randrange(40)},
                )
                if name == "summarize":
                    model_call(trace, attempt["id"], now + took * 0.4, now + took - 1, rand)
                elif name == "rank":
                    for k in range(3):
                        trace.span(f"score batch {k}", attempt["id"], now + took * 0.5 + k, now + took * 0.5 + k + 4, None)
                now += took + 2
            child["end_timestamp"] = at(base, now)
            child["output"] = {"findings": steps}
            call["end_timestamp"] = at(base, now + 6)
            joined = max(joined, now + 8)
        trace.span("approve", run["id"], joined - 120, joined - 118, "signal", type="CUSTOM", input={"by": "ada"})
        t = joined
        if last:
            publish = trace.activity("publish", run["id"], t, t + 140, input={"to": "wiki"})
            trace.fail(publish, "wiki refused the page: 403\n  at publish.rs:41", "Forbidden")
            activity = next(span for span in trace.spans if span["id"] == publish["parent_id"])
            trace.fail(activity, "wiki refused the page: 403\n  at publish.rs:41", "Forbidden")
            stopped = trace.span("notify", run["id"], t + 30, t + 90, "activity", type="CUSTOM", status="CANCELED")
            stopped["input"] = {"text": "x" * 1000 + "… (truncated, 70211 bytes)"}
            stopped["metadata"]["truncated"] = ["input.text"]
            run["metadata"]["durable_spans.dropped"] = {"buffer_full": 11, "rejected": 1}
            t += 150
        run["end_timestamp"] = at(base, t)
        run["output"] = {"pages": sections * generation}
    trace.span("late write", "00000000-0000-4000-8000-00000000dead", t - 200, t - 150, None)
    return trace.spans


def model_call(trace, parent, start, end, rand):
    tokens = {"input_tokens": rand.randrange(300, 4000), "output_tokens": rand.randrange(50, 800)}
    trace.span(
        "chat gpt-x", parent, start, end, None, type="COMPLETION",
        input={"messages": [{"role": "system", "content": "You are a careful analyst."}, {"role": "user", "content": "Sum up the findings about Zürich <b>AG</b>."}], "temperature": 0.1},
        output={"message": {"role": "assistant", "content": "Three suppliers depend on one port. " * 12}},
        metadata={"usage": tokens, "cost_usd": round(sum(tokens.values()) * 3e-6, 6), "model": "gpt-x"},
    )


# Ids that durable-spans gives: an activity, and its second attempt.
ACTIVITY = "098e14d8-7ccb-69fe-aec4-38f118dda4e5"
SECOND_ATTEMPT = "840a76e9-317f-b5f8-da70-0778411ee818"


def agent(trace_id, base):
    """An agent with typed spans: generations, tools, an error with data, and an attempt lost with its worker."""
    trace = Trace(trace_id, base)
    run = trace.run("SupportAgent", None, 0, 2400, "support-12", **{"temporal.namespace": "prod", "tags": ["beta", "eu"]})
    activity = trace.span("answer", run["id"], 10, 2390, "activity", type="AGENT_WORKFLOW", id=ACTIVITY)
    trace.span("load customer", SECOND_ATTEMPT, 420, 480, None, type="CODE_EXECUTION", output={"customer": {"id": 7, "name": "Zoë"}})
    trace.span("think", SECOND_ATTEMPT, 490, 700, None, type="STANDALONE")
    first = trace.attempt("answer", activity, 1, 12, 400, 2)
    trace.fail(first, "the model is overloaded", "Overloaded")
    third = trace.attempt("answer", activity, 3, 900, 2389, 45)
    call = {"id": "c1", "type": "function", "function": {"name": "refund", "arguments": '{"order":17,"amount":12.5}'}}
    openai = {
        "type": "generation", "model": "gpt-x", "model_config": {"temperature": 0.1, "max_tokens": 400},
        "usage": {"input_tokens": 812, "output_tokens": 64, "input_tokens_details": {"cached_tokens": 512}, "cost": 0.0123, "currency": "USD"},
    }
    trace.span(
        "decide", third["id"], 910, 1600, None, type="COMPLETION",
        input={"input": [{"role": "system", "content": "You help customers. <b>Be kind.</b>"}, {"role": "user", "content": [{"type": "text", "text": "My order 17 never came."}]}]},
        output={"output": [{"role": "assistant", "content": None, "tool_calls": [call]}]},
        metadata={
            "openai_metadata": openai, "metrics": {"helpfulness": 0.93, "first_token_ms": 211}, "tags": ["cached"],
            "events": [{"name": "first token", "timestamp": at(base, 1121), "chars": 4}],
        },
    )
    refund = trace.span("refund", third["id"], 1610, 1900, None, type="CODE_EXECUTION", input={"order": 17, "amount": 12.5})
    trace.fail(refund, "the bank refused the refund", "Refused")
    refund["metadata"]["error_data"] = {"code": "limit_exceeded", "limit": 10}
    trace.span("Escalate", run["id"], 2392, 2398, "child_workflow", type="AGENT_WORKFLOW", id="call-1")
    trace.run("Escalate", "call-1", 2394, 2398, "support-12/escalate")
    return trace.spans


def small(trace_id, base, seed, steps=6):
    trace = Trace(trace_id, base, seed)
    rand = trace.random
    name = rand.choice(["Checkout", "Checkout", "Checkout", "Refund", "NightlyReport", "SupportAgent", "Ingest"])
    run = trace.run(name, None, 0, None, f"{name.lower()}-{seed}")
    run["metadata"]["tenant"] = rand.choice(["acme", "globex", "initech"])
    if rand.random() < 0.3:
        run["metadata"]["tags"] = rand.sample(["beta", "canary", "eu", "us"], rand.randrange(1, 3))
    now = 1.0
    for step in range(steps):
        took = rand.expovariate(1 / 80) + 2
        failures = ["connection reset"] if rand.random() < 0.08 else []
        attempt = trace.activity(["load", "charge", "notify", "store"][step % 4], run["id"], now, now + took, failures)
        if name == "SupportAgent":
            model_call(trace, attempt["id"], now + 1, now + took - 0.5, rand)
        now += took + 1
    fate = rand.random()
    if fate < 0.12:
        trace.fail(run, rand.choice(["card declined", "bank is closed", "timed out"]))
    elif fate < 0.17:
        run["status"] = "CANCELED"
    if fate < 0.95:
        run["end_timestamp"] = at(base, now)
    return trace.spans


def send(url, spans, key=None):
    for start in range(0, len(spans), BATCH):
        body = json.dumps({"items": spans[start : start + BATCH]}).encode()
        request = urllib.request.Request(f"{url}/v5/spans/batch", body, {"content-type": "application/json"}, method="PUT")
        if key:
            request.add_header("x-api-key", key)
        with DIRECT.open(request) as response:
            assert response.status == 200


def main():
    url = sys.argv[1]
    traces = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    now = datetime.now(timezone.utc)
    spans = []
    for seed in range(traces):
        base = now - timedelta(seconds=25 * (traces - seed))
        spans += small(f"{random.Random(seed).getrandbits(128):032x}", base, seed)
        if len(spans) > 20_000:
            send(url, spans)
            spans = []
    spans += research("research-small", now - timedelta(seconds=40))
    spans += research("research-large", now - timedelta(seconds=90), sections=12, steps=30, seed=1)
    send(url, spans)


if __name__ == "__main__":
    main()
