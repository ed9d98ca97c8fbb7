"""Every method of the official client's spans and span assessments, and every filter of a search."""

import asyncio
from datetime import datetime, timedelta, timezone

from scale_gp_beta import (
    APIStatusError,
    AsyncSGPClient,
    ConflictError,
    NotFoundError,
    SGPClient,
    UnprocessableEntityError,
)

# Address, key and account come from the environment.
client = SGPClient(max_retries=0)
spans = client.spans
START = datetime(2026, 11, 21, 8, 0, 0, tzinfo=timezone.utc)
OBS_TRACE = "0af7651916cd43dd8448eb211c80319c"
OBS_SPAN = "00f067aa0ba902b7"
UUID = "c58c5e1e-bcff-46d8-81c5-4dc1a5fdafea"


def at(seconds):
    return START + timedelta(seconds=seconds)


def refused(kind, call, field=None, code=None):
    """The call must be refused in this way, with the field at fault named."""
    try:
        call()
    except APIStatusError as error:
        assert isinstance(error, kind), repr(error)
        assert field is None or error.body["field"] == field, error.body
        assert code is None or error.status_code == code, error
        return
    raise AssertionError(f"{field} was not refused")


def ids(**search):
    search.setdefault("sort_order", "asc")
    # Iterating follows the pages.
    return " ".join(span.id for span in spans.search(**search))


# Create, retrieve, update.
root = spans.create(
    id="root",
    trace_id="t",
    name="Rank-Documents",
    start_timestamp=START,
    type="AGENT_WORKFLOW",
    group_id="session",
    input={"question": "which card?", "password": "hunter2"},
    metadata={"run": "r-1", "n": 3},
    expected={"answer": 42},
    application_interaction_id="i",
    application_variant_id="v",
)
assert root.id == "root" and root.account_id == "account-1" and root.object == "span"
assert root.input == {"question": "which card?", "password": "[REDACTED:credential]"}
assert root.start_timestamp == START and root.end_timestamp is None
assert spans.retrieve("root") == root
made = spans.create(trace_id="made", name="no id", start_timestamp=START.isoformat())
assert len(made.id) == 36
refused(
    ConflictError,
    lambda: spans.create(id="root", trace_id="t", name="x", start_timestamp=START),
    "id",
)
refused(NotFoundError, lambda: spans.retrieve("nobody"))
refused(NotFoundError, lambda: spans.update("nobody", name="x"))
early = START - timedelta(seconds=1)
refused(
    UnprocessableEntityError, lambda: spans.update("root", end_timestamp=early), "end_timestamp"
)
updated = spans.update(
    "root",
    end_timestamp=at(10),
    status="SUCCESS",
    output={"usage": {"input_tokens": 9, "output_tokens": 1}},
    metadata={"run": "r-1", "n": 3, "done": True},
    name="Rank-Documents",
)
assert updated.end_timestamp == at(10) and updated.expected == {"answer": 42}
assert (updated.input_tokens, updated.output_tokens) == (9, 1)
assert updated.input == root.input and updated.metadata["done"] is True

# Batches.
created = spans.batch(
    items=[
        dict(
            id="failed",
            trace_id="t",
            parent_id="root",
            name="step",
            start_timestamp=at(1),
            end_timestamp=at(1.25),
            status="ERROR",
            obs_trace_id=OBS_TRACE,
            obs_span_id=OBS_SPAN,
            output={"error": "The card was declined, sorry"},
        ),
        dict(
            id="model",
            trace_id="t",
            parent_id="root",
            name="step",
            start_timestamp=at(2),
            end_timestamp=at(2.1),
            status="CANCELED",
            type="COMPLETION",
            metadata={"model": "gpt-4o-mini"},
            input={"text": "café"},
            output={"usage": {"prompt_tokens": 20, "completion_tokens": 5}},
        ),
    ]
)
assert [span.id for span in created.items] == ["failed", "model"]
refused(
    ConflictError,
    lambda: spans.batch(
        items=[
            dict(id="new", trace_id="t", name="x", start_timestamp=START),
            dict(id="failed", trace_id="t", name="x", start_timestamp=START),
        ]
    ),
    "items[1].id",
)
open_span = dict(id="other", trace_id=UUID, name="step", start_timestamp=at(3))
done = {
    **open_span,
    "end_timestamp": at(3.5),
    "metadata": {
        "__acp_type__": "sync",
        "__agent_id__": "7",
        "__agent_name__": "bot",
        "tags": ["x", "y"],
    },
}
assert spans.upsert_batch(items=[open_span]).items[0].end_timestamp is None
assert spans.upsert_batch(items=[done]).items[0].end_timestamp == at(3.5)
kept = spans.upsert_batch(items=[open_span]).items[0]
assert kept.end_timestamp == at(3.5), "what has ended wins"
spans.upsert_batch(items=[dict(id="root", trace_id="u", name="same id", start_timestamp=at(5))])

# What a batch must not hold.
item = dict(trace_id="bad", name="x", start_timestamp=START)
for field, bad, kind, code in [
    ("items[1].end_timestamp", dict(end_timestamp=early), UnprocessableEntityError, 422),
    ("items[1].id", dict(id="x" * 257), UnprocessableEntityError, 422),
    ("items[1].id", dict(id="é" * 200), APIStatusError, 400),
    ("items[1].group_id", dict(group_id="a\0b"), APIStatusError, 400),
    ("items[1].obs_span_id", dict(obs_span_id=OBS_SPAN), UnprocessableEntityError, 422),
    ("items[1].parent_id", dict(parent_id="failed"), ConflictError, 409),
    ("items[1].parent_id", dict(id="own", parent_id="own"), ConflictError, 409),
]:
    for write in (spans.batch, spans.upsert_batch):
        refused(kind, lambda: write(items=[item, {**item, **bad}]), field, code)
for write in (spans.batch, spans.upsert_batch):
    refused(UnprocessableEntityError, lambda: write(items=[item] * 1001), "items")
assert ids(trace_ids=["bad"]) == "", "all of a batch or nothing"

# Every filter.
OWN = ["t", UUID, "u"]
for expected, search in [
    ("root failed model other root", dict(trace_ids=OWN)),
    ("root failed model", dict(trace_ids=["t"])),
    ("root root", dict(span_ids=["root"])),
    ("root", dict(spans=[dict(trace_id="u", span_id="root")])),
    ("failed model", dict(parent_ids=["root"])),
    ("root other root", dict(parents_only=True, trace_ids=OWN)),
    (
        "failed model other root",
        dict(
            excluded_spans=[dict(trace_id="t", span_id="root")],
            excluded_span_ids=["model"],
            trace_ids=OWN,
        ),
    ),
    ("failed model other", dict(excluded_span_ids=["root"], trace_ids=OWN)),
    ("other root", dict(excluded_trace_ids=["t", "made"])),
    ("failed model other", dict(names=["step"])),
    ("failed model", dict(statuses=["ERROR", "CANCELED"])),
    ("root model", dict(types=["AGENT_WORKFLOW", "COMPLETION"])),
    ("root", dict(group_id="session")),
    ("root", dict(application_variant_ids=["v"])),
    ("failed", dict(obs_trace_ids=[OBS_TRACE], obs_span_ids=[OBS_SPAN])),
    ("root failed", dict(min_duration_ms=250, trace_ids=["t"])),
    ("failed model", dict(max_duration_ms=250)),
    ("other", dict(acp_types=["sync"], agentex_agent_ids=["7"], agentex_agent_names=["bot"])),
    ("root", dict(extra_metadata={"run": ["r-0", "r-1"], "n": 3})),
    ("model other", dict(extra_metadata={"$or": [{"model": "gpt-4o-mini"}, {"tags": ["x", "y"]}]})),
    ("failed", dict(search_texts=["CARD was", "sorry"])),
    ("root failed", dict(search_texts=["card"])),
    ("model", dict(search_texts=["pt-4o-m", "afé"])),
    ("root", dict(search_texts=["ank-doc"])),
    ("other", dict(search_texts=[UUID])),
    ("", dict(search_texts=['"card declined"'])),
    ("model other", dict(from_ts=at(2), to_ts=at(3))),
]:
    found = ids(**search)
    assert found == expected, (search, found)
for field, search in [
    ("search_texts", dict(search_texts=["ab"] * 11)),
    ("search_texts[0]", dict(search_texts=["x"])),
    ("from_ts", dict(from_ts=at(1), to_ts=START)),
    ("trace_ids", dict(trace_ids=["x"] * 6000, span_ids=["y"] * 4001)),
    ("obs_trace_ids[0]", dict(obs_trace_ids=["X"])),
    ("sort_by", dict(sort_by="name")),
]:
    refused(UnprocessableEntityError, lambda: spans.search(**search), field)

# Orders and pages.
assert (
    ids(sort_by="duration_ms", sort_order="desc", trace_ids=OWN) == "root other failed model root"
)
assert ids(sort_by="input_tokens", sort_order="desc", trace_ids=["t"]) == "model root failed"
assert ids(sort_by="output_tokens", trace_ids=["t"]) == "failed root model"
spans.upsert_batch(
    items=[
        dict(id=f"{n:03}", trace_id="many", name="n", start_timestamp=at(n % 7)) for n in range(250)
    ]
)
expected = sorted(range(250), key=lambda n: (n % 7, f"{n:03}"))
assert ids(trace_ids=["many"], limit=40) == " ".join(f"{n:03}" for n in expected), "ties by id"
page = spans.search(trace_ids=["many"], sort_order="asc", limit=40, ending_before="003")
assert [span.id for span in page.items] == [
    f"{n:03}" for n in expected[expected.index(3) - 40 : expected.index(3)]
]
assert page.has_more
back = [span.id for span in page.items]
while page.has_more:
    page = page.get_next_page()
    back = [span.id for span in page.items] + back
assert back == [f"{n:03}" for n in expected[: expected.index(3)]]
partial = spans.search(trace_ids=["many"], limit=10, allow_partial_results=True)
assert len(partial.items) == 10 and partial.has_more and partial.next_cursor

# Assessments.
assess = client.span_assessments
rating = assess.create(assessment_type="rating", trace_id="t", rating=4, comment="good")
assert (
    rating.span_id == "root"
    and rating.account_id == "account-1"
    and rating.object == "span.assessment"
)
assert assess.retrieve(rating.assessment_id) == rating
overwrite = assess.create(
    assessment_type="overwrite", trace_id="t", span_id="model", overwrite={"a": 1}
)
refused(
    ConflictError,
    lambda: assess.create(
        assessment_type="overwrite", trace_id="t", span_id="model", overwrite={"a": 2}
    ),
    code=409,
)
refused(
    NotFoundError,
    lambda: assess.create(assessment_type="comment", comment="x", trace_id="t", span_id="other"),
)
refused(
    UnprocessableEntityError,
    lambda: assess.create(assessment_type="approval", trace_id="t"),
    "approval",
)
refused(APIStatusError, lambda: list(assess.list()), code=400)
assert [one.assessment_id for one in assess.list(trace_id="t")] == [
    rating.assessment_id,
    overwrite.assessment_id,
]
assert [one.assessment_id for one in assess.list(span_id="root", assessment_type="rating")] == [
    rating.assessment_id
]
assert ids(assessment_types=["rating", "overwrite"]) == "root model"
changed = assess.update(rating.assessment_id, rating=5)
assert changed.rating == 5 and changed.comment == "good" and changed.updated_at >= rating.updated_at
refused(
    UnprocessableEntityError,
    lambda: assess.update(rating.assessment_id, approval="approved"),
    "approval",
)
assert assess.delete(rating.assessment_id).deleted
refused(NotFoundError, lambda: assess.retrieve(rating.assessment_id))


async def the_async_client_does_the_same():
    async with AsyncSGPClient(max_retries=0) as client:
        return [
            span.id
            async for span in client.spans.search(trace_ids=["t"], sort_order="asc", limit=1)
        ]


assert asyncio.run(the_async_client_does_the_same()) == ["root", "failed", "model"]

# Keys.
refused(
    APIStatusError,
    lambda: SGPClient(api_key="wrong", max_retries=0).spans.search(),
    "x-api-key",
    401,
)
