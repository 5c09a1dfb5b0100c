"""What is backed up comes back as it was, all of it or nothing."""

from __future__ import annotations

import asyncio
import errno
import io
import itertools
import tempfile
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from services.content.domain import archives
from services.content.domain.agents import built_in
from services.content.domain.archives import MANIFEST, digest, manifest_head, manifest_row
from services.content.domain.imports import Action, ImportReport, Phase, Progress
from services.content.stores import COLLECTIONS
from services.content.stores.archives import IMPORTS, STAGED
from services.content.usecases.imports import Asked
from services.kit.errors import DomainError, Reason
from services.kit.storage.ports import Write, store_full
from tests.fakes.archivist import ORG, Archivist, archivist, files, pieces, zipped
from tests.fakes.cuts import Cut
from tests.fakes.memory import Memory, MemoryStore
from tests.patience import PATIENCE

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

each_semantics = pytest.mark.parametrize("keeps_prefix", [False, True], ids=["atomic", "prefix"])


def manifested(content: dict[str, bytes]) -> dict[str, bytes]:
    """Files with the manifest that fits them."""
    paths = sorted(content.keys() - {MANIFEST})
    head = manifest_head(archives.counted(paths))
    rows = [
        manifest_row(path, len(content[path]), digest(content[path]), first=not number)
        for number, path in enumerate(paths)
    ]
    manifest = head + b"".join(rows) + archives.MANIFEST_TAIL
    return {MANIFEST: manifest} | {path: content[path] for path in paths}


def stored(memory: Memory) -> dict[tuple[str, str, str], object]:
    """What is stored, but for how often each document was replaced."""
    return {key: replace(one, version=0) for key, one in memory.documents.items()}


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
async def furnished(tmp_path: Path, memory: Memory) -> Archivist:
    made = archivist(tmp_path, memory)
    await made.furnish()
    return made


async def refused(call: object) -> DomainError:
    with pytest.raises(DomainError) as error:
        await call  # type: ignore[misc]  # a coroutine
    return error.value


# There and back


async def test_what_is_backed_up_wiped_and_restored_is_byte_for_byte_the_same(
    tmp_path: Path, furnished: Archivist, memory: Memory
) -> None:
    raw = await furnished.export()
    wiped = Memory()
    restored = archivist(tmp_path, wiped)

    report = await restored.take_in(raw)

    assert report.counts == {
        Action.CREATED: 8,
        Action.OVERWRITTEN: 0,
        Action.KEPT: 0,
        Action.UNCHANGED: 0,
    }
    assert await restored.export() == raw
    assert stored(wiped) == stored(memory)
    assert [(item.kind, item.id) for item in report.items] == [
        ("agent", "Gone"),
        ("persona", "Gone"),
        ("agent", "writer-2"),
        ("agent", "writer"),
        ("persona", "writer"),
        ("screenplay", "play_1"),
        ("screenplay", "play_2"),
        ("screenplay", "play_3"),
    ]


async def test_a_backup_says_what_is_in_it_and_nothing_of_when_and_where_it_was_made(
    furnished: Archivist,
) -> None:
    raw = await furnished.export()
    content = files(raw)
    manifest = orjson.loads(content[MANIFEST])

    assert next(iter(content)) == MANIFEST
    assert manifest["format"] == "conductor-content"
    assert manifest["counts"] == {
        "agents": 3,
        "personas": 2,
        "versions": 4,
        "screenplays": 3,
        "texts": 2,
    }
    assert [row["path"] for row in manifest["files"]] == sorted(content.keys() - {MANIFEST})
    assert content["agents/writer/versions/0000000002.md"] == b"# Two\r\n"
    assert content["screenplays/play_1/content.md"] == b""
    assert await furnished.export() == raw


async def test_an_empty_organisation_is_backed_up_and_restored(tmp_path: Path) -> None:
    empty = archivist(tmp_path)
    raw = await empty.export()

    report = await empty.take_in(raw)

    assert list(files(raw)) == [MANIFEST]
    assert set(report.counts.values()) == {0}


async def test_what_was_restored_is_unchanged_when_it_is_restored_again(
    furnished: Archivist, memory: Memory
) -> None:
    raw = await furnished.export()
    before = dict(memory.documents)

    report = await furnished.take_in(raw, force=True)

    assert report.counts[Action.UNCHANGED] == 8
    assert report.items == []
    assert memory.documents == before


async def test_one_organisation_restores_what_another_one_backed_up(
    furnished: Archivist,
) -> None:
    raw = await furnished.export()

    await furnished.take_in(raw, org="other")

    assert await furnished.export(org="other") == raw
    assert await furnished.export() == raw


async def test_a_persona_of_the_built_in_agent_comes_back_without_the_agent(
    tmp_path: Path,
) -> None:
    first = archivist(tmp_path)
    await first.persona("default", "# Me")
    raw = await first.export()
    second = archivist(tmp_path)
    await second.agents.add(built_in(ORG))

    await second.take_in(raw)

    assert "agents/default/agent.json" not in files(raw)
    persona = await second.personas.get(ORG, "default")
    assert persona is not None
    assert persona.number == 1


async def test_a_built_in_agent_that_nobody_changed_gives_way_to_the_one_of_the_archive(
    tmp_path: Path,
) -> None:
    first = archivist(tmp_path)
    own = replace(built_in(ORG).definition, description="Mine.")
    await first.agents.add(replace(built_in(ORG), definition=own, revision=2, update_time=7))
    raw = await first.export()
    second = archivist(tmp_path)
    await second.agents.add(built_in(ORG))

    report = await second.take_in(raw)

    assert report.counts[Action.CREATED] == 1
    assert await second.export() == raw
    plain = archivist(tmp_path)
    await plain.agents.add(built_in(ORG))
    again = await plain.take_in(await plain.export())
    assert again.counts[Action.UNCHANGED] == 1


async def test_ids_with_hyphens_are_in_the_order_of_their_paths(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    for id_ in ("a", "a-b", "a_b", "aB", "a0"):
        await house.agent(id_)
        await house.persona(id_, "# x")
    raw = await house.export()

    assert (await house.take_in(raw)).counts[Action.UNCHANGED] == 10


# What exists


async def changed_house(tmp_path: Path) -> tuple[bytes, Archivist, Memory]:
    """A backup, and a house in which all of it has changed since."""
    memory = Memory()
    house = archivist(tmp_path, memory)
    await house.furnish()
    raw = await house.export()
    agent = await house.agents.get(ORG, "writer")
    assert agent is not None
    other = replace(agent.definition, description="Other.")
    await house.agents.save(replace(agent, definition=other, revision=2, update_time=house.now))
    await house.persona("writer", "# Four", "# Five")
    play = await house.screenplays.get(ORG, "play_2")
    assert play is not None
    await house.screenplays.save(replace(play, name="Other", revision=2))
    await house.agent("new")
    return raw, house, memory


async def test_what_differs_is_kept_and_told(tmp_path: Path) -> None:
    raw, house, memory = await changed_house(tmp_path)
    before = dict(memory.documents)

    report = await house.take_in(raw)

    kept = [(item.kind, item.id) for item in report.items if item.action is Action.KEPT]
    assert kept == [("agent", "writer"), ("persona", "writer"), ("screenplay", "play_2")]
    assert "force" in report.items[0].detail
    assert report.counts[Action.UNCHANGED] == 5
    assert memory.documents == before


async def test_with_force_what_differs_becomes_what_the_archive_says(tmp_path: Path) -> None:
    raw, house, _ = await changed_house(tmp_path)

    report = await house.take_in(raw, force=True)

    assert report.counts[Action.OVERWRITTEN] == 3
    new = await house.agents.get(ORG, "new")
    assert new is not None
    await house.agents.remove(new)
    assert await house.export() == raw


async def test_what_was_made_at_another_time_is_overwritten_too(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    other = archivist(tmp_path, now=furnished.now + 77)
    await other.furnish()

    report = await other.take_in(raw, force=True)

    assert report.counts[Action.OVERWRITTEN] == 8
    assert await other.export() == raw


async def test_a_dry_run_tells_the_same_and_writes_nothing(tmp_path: Path) -> None:
    raw, house, memory = await changed_house(tmp_path)
    before = dict(memory.documents)

    dry = await house.take_in(raw, force=True, dry_run=True)

    assert memory.documents == before
    real = await house.take_in(raw, force=True)
    assert dry.dry_run
    assert (dry.counts, dry.items) == (real.counts, real.items)


async def test_a_path_that_another_one_has_is_left_to_it(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    other = archivist(tmp_path)
    await other.screenplay("play_9", "# Mine", file_path="notes/ä.md")

    report = await other.take_in(raw, force=True)

    restored = await other.screenplays.get(ORG, "play_1")
    assert restored is not None
    assert restored.file_path == ""
    (finding,) = report.findings
    assert finding.location == "screenplays/play_1"
    assert "play_9" in finding.message


async def test_screenplays_that_swapped_their_paths_swap_them_back(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    await house.screenplay("play_1", "# A", file_path="a.md")
    await house.screenplay("play_2", "# B", file_path="b.md")
    raw = await house.export()
    one = await house.screenplays.get(ORG, "play_1")
    two = await house.screenplays.get(ORG, "play_2")
    assert one is not None
    assert two is not None
    one = await house.screenplays.save(replace(one, file_path="c.md"))
    await house.screenplays.save(replace(two, file_path="a.md"))
    await house.screenplays.save(replace(one, file_path="b.md"))

    report = await house.take_in(raw, force=True)

    assert report.findings == []
    assert await house.export() == raw


async def test_what_is_left_of_a_persona_whose_agent_is_gone_gives_way(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    other = archivist(tmp_path)
    await other.persona("writer", *(f"# Left {number}" for number in range(5)))

    await other.take_in(raw)

    assert await other.export() == raw


# Refused whole


Damage = Callable[[dict[str, bytes]], dict[str, bytes]]
AGENT = "agents/writer/agent.json"
PERSONA = "agents/writer/persona.json"
VERSION = "agents/writer/versions/0000000002.json"
PLAY = "screenplays/play_1/screenplay.json"


def edited(path: str, **changes: object) -> Damage:
    """Change what a record says, and make the manifest fit."""

    def edit(content: dict[str, bytes]) -> dict[str, bytes]:
        record = {**orjson.loads(content[path]), **changes}
        return manifested({**content, path: orjson.dumps(record)})

    return edit


def with_definition(**changes: object) -> Damage:
    def edit(content: dict[str, bytes]) -> dict[str, bytes]:
        record = orjson.loads(content[AGENT])
        return edited(AGENT, definition={**record["definition"], **changes})(content)

    return edit


def without(*paths: str) -> Damage:
    return lambda content: manifested(
        {path: raw for path, raw in content.items() if path not in paths}
    )


def with_file(path: str, raw: bytes = b"{}") -> Damage:
    """Add a file that the manifest does not name."""
    return lambda content: {**content, path: raw}


def with_manifest(old: bytes, new: bytes) -> Damage:
    def edit(content: dict[str, bytes]) -> dict[str, bytes]:
        assert old in content[MANIFEST]
        return {**content, MANIFEST: content[MANIFEST].replace(old, new, 1)}

    return edit


HOSTILE: dict[str, tuple[Damage, str, str]] = {
    "no manifest": (
        lambda content: {path: raw for path, raw in content.items() if path != MANIFEST},
        "archive",
        "no backup",
    ),
    "a manifest that is not first": (
        lambda content: dict(sorted(content.items())),
        "archive",
        "no backup",
    ),
    "another format": (with_manifest(b"conductor-content", b"else"), MANIFEST, "does not say"),
    "a newer format": (
        with_manifest(b'"format_version": 1', b'"format_version": 7'),
        MANIFEST,
        "version 7",
    ),
    "a wrong checksum": (
        lambda content: {**content, AGENT: content[AGENT].replace(b"web_fetch", b"web_fetsh")},
        AGENT,
        "SHA-256",
    ),
    "wrong counts": (with_manifest(b'"agents": 3', b'"agents": 4'), MANIFEST, "counts"),
    "a file the manifest does not name": (
        with_file("screenplays/play_9/screenplay.json"),
        "screenplays/play_9/screenplay.json",
        "names nothing",
    ),
    "a file that is missing": (
        lambda content: dict(itertools.islice(content.items(), len(content) - 1)),
        MANIFEST,
        "which is missing",
    ),
    "more after the manifest's end": (
        lambda content: {**content, MANIFEST: content[MANIFEST] + b" "},
        MANIFEST,
        "",
    ),
    "a path out of the archive": (with_file("../evil"), "../evil", "is called so"),
    "an absolute path": (with_file("/etc/passwd"), "/etc/passwd", "is called so"),
    "a path with a backslash": (
        with_file("agents\\writer\\agent.json"),
        "agents\\writer\\agent.json",
        "is called so",
    ),
    "a directory": (with_file("agents/", b""), "agents/", "is called so"),
    "an id that goes up": (
        with_file("agents/../agent.json"),
        "agents/../agent.json",
        "is called so",
    ),
    "a name with a line break": (
        with_file("agents/wri\nter/agent.json"),
        "agents/wri\\nter/agent.json",
        "is called so",
    ),
    "not JSON": (
        lambda content: manifested({**content, AGENT: b"{"}),
        AGENT,
        "not JSON",
    ),
    "no object": (lambda content: manifested({**content, AGENT: b"[]"}), AGENT, "object"),
    "deep JSON": (
        lambda content: manifested({**content, AGENT: b"[" * 100_000 + b"]" * 100_000}),
        AGENT,
        "not JSON",
    ),
    "an unknown field": (edited(AGENT, admin=True), AGENT, "admin"),
    "a field of another type": (edited(AGENT, revision="1"), AGENT, "revision"),
    "a number that is a truth": (edited(AGENT, revision=True), AGENT, "revision"),
    "a revision of nought": (edited(AGENT, revision=0), AGENT, "revision"),
    "another organisation": (edited(AGENT, org="other"), AGENT, "org"),
    "a time nobody can be told": (edited(AGENT, create_time=10**18), AGENT, "create_time"),
    "a negative time": (edited(AGENT, create_time=-1), AGENT, "create_time"),
    "another id": (edited(AGENT, id="other"), AGENT, "its path"),
    "a name that is too long": (with_definition(name="x" * 101), AGENT, "definition.name"),
    "a name with blanks": (with_definition(name=" x "), AGENT, "form"),
    "a tool with blanks": (with_definition(tools=["a b"]), AGENT, "tools"),
    "a colour that is none": (with_definition(color="red"), AGENT, "color"),
    "half a deletion": (edited(AGENT, life={"deletion": "del_1"}), AGENT, "life"),
    "an alias to nowhere": (
        edited(PERSONA, aliases={"beta": {"name": "beta", "number": 9, "update_time": 1}}),
        PERSONA,
        "version 9",
    ),
    "an alias with two names": (
        edited(PERSONA, aliases={"beta": {"name": "b", "number": 1, "update_time": 1}}),
        PERSONA,
        "alias",
    ),
    "an alias that means something else": (
        edited(PERSONA, aliases={"latest": {"name": "latest", "number": 1, "update_time": 1}}),
        PERSONA,
        "alias",
    ),
    "a version that is newer than its persona": (
        edited(PERSONA, number=2, aliases={}),
        "agents/writer/versions/0000000002.json",
        "newest version",
    ),
    "a version without its text": (
        without("agents/writer/versions/0000000002.md"),
        "agents/writer/versions/0000000002.json",
        "missing",
    ),
    "a newest version that is missing": (
        without("agents/writer/versions/0000000003.json", "agents/writer/versions/0000000003.md"),
        PERSONA,
        "version 3",
    ),
    "a version that has another number": (edited(VERSION, number=1), VERSION, "its path"),
    "a wrong hash": (edited(VERSION, content_hash="0" * 64), VERSION, "content_hash"),
    "a wrong length": (edited(VERSION, characters=1), VERSION, "characters"),
    "a persona without its agent": (without(AGENT), PERSONA, "agent.json is missing"),
    "versions without a persona": (
        without(PERSONA),
        "agents/writer/versions/0000000001.json",
        "persona.json is missing",
    ),
    "a text that is not UTF-8": (
        lambda content: manifested({**content, "screenplays/play_2/content.md": b"\xff"}),
        "screenplays/play_2/content.md",
        "UTF-8",
    ),
    "a path that goes up": (edited(PLAY, file_path="../a.md"), PLAY, "file_path"),
    "a path that two have": (
        edited("screenplays/play_2/screenplay.json", file_path="notes/ä.md"),
        "screenplays/play_2/screenplay.json",
        "same file_path",
    ),
    "a text newer than its screenplay": (
        edited(PLAY, revision=1, text_revision=1),
        "screenplays/play_1/texts/0000000002.json",
        "newer",
    ),
    "texts without a screenplay": (
        without(PLAY, "screenplays/play_1/content.md"),
        "screenplays/play_1/texts/0000000001.json",
        "missing",
    ),
}


@pytest.mark.parametrize("how", HOSTILE)
async def test_a_damaged_or_hostile_archive_is_refused_whole(
    tmp_path: Path, furnished: Archivist, how: str
) -> None:
    damage, where, why = HOSTILE[how]
    raw = zipped(damage(files(await furnished.export())))
    memory = Memory()

    error = await refused(archivist(tmp_path, memory).take_in(raw, force=True))

    assert error.reason == Reason.REASON_ARCHIVE_INVALID
    (violation,) = error.violations
    assert violation.field == where
    assert why in violation.description
    assert memory.documents == {}


async def test_an_archive_packed_anew_by_another_program_is_taken_in(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()

    report = await archivist(tmp_path).take_in(zipped(files(raw)))

    assert report.counts[Action.CREATED] == 8


async def test_a_cut_or_changed_byte_is_refused_or_changes_nothing(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    reasons = set()
    for place in range(0, len(raw), 97):
        for damaged in (raw[:place], raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :]):
            memory = Memory()
            house = archivist(tmp_path, memory)
            reason = 0
            try:
                await house.take_in(damaged)
            except DomainError as error:
                reason = error.reason
            reasons.add(reason)
            assert await house.export() == raw if not reason else not memory.documents
    assert Reason.REASON_ARCHIVE_INVALID in reasons
    assert reasons <= {0, Reason.REASON_ARCHIVE_INVALID}


async def test_under_an_agent_that_stays_deleted_no_persona_comes_up(
    tmp_path: Path,
) -> None:
    first = archivist(tmp_path)
    await first.agent("writer")
    await first.persona("writer", "# One")
    raw = await first.export()
    second = archivist(tmp_path)
    await second.delete(await second.agent("writer"))

    report = await second.take_in(raw)

    assert [(item.kind, item.action) for item in report.items] == [
        ("agent", Action.KEPT),
        ("persona", Action.KEPT),
    ]
    assert await second.personas.get(ORG, "writer") is None


async def test_more_than_may_be_is_refused_either_way(tmp_path: Path, furnished: Archivist) -> None:
    raw = await furnished.export()
    small = archivist(tmp_path, most_bytes=5000)

    received = await refused(small.take_in(raw))
    small.store = furnished.store
    small.__post_init__()
    sent = await refused(small.export())

    assert received.reason == sent.reason == Reason.REASON_ARCHIVE_TOO_LARGE
    assert "CONDUCTOR_CONTENT_ARCHIVE_BYTES" in sent.message


async def test_a_bomb_is_refused_by_what_it_unpacks_to(
    tmp_path: Path, furnished: Archivist
) -> None:
    content = files(await furnished.export())
    for number in range(100):
        content[f"screenplays/play_1/texts/{number + 10:010d}.md"] = b" " * 1024 * 1024
    raw = zipped(manifested(content))
    assert len(raw) < 200_000

    error = await refused(archivist(tmp_path, most_bytes=50_000_000).take_in(raw))

    assert error.reason == Reason.REASON_ARCHIVE_TOO_LARGE


async def test_what_is_exported_at_the_limit_is_taken_in_at_the_limit(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    for number in range(30):
        await house.screenplay(f"play_{number}", f"{number * 7919 % 1013}" * 50)
    raw = await house.export()
    low, high = 0, 200_000
    while high - low > 1:
        limit = (low + high) // 2
        tight = Archivist(tmp_path, house.store, most_bytes=limit)
        try:
            await tight.export()
        except DomainError:
            low = limit
        else:
            high = limit
            assert (await tight.take_in(raw)).counts[Action.UNCHANGED] == 30
    assert 10_000 < high < 100_000


# All or nothing


@each_semantics
@pytest.mark.parametrize("answered", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("force", [False, True], ids=["new", "over"])
@pytest.mark.parametrize("batch", [3, 100])
async def test_an_import_that_is_cut_anywhere_is_there_whole_or_not_at_all(
    tmp_path: Path, keeps_prefix: bool, answered: bool, force: bool, batch: int
) -> None:
    raw, _, changed = await changed_house(tmp_path)
    first = changed if force else Memory()
    reference = replace(first, documents=dict(first.documents))
    await archivist(tmp_path, reference).take_in(raw, force=force)
    outcomes = set()
    for writes in itertools.count():
        memory = replace(first, documents=dict(first.documents))
        line = Cut(
            MemoryStore(memory, COLLECTIONS), writes, answered=answered, keeps_prefix=keeps_prefix
        )
        with suppress(DomainError):
            await Archivist(tmp_path, line, prefix="v", batch=batch).take_in(raw, force=force)
        if not line.is_cut:
            break

        after = archivist(tmp_path, memory)
        await after.keeper.start(alone=True)

        assert not [key for key in memory.documents if key[0] in {IMPORTS.name, STAGED.name}]
        whole = stored(memory) == stored(reference)
        assert whole or stored(memory) == stored(first)
        outcomes.add(whole)
        # Whatever came of it, the next one works.
        await after.take_in(raw, force=force)
        assert stored(memory) == stored(reference)
    assert outcomes == {True, False}


async def test_two_imports_at_once_are_one_after_the_other(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    memory = Memory()
    first, second = archivist(tmp_path, memory), archivist(tmp_path, memory, prefix="2")
    claim = await first.imports.begin(ORG, "import_x", 1)

    error = await refused(second.take_in(raw))

    assert error.reason == Reason.REASON_CONFLICT
    assert error.resources[0].name == "import_x"
    assert error.retry_after
    await first.keeper.drop(claim)
    assert (await second.take_in(raw)).counts[Action.CREATED] == 8


async def test_another_organisation_imports_at_the_same_time(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    house = archivist(tmp_path)
    await house.imports.begin("other", "import_x", 1)

    assert (await house.take_in(raw)).counts[Action.CREATED] == 8


async def test_a_dry_run_does_not_wait_for_anybody(tmp_path: Path, furnished: Archivist) -> None:
    raw = await furnished.export()
    await furnished.imports.begin(ORG, "import_x", 1)

    assert (await furnished.take_in(raw, dry_run=True)).counts[Action.UNCHANGED] == 8


async def test_a_full_disk_does_not_keep_a_process_with_a_committed_import_from_serving(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    memory = Memory()
    disk = FillingStore(memory, room=3)
    with suppress(DomainError):
        await Archivist(tmp_path, disk, prefix="v").take_in(raw)
    after = Archivist(tmp_path, disk, prefix="2")

    await after.keeper.start(alone=True)
    claim = await after.imports.running(ORG)
    disk.room = 1000
    for after.seconds in (0.0, 15.0):
        await after.keeper.sweep()

    assert claim is not None
    assert claim.committed
    assert await after.imports.running(ORG) is None
    assert await after.export() == raw


class FillingStore(MemoryStore):
    """A store on a disk with room for so many calls that write."""

    def __init__(self, memory: Memory, room: int) -> None:
        super().__init__(memory, COLLECTIONS)
        self.room = room

    async def write(self, *writes: Write) -> None:
        if self.room <= 0:
            raise store_full()
        self.room -= 1
        await super().write(*writes)


async def test_an_archive_there_is_no_room_for_says_so_wherever_the_disk_is_full(
    tmp_path: Path, furnished: Archivist, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = archivist(tmp_path, Memory())
    for number in range(5):
        texts = (f"{number * 7919 % 1013} {version}" * 999 for version in range(5))
        await house.screenplay(f"play_{number}", *texts)
    raw = await house.export()
    told = []
    # What is kept back of a file is written when that is read, cut or closed.
    for most in range(0, len(raw), 500):
        monkeypatch.setattr("tempfile.TemporaryFile", partial(small_file, most))
        try:
            exported = await house.export()
        except DomainError as error:
            told.append(error.reason)
        else:
            assert exported == raw
    assert set(told) == {Reason.REASON_STORE_FULL}
    assert len(told) > 5


def small_file(most_bytes: int, dir: Path) -> io.BufferedRandom:  # noqa: A002 as tempfile has it
    """A temporary file on a disk with so much room for each."""

    class Full(io.FileIO):
        def write(self, chunk: ReadableBuffer) -> int:
            if self.tell() + len(memoryview(chunk)) > most_bytes:
                raise OSError(errno.ENOSPC, "no room")
            return super().write(chunk)

    return io.BufferedRandom(Full(tempfile.mkstemp(dir=dir)[0], "w+b"))


async def test_an_import_whose_process_died_is_taken_over_once_it_was_silent(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    memory = Memory()
    line = Cut(MemoryStore(memory, COLLECTIONS), 2, answered=True, keeps_prefix=False)
    with suppress(DomainError):
        await Archivist(tmp_path, line, prefix="v").take_in(raw)
    assert line.is_cut
    other = archivist(tmp_path, memory)

    await other.keeper.start(alone=False)
    other.seconds = 14.0
    await other.keeper.sweep()
    claim = await other.imports.running(ORG)
    other.seconds = 28.0
    await other.keeper.sweep()
    still = await other.imports.running(ORG)
    other.seconds = 30.0
    await other.keeper.sweep()

    assert claim is not None
    assert still == claim
    assert await other.imports.running(ORG) is None


async def test_who_was_given_up_writes_nothing_more(tmp_path: Path, furnished: Archivist) -> None:
    raw = await furnished.export()
    memory = Memory()
    slow, quick = archivist(tmp_path, memory), archivist(tmp_path, memory, prefix="2")
    steps = slow.importer.run(ORG, Asked(archives.Layout.BACKUP), pieces(raw))

    async with aclosing(steps):
        async for step in steps:
            if isinstance(step, Progress) and step.phase is Phase.STAGE:
                break
        await quick.keeper.start(alone=True)
        error = await refused(_rest(steps))

    assert error.reason == Reason.REASON_CONFLICT
    assert memory.documents == {}


async def _rest(steps: object) -> None:
    async for _ in steps:  # type: ignore[attr-defined]  # a generator
        pass


async def test_who_leaves_before_it_is_committed_leaves_nothing(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    memory = Memory()
    house = archivist(tmp_path, memory)

    async with aclosing(house.importer.run(ORG, Asked(archives.Layout.BACKUP), pieces(raw))) as run:
        async for step in run:
            if isinstance(step, Progress) and step.phase is Phase.STAGE:
                assert memory.documents
                break

    assert memory.documents == {}


async def test_who_leaves_once_it_is_committed_gets_all_of_it(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    house = archivist(tmp_path)

    async with aclosing(house.importer.run(ORG, Asked(archives.Layout.BACKUP), pieces(raw))) as run:
        async for step in run:
            if isinstance(step, Progress) and step.phase is Phase.APPLY:
                break
    await asyncio.wait_for(house.keeper.idle(), PATIENCE)

    assert await house.export() == raw


async def test_what_somebody_makes_meanwhile_is_kept_and_told(
    tmp_path: Path, furnished: Archivist
) -> None:
    raw = await furnished.export()
    house = archivist(tmp_path, now=1000)
    report = None

    async for step in house.importer.run(ORG, Asked(archives.Layout.BACKUP), pieces(raw)):
        if isinstance(step, Progress) and step.phase is Phase.STAGE and not step.done:
            await house.agent("writer", description="Mine.")
            await house.screenplay("play_9", "# Mine", file_path="notes/ä.md")
        if isinstance(step, ImportReport):
            report = step

    assert report is not None
    assert {finding.location for finding in report.findings} == {
        "agents/writer",
        "screenplays/play_1",
    }
    writer = await house.agents.get(ORG, "writer")
    play = await house.screenplays.get(ORG, "play_1")
    assert writer is not None
    assert play is not None
    assert writer.definition.description == "Mine."
    assert play.file_path == ""


async def test_how_far_it_is_is_told(tmp_path: Path) -> None:
    house = archivist(tmp_path)
    for number in range(450):
        await house.screenplay(f"play_{number}", "# x")
    exported = [part async for part in house.exporter.export(ORG, archives.Layout.BACKUP)]
    raw = b"".join(part for part in exported if isinstance(part, bytes))

    steps = await archivist(tmp_path).steps(raw, Asked(archives.Layout.BACKUP))

    told = [part for part in exported if isinstance(part, Progress)]
    assert told == [Progress(Phase.EXPORT, done, 450) for done in (0, 200, 400, 450)]
    phases = [step.phase for step in steps if isinstance(step, Progress)]
    assert list(dict.fromkeys(phases)) == [
        Phase.RECEIVE,
        Phase.CHECK,
        Phase.STAGE,
        Phase.APPLY,
    ]
    last = [step for step in steps if isinstance(step, Progress)][-1]
    assert last == Progress(Phase.APPLY, 450, 450)
    assert isinstance(steps[-1], ImportReport)
