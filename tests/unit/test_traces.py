"""Spans before anybody sends them: what belongs to what, and what is left out."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import aclosing

import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality, HistogramDataPoint

from services.execution.adapters.traces import TracedWork
from services.execution.domain import Execution
from services.execution.stores import COLLECTIONS
from services.kit import call, tracing
from services.kit.errors import DomainError
from services.kit.logs import JsonFormatter
from services.kit.otlp.metrics import Distribution
from services.kit.storage.ports import (
    Append,
    Collection,
    ConflictError,
    Document,
    Insert,
    Query,
    store_unavailable,
)
from services.kit.storage.traced import TracedStore
from services.kit.tracing import Kind, Span, SpanContext
from tests.fakes.house import House, house_at_work, words
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.tracer import Spans
from tests.fakes.virtual import in_virtual_time

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
THINGS = Collection("things", fields=("colour",), unique=("name",))
RUN = "invoke_agent default"


def entered(spans: Spans) -> Span:
    """Make a span current in the test."""
    span = spans.begin("test", Kind.SERVER, TRACE, None, {})
    assert span is not None
    tracing.enter(span)
    return span


def store(spans: Spans, *, reads_by_key: bool = True) -> TracedStore:
    memory = MemoryStore(Memory(), [THINGS])
    return TracedStore(memory, spans, "sqlite", "test", reads_by_key=reads_by_key)


def thing(id_: str) -> Document:
    return Document("acme", id_, 1, {"colour": "blue", "name": id_})


@pytest.mark.parametrize(
    ("traceparent", "sampled"),
    [
        (f"00-{TRACE}-{CALLER}-01", True),
        (f"00-{TRACE}-{CALLER}-00", False),
        (f"00-{TRACE}-{CALLER}-03", True),
        (f"cc-{TRACE}-{CALLER}-01-what-will-be", True),
        (f"00-{TRACE}-{CALLER}-01-more", None),
        (f"ff-{TRACE}-{CALLER}-01", None),
        (f"00-{'0' * 32}-{CALLER}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE.upper()}-{CALLER}-01", None),
        (f"00-{TRACE}-{CALLER}-01\n", None),
        ("", None),
    ],
)
def test_a_traceparent_is_read_as_w3c_has_it(traceparent: str, sampled: bool | None) -> None:
    expected = None if sampled is None else SpanContext(TRACE, CALLER, sampled)
    assert SpanContext.read(traceparent) == expected


async def test_a_call_without_a_valid_traceparent_gets_a_trace_of_its_own() -> None:
    served = call.begin("/a.B/C", {"traceparent": f"00-{'0' * 32}-{CALLER}-01"})
    assert served.parent is None
    assert len(served.trace_id) == 32
    assert served.trace_id.strip("0")


async def test_every_operation_for_a_call_is_a_span_of_it() -> None:
    spans = Spans()
    one, parent = store(spans), entered(spans)
    await one.write(Insert(THINGS, thing("a")), Append("log", "acme", "a", 0, [(1, b"x", "")]))
    await one.get(THINGS, "acme", "a")
    await one.version(THINGS, "acme", "a")
    await one.find(THINGS, "acme", "name", "a")
    await one.query(Query(THINGS, "acme"))
    await one.read("log", "acme", "a", 0, limit=1, max_bytes=1)
    await one.last("log", "acme", "a")
    assert spans.names() == [
        "write things",
        "get things",
        "version things",
        "find things",
        "query things",
        "read log",
        "last log",
    ]
    assert {span.parent for span in spans.ended} == {parent.context}
    assert spans.ended[0].attributes == {
        "db.system.name": "sqlite",
        "db.namespace": "test",
        "db.operation.name": "write",
        "db.collection.name": "things",
        "db.operation.batch.size": 2,
    }


async def test_what_is_done_for_no_call_is_no_span() -> None:
    spans = Spans()
    one = store(spans)
    await one.write(Insert(THINGS, thing("a")))
    await one.query(Query(THINGS, None))
    assert spans.ended == []


async def test_reads_by_key_of_a_file_are_no_spans() -> None:
    spans = Spans()
    one = store(spans, reads_by_key=False)
    entered(spans)
    await one.get(THINGS, "acme", "a")
    await one.read("log", "acme", "a", 0, limit=1, max_bytes=1)
    await one.query(Query(THINGS, "acme"))
    assert spans.names() == ["query things"]


async def test_of_very_many_operations_the_first_are_told_of_and_the_others_counted() -> None:
    spans = Spans()
    one, parent = store(spans), entered(spans)
    for _ in range(130):
        await one.get(THINGS, "acme", "a")
    assert len(spans.ended) == 100
    assert parent.untold == 30


async def test_a_conflict_is_named_and_no_error_and_a_lost_store_is_one() -> None:
    class Lost(MemoryStore):
        async def get(self, *_: object) -> Document | None:
            raise store_unavailable()

    spans = Spans()
    one = TracedStore(Lost(Memory(), [THINGS]), spans, "sqlite", "test", reads_by_key=True)
    entered(spans)
    with pytest.raises(ConflictError):
        await one.write(Append("log", "acme", "a", 5, [(6, b"x", "")]))
    with pytest.raises(DomainError):
        await one.get(THINGS, "acme", "a")
    conflict, lost = spans.ended
    assert conflict.attributes["conductor.store.refused"] == "conflict"
    assert not conflict.failed
    assert lost.attributes["error.type"] == "STORE_UNAVAILABLE"
    assert lost.failed


async def submitted(house: House, spans: Spans) -> Execution:
    """Start a run in a call of its own, which has a span."""

    async def serve() -> Execution:
        served = call.begin("/a.B/C", {"traceparent": f"00-{TRACE}-{CALLER}-01"})
        served.span = entered(spans)
        return await house.start()

    return await asyncio.create_task(serve())


@in_virtual_time
async def test_a_run_belongs_to_the_call_that_started_it() -> None:
    spans = Spans()
    async with house_at_work({"m": words("one")}, traces=TracedWork(spans)) as house:
        run = await submitted(house, spans)
        await house.end_of(run)
        await asyncio.sleep(1)
    chat, agent = spans.ended
    origin = SpanContext.read(run.traceparent)
    assert (agent.name, agent.trace_id, agent.parent) == (RUN, TRACE, origin)
    assert agent.attributes["conductor.run.resumed"] is False
    assert (chat.name, chat.parent) == ("chat m", agent.context)


@in_virtual_time
async def test_a_run_handed_back_goes_on_in_a_trace_that_links_to_its_beginning() -> None:
    spans = Spans()
    async with house_at_work(
        {"m": words("one", "two", every=5)}, traces=TracedWork(spans)
    ) as house:
        run = await submitted(house, spans)
        await asyncio.sleep(6)
    async with house.beside().working():
        await house.end_of(run)
        await asyncio.sleep(1)
    first, second = (span for span in spans.ended if span.name == RUN)
    assert first.trace_id == TRACE
    assert first.attributes["conductor.run.left"] == "hand_back"
    assert first.attributes["conductor.run.state"] == "RUNNING"
    assert second.trace_id != TRACE
    assert second.parent is None
    assert second.links == [SpanContext.read(run.traceparent)]
    assert second.attributes["conductor.run.resumed"] is True
    assert second.attributes["conductor.run.state"] == "SUCCEEDED"
    assert "conductor.run.left" not in second.attributes


@in_virtual_time
async def test_a_run_whose_caller_is_not_sampled_is_not_told_of() -> None:
    spans = Spans()

    async def serve() -> Execution:
        call.begin("/a.B/C", {"traceparent": f"00-{TRACE}-{CALLER}-00"})
        return await house.start()

    async with house_at_work({"m": words("one")}, traces=TracedWork(spans)) as house:
        run = await asyncio.create_task(serve())
        await house.end_of(run)
    assert run.traceparent == f"00-{TRACE}-{CALLER}-00"
    assert spans.ended == []


@in_virtual_time
async def test_what_a_live_feed_reads_belongs_to_no_watcher() -> None:
    spans = Spans()
    memory = MemoryStore(Memory(), COLLECTIONS)
    store = TracedStore(memory, spans, "mongodb", "test", reads_by_key=True)
    slow = {"m": words(*(str(number) for number in range(50)), every=10)}

    async def watch(run: Execution) -> int:
        entered(spans)
        opened = await house.watches.open(run.org, run.id, 0)
        async with aclosing(opened.pages) as pages:
            return sum([1 async for page in pages if page])

    async with house_at_work(slow, store=store) as house:
        run = await house.start()
        pages = await asyncio.create_task(watch(run))
    assert pages > 50
    # Of five hundred seconds, in each of which the feed has looked.
    assert len(spans.ended) < 10


async def test_a_log_line_of_a_run_carries_the_ids_of_its_span() -> None:
    span = entered(Spans())
    record = logging.LogRecord("test", logging.INFO, "", 0, "said", (), None)
    line = json.loads(JsonFormatter().format(record))
    assert (line["trace_id"], line["span_id"]) == (TRACE, span.span_id)


def point(one: Distribution, temporality: AggregationTemporality) -> HistogramDataPoint:
    """The one series there is."""
    metric = one.read(temporality)
    assert metric is not None
    (found,) = metric.data.data_points
    assert isinstance(found, HistogramDataPoint)
    return found


def test_a_histogram_counts_up_to_and_with_each_bound() -> None:
    one = Distribution("test", "s", "A test.", (1.0, 2.0))
    assert one.read(AggregationTemporality.CUMULATIVE) is None
    for value in (0.5, 1.0, 1.5, 7.0):
        one.record(value, {"a": "b"})
    told = point(one, AggregationTemporality.CUMULATIVE)
    assert (told.bucket_counts, told.count, told.sum) == ((2, 1, 1), 4, 10.0)
    assert (told.min, told.max) == (0.5, 7.0)
    one.record(1.0, {"a": "b"})
    assert point(one, AggregationTemporality.CUMULATIVE).count == 5


def test_a_histogram_of_differences_begins_anew_with_each_report() -> None:
    one = Distribution("test", "s", "A test.", (1.0,))
    one.record(0.5, {})
    before = point(one, AggregationTemporality.DELTA)
    assert one.read(AggregationTemporality.DELTA) is None
    one.record(0.5, {})
    after = point(one, AggregationTemporality.DELTA)
    assert after.count == 1
    assert after.start_time_unix_nano >= before.time_unix_nano
