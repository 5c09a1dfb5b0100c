"""Personas over a real server: what callers send, and what they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import MessageToDict

from conductor.audit.v1 import audit_service_pb2
from conductor.audit.v1.audit_service_pb2_grpc import AuditServiceStub
from conductor.content.v1 import agent_service_pb2 as agents_pb
from conductor.content.v1 import persona_service_pb2 as pb
from conductor.content.v1.agent_pb2 import Agent
from conductor.content.v1.persona_pb2 import Persona
from tests.patience import PATIENCE
from tests.rpc.content import Content, served_content
from tests.rpc.serving import refusal

NOT_FOUND = grpc.StatusCode.NOT_FOUND
INVALID = grpc.StatusCode.INVALID_ARGUMENT
EXISTS = grpc.StatusCode.ALREADY_EXISTS
ABORTED = grpc.StatusCode.ABORTED


class House:
    """A served content service with the agent `writer`."""

    def __init__(self, content: Content) -> None:
        self.content = content
        self.stub = content.personas

    async def add_agent(self, id_: str) -> None:
        request = agents_pb.CreateAgentRequest(agent=Agent(id=id_, name=id_))
        await self.content.agents.CreateAgent(request, timeout=PATIENCE)

    async def delete_agent(self, id_: str, *, purge: bool = False) -> None:
        request = agents_pb.DeleteAgentRequest(agent_id=id_, purge=purge)
        await self.content.agents.DeleteAgent(request, timeout=PATIENCE)

    async def resolve(self, reference: str = "") -> agents_pb.ResolveAgentResponse:
        request = agents_pb.ResolveAgentRequest(agent_id="writer", persona_version=reference)
        return await self.content.agents.ResolveAgent(request, timeout=PATIENCE)

    async def create(
        self,
        text: str = "# Writer",
        metadata: dict[str, Any] | None = None,
        agent_id: str = "writer",
        reason: str = "",
    ) -> Persona:
        request = pb.CreatePersonaRequest(reason=reason)
        request.persona.agent_id = agent_id
        request.persona.content = text
        if metadata is not None:
            request.persona.metadata.update(metadata)
        return await self.stub.CreatePersona(request, timeout=PATIENCE)

    async def get(self, agent_id: str = "writer", *, include_deleted: bool = False) -> Persona:
        request = pb.GetPersonaRequest(agent_id=agent_id, include_deleted=include_deleted)
        return await self.stub.GetPersona(request, timeout=PATIENCE)

    async def update(
        self, text: str, etag: str = "", agent_id: str = "writer", **options: Any
    ) -> Persona:
        persona = Persona(agent_id=agent_id, content=text, etag=etag)
        request = pb.UpdatePersonaRequest(persona=persona, **options)
        return await self.stub.UpdatePersona(request, timeout=PATIENCE)

    async def write(self, *texts: str) -> Persona:
        """Make the persona of `writer` and then more versions."""
        persona = await self.create(texts[0])
        for text in texts[1:]:
            persona = await self.update(text, persona.etag)
        return persona

    async def versions(self, **fields: Any) -> list[int]:
        request = pb.ListPersonaVersionsRequest(agent_id="writer", **fields)
        found = await self.stub.ListPersonaVersions(request, timeout=PATIENCE)
        return [one.version for one in found.persona_versions]

    async def version(self, reference: str) -> Any:
        request = pb.GetPersonaVersionRequest(agent_id="writer", version=reference)
        return await self.stub.GetPersonaVersion(request, timeout=PATIENCE)

    async def set_alias(self, name: str, reference: str) -> Persona:
        request = pb.SetPersonaAliasRequest(agent_id="writer", alias=name, version=reference)
        return await self.stub.SetPersonaAlias(request, timeout=PATIENCE)

    async def delete_alias(self, name: str) -> Persona:
        request = pb.DeletePersonaAliasRequest(agent_id="writer", alias=name)
        return await self.stub.DeletePersonaAlias(request, timeout=PATIENCE)

    async def restore(self, reference: str, **fields: Any) -> Persona:
        request = pb.RestorePersonaVersionRequest(agent_id="writer", version=reference, **fields)
        return await self.stub.RestorePersonaVersion(request, timeout=PATIENCE)

    async def delete(self, *, purge: bool = False, etag: str = "") -> None:
        request = pb.DeletePersonaRequest(agent_id="writer", purge=purge, etag=etag)
        await self.stub.DeletePersona(request, timeout=PATIENCE)

    async def undelete(self) -> Persona:
        request = pb.UndeletePersonaRequest(agent_id="writer")
        return await self.stub.UndeletePersona(request, timeout=PATIENCE)

    async def compare(self, before: str, after: str) -> pb.ComparePersonaVersionsResponse:
        request = pb.ComparePersonaVersionsRequest(
            agent_id="writer", from_version=before, to_version=after
        )
        return await self.stub.ComparePersonaVersions(request, timeout=PATIENCE)

    async def clean_up(self, **fields: Any) -> pb.CleanUpPersonaVersionsResponse:
        request = pb.CleanUpPersonaVersionsRequest(agent_id="writer", **fields)
        return await self.stub.CleanUpPersonaVersions(request, timeout=PATIENCE)

    async def listed(self, *, deleted: bool = False) -> list[str]:
        request = pb.ListPersonasRequest(deleted=deleted)
        found = await self.stub.ListPersonas(request, timeout=PATIENCE)
        return [one.agent_id for one in found.personas]


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with served_content(tmp_path) as content:
        house = House(content)
        await house.add_agent("writer")
        yield house


async def test_a_persona_has_versions_that_say_who_made_them_and_why(house: House) -> None:
    made = await house.create("# Writer\n", {"tone": "dry", "n": 1}, reason="First.")
    changed = await house.update("# Writer\n\nBrief.\n", made.etag, reason="Shorter.")

    assert (made.version, made.active_version, made.etag) == (1, 1, "1")
    assert (changed.version, changed.content) == (2, "# Writer\n\nBrief.\n")
    assert changed == await house.get()
    assert MessageToDict(changed.metadata) == {"tone": "dry", "n": 1}
    first, second = await house.version("1"), await house.version("latest")
    assert (first.content, first.reason, first.author) == ("# Writer\n", "First.", "anonymous")
    assert (second.version, second.reason, second.characters) == (2, "Shorter.", 17)
    assert second.create_time.ToMicroseconds() > first.create_time.ToMicroseconds()
    assert changed.create_time == first.create_time
    assert changed.update_time == second.create_time


async def test_what_changes_nothing_makes_no_version(house: House) -> None:
    made = await house.create("# Writer", {"a": True})

    assert await house.update("# Writer", made.etag) == made
    assert await house.restore("1") == made
    assert await house.update("# Writer", force=True) == made
    persona = Persona(agent_id="writer", etag="1")
    persona.metadata.update({"a": 1})
    changed = await house.stub.UpdatePersona(pb.UpdatePersonaRequest(persona=persona))
    assert changed.version == 2
    assert changed.metadata["a"] == 1


async def test_an_update_names_what_it_started_from_unless_it_is_forced(house: House) -> None:
    await house.write("one", "two")

    stale = await refusal(house.update("three", "1"))
    none = await refusal(house.update("three"))
    forced = await house.update("three", force=True)

    assert stale.kind == (ABORTED, "ETAG_MISMATCH")
    assert stale.metadata["etag"] == "2"
    assert none.kind == (INVALID, "INVALID_REQUEST")
    assert none.fields == ["etag"]
    assert (forced.version, forced.content) == (3, "three")


async def test_an_update_names_its_agent(house: House) -> None:
    refused = await refusal(house.update("two", agent_id="", force=True))

    assert (refused.kind, refused.fields) == ((INVALID, "INVALID_REQUEST"), ["persona"])


async def test_a_mask_says_what_changes(house: House) -> None:
    made = await house.create("# Writer", {"a": 1})

    cleared = await house.update("ignored", made.etag, update_mask=FieldMask(paths=["metadata"]))
    refused = await refusal(house.update("x", "2", update_mask=FieldMask(paths=["version"])))
    nothing = await refusal(
        house.stub.UpdatePersona(pb.UpdatePersonaRequest(persona=Persona(agent_id="writer")))
    )

    assert (cleared.version, cleared.content) == (2, "# Writer")
    assert MessageToDict(cleared.metadata) == {}
    assert refused.fields == nothing.fields == ["update_mask"]


async def test_what_no_version_can_be_made_of_is_refused_by_field(house: House) -> None:
    deep: dict[str, Any] = {}
    for _ in range(16):
        deep = {"a": deep}
    texts = ["", " \n\t\u2003", "a\x00", "a\n b\x85", "x" * 50_001]
    metadata: list[dict[str, Any]] = [
        {" ": 1},
        {"a": {"b": [{"": 1}]}},
        {"a": "x" * 5_000},
        {"a": "x" * 2_000_000},
        {"a": float("nan")},
        {"a": [float("-inf")]},
        deep,
    ]

    refused = [await refusal(house.create(text)) for text in texts]
    refused += [await refusal(house.create(metadata=one)) for one in metadata]

    assert {one.kind for one in refused} == {(INVALID, "INVALID_REQUEST")}
    fields = [one.fields for one in refused]
    assert fields == [["persona.content"]] * len(texts) + [["persona.metadata"]] * len(metadata)
    assert (await refusal(house.get())).reason == "PERSONA_NOT_FOUND"
    assert (await house.create(metadata=deep["a"])).version == 1


async def test_a_control_character_is_named_with_its_place(house: House) -> None:
    refused = await refusal(house.create("one\r\n\ttwo\x0b"))

    assert "U+000B at line 2, column 5" in refused.message


async def test_metadata_comes_back_as_it_was_sent(house: House) -> None:
    metadata: dict[str, Any] = {
        "whole": 1,
        "part": 0.5,
        "large": 1e300,
        "no": None,
        "yes": True,
        "list": [1, [2, {"ü": "🎈"}], []],
        "$set": {"a.b": {}},
    }
    made = await house.create("x" * 50_000, metadata)

    assert MessageToDict((await house.get()).metadata) == metadata
    assert (await house.version("1")).characters == 50_000
    assert made.etag == (await house.update("x" * 50_000, force=True)).etag


async def test_an_agent_has_one_persona_and_no_agent_has_none(house: House) -> None:
    await house.create()

    again = await refusal(house.create())
    unknown = await refusal(house.create(agent_id="writr"))
    unnamed = await refusal(house.create(agent_id=""))
    default = await house.create("# Default", agent_id="default")

    assert again.kind == (EXISTS, "PERSONA_ALREADY_EXISTS")
    assert again.resources == [("persona", "writer")]
    assert unknown.kind == (NOT_FOUND, "AGENT_NOT_FOUND")
    assert "writer" in unknown.message
    assert unnamed.fields == ["persona.agent_id"]
    assert default.version == 1


async def test_of_twenty_who_create_at_once_one_wins(house: House) -> None:
    calls = (house.create(f"# {number}") for number in range(20))
    answers = await asyncio.gather(*calls, return_exceptions=True)

    (made,) = (one for one in answers if isinstance(one, Persona))
    codes = [one.code() for one in answers if isinstance(one, grpc.aio.AioRpcError)]
    assert codes == [EXISTS] * 19
    assert await house.get() == made
    assert await house.versions() == [1]


async def test_twenty_writers_at_once_make_twenty_versions_without_gaps(house: House) -> None:
    await house.create("# 0")

    made = await asyncio.gather(*(house.update(f"# {n}", force=True) for n in range(1, 21)))

    assert (await house.get()).version == 21
    assert await house.versions() == list(range(21, 0, -1))
    assert {(await house.version(str(n))).content for n in range(2, 22)} == {
        f"# {n}" for n in range(1, 21)
    }
    assert len(made) == 20


async def test_versions_are_listed_by_number_in_ranges_and_pages(house: House) -> None:
    await house.write(*(f"# {n}" for n in range(1, 13)))

    assert await house.versions() == list(range(12, 0, -1))
    assert await house.versions(from_version=3, to_version=5) == [5, 4, 3]
    assert await house.versions(from_version=11, reverse=True) == [11, 12]
    assert await house.versions(to_version=2) == [2, 1]
    assert await house.versions(from_version=13) == []
    request = pb.ListPersonaVersionsRequest(
        agent_id="writer", page_size=4, from_version=2, to_version=11
    )
    pages = []
    while True:
        page = await house.stub.ListPersonaVersions(request)
        pages.append([one.version for one in page.persona_versions])
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert pages == [[11, 10, 9, 8], [7, 6, 5, 4], [3, 2]]
    request.reverse = True
    assert (await refusal(house.stub.ListPersonaVersions(request))).reason == "PAGE_TOKEN_INVALID"
    backwards = await refusal(house.versions(from_version=5, to_version=3))
    assert backwards.fields == ["to_version"]


async def test_lists_have_no_texts(house: House) -> None:
    await house.write("one", "two")

    personas = await house.stub.ListPersonas(pb.ListPersonasRequest())
    versions = await house.stub.ListPersonaVersions(
        pb.ListPersonaVersionsRequest(agent_id="writer")
    )

    assert [(one.agent_id, one.version) for one in personas.personas] == [("writer", 2)]
    assert not personas.personas[0].HasField("content")
    assert [(one.content, one.characters) for one in versions.persona_versions] == [
        ("", 3),
        ("", 3),
    ]


async def test_personas_are_listed_in_pages_newest_first(house: House) -> None:
    for number in range(5):
        await house.add_agent(f"a{number}")
        await house.create(agent_id=f"a{number}")

    first = await house.stub.ListPersonas(pb.ListPersonasRequest(page_size=3))
    rest = await house.stub.ListPersonas(
        pb.ListPersonasRequest(page_size=3, page_token=first.next_page_token)
    )

    assert [one.agent_id for one in first.personas] == ["a4", "a3", "a2"]
    assert [one.agent_id for one in rest.personas] == ["a1", "a0"]
    assert not rest.next_page_token


async def test_two_versions_are_compared_by_number_or_name(house: House) -> None:
    await house.write("# A\none\ntwo\n", "# A\none\n2\nthree\n", "other")

    found = await house.compare("first", "2")

    versions = getattr(found, "from").version, found.to.version
    assert versions == (1, 2)
    assert not found.to.content
    assert found.comparison.diff == (
        "--- a/persona.md\tversion 1\n+++ b/persona.md\tversion 2\n"
        "@@ -1,3 +1,4 @@\n # A\n one\n-two\n+2\n+three\n"
    )
    assert (found.comparison.added_lines, found.comparison.removed_lines) == (2, 1)
    assert (await house.compare("latest", "3")).comparison.diff == ""
    assert (await house.compare("1", "")).to.version == 3
    assert (await refusal(house.compare("1", "9"))).kind == (NOT_FOUND, "PERSONA_VERSION_NOT_FOUND")


async def test_restoring_makes_a_new_version_and_rewrites_none(house: House) -> None:
    await house.write("one", "two", "three")

    restored = await house.restore("1", etag="3", reason="Back.")

    assert (restored.version, restored.content) == (4, "one")
    newest = await house.version("4")
    assert (newest.restored_from, newest.reason) == (1, "Back.")
    assert newest.content_hash == (await house.version("1")).content_hash
    assert (await house.version("3")).content == "three"
    assert (await refusal(house.restore("2", etag="3"))).kind == (ABORTED, "ETAG_MISMATCH")
    assert (await refusal(house.restore("9"))).reason == "PERSONA_VERSION_NOT_FOUND"


async def test_an_alias_stands_for_a_version_and_moves(house: House) -> None:
    await house.write("one", "two", "three")

    named = await house.set_alias("production", "latest")
    canary = await house.set_alias("canary", "2")
    moved = await house.set_alias("production", "canary")

    assert (named.active_version, named.etag) == (3, "3")
    assert [(one.name, one.version) for one in canary.aliases] == [("canary", 2), ("production", 3)]
    assert moved.active_version == 2
    assert (await house.version("production")).aliases == ["canary", "production"]
    resolved = await house.resolve()
    assert (resolved.persona_version, resolved.persona_content) == (2, "two")
    assert resolved.persona_alias == "production"
    without = await house.delete_alias("production")
    assert without.active_version == 3
    assert (await house.resolve()).persona_version == 3


async def test_what_no_alias_can_stand_for_is_refused(house: House) -> None:
    await house.create()

    assert (await refusal(house.set_alias("canary", "2"))).reason == "PERSONA_VERSION_NOT_FOUND"
    assert (await refusal(house.set_alias("canary", "beta"))).reason == "PERSONA_VERSION_NOT_FOUND"
    assert (await refusal(house.set_alias("latest", "1"))).fields == ["alias"]
    assert (await refusal(house.delete_alias("beta"))).kind == (
        NOT_FOUND,
        "PERSONA_ALIAS_NOT_FOUND",
    )
    for number in range(32):
        await house.set_alias(f"a{number}", "1")
    assert (await refusal(house.set_alias("one-more", "1"))).fields == ["alias"]
    assert len((await house.set_alias("a31", "latest")).aliases) == 32


async def test_a_run_uses_the_version_it_names_and_that_is_noted(house: House) -> None:
    await house.write("one", "two", "three")

    named = await house.resolve("2")
    first = await house.resolve("first")
    newest = await house.resolve()
    unknown = await refusal(house.resolve("beta"))

    assert (named.persona_version, named.persona_alias) == (2, "")
    assert (first.persona_content, newest.persona_content) == ("one", "three")
    assert unknown.kind == (NOT_FOUND, "PERSONA_VERSION_NOT_FOUND")
    assert [(await house.version(str(n))).used for n in (1, 2, 3)] == [True, True, True]


async def test_a_clean_up_keeps_the_newest_and_what_is_in_use(house: House) -> None:
    await house.write(*(f"# {n}" for n in range(1, 11)))
    await house.set_alias("canary", "2")
    await house.resolve("4")

    asked = await house.clean_up(keep=3, dry_run=True)
    assert await house.versions() == list(range(10, 0, -1))
    done = await house.clean_up(keep=3)

    assert asked == done
    assert (done.deleted, done.kept, done.kept_in_use) == (5, 5, 2)
    assert await house.versions() == [10, 9, 8, 4, 2]
    assert (await house.version("first")).version == 2
    gone = await refusal(house.version("1"))
    assert gone.kind == (NOT_FOUND, "PERSONA_VERSION_NOT_FOUND")
    assert "cleaned up" in gone.message
    assert (await house.update("# 11", "10")).version == 11
    assert (await house.clean_up()).deleted == 0


async def test_statistics_tell_how_a_persona_grew_and_what_it_is_made_of(house: House) -> None:
    await house.write("# One", "# Ü\n\n- **two**\n- [x](y)\n")

    found = await house.stub.GetPersonaStatistics(pb.GetPersonaStatisticsRequest(agent_id="writer"))

    assert (found.versions, found.latest_version, found.versions_per_day) == (2, 2, 2.0)
    assert found.content_bytes == 5 + 25
    assert found.first_version_time.ToMicroseconds() < found.last_version_time.ToMicroseconds()
    content = found.content
    assert (content.lines, content.words, content.characters) == (4, 6, 24)
    assert (content.headings, content.bold, content.links, content.list_items) == (1, 1, 1, 2)


async def test_a_deleted_persona_comes_back_or_goes_on_with_its_numbers(house: House) -> None:
    await house.write("one", "two")
    await house.set_alias("production", "1")

    await house.delete(etag="2")
    gone = await refusal(house.get())
    assert gone.kind == (NOT_FOUND, "PERSONA_NOT_FOUND")
    assert (await house.listed(), await house.listed(deleted=True)) == ([], ["writer"])
    assert (await house.resolve()).persona_version == 0
    kept = await house.get(include_deleted=True)
    days = kept.purge_time.ToMicroseconds() - kept.delete_time.ToMicroseconds()
    assert (kept.content, days) == ("two", 30 * 24 * 3600 * 1_000_000)
    back = await house.undelete()
    assert (back.version, back.content, back.active_version) == (2, "two", 1)
    assert back == await house.undelete()
    await house.delete()
    again = await house.create("three")

    assert (again.version, again.active_version, list(again.aliases)) == (3, 3, [])
    assert await house.versions() == [3, 2, 1]
    assert not again.HasField("delete_time")


async def test_a_purged_persona_is_gone_for_good(house: House) -> None:
    await house.write("one", "two")
    await house.delete()

    await house.delete(purge=True)

    assert (await refusal(house.undelete())).kind == (NOT_FOUND, "PERSONA_NOT_FOUND")
    assert await house.listed(deleted=True) == []
    made = await house.create("anew")
    assert (made.version, await house.versions()) == (1, [1])


async def test_deleting_shows_the_etag_it_means(house: House) -> None:
    await house.write("one", "two")

    assert (await refusal(house.delete(etag="1"))).kind == (ABORTED, "ETAG_MISMATCH")
    assert (await house.get()).version == 2


async def test_a_persona_goes_and_comes_with_its_agent(house: House) -> None:
    await house.write("one", "two")

    await house.delete_agent("writer")
    assert (await refusal(house.get())).kind == (NOT_FOUND, "AGENT_NOT_FOUND")
    assert (await refusal(house.undelete())).reason == "AGENT_NOT_FOUND"
    assert (await house.listed(), await house.listed(deleted=True)) == ([], ["writer"])
    await house.content.agents.UndeleteAgent(agents_pb.UndeleteAgentRequest(agent_id="writer"))
    assert (await house.get()).content == "two"
    await house.delete_agent("writer", purge=True)
    await house.add_agent("writer")
    assert (await refusal(house.get())).reason == "PERSONA_NOT_FOUND"
    assert (await house.create("anew")).version == 1


async def test_a_persona_that_was_deleted_before_its_agent_stays_so(house: House) -> None:
    await house.create()
    await house.delete()

    await house.delete_agent("writer")
    await house.content.agents.UndeleteAgent(agents_pb.UndeleteAgentRequest(agent_id="writer"))

    assert (await refusal(house.get())).reason == "PERSONA_NOT_FOUND"
    assert (await house.undelete()).version == 1


async def test_changes_are_recorded_under_the_agent(house: House) -> None:
    await house.create()
    await house.set_alias("production", "1")
    await refusal(house.update("two", "7"))
    await house.delete()

    found = await AuditServiceStub(house.content.channel).ListAuditRecords(
        audit_service_pb2.ListAuditRecordsRequest(), timeout=PATIENCE
    )

    shown = [(one.rpc.rpartition("/")[2], one.resource_id) for one in found.audit_records]
    assert shown[:4] == [
        ("DeletePersona", "writer"),
        ("UpdatePersona", "writer"),
        ("SetPersonaAlias", "writer"),
        ("CreatePersona", "writer"),
    ]


async def test_personas_are_there_after_a_restart(tmp_path: Path) -> None:
    async with served_content(tmp_path) as content:
        house = House(content)
        await house.add_agent("writer")
        await house.write("one", "two")
        await house.set_alias("production", "1")
        before = await house.get()
    async with served_content(tmp_path) as content:
        assert await House(content).get() == before
