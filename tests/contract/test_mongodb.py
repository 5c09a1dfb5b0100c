"""What only the shared store has: a server that may be lost, and others that write beside it."""

from __future__ import annotations

import asyncio
import os
import socketserver
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import bson
import pytest
from pymongo.errors import (
    AutoReconnect,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WTimeoutError,
)

from services.execution.stores import COLLECTIONS, LOGS
from services.kit.errors import DomainError, Reason
from services.kit.settings import Settings, SettingsError
from services.kit.storage import mongo_log
from services.kit.storage.mongodb import MongoStore
from services.kit.storage.opening import open_store
from services.kit.storage.ports import (
    Append,
    AtMost,
    Collection,
    ConflictError,
    Document,
    Entry,
    Erase,
    Insert,
    LimitError,
    Query,
    Replace,
)
from services.kit.storage.sqlite import SqliteStore
from tests.contract.sheets import SHEETS
from tests.patience import PATIENCE
from tests.servers import mongo
from tests.servers.mongo import OwnServer

TOLD_WITHIN = 15.0
"""Seconds after which everybody knows that the server is away: more than twice what is promised."""
NOTES = Collection("notes", fields=("state",), unique=("slot",))
EVENTS = "events"
PASSWORD = "s3cret-pass"
DRIVERS: tuple[Literal["motor", "pymongo"], ...] = ("motor", "pymongo")

Open = Callable[[], Awaitable[MongoStore]]


def note(id_: str, state: str = "open") -> Document:
    return Document("acme", id_, 1, {"state": state, "slot": id_})


def entries(after: int, count: int, size: int = 1) -> list[Entry]:
    return [(sequence, b"x" * size, "w") for sequence in range(after + 1, after + count + 1)]


def append(after: int, count: int = 1) -> Append:
    return Append(EVENTS, "acme", "a", after, entries(after, count))


@pytest.fixture
async def another(mongo_url: str) -> AsyncIterator[Open]:
    """Opens the test's database as another process would."""
    async with AsyncExitStack() as stack:

        async def open_() -> MongoStore:
            store = await MongoStore.open(mongo_url, "motor", "test", [NOTES], [EVENTS])
            stack.push_async_callback(store.close)
            return store

        yield open_


@contextmanager
def refusing(code: int) -> Iterator[str]:
    """A server that says who it is and then refuses every command."""
    is_primary = {"ok": 1, "ismaster": True, "maxWireVersion": 21, "minWireVersion": 0}
    refusal = {"ok": 0, "code": code, "errmsg": f"because of {code}"}
    reply, query, message = 1, 2004, 2013

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while header := self.rfile.read(16):
                size, id_, _, kind = struct.unpack("<iiii", header)
                asked = self.rfile.read(size - 16)
                if kind == query:
                    kind, answer = reply, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(is_primary)
                else:
                    first = asked[5 : 5 + int.from_bytes(asked[5:9], "little")]
                    command = next(iter(bson.decode(first)))
                    said = is_primary if command in {"hello", "ismaster"} else refusal
                    kind, answer = message, struct.pack("<ib", 0, 0) + bson.encode(said)
                self.wfile.write(struct.pack("<iiii", 16 + len(answer), 1, id_, kind) + answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class TestLostServer:
    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[OwnServer]:
        with mongo.own(tmp_path) as server:
            yield server

    @pytest.mark.parametrize("driver", DRIVERS)
    async def test_a_lost_server_is_unavailable_soon_and_work_goes_on_when_it_is_back(
        self, server: OwnServer, driver: Literal["motor", "pymongo"]
    ) -> None:
        store = await MongoStore.open(server.url("test"), driver, "test", [NOTES], [EVENTS])
        try:
            await store.write(Insert(NOTES, note("a")), append(0))
            await asyncio.to_thread(server.stop)
            async with asyncio.timeout(TOLD_WITHIN):
                answers = await asyncio.gather(
                    store.write(append(1)),
                    store.get(NOTES, "acme", "a"),
                    store.query(Query(NOTES, "acme")),
                    store.read(EVENTS, "acme", "a", 0, limit=9, max_bytes=9),
                    store.write(AtMost(NOTES, {"state": "open"}, 5)),
                    return_exceptions=True,
                )
            for answer in answers:
                assert isinstance(answer, DomainError)
                assert answer.reason == Reason.REASON_STORE_UNAVAILABLE
                assert answer.retry_after
            # From here on one seeks the server, and nobody else waits for that.
            async with asyncio.timeout(TOLD_WITHIN):
                hundreds = await asyncio.gather(
                    *(store.get(NOTES, "acme", "a") for _ in range(300)), return_exceptions=True
                )
            assert all(isinstance(answer, DomainError) for answer in hundreds)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        await store.write(append(1))
                    except DomainError:
                        await asyncio.sleep(0.01)
                        continue
                    break
            assert await store.get(NOTES, "acme", "a") == note("a")
            read = await store.read(EVENTS, "acme", "a", 0, limit=9, max_bytes=9)
            assert read == entries(0, 2)
        finally:
            await store.close()

    async def test_a_server_that_is_not_there_is_unavailable_at_the_start(
        self, server: OwnServer
    ) -> None:
        await asyncio.to_thread(server.stop)
        with pytest.raises(DomainError) as caught:
            await MongoStore.open(server.url("test"), "motor", "test", [NOTES], [EVENTS])
        assert caught.value.reason == Reason.REASON_STORE_UNAVAILABLE


class TestLogs:
    async def test_a_cursor_may_lie_anywhere_in_what_was_appended_at_once(
        self, another: Open
    ) -> None:
        store = await another()
        await store.write(append(0, 1), append(1, 5), append(6, 3))
        for after in range(10):
            for limit in (1, 2, 4, 100):
                read = await store.read(EVENTS, "acme", "a", after, limit=limit, max_bytes=1000)
                assert read == entries(after, 9 - after)[:limit]
        read = await store.read(EVENTS, "acme", "a", 2, limit=100, max_bytes=6)
        assert read == entries(2, 6)

    async def test_a_page_goes_over_many_appends(self, another: Open) -> None:
        store = await another()
        for after in range(0, 300, 2):
            await store.write(append(after, 2))
        read = await store.read(EVENTS, "acme", "a", 1, limit=250, max_bytes=10_000)
        assert read == entries(1, 250)

    async def test_an_append_after_a_gap_or_into_the_middle_is_a_conflict(
        self, another: Open
    ) -> None:
        one, other = await another(), await another()
        await one.write(append(0, 4))
        for store in (one, other):
            for after in (1, 3, 5, 40):
                with pytest.raises(ConflictError):
                    await store.write(append(after))
        await other.write(append(4))
        with pytest.raises(ConflictError):
            await one.write(append(4, 2))
        assert await one.read(EVENTS, "acme", "a", 0, limit=9, max_bytes=9) == entries(0, 5)

    async def test_of_two_processes_that_append_at_one_place_one_wins(self, another: Open) -> None:
        one, other = await another(), await another()
        for after in range(0, 40, 2):
            answers = await asyncio.gather(
                one.write(append(after, 2)), other.write(append(after, 2)), return_exceptions=True
            )
            assert sorted(str(type(answer)) for answer in answers) == sorted(
                [str(type(None)), str(ConflictError)]
            )
        assert await one.read(EVENTS, "acme", "a", 0, limit=99, max_bytes=99) == entries(0, 40)

    async def test_what_another_process_erased_is_not_gone_on_with(
        self, another: Open, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(mongo_log, "_TRUSTED_SECONDS", 0.0)
        one, other = await another(), await another()
        await one.write(append(0))
        await other.write(Erase(EVENTS, "acme", "a"))
        with pytest.raises(ConflictError):
            await one.write(append(1))
        assert await one.last(EVENTS, "acme", "a") is None

    async def test_appending_nothing_changes_nothing_and_still_tells_a_conflict(
        self, another: Open
    ) -> None:
        store = await another()
        await store.write(append(0, 2), append(2, 0))
        with pytest.raises(ConflictError):
            await store.write(append(1, 0))
        assert await store.last(EVENTS, "acme", "a") == entries(1, 1)[0]


class TestLimits:
    async def test_a_process_never_passes_a_limit_however_many_write_at_once(
        self, another: Open
    ) -> None:
        store = await another()
        most = AtMost(NOTES, {"state": "open"}, 20)
        answers = await asyncio.gather(
            *(store.write(most, Insert(NOTES, note(f"n{number}"))) for number in range(60)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers if answer is not None] == [LimitError] * 40
        assert len(await store.query(Query(NOTES, "acme", limit=100))) == 20

    async def test_processes_pass_a_limit_by_no_more_than_a_part_of_the_room(
        self, another: Open
    ) -> None:
        stores = [await another() for _ in range(3)]
        most = AtMost(NOTES, {"state": "open"}, 24)
        for number in range(40):
            for place, store in enumerate(stores):
                try:
                    await store.write(most, Insert(NOTES, note(f"n{place}-{number}")))
                except LimitError:
                    continue
        found = await stores[0].query(Query(NOTES, "acme", limit=200))
        # Each goes by an eighth of the room that is left, in turns here.
        assert 24 <= len(found) <= 24 + 2 * 3

    async def test_room_that_another_process_makes_is_seen(self, another: Open) -> None:
        one, other = await another(), await another()
        most = AtMost(NOTES, {"state": "open"}, 1)
        await one.write(most, Insert(NOTES, note("a")))
        with pytest.raises(LimitError):
            await other.write(most, Insert(NOTES, note("b")))
        await one.write(Replace(NOTES, note("a", "closed")))
        await other.write(most, Insert(NOTES, note("b")))


class TestSettings:
    @pytest.mark.parametrize(
        "url",
        [
            f"mongodb://user:{PASSWORD}@host:port/x",
            f"mongodb://user:{PASSWORD}@@host/x",
            f"mongodb://user:{PASSWORD}/1@host/x",
            f"mongodb://user:{PASSWORD}@host/x?tls=false&ssl=true",
            f"mongodb+srv://user:{PASSWORD}@host/x",
            f"postgres://user:{PASSWORD}@host/x",
            "mongodb://",
        ],
    )
    @pytest.mark.parametrize("driver", DRIVERS)
    async def test_a_wrong_url_is_told_by_its_setting_and_without_its_password(
        self, tmp_path: Path, url: str, driver: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings = Settings.model_validate(
            {"data_dir": tmp_path, "store_url": url, "store_driver": driver}
        )
        async with AsyncExitStack() as stack:
            with pytest.raises(SettingsError, match="CONDUCTOR_STORE_URL") as caught:
                await open_store(settings, "execution", COLLECTIONS, LOGS, stack)
        assert str(caught.value).endswith(".")
        assert PASSWORD not in str(caught.value) + caplog.text
        assert caught.value.__suppress_context__ or caught.value.__context__ is None

    @pytest.mark.parametrize("driver", DRIVERS)
    @pytest.mark.parametrize(
        ("code", "sentence"),
        [
            (18, "MongoDB refuses its user and password"),
            (13, "MongoDB lets its user not read and write the database"),
            (115, "MongoDB refuses what a store needs: because of 115"),
        ],
    )
    async def test_a_refusal_is_told_by_the_setting_and_without_its_password(
        self,
        driver: Literal["motor", "pymongo"],
        code: int,
        sentence: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        with refusing(code) as address:
            url = f"mongodb://user:{PASSWORD}@{address}/x"
            with pytest.raises(SettingsError) as caught:
                await MongoStore.open(url, driver, "test", [NOTES], [EVENTS])
        assert str(caught.value).startswith(f"CONDUCTOR_STORE_URL: {sentence}")
        assert str(caught.value).endswith(".")
        assert PASSWORD not in str(caught.value) + caplog.text

    @pytest.mark.parametrize(
        ("code", "reason"),
        [(14031, Reason.REASON_STORE_FULL), (50, Reason.REASON_STORE_UNAVAILABLE)],
    )
    async def test_what_may_pass_is_no_fault_of_the_settings(
        self, code: int, reason: Reason.ValueType
    ) -> None:
        with refusing(code) as address, pytest.raises(DomainError) as caught:
            await MongoStore.open(f"mongodb://{address}/x", "motor", "test", [NOTES], [EVENTS])
        assert caught.value.reason == reason

    async def test_no_url_is_the_embedded_store(self, tmp_path: Path) -> None:
        async with AsyncExitStack() as stack:
            settings = Settings(data_dir=tmp_path)
            store = await open_store(settings, "execution", COLLECTIONS, LOGS, stack)
            assert isinstance(store, SqliteStore)

    async def test_a_url_is_the_whole_switch(self, tmp_path: Path, mongo_url: str) -> None:
        async with AsyncExitStack() as stack:
            settings = Settings.model_validate({"data_dir": tmp_path, "store_url": mongo_url})
            store = await open_store(settings, "execution", COLLECTIONS, LOGS, stack)
            assert isinstance(store, MongoStore)
        assert not os.listdir(tmp_path)  # noqa: PTH208 nothing waits in a test

    def test_the_drivers_are_imported_only_for_a_store_on_mongodb(self) -> None:
        program = (
            "import sys, services.execution.app; "
            "print([name for name in ('pymongo', 'bson', 'motor') if name in sys.modules])"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.stdout.strip() == "[]"


class Failing:
    """A collection whose every operation fails in one way."""

    def __init__(self, error: PyMongoError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def fail(*arguments: object, **options: object) -> None:
            raise self._error

        return fail


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AutoReconnect("gone"), Reason.REASON_STORE_UNAVAILABLE),
        (ExecutionTimeout("slow", 50), Reason.REASON_STORE_UNAVAILABLE),
        (WTimeoutError("no majority", 64), Reason.REASON_STORE_UNAVAILABLE),
        (OperationFailure("not primary", 10107), Reason.REASON_STORE_UNAVAILABLE),
        (OperationFailure("out of disk space", 14031), Reason.REASON_STORE_FULL),
        (OperationFailure("database or disk is full", 1), Reason.REASON_STORE_FULL),
    ],
)
async def test_what_the_driver_raises_is_said_in_our_words(
    another: Open, error: PyMongoError, reason: Reason.ValueType
) -> None:
    """What a healthy server cannot be made to say is put into the driver's mouth."""
    store = await another()
    store._collections["notes"]._documents = Failing(error)
    for call in (store.write(Insert(NOTES, note("a"))), store.get(NOTES, "acme", "a")):
        with pytest.raises(DomainError) as caught:
            await call
        assert caught.value.reason == reason
        assert caught.value.retry_after


async def test_a_document_beyond_what_mongodb_takes_is_a_fault_of_the_caller(
    another: Open,
) -> None:
    store = await another()
    huge = Document("acme", "a", 1, {"state": "", "slot": "a"}, {"text": "x" * (17 * 1024 * 1024)})
    with pytest.raises(ValueError, match="16 MiB"):
        await store.write(Insert(NOTES, huge))
    assert await store.get(NOTES, "acme", "a") is None


async def test_two_processes_may_begin_at_one_moment(another: Open) -> None:
    stores = await asyncio.gather(*(another() for _ in range(4)))
    await stores[0].write(Insert(NOTES, note("a")))
    assert await stores[3].get(NOTES, "acme", "a") == note("a")


async def test_what_is_ordered_or_searched_has_an_index_that_begins_with_the_organisation(
    mongo_url: str,
) -> None:
    store = await MongoStore.open(mongo_url, "motor", "test", [SHEETS], [])
    try:
        made = await store._collections["sheets"]._documents.index_information()
        keys = [[name for name, _ in index["key"]] for index in made.values()]
        for needed in (
            ["org", "shelf", "create_time", "id"],
            ["org", "shelf", "name", "id"],
            ["org", "shelf", "touched", "id"],
            ["org", "terms", "create_time", "id"],
        ):
            assert needed in keys
    finally:
        await store.close()
