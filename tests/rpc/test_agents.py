"""The catalogue of agents, as its callers see it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.field_mask_pb2 import FieldMask

from conductor.content.v1 import agent_service_pb2 as pb
from conductor.content.v1.agent_pb2 import Agent, AgentModel
from conductor.content.v1.template_service_pb2 import InstallTemplatesRequest, ListTemplatesRequest
from services.content.adapters.templates import read_templates
from tests.patience import PATIENCE
from tests.rpc.content import Content, served_content
from tests.rpc.serving import refusal

NAME, CREATED, UPDATED = (
    pb.ListAgentsRequest.ORDER_NAME,
    pb.ListAgentsRequest.ORDER_CREATE_TIME,
    pb.ListAgentsRequest.ORDER_UPDATE_TIME,
)
NOT_FOUND = (grpc.StatusCode.NOT_FOUND, "AGENT_NOT_FOUND")
INVALID = (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
MISMATCH = (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
EXISTS = (grpc.StatusCode.ALREADY_EXISTS, "AGENT_ALREADY_EXISTS")


@pytest_asyncio.fixture
async def content(tmp_path: Path) -> AsyncIterator[Content]:
    async with served_content(tmp_path) as content:
        yield content


async def create(
    content: Content, name: str = "Writer", request_id: str = "", **fields: Any
) -> Agent:
    request = pb.CreateAgentRequest(agent=Agent(name=name, **fields), request_id=request_id)
    return await content.agents.CreateAgent(request, timeout=PATIENCE)


async def get(content: Content, agent_id: str, *, include_deleted: bool = False) -> Agent:
    request = pb.GetAgentRequest(agent_id=agent_id, include_deleted=include_deleted)
    return await content.agents.GetAgent(request, timeout=PATIENCE)


async def update(content: Content, *paths: str, force: bool = False, **fields: Any) -> Agent:
    mask = FieldMask(paths=paths) if paths else None
    request = pb.UpdateAgentRequest(agent=Agent(**fields), update_mask=mask, force=force)
    return await content.agents.UpdateAgent(request, timeout=PATIENCE)


async def delete(content: Content, agent_id: str, **fields: Any) -> None:
    request = pb.DeleteAgentRequest(agent_id=agent_id, **fields)
    await content.agents.DeleteAgent(request, timeout=PATIENCE)


async def undelete(content: Content, agent_id: str) -> Agent:
    request = pb.UndeleteAgentRequest(agent_id=agent_id)
    return await content.agents.UndeleteAgent(request, timeout=PATIENCE)


async def listed(content: Content, **fields: Any) -> list[str]:
    """The ids of all agents of a list, read page by page."""
    ids: list[str] = []
    token = ""
    while True:
        request = pb.ListAgentsRequest(**({"page_size": 2} | fields), page_token=token)
        page = await content.agents.ListAgents(request, timeout=PATIENCE)
        ids += [agent.id for agent in page.agents]
        token = page.next_page_token
        if not token:
            return ids


async def test_an_agent_is_answered_as_it_was_made(content: Content) -> None:
    made = await create(
        content,
        "  Ann's Writer ",
        description="Writes.\nWell.",
        instructions="First read.",
        group="writing",
        emoji="✍",
        color="#0a7fd4",
        author="Ann",
        definition_version="1.2.0",
        tags=[" Prose ", "prose", "", "News"],
        capabilities=["editing"],
        tools=["web_fetch", "web_fetch"],
        mcp_servers=["files"],
        ai_provider="mock",
        model="mock-slow",
        fallbacks=[AgentModel(model="mock")],
    )

    assert await get(content, "ann-s-writer") == made
    assert made.name == "Ann's Writer"
    assert made.description == "Writes.\nWell."
    assert list(made.tags) == ["Prose", "News"]
    assert list(made.tools) == ["web_fetch"]
    assert list(made.fallbacks) == [AgentModel(model="mock")]
    assert made.create_time == made.update_time
    assert made.create_time.nanos % 1000 == 0
    assert not made.built_in
    assert not made.HasField("delete_time")


async def test_an_id_is_made_of_the_name_and_numbered_when_it_is_taken(content: Content) -> None:
    ids = [
        (await create(content, name)).id for name in ("Über Größe!", "uber-grosse", "小説", "Run")
    ]
    many = await asyncio.gather(*(create(content, "Writer") for _ in range(25)))

    assert ids == ["uber-groe", "uber-grosse", "agent", "run-2"]
    assert len({agent.id for agent in many}) == 25
    assert {"writer", "writer-2", "writer-19"} <= {agent.id for agent in many}


async def test_the_same_request_makes_one_agent_also_when_it_was_changed_since(
    content: Content,
) -> None:
    made = await create(content, request_id="r1")
    changed = await update(content, id=made.id, name="Editor", etag=made.etag)

    assert await create(content, request_id="r1") == changed
    refused = await refusal(create(content, "Other", request_id="r1"))
    assert refused.kind == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refused.fields == ["request_id"]


async def test_of_many_who_make_one_id_one_wins(content: Content) -> None:
    calls = [refusal(create(content, f"Writer {n}", id="writer")) for n in range(20)]
    results = await asyncio.gather(*calls, return_exceptions=True)

    refused = [one for one in results if not isinstance(one, BaseException)]
    assert len(refused) == 19
    assert {one.kind for one in refused} == {EXISTS}
    assert {tuple(one.resources) for one in refused} == {(("agent", "writer"),)}


@pytest.mark.parametrize(
    ("fields", "broken"),
    [
        ({"name": "  "}, "agent.name"),
        ({"name": "a\tb"}, "agent.name"),
        ({"description": "a\x00b"}, "agent.description"),
        ({"name": "\u200b\u200b"}, "agent.name"),
        ({"tags": ["a\nb"]}, "agent.tags[0]"),
        ({"fallbacks": [AgentModel()]}, "agent.fallbacks[0]"),
        ({"model": "a\nb"}, "agent.model"),
        ({"id": "run"}, "agent.id"),
        ({"id": "a b"}, "agent.id"),
        ({"tools": ["a b"]}, "agent.tools[0]"),
        ({"color": "red"}, "agent.color"),
    ],
)
async def test_what_no_agent_may_be_is_refused_by_the_name_of_its_field(
    content: Content, fields: dict[str, Any], broken: str
) -> None:
    refused = await refusal(create(content, **fields))

    assert refused.kind == INVALID
    assert refused.fields == [broken]


async def test_an_unknown_agent_is_refused_with_those_that_may_have_been_meant(
    content: Content,
) -> None:
    for id_ in ("Code-Reviewer", "code-review", "release-manager"):
        await create(content, id_, id=id_)

    refused = await refusal(get(content, "code-reviewer"))
    assert refused.kind == NOT_FOUND
    assert refused.metadata["suggestions"] == "Code-Reviewer,code-review"
    assert "Code-Reviewer" in refused.message
    assert (await refusal(get(content, "defualt"))).metadata["suggestions"] == "default"
    assert "suggestions" not in (await refusal(get(content, "zzz"))).metadata


async def test_the_default_agent_is_there_from_the_start_and_stays(content: Content) -> None:
    before = await get(content, "default")
    resolved = await content.agents.ResolveAgent(
        pb.ResolveAgentRequest(agent_id="default"), timeout=PATIENCE
    )
    await create(content, "Aa")
    await create(content, "Ee")

    assert before.built_in
    assert not before.HasField("create_time")
    assert resolved.agent == before
    assert resolved.persona_version == 0
    assert await listed(content) == ["aa", "default", "ee"]
    assert await get(content, "default") == before
    for purge in (False, True):
        refused = await refusal(delete(content, "default", purge=purge))
        assert refused.kind == (grpc.StatusCode.FAILED_PRECONDITION, "AGENT_BUILT_IN")
    assert (await refusal(create(content, id="default"))).kind == EXISTS


async def test_the_default_agent_can_be_changed(content: Content, tmp_path: Path) -> None:
    before = await get(content, "default")
    changed = await update(content, id="default", model="mock-slow", etag=before.etag)

    assert changed.model == "mock-slow"
    assert changed.name == before.name
    assert changed.etag != before.etag
    assert await get(content, "default") == changed
    assert (
        await refusal(update(content, id="default", model="x", etag=before.etag))
    ).kind == MISMATCH


async def test_an_update_changes_the_fields_it_has_or_its_mask_names(content: Content) -> None:
    made = await create(content, tags=["a"], description="Old", instructions="Do.")

    one = await update(content, id=made.id, description="", etag=made.etag)
    two = await update(content, "tags", "model", id=made.id, model="m", name="No", etag=one.etag)

    assert one.description == ""
    assert list(one.tags) == ["a"]
    assert list(two.tags) == []
    assert (two.model, two.name, two.instructions) == ("m", "Writer", "Do.")
    assert one.update_time.ToMicroseconds() < two.update_time.ToMicroseconds()
    assert two.create_time == made.create_time
    assert len({made.etag, one.etag, two.etag}) == 3


@pytest.mark.parametrize(
    "path", ["id", "etag", "create_time", "built_in", "nonsense", "fallbacks.model"]
)
async def test_a_mask_names_nothing_but_what_can_be_changed(content: Content, path: str) -> None:
    made = await create(content)

    refused = await refusal(update(content, path, id=made.id, etag=made.etag))

    assert refused.kind == INVALID
    assert refused.fields == ["update_mask"]


async def test_an_update_names_its_agent(content: Content) -> None:
    refused = await refusal(update(content, name="x", force=True))

    assert (refused.reason, refused.fields) == ("INVALID_REQUEST", ["agent"])


async def test_an_update_shows_the_etag_it_started_from_or_is_forced(content: Content) -> None:
    made = await create(content)
    new = await update(content, id=made.id, name="Second", etag=made.etag)

    late = await refusal(update(content, id=made.id, name="Third", etag=made.etag))
    without = await refusal(update(content, id=made.id, name="Third"))
    forced = await update(content, id=made.id, name="Third", etag=made.etag, force=True)

    assert late.kind == MISMATCH
    assert late.metadata["etag"] == new.etag
    assert late.resources == [("agent", made.id)]
    assert without.kind == INVALID
    assert without.fields == ["etag"]
    assert "force" in without.message
    assert forced.name == "Third"


async def test_what_changes_nothing_leaves_the_etag_as_it_is(content: Content) -> None:
    made = await create(content, tags=["a"])

    assert (
        await update(content, id=made.id, name=" Writer ", tags=["a", "A"], etag=made.etag) == made
    )


async def test_of_many_who_change_one_etag_one_wins(content: Content) -> None:
    made = await create(content)
    calls = [
        refusal(update(content, id=made.id, name=f"Writer {n}", etag=made.etag)) for n in range(10)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert [one.kind for one in results if not isinstance(one, BaseException)] == [MISMATCH] * 9
    forced = [update(content, id=made.id, model=f"m{n}", force=True) for n in range(10)]
    etags = {one.etag for one in await asyncio.gather(*forced)}
    assert len(etags) == 10


async def test_lists_have_every_order_and_filter(content: Content) -> None:
    for name, group, tags in (
        ("beta", "b", ["x"]),
        ("Alpha", "a", ["x", "Y"]),
        ("gamma", "a", []),
        ("Delta", "a", ["y"]),
    ):
        await create(content, name, group=group, tags=tags)
    gamma = await get(content, "gamma")
    await update(content, id="gamma", description="Knows Übung.", etag=gamma.etag)

    by_name = ["alpha", "beta", "default", "delta", "gamma"]
    by_creation = ["delta", "gamma", "alpha", "beta", "default"]
    by_change = ["gamma", "delta", "alpha", "beta", "default"]
    assert await listed(content) == await listed(content, order=NAME) == by_name
    assert await listed(content, order=CREATED) == by_creation
    assert await listed(content, order=UPDATED) == by_change
    assert await listed(content, reverse=True) == by_name[::-1]
    assert await listed(content, order=CREATED, reverse=True) == by_creation[::-1]
    assert await listed(content, order=UPDATED, reverse=True) == by_change[::-1]
    assert await listed(content, group="a", order=CREATED) == ["delta", "gamma", "alpha"]
    assert await listed(content, tags=["X", " y "]) == ["alpha"]
    assert await listed(content, query="KNOW übu") == ["gamma"]
    assert await listed(content, query="now") == []
    assert await listed(content, query="alp", tags=["x"], group="a") == ["alpha"]


async def test_a_page_token_belongs_to_its_filters_and_order(content: Content) -> None:
    for name in ("a", "b", "c"):
        await create(content, name, group="g")
    first = await content.agents.ListAgents(
        pb.ListAgentsRequest(page_size=1, group="g"), timeout=PATIENCE
    )

    others: tuple[dict[str, Any], ...]
    others = ({}, {"group": "g", "reverse": True}, {"group": "g", "order": CREATED})
    for other in others:
        refused = await refusal(
            content.agents.ListAgents(
                pb.ListAgentsRequest(page_size=1, page_token=first.next_page_token, **other)
            )
        )
        assert refused.kind == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")


async def test_lists_leave_instructions_out_and_are_no_longer_than_clients_take(
    content: Content,
) -> None:
    await create(content, instructions="long " * 2000)
    # Long enough that they are all found by the same beginnings.
    labels = ["ü" * 98 + f"{n:02d}" for n in range(64)]
    made = [create(content, f"W{n:03d}", capabilities=labels) for n in range(180)]
    await asyncio.gather(*made)

    page = await content.agents.ListAgents(pb.ListAgentsRequest(page_size=200), timeout=PATIENCE)

    assert page.ByteSize() < 4 * 1024 * 1024
    assert not any(agent.HasField("instructions") for agent in page.agents)
    assert len(page.agents) < 180
    assert len(set(await listed(content, page_size=200))) == 182


async def test_a_deleted_agent_comes_back_until_it_is_purged(content: Content) -> None:
    made = await create(content)
    await delete(content, made.id)

    gone = await get(content, made.id, include_deleted=True)
    assert (await refusal(get(content, made.id))).kind == NOT_FOUND
    assert (await refusal(update(content, id=made.id, name="x", force=True))).kind == NOT_FOUND
    assert (await refusal(delete(content, made.id))).kind == NOT_FOUND
    assert await listed(content) == ["default"]
    assert await listed(content, deleted=True) == [made.id]
    days = gone.purge_time.ToMicroseconds() - gone.delete_time.ToMicroseconds()
    assert days == 30 * 24 * 3600 * 1_000_000

    taken = await refusal(create(content, id=made.id))
    assert taken.kind == EXISTS
    assert "UndeleteAgent" in taken.message
    assert await undelete(content, made.id) == await undelete(content, made.id) == made

    await delete(content, made.id)
    await delete(content, made.id, purge=True)
    assert (await refusal(undelete(content, made.id))).kind == NOT_FOUND
    assert await listed(content, deleted=True) == []
    assert (await create(content, id=made.id)).id == made.id


async def test_an_agent_is_deleted_only_with_the_etag_its_caller_knows(content: Content) -> None:
    made = await create(content)
    new = await update(content, id=made.id, name="Second", etag=made.etag)

    assert (await refusal(delete(content, made.id, etag=made.etag))).kind == MISMATCH
    await delete(content, made.id, etag=new.etag, purge=True)
    assert (await refusal(get(content, made.id, include_deleted=True))).kind == NOT_FOUND


async def test_what_is_kept_for_ever_says_no_time_of_its_end(tmp_path: Path) -> None:
    async with served_content(tmp_path, content_retention_days=0) as content:
        made = await create(content)
        await delete(content, made.id)
        gone = await get(content, made.id, include_deleted=True)

    assert gone.HasField("delete_time")
    assert not gone.HasField("purge_time")


async def test_a_run_is_told_of_an_agent_that_lives(content: Content) -> None:
    made = await create(content, instructions="Do.")

    async def resolve(version: str = "") -> pb.ResolveAgentResponse:
        request = pb.ResolveAgentRequest(agent_id=made.id, persona_version=version)
        return await content.agents.ResolveAgent(request, timeout=PATIENCE)

    assert (await resolve()).agent == made
    refused = await refusal(resolve("7"))
    assert refused.kind == (grpc.StatusCode.NOT_FOUND, "PERSONA_VERSION_NOT_FOUND")
    await delete(content, made.id)
    assert (await refusal(resolve())).kind == NOT_FOUND


async def test_agents_outlive_the_process(tmp_path: Path) -> None:
    async with served_content(tmp_path) as content:
        made = await create(content, instructions="Do.", fallbacks=[AgentModel(model="m")])
        await create(content, "Gone")
        await delete(content, "gone")
    async with served_content(tmp_path) as content:
        assert await get(content, made.id) == made
        assert (await undelete(content, "gone")).name == "Gone"


# Templates


async def installed(content: Content, **fields: Any) -> tuple[list[str], list[str]]:
    answer = await content.templates.InstallTemplates(
        InstallTemplatesRequest(**fields), timeout=PATIENCE
    )
    return list(answer.installed_agent_ids), list(answer.kept_agent_ids)


async def test_templates_are_listed_by_category_and_say_which_are_installed(
    content: Content,
) -> None:
    await installed(content, template_ids=["editor"])
    answer = await content.templates.ListTemplates(ListTemplatesRequest(), timeout=PATIENCE)

    shown = [(one.id, [template.id for template in one.templates]) for one in answer.categories]
    expected = [(one.id, [template.id for template in one.templates]) for one in read_templates()]
    assert shown == expected
    templates = [template for one in answer.categories for template in one.templates]
    assert [one.id for one in templates if one.installed] == ["editor"]
    editor = next(one for one in templates if one.id == "editor")
    assert editor.agent.name
    assert editor.persona_content.startswith("# ")
    one = await content.templates.ListTemplates(
        ListTemplatesRequest(category="data"), timeout=PATIENCE
    )
    assert [category.id for category in one.categories] == ["data"]


async def test_installing_makes_what_is_not_there_and_leaves_the_rest(content: Content) -> None:
    mine = await create(content, "My Editor", id="editor")
    await create(content, "Gone", id="commit-scribe")
    await delete(content, "commit-scribe")

    made, kept = await installed(content, category="writing")
    assert (made, kept) == (["technical-writer"], ["commit-scribe", "editor"])
    assert await get(content, "editor") == mine
    writer = await get(content, "technical-writer")
    assert writer.template_id == "technical-writer"
    assert writer.group == "writing"
    assert writer.etag == "1"

    made, kept = await installed(content, all=True)
    assert len(made) == 12
    assert len(kept) == 3
    assert await installed(content, all=True) == (
        [],
        sorted([*made, *kept], key=_catalogue().index),
    )


def _catalogue() -> list[str]:
    return [template.id for one in read_templates() for template in one.templates]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"template_ids": ["editor", "nobody"]}, (grpc.StatusCode.NOT_FOUND, "TEMPLATE_NOT_FOUND")),
        ({"category": "nothing"}, (grpc.StatusCode.NOT_FOUND, "TEMPLATE_NOT_FOUND")),
        ({}, INVALID),
        ({"category": "data", "all": True}, INVALID),
    ],
)
async def test_what_names_no_templates_installs_nothing(
    content: Content, fields: dict[str, Any], kind: tuple[grpc.StatusCode, str]
) -> None:
    assert (await refusal(installed(content, **fields))).kind == kind
    assert await listed(content) == ["default"]


async def test_a_request_that_is_wrong_as_a_whole_is_told_so_in_a_sentence(
    content: Content,
) -> None:
    refused = await refusal(installed(content))

    assert refused.message == "the request needs exactly one of template_ids, category and all"


async def test_what_breaks_a_pattern_is_told_what_it_must_be(content: Content) -> None:
    refused = await refusal(
        content.agents.CreateAgent(
            pb.CreateAgentRequest(agent=Agent(name="A", color="blue")), timeout=PATIENCE
        )
    )

    assert refused.message == "agent.color: must be a colour such as #1f6feb, or empty"
