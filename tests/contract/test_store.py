"""What `services.kit.storage.ports.Store` promises, over every adapter."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from services.kit.errors import DomainError, Reason
from services.kit.storage.ports import (
    Append,
    AtMost,
    Collection,
    ConflictError,
    Delete,
    Document,
    DuplicateError,
    Entry,
    Erase,
    Insert,
    LimitError,
    Query,
    Replace,
    Store,
    UnreadableStoreError,
)
from tests.contract.conftest import COLLECTIONS, OpenStore
from tests.contract.sheets import SHEETS, expected, queries, read, sheet, shelves
from tests.patience import PATIENCE

RUNS, LEASES = COLLECTIONS
MEBIBYTE = 1024 * 1024
UNICODE = "π 𝄞 \u0000 \u2028 \"\\' ; DROP TABLE runs -- ﷽ e\u0301"


def run(id_: str = "a", org: str = "acme", **changes: Any) -> Document:
    fields = {"state": "QUEUED", "agent": "default", "request_key": f"{org}/{id_}"}
    fields |= changes.pop("fields", {})
    return Document(org, id_, changes.pop("create_time", 1000), fields, **changes)


def entries(after: int, *payloads: bytes) -> list[Entry]:
    return [(sequence, payload, "w") for sequence, payload in enumerate(payloads, after + 1)]


def append(after: int, *payloads: bytes, stream: str = "a", org: str = "acme") -> Append:
    return Append("events", org, stream, after, entries(after, *payloads))


async def log(
    store: Store, stream: str = "a", org: str = "acme", name: str = "events"
) -> list[int]:
    read = await store.read(name, org, stream, 0, limit=100_000, max_bytes=2**40)
    return [sequence for sequence, _, _ in read]


async def page(store: Store, **conditions: Any) -> list[str]:
    query = Query(RUNS, conditions.pop("org", "acme"), **conditions)
    return [document.id for document in await store.query(query)]


class TestDocuments:
    @pytest.mark.both_drivers
    async def test_a_document_is_read_as_it_was_inserted(self, store: Store) -> None:
        document = run(body={"text": UNICODE, "list": [1, None, {"deep": True}], "float": 1.5})
        await store.write(Insert(RUNS, document))
        assert await store.get(RUNS, "acme", "a") == document
        assert await store.version(RUNS, "acme", "a") == 1

    async def test_what_is_not_there_is_none(self, store: Store) -> None:
        assert await store.get(RUNS, "acme", "a") is None
        assert await store.version(RUNS, "acme", "a") is None
        assert await store.query(Query(RUNS, "acme")) == []

    async def test_the_same_id_in_two_organisations_is_two_documents(self, store: Store) -> None:
        await store.write(Insert(RUNS, run(org="acme", body={"n": 1})))
        await store.write(Insert(RUNS, run(org="umbrella", body={"n": 2})))
        found = await store.get(RUNS, "umbrella", "a")
        assert found is not None
        assert found.body == {"n": 2}
        assert await store.get(RUNS, "initech", "a") is None
        assert await page(store, org="umbrella") == ["a"]
        await store.write(Delete(RUNS, "acme", "a", 1))
        assert await store.version(RUNS, "umbrella", "a") == 1

    async def test_the_same_id_in_two_collections_is_two_documents(self, store: Store) -> None:
        await store.write(Insert(RUNS, run()), Insert(LEASES, Document("acme", "a", 1, {})))
        await store.write(Delete(LEASES, "acme", "a", 1))
        assert await store.version(RUNS, "acme", "a") == 1

    async def test_a_taken_id_is_a_duplicate_of_id_and_changes_nothing(self, store: Store) -> None:
        await store.write(Insert(RUNS, run(body={"n": 1})))
        with pytest.raises(DuplicateError) as caught:
            await store.write(Insert(RUNS, run(fields={"request_key": "else"}, body={"n": 2})))
        assert caught.value.field == "id"
        found = await store.get(RUNS, "acme", "a")
        assert found is not None
        assert found.body == {"n": 1}

    @pytest.mark.both_drivers
    async def test_a_taken_unique_key_is_a_duplicate_that_names_it(self, store: Store) -> None:
        await store.write(Insert(RUNS, run("a", fields={"request_key": "key"})))
        with pytest.raises(DuplicateError) as caught:
            await store.write(Insert(RUNS, run("b", fields={"request_key": "key"})))
        assert caught.value.field == "request_key"
        assert await store.get(RUNS, "acme", "b") is None

    async def test_a_replacement_cannot_take_the_unique_key_of_another(self, store: Store) -> None:
        await store.write(Insert(RUNS, run("a")), Insert(RUNS, run("b")))
        with pytest.raises(DuplicateError) as caught:
            await store.write(Replace(RUNS, run("b", fields={"request_key": "acme/a"})))
        assert caught.value.field == "request_key"
        assert await store.version(RUNS, "acme", "b") == 1

    async def test_a_unique_key_is_free_once_its_document_is_deleted(self, store: Store) -> None:
        await store.write(Insert(RUNS, run("a", fields={"request_key": "key"})))
        await store.write(Delete(RUNS, "acme", "a", 1))
        await store.write(Insert(RUNS, run("b", fields={"request_key": "key"})))
        assert await page(store, equal={"request_key": "key"}) == ["b"]

    async def test_a_replacement_changes_fields_and_body_and_counts(self, store: Store) -> None:
        await store.write(Insert(RUNS, run(body={"n": 1, "old": True})))
        for version in (1, 2):
            changed = run(fields={"state": "RUNNING"}, body={"n": version + 1}, version=version)
            await store.write(Replace(RUNS, changed))
        found = await store.get(RUNS, "acme", "a")
        assert found == run(fields={"state": "RUNNING"}, body={"n": 3}, version=3)
        assert await page(store, equal={"state": "QUEUED"}) == []
        assert await page(store, equal={"state": "RUNNING"}) == ["a"]

    async def test_a_replacement_keeps_the_create_time(self, store: Store) -> None:
        await store.write(Insert(LEASES, Document("acme", "a", 7, {})))
        await store.write(Replace(LEASES, Document("acme", "a", 0, {}, version=1)))
        found = await store.get(LEASES, "acme", "a")
        assert found is not None
        assert found.create_time == 7

    @pytest.mark.parametrize("version", [0, 2, 99])
    async def test_another_version_is_a_conflict_and_changes_nothing(
        self, store: Store, version: int
    ) -> None:
        await store.write(Insert(RUNS, run(body={"n": 1})))
        with pytest.raises(ConflictError):
            await store.write(Replace(RUNS, run(body={"n": 2}, version=version)))
        with pytest.raises(ConflictError):
            await store.write(Delete(RUNS, "acme", "a", version))
        assert await store.get(RUNS, "acme", "a") == run(body={"n": 1})

    async def test_what_is_gone_can_be_neither_replaced_nor_deleted(self, store: Store) -> None:
        await store.write(Insert(RUNS, run()))
        await store.write(Delete(RUNS, "acme", "a", 1))
        with pytest.raises(ConflictError):
            await store.write(Replace(RUNS, run()))
        with pytest.raises(ConflictError):
            await store.write(Delete(RUNS, "acme", "a", 1))
        assert await store.get(RUNS, "acme", "a") is None

    @pytest.mark.both_drivers
    async def test_of_many_who_replace_one_version_exactly_one_wins(self, store: Store) -> None:
        await store.write(Insert(RUNS, run()))
        answers = await asyncio.gather(
            *(store.write(Replace(RUNS, run(body={"by": by}))) for by in range(20)),
            return_exceptions=True,
        )
        winners = [by for by, answer in enumerate(answers) if answer is None]
        assert len(winners) == 1
        assert [type(answer) for answer in answers].count(ConflictError) == 19
        assert await store.get(RUNS, "acme", "a") == run(body={"by": winners[0]}, version=2)

    async def test_of_many_who_insert_one_unique_key_exactly_one_wins(self, store: Store) -> None:
        answers = await asyncio.gather(
            *(
                store.write(Insert(RUNS, run(f"r{by}", fields={"request_key": "key"})))
                for by in range(20)
            ),
            return_exceptions=True,
        )
        winners = [f"r{by}" for by, answer in enumerate(answers) if answer is None]
        assert [type(answer) for answer in answers].count(DuplicateError) == 19
        assert await page(store) == winners

    @pytest.mark.parametrize("size", [0, 1, 2 * MEBIBYTE])
    async def test_a_body_of_any_size_comes_back_whole(self, store: Store, size: int) -> None:
        body = {"text": "ü" * size} if size else {}
        await store.write(Insert(RUNS, run(body=body)))
        found = await store.get(RUNS, "acme", "a")
        assert found is not None
        assert found.body == body

    async def test_ids_and_fields_hold_any_text(self, store: Store) -> None:
        text = UNICODE.replace("\0", "")
        document = run(text, fields={"agent": text, "request_key": text})
        await store.write(Insert(RUNS, document))
        assert await store.get(RUNS, "acme", text) == document
        assert await page(store, equal={"agent": text}) == [text]

    async def test_ids_and_fields_hold_null_characters(self, store: Store) -> None:
        document = run(UNICODE, fields={"agent": UNICODE, "request_key": UNICODE})
        await store.write(Insert(RUNS, document))
        assert await store.get(RUNS, "acme", UNICODE) == document
        assert await page(store, equal={"agent": UNICODE}) == [UNICODE]

    async def test_an_organisation_and_an_id_do_not_run_into_one_another(
        self, store: Store
    ) -> None:
        pairs = [("a", "b/c"), ("a/b", "c"), ("a%2Fb", "c"), ("a", "b%2Fc"), ("a/", "/c")]
        for org, id_ in pairs:
            document = run(id_, org=org, fields={"request_key": repr((org, id_))})
            await store.write(
                Insert(RUNS, document), append(0, repr((org, id_)).encode(), org=org, stream=id_)
            )
        for org, id_ in pairs:
            found = await store.get(RUNS, org, id_)
            assert found is not None
            assert found.fields["request_key"] == repr((org, id_))
            last = await store.last("events", org, id_)
            assert last == (1, repr((org, id_)).encode(), "w")

    async def test_a_document_is_found_by_its_unique_key(self, store: Store) -> None:
        await store.write(Insert(RUNS, run("a")), Insert(RUNS, run("a", org="other")))
        assert await store.find(RUNS, "other", "request_key", "other/a") == run("a", org="other")
        assert await store.find(RUNS, "o", "request_key", "other/a") is None

    async def test_content_is_read_by_key_and_left_out_of_queries(self, store: Store) -> None:
        large = run(content={"text": UNICODE * 1000})
        await store.write(Insert(RUNS, large))
        assert await store.get(RUNS, "acme", "a") == large
        assert [one.content for one in await store.query(Query(RUNS, "acme"))] == [{}]
        await store.write(Replace(RUNS, replace(large, content={"text": "less"})))
        changed = await store.get(RUNS, "acme", "a")
        assert changed is not None
        assert changed.content == {"text": "less"}

    async def test_a_write_the_store_cannot_take_fails_alone(self, store: Store) -> None:
        """A body that is no JSON is a fault of the caller; others must not pay for it."""
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(TypeError):
                await store.write(Insert(RUNS, run("bad", body={"text": object()})))
            await store.write(Insert(RUNS, run("good")))
        assert await page(store) == ["good"]

    async def test_an_unreadable_write_does_not_harm_those_beside_it(self, store: Store) -> None:
        async with asyncio.timeout(PATIENCE):
            answers = await asyncio.gather(
                store.write(Insert(RUNS, run("one"))),
                store.write(Insert(RUNS, run("bad", body={"text": object()}))),
                store.write(Insert(RUNS, run("two"))),
                return_exceptions=True,
            )
        assert [answer is None for answer in answers] == [True, False, True]
        assert await page(store) == ["one", "two"]


class TestLogs:
    @pytest.mark.both_drivers
    async def test_entries_are_read_as_they_were_appended(self, store: Store) -> None:
        payloads = (b"", b'{"a": "\xff not utf-8"}', b"x" * MEBIBYTE)
        await store.write(append(0, *payloads))
        await store.write(append(3, b"4"))
        read = await store.read("events", "acme", "a", 0, limit=10, max_bytes=2**40)
        assert read == [*entries(0, *payloads), *entries(3, b"4")]
        assert await store.last("events", "acme", "a") == entries(3, b"4")[0]

    async def test_an_empty_log_has_no_entries(self, store: Store) -> None:
        assert await log(store) == []
        assert await store.last("events", "acme", "a") is None

    async def test_reading_begins_after_the_cursor(self, store: Store) -> None:
        await store.write(append(0, b"1", b"2", b"3"))
        read = await store.read("events", "acme", "a", 2, limit=10, max_bytes=100)
        assert read == entries(2, b"3")
        assert await store.read("events", "acme", "a", 3, limit=10, max_bytes=100) == []
        assert await store.read("events", "acme", "a", 99, limit=10, max_bytes=100) == []

    @pytest.mark.both_drivers
    async def test_a_page_ends_at_its_limit(self, store: Store) -> None:
        await store.write(append(0, *[b"x"] * 10))
        read = await store.read("events", "acme", "a", 3, limit=4, max_bytes=2**40)
        assert [sequence for sequence, _, _ in read] == [4, 5, 6, 7]

    @pytest.mark.parametrize(("max_bytes", "count"), [(1, 1), (100, 1), (101, 2), (250, 3)])
    async def test_a_page_ends_once_it_is_large_enough_but_is_never_empty(
        self, store: Store, max_bytes: int, count: int
    ) -> None:
        await store.write(append(0, *[b"x" * 100] * 5))
        read = await store.read("events", "acme", "a", 0, limit=10, max_bytes=max_bytes)
        assert len(read) == count

    async def test_a_page_that_was_cut_does_not_disturb_the_next(self, store: Store) -> None:
        await store.write(append(0, *[b"x" * 100] * 5))
        seen: list[int] = []
        while read := await store.read(
            "events", "acme", "a", seen[-1] if seen else 0, limit=10, max_bytes=150
        ):
            seen += [sequence for sequence, _, _ in read]
        assert seen == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("after", [0, 1, 2, 4, 99])
    async def test_an_append_elsewhere_than_at_the_end_is_a_conflict(
        self, store: Store, after: int
    ) -> None:
        await store.write(append(0, b"1", b"2", b"3"))
        with pytest.raises(ConflictError):
            await store.write(append(after, b"late", b"later"))
        assert await log(store) == [1, 2, 3]

    async def test_a_log_that_has_not_begun_cannot_be_gone_on_with(self, store: Store) -> None:
        with pytest.raises(ConflictError):
            await store.write(append(1, b"2"))
        assert await log(store) == []

    @pytest.mark.both_drivers
    async def test_two_who_append_at_one_place_are_told_apart(self, store: Store) -> None:
        await store.write(append(0, b"1"))
        answers = await asyncio.gather(
            *(store.write(append(1, b"%d" % by, b"%d" % by)) for by in range(20)),
            return_exceptions=True,
        )
        winners = [by for by, answer in enumerate(answers) if answer is None]
        assert len(winners) == 1
        assert [type(answer) for answer in answers].count(ConflictError) == 19
        read = await store.read("events", "acme", "a", 1, limit=10, max_bytes=100)
        assert [data for _, data, _ in read] == [b"%d" % winners[0]] * 2

    async def test_after_an_erase_the_old_end_is_a_conflict(self, store: Store) -> None:
        await store.write(append(0, b"1", b"2"))
        await store.write(Erase("events", "acme", "a"))
        assert await log(store) == []
        assert await store.last("events", "acme", "a") is None
        with pytest.raises(ConflictError):
            await store.write(append(2, b"3"))
        assert await log(store) == []

    @pytest.mark.both_drivers
    async def test_erasing_nothing_is_fine(self, store: Store) -> None:
        await store.write(Erase("events", "acme", "a"))
        assert await log(store) == []

    async def test_streams_logs_and_organisations_are_apart(self, store: Store) -> None:
        await store.write(append(0, b"1"))
        await store.write(append(0, b"1", b"2", stream="b"))
        await store.write(append(0, b"1", b"2", b"3", org="umbrella"))
        await store.write(Append("audit", "acme", "a", 0, entries(0, b"1", b"2", b"3", b"4")))
        await store.write(Erase("events", "acme", "b"))
        assert await log(store) == [1]
        assert await log(store, "b") == []
        assert await log(store, org="umbrella") == [1, 2, 3]
        assert await log(store, name="audit") == [1, 2, 3, 4]


class TestManyWrites:
    async def test_all_of_them_happen_in_order(self, store: Store) -> None:
        await store.write(
            Insert(RUNS, run()),
            append(0, b"1"),
            Replace(RUNS, run(body={"n": 1})),
            append(1, b"2"),
        )
        assert await store.version(RUNS, "acme", "a") == 2
        assert await log(store) == [1, 2]

    async def test_the_first_that_fails_stops_those_after_it(self, store: Store) -> None:
        with pytest.raises(ConflictError):
            await store.write(append(0, b"1"), Replace(RUNS, run()), Insert(LEASES, run()))
        assert await store.get(LEASES, "acme", "a") is None
        # Those before it are kept or undone, the adapter decides; never half of one.
        assert await log(store) in ([], [1])

    @pytest.mark.both_drivers
    async def test_a_limit_lets_writes_through_only_below_it(self, store: Store) -> None:
        waiting = AtMost(RUNS, {"state": "QUEUED"}, 2)
        await store.write(waiting, Insert(RUNS, run("a")))
        await store.write(waiting, Insert(RUNS, run("b", org="umbrella")))
        with pytest.raises(LimitError):
            await store.write(waiting, Insert(RUNS, run("c")), append(0, b"1"))
        assert await store.get(RUNS, "acme", "c") is None
        assert await log(store) == []
        await store.write(Replace(RUNS, run("a", fields={"state": "RUNNING"})))
        await store.write(waiting, Insert(RUNS, run("c")))

    async def test_a_limit_counts_what_matches_every_condition(self, store: Store) -> None:
        await store.write(Insert(RUNS, run("a", fields={"agent": "x"})), Insert(RUNS, run("b")))
        with pytest.raises(LimitError):
            await store.write(AtMost(RUNS, {"state": "QUEUED", "agent": "x"}, 1))
        await store.write(AtMost(RUNS, {"state": "QUEUED", "agent": "y"}, 1))
        with pytest.raises(KeyError):
            await store.write(AtMost(RUNS, {"body": "x"}, 1))

    async def test_a_failure_leaves_the_writes_of_others_alone(self, store: Store) -> None:
        answers = await asyncio.gather(
            store.write(Insert(RUNS, run("one")), append(0, b"1", stream="one")),
            store.write(Insert(RUNS, run("two")), append(7, b"8", stream="two")),
            store.write(Insert(RUNS, run("three")), append(0, b"1", stream="three")),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers] == [type(None), ConflictError, type(None)]
        assert {"one", "three"} <= set(await page(store))
        assert await log(store, "one") == await log(store, "three") == [1]
        assert await log(store, "two") == []

    async def test_a_hundred_writers_at_once_lose_nothing(self, store: Store) -> None:
        async def writer(number: int) -> None:
            name = f"w{number:03}"
            await store.write(Insert(RUNS, run(name)), append(0, b"1", stream=name))
            for after in range(1, 10):
                await store.write(append(after, b"%d" % number, stream=name))

        async with asyncio.timeout(60):
            await asyncio.gather(*map(writer, range(100)))
        names = [f"w{number:03}" for number in range(100)]
        assert await page(store, limit=200) == names
        for name in names:
            assert await log(store, name) == list(range(1, 11))

    async def test_a_caller_who_goes_away_leaves_the_store_working(self, store: Store) -> None:
        writing = asyncio.create_task(store.write(Insert(RUNS, run("a"))))
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.wait([writing])
        await store.write(Insert(RUNS, run("b")))
        assert "b" in await page(store)

    async def test_every_answered_write_is_seen_by_the_next_read(self, store: Store) -> None:
        await store.write(Insert(RUNS, run()))
        for version in range(1, 50):
            await store.write(
                Replace(RUNS, run(version=version, fields={"state": f"S{version}"})),
                append(version - 1, b"x"),
            )
            assert await store.version(RUNS, "acme", "a") == version + 1
            assert await page(store, equal={"state": f"S{version}"}) == ["a"]
            last = await store.last("events", "acme", "a")
            assert last is not None
            assert last[0] == version


class TestQueries:
    @pytest.fixture
    async def store(self, open_store: OpenStore) -> Store:
        """Twelve runs, three at each time, inserted in no order."""
        store = await open_store()
        names = [f"r{number:02}" for number in range(12)]
        for number in (7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6):
            document = run(
                names[number],
                create_time=100 + number // 3,
                fields={
                    "state": "RUNNING" if number % 2 else "QUEUED",
                    "agent": "a" if number < 6 else "b",
                },
                body={"number": number},
            )
            await store.write(Insert(RUNS, document))
        await store.write(Insert(RUNS, run("other", org="umbrella", create_time=100)))
        return store

    async def test_documents_come_in_the_order_of_time_and_id(self, store: Store) -> None:
        names = [f"r{number:02}" for number in range(12)]
        assert await page(store) == names
        assert await page(store, newest_first=True) == names[::-1]

    @pytest.mark.parametrize("newest_first", [False, True])
    @pytest.mark.parametrize("size", [1, 2, 3, 5, 12])
    async def test_pages_hold_everything_once_whatever_their_size(
        self, store: Store, size: int, newest_first: bool
    ) -> None:
        seen: list[Document] = []
        after: tuple[int, str] | None = None
        for _ in range(20):
            found = await store.query(
                Query(RUNS, "acme", after=after, limit=size, newest_first=newest_first)
            )
            seen += found
            if not found:
                break
            after = (found[-1].create_time, found[-1].id)
        names = [f"r{number:02}" for number in range(12)]
        assert [one.id for one in seen] == (names[::-1] if newest_first else names)

    async def test_what_is_inserted_behind_a_reader_does_not_move_its_pages(
        self, store: Store
    ) -> None:
        first = await store.query(Query(RUNS, "acme", limit=4, newest_first=True))
        await store.write(Insert(RUNS, run("new", create_time=999)))
        await store.write(Delete(RUNS, "acme", first[0].id, 1))
        after = (first[-1].create_time, first[-1].id)
        assert await page(store, after=after, limit=3, newest_first=True) == ["r07", "r06", "r05"]

    async def test_every_condition_has_to_hold(self, store: Store) -> None:
        assert await page(store, equal={"state": "RUNNING", "agent": "a"}) == ["r01", "r03", "r05"]
        assert await page(store, equal={"state": "RUNNING", "agent": "c"}) == []
        assert await page(store, equal={"request_key": "acme/r04"}) == ["r04"]
        assert await page(store, equal={"request_key": "acme/r04", "agent": "b"}) == []

    async def test_a_time_range_holds_its_begin_and_not_its_end(self, store: Store) -> None:
        assert await page(store, from_time=102) == [f"r{n:02}" for n in range(6, 12)]
        assert await page(store, before_time=102) == [f"r{n:02}" for n in range(6)]
        assert await page(store, from_time=101, before_time=102) == ["r03", "r04", "r05"]
        assert await page(store, from_time=102, before_time=102) == []

    @pytest.mark.both_drivers
    async def test_conditions_and_pages_go_together(self, store: Store) -> None:
        conditions: dict[str, Any] = {
            "equal": {"agent": "a"},
            "from_time": 100,
            "before_time": 102,
            "limit": 2,
            "newest_first": True,
        }
        assert await page(store, **conditions) == ["r05", "r04"]
        assert await page(store, after=(101, "r04"), **conditions) == ["r03", "r02"]

    async def test_keys_only_leaves_the_bodies_out(self, store: Store) -> None:
        found = await store.query(Query(RUNS, "acme", limit=1, keys_only=True))
        assert [(one.id, one.body) for one in found] == [("r00", {})]
        assert found[0].fields["agent"] == "a"
        whole = await store.query(Query(RUNS, "acme", limit=1))
        assert whole == [replace(found[0], body={"number": 0})]

    async def test_no_organisation_is_all_of_them(self, store: Store) -> None:
        assert len(await page(store, org=None)) == 13
        assert await page(store, org=None, equal={"request_key": "umbrella/other"}) == ["other"]

    async def test_an_unknown_field_is_a_mistake_of_the_caller(self, store: Store) -> None:
        with pytest.raises(KeyError):
            await store.query(Query(RUNS, "acme", equal={"body": "x"}))


class TestOrdersAndTerms:
    @pytest.fixture
    async def store(self, open_store: OpenStore) -> Store:
        return await open_store([RUNS, SHEETS])

    @pytest.mark.both_drivers
    async def test_every_combination_of_conditions_orders_and_terms_is_exact(
        self, store: Store
    ) -> None:
        documents = shelves() + shelves("umbrella")[:9]
        for one in documents:
            await store.write(Insert(SHEETS, one))
        for query in queries():
            assert await read(store, query) == expected(documents, query), query

    @pytest.mark.parametrize("newest_first", [False, True])
    async def test_what_is_inserted_around_a_reader_moves_none_of_its_pages(
        self, store: Store, newest_first: bool
    ) -> None:
        names = [f"n{number}" for number in range(9)]
        for name in names:
            await store.write(Insert(SHEETS, named(name, terms=frozenset({"x"}))))
        seen: list[str] = []
        after: tuple[int | str, str] | None = None
        for turn in range(4):
            found = await store.query(
                Query(
                    SHEETS,
                    "acme",
                    {"shelf": "live"},
                    after=after,
                    limit=3,
                    newest_first=newest_first,
                    order="name",
                    terms=("x",) if turn % 2 else (),
                )
            )
            seen += [one.fields["name"] for one in found]
            if turn < 3:
                after = found[-1].fields["name"], found[-1].id
            # One behind the reader, and one at its very place that comes before what it has seen.
            behind = "n9" if newest_first else "a"
            await store.write(Insert(SHEETS, named(behind, f"{turn}", terms=frozenset({"x"}))))
            if turn == 1:
                gone = "n8" if newest_first else "n0"
                await store.write(Delete(SHEETS, "acme", f"id-{gone}", 1))
        assert seen == (names[::-1] if newest_first else names)

    async def test_a_replacement_moves_a_document_to_its_new_place(self, store: Store) -> None:
        for name in ("a", "b", "c"):
            await store.write(Insert(SHEETS, named(name)))
        by_name = Query(SHEETS, "acme", {"shelf": "live"}, order="name")
        await store.write(Replace(SHEETS, replace(named("d"), id="id-a")))
        assert await read(store, by_name) == ["id-b", "id-c", "id-a"]
        await store.write(Replace(SHEETS, named("c", fields={"shelf": "trash"})))
        assert await read(store, by_name) == ["id-b", "id-a"]
        await store.write(Delete(SHEETS, "acme", "id-b", 1))
        assert await read(store, by_name) == ["id-a"]

    async def test_a_replacement_changes_what_finds_a_document(self, store: Store) -> None:
        first = sheet("a", terms=frozenset({"kept", "gone"}))
        await store.write(Insert(SHEETS, first), Insert(SHEETS, sheet("b", terms=first.terms)))
        changed = replace(first, create_time=0, terms=frozenset({"kept", "new"}))
        await store.write(Replace(SHEETS, changed))
        assert await having(store, "kept") == ["a", "b"]
        assert await having(store, "gone") == ["b"]
        assert await having(store, "new") == await having(store, "new", "kept") == ["a"]
        assert await having(store, "new", from_time=1000, before_time=1001) == ["a"]
        await store.write(Replace(SHEETS, sheet("a", version=2)))
        assert await having(store, "kept") == ["b"]

    async def test_what_fails_leaves_the_terms_as_they_were(self, store: Store) -> None:
        old, new = frozenset({"old"}), frozenset({"new"})
        await store.write(Insert(SHEETS, sheet("a", terms=old)), Insert(SHEETS, sheet("b")))
        taken = {"path": "acme/b"}
        for refusal, write in (
            (ConflictError, Replace(SHEETS, sheet("a", terms=new, version=7))),
            (DuplicateError, Replace(SHEETS, sheet("a", terms=new, fields=taken))),
            (DuplicateError, Insert(SHEETS, sheet("c", terms=new, fields=taken))),
            (ConflictError, Delete(SHEETS, "acme", "a", 7)),
        ):
            with pytest.raises(refusal):
                await store.write(write)
        assert await having(store, "old") == ["a"]
        assert await having(store, "new") == []

    async def test_a_deleted_document_is_not_found_nor_are_its_terms_inherited(
        self, store: Store
    ) -> None:
        await store.write(Insert(SHEETS, sheet("a", terms=frozenset({"old"}))))
        await store.write(Delete(SHEETS, "acme", "a", 1))
        assert await having(store, "old") == []
        await store.write(Insert(SHEETS, sheet("a", terms=frozenset({"new"}))))
        assert await having(store, "old") == []
        assert await having(store, "new") == ["a"]

    @pytest.mark.both_drivers
    async def test_terms_are_written_and_not_read_back(self, store: Store) -> None:
        document = sheet("a", terms=frozenset({"x", "y"}), body={"n": 1})
        await store.write(Insert(SHEETS, document))
        plain = replace(document, terms=frozenset())
        assert await store.get(SHEETS, "acme", "a") == plain
        assert await store.find(SHEETS, "acme", "path", "acme/a") == plain
        assert await store.query(Query(SHEETS, "acme", terms=("x",))) == [plain]

    async def test_terms_of_organisations_are_apart(self, store: Store) -> None:
        terms = frozenset({"x"})
        await store.write(
            Insert(SHEETS, sheet("a", terms=terms)),
            Insert(SHEETS, sheet("a", org="umbrella", terms=terms)),
            Insert(SHEETS, sheet("b", org="umbrella", terms=terms)),
        )
        assert await having(store, "x") == ["a"]
        assert await having(store, "x", org="umbrella") == ["a", "b"]
        assert await having(store, "x", org="initech") == []
        await store.write(Delete(SHEETS, "umbrella", "a", 1))
        assert await having(store, "x") == ["a"]
        assert await having(store, "x", org="umbrella") == ["b"]

    async def test_terms_are_any_text_and_compared_exactly(self, store: Store) -> None:
        texts = ["", " ", "a", "A", "ab", "é", "e\u0301", "\U0001d11e", "a.*", "$x", "'; --", "%"]
        texts += ["x" * 5000, UNICODE.replace("\0", "")]
        for number, text in enumerate(texts):
            await store.write(Insert(SHEETS, sheet(f"{number}", terms=frozenset({text, "all"}))))
        for number, text in enumerate(texts):
            assert await having(store, text) == [f"{number}"], text
        assert await having(store, *texts[:2]) == []
        assert len(await having(store, "all", limit=100)) == len(texts)

    async def test_orders_and_terms_hold_null_characters(self, store: Store) -> None:
        names = ["a", "a\0", "a\0a", "a\0b", "aa"]
        for name in reversed(names):
            await store.write(Insert(SHEETS, named(name, terms=frozenset({name}))))
        by_name = Query(SHEETS, "acme", {"shelf": "live"}, order="name", limit=1)
        assert await read(store, by_name) == [f"id-{name}" for name in names]
        for name in names:
            assert await having(store, name) == [f"id-{name}"]

    async def test_terms_for_a_collection_that_is_not_searched_fail_alone(
        self, store: Store
    ) -> None:
        marked = replace(run("a"), terms=frozenset({"x"}))
        with pytest.raises(ValueError, match="runs"):
            await store.write(Insert(RUNS, marked))
        await store.write(Insert(RUNS, run("a")))
        with pytest.raises(ValueError, match="runs"):
            await store.write(Replace(RUNS, marked))
        assert await store.version(RUNS, "acme", "a") == 1


def named(name: str, more: str = "", **changes: Any) -> Document:
    fields = {"name": name, **changes.pop("fields", {})}
    return sheet(f"id-{name}{more}", fields=fields, **changes)


async def having(store: Store, *terms: str, org: str = "acme", **more: Any) -> list[str]:
    return [one.id for one in await store.query(Query(SHEETS, org, terms=terms, **more))]


@pytest.mark.parametrize(
    ("mistake", "asked"),
    [
        (KeyError, {"order": "name"}),
        (KeyError, {"order": "name", "equal": {"touched": "x"}}),
        (KeyError, {"order": "path", "equal": {"shelf": "live"}}),
        (KeyError, {"order": "create_time", "equal": {"shelf": "live"}}),
        (TypeError, {"order": "name", "equal": {"shelf": "live"}, "after": (7, "a")}),
        (TypeError, {"after": ("7", "a")}),
        (ValueError, {"collection": RUNS, "terms": ("x",)}),
        (ValueError, {"org": None, "terms": ("x",)}),
    ],
)
def test_what_no_collection_keeps_cannot_be_asked(
    mistake: type[Exception], asked: dict[str, Any]
) -> None:
    with pytest.raises(mistake):
        Query(**{"collection": SHEETS, "org": "acme", **asked})


def test_an_order_of_what_is_no_field_is_refused() -> None:
    with pytest.raises(ValueError, match="notes"):
        Collection("notes", fields=("shelf",), unique=("path",), orders=(("shelf", "path"),))


class TestOpening:
    async def test_a_store_that_is_opened_again_has_kept_everything(
        self, open_store: OpenStore
    ) -> None:
        first = await open_store()
        await first.write(Insert(RUNS, run(body={"text": UNICODE})), append(0, b"1"))
        await first.write(append(1, b"2"))
        await first.close()
        second = await open_store()
        assert await second.get(RUNS, "acme", "a") == run(body={"text": UNICODE})
        assert await log(second) == [1, 2]
        await second.write(append(2, b"3"))
        assert await log(second) == [1, 2, 3]

    async def test_data_of_a_newer_release_is_refused_with_a_sentence(
        self, open_store: OpenStore
    ) -> None:
        newer = await open_store([replace(RUNS, schema_version=7), LEASES])
        await newer.write(Insert(RUNS, run()))
        await newer.close()
        with pytest.raises(UnreadableStoreError, match=r"runs .*newer release") as caught:
            await open_store()
        assert str(caught.value).endswith(".")
        again = await open_store([replace(RUNS, schema_version=7), LEASES])
        assert await again.get(RUNS, "acme", "a") == run()

    async def test_a_collection_may_join_later(self, open_store: OpenStore) -> None:
        first = await open_store([RUNS], ["events"])
        await first.write(Insert(RUNS, run()))
        await first.close()
        notes = Collection("notes", fields=("author",))
        second = await open_store([RUNS, notes], ["events", "history"])
        await second.write(Insert(notes, Document("acme", "n", 1, {"author": "me"})))
        assert await second.version(RUNS, "acme", "a") == 1
        assert await second.version(notes, "acme", "n") == 1

    @pytest.mark.both_drivers
    async def test_a_field_and_a_unique_key_may_join_later(self, open_store: OpenStore) -> None:
        first = await open_store()
        await first.write(Insert(RUNS, run("a")), Insert(RUNS, run("b")))
        await first.close()
        grown = replace(RUNS, fields=(*RUNS.fields, "colour"), unique=(*RUNS.unique, "slot"))
        second = await open_store([grown, LEASES])
        found = await second.query(Query(grown, "acme", equal={"colour": ""}))
        assert [(one.id, one.fields["slot"]) for one in found] == [("a", "a"), ("b", "b")]
        painted = run("a", fields={"colour": "red", "slot": "acme/1"})
        await second.write(Replace(grown, painted))
        with pytest.raises(DuplicateError) as caught:
            await second.write(Replace(grown, run("b", fields={"colour": "", "slot": "acme/1"})))
        assert caught.value.field == "slot"

    @pytest.mark.both_drivers
    async def test_orders_and_terms_may_join_later(self, open_store: OpenStore) -> None:
        """The order of a field that was there holds at once; terms come with the next replace."""
        plain = replace(SHEETS, fields=("shelf", "name"), orders=(), searched=False)
        first = await open_store([plain])
        for name in ("b", "c", "a"):
            one = named(name)
            fields = {"shelf": "live", "name": name, "path": one.fields["path"]}
            await first.write(Insert(plain, replace(one, fields=fields)))
        await first.close()
        second = await open_store([SHEETS])
        by_name = Query(SHEETS, "acme", {"shelf": "live"}, limit=2, order="name")
        assert await read(second, by_name) == ["id-a", "id-b", "id-c"]
        by_touch = replace(by_name, order="touched")
        assert await read(second, by_touch) == ["id-a", "id-b", "id-c"]
        assert await having(second, "x") == []
        await second.write(Replace(SHEETS, named("b", terms=frozenset({"x"}))))
        assert await having(second, "x") == ["id-b"]
        await second.write(Delete(SHEETS, "acme", "id-a", 1))
        assert await read(second, by_name) == ["id-b", "id-c"]

    @pytest.mark.both_drivers
    async def test_a_closed_store_is_unavailable(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.close()
        calls: Sequence[Any] = (
            store.write(Insert(RUNS, run())),
            store.get(RUNS, "acme", "a"),
            store.version(RUNS, "acme", "a"),
            store.query(Query(RUNS, "acme")),
            store.read("events", "acme", "a", 0, limit=1, max_bytes=1),
            store.last("events", "acme", "a"),
        )
        for call in calls:
            with pytest.raises(DomainError) as caught:
                await call
            assert caught.value.reason == Reason.REASON_STORE_UNAVAILABLE
            assert caught.value.retry_after

    async def test_closing_twice_is_harmless(self, open_store: OpenStore) -> None:
        store = await open_store()
        await store.close()
        await store.close()

    @pytest.mark.both_drivers
    async def test_closing_finishes_the_writes_under_way(self, open_store: OpenStore) -> None:
        store = await open_store()
        writing = [
            asyncio.create_task(store.write(Insert(RUNS, run(f"r{number:02}"))))
            for number in range(50)
        ]
        await asyncio.sleep(0)
        await store.close()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*writing)
        again = await open_store()
        assert len(await page(again, limit=100)) == 50


async def test_sequences_stay_gapless_while_many_append_and_some_erase(store: Store) -> None:
    """Appenders who read the end, append there and try again when they lose."""

    async def appender(number: int) -> None:
        for _ in itertools.repeat(None, 5):
            while True:
                last = await store.last("events", "acme", "a")
                after = 0 if last is None else last[0]
                try:
                    await store.write(append(after, b"%d" % number, b"%d" % number))
                except ConflictError:
                    await asyncio.sleep(0)
                    continue
                break

    async with asyncio.timeout(30):
        await asyncio.gather(*map(appender, range(8)))
    read = await store.read("events", "acme", "a", 0, limit=1000, max_bytes=2**40)
    assert [sequence for sequence, _, _ in read] == list(range(1, 81))
    payloads = [data for _, data, _ in read]
    assert payloads[::2] == payloads[1::2]
    assert sorted(payloads) == sorted([b"%d" % number for number in range(8) for _ in range(10)])
