"""Instances: what they are made of, changes, places, statistics, their own deletion."""

from __future__ import annotations

import math
from typing import Any

import pytest

from services.conversations.domain.histories import Ended, Outcome, Whose
from services.conversations.domain.instances import Order, Position, Status
from services.kit.errors import DomainError, Reason
from services.kit.storage.ports import Write, store_unavailable
from tests.fakes.memory import Memory, MemoryStore
from tests.fakes.placing import COLLECTIONS, ORG, Placing


@pytest.fixture
def placing() -> Placing:
    return Placing()


async def _refused(work: Any) -> DomainError:
    with pytest.raises(DomainError) as refused:
        await work
    return refused.value


def _run(placed: str, number: int, outcome: Outcome = Outcome.SUCCEEDED) -> Ended:
    return Ended(
        ORG,
        f"exec_{number}",
        "writer",
        outcome,
        duration=2000,
        instance_id=placed,
        question=f"q{number}",
        answer=f"a{number}",
    )


# Making


async def test_an_instance_is_in_the_screenplay_of_its_conversation_unless_told_otherwise(
    placing: Placing,
) -> None:
    talk = await placing.talk("play_a")

    placed = await placing.place(conversation_id=talk.id)
    elsewhere = await placing.place(conversation_id=talk.id, screenplay_id="play_b")
    alone = await placing.place()

    assert [one.screenplay_id for one in (placed, elsewhere, alone)] == ["play_a", "play_b", ""]
    assert (placed.status, placed.display_order) == (Status.PENDING, placed.create_time / 1e6)
    assert await placing.get(placed.id) == placed


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"agent_id": "nobody"}, Reason.REASON_AGENT_NOT_FOUND),
        ({"agent_id": ""}, Reason.REASON_INVALID_REQUEST),
        ({"screenplay_id": "play_z"}, Reason.REASON_SCREENPLAY_NOT_FOUND),
        ({"conversation_id": "conv_z"}, Reason.REASON_CONVERSATION_NOT_FOUND),
    ],
)
async def test_what_an_instance_belongs_to_has_to_be_there(
    placing: Placing, values: dict[str, Any], reason: Reason.ValueType
) -> None:
    refused = await _refused(placing.place(**values))

    assert refused.reason == reason
    assert await placing.listed() == []


async def test_an_id_is_taken_also_by_one_that_is_deleted(placing: Placing) -> None:
    await placing.place("left")
    assert (await _refused(placing.place("left"))).reason == (Reason.REASON_INSTANCE_ALREADY_EXISTS)
    await placing.delete("left")

    refused = await _refused(placing.place("left"))

    assert refused.reason == Reason.REASON_INSTANCE_ALREADY_EXISTS
    assert "UndeleteInstance" in refused.message
    await placing.delete("left", purge=True)
    assert (await placing.place("left")).id == "left"


@pytest.mark.parametrize("id_", ["reorder", "a b", "a/b", "é", "x" * 65, "a\n"])
async def test_an_id_that_no_route_could_carry_is_refused(placing: Placing, id_: str) -> None:
    refused = await _refused(placing.place(id_))

    assert refused.violations[0].field == "instance.instance_id"


async def test_a_repeated_request_answers_the_instance_it_made_before(placing: Placing) -> None:
    talk = await placing.talk("play_a")
    first = await placing.place(request_id="r1", conversation_id=talk.id, emoji="x")

    assert await placing.place(request_id="r1", conversation_id=talk.id, emoji="x") == first
    refused = await _refused(placing.place(request_id="r1", emoji="y"))
    assert refused.reason == Reason.REASON_REQUEST_ID_REUSED


# Configs


async def test_keys_that_are_given_replace_those_there_are_and_null_takes_one_away(
    placing: Placing,
) -> None:
    placed = await placing.place(config={"a": {"x": 1, "y": 2}, "b": 1, "none": None})
    assert placed.config == {"a": {"x": 1, "y": 2}, "b": 1}

    changed = await placing.update(placed.id, config={"a": {"x": 3}, "b": None, "c": [None]})

    assert changed.config == {"a": {"x": 3}, "c": [None]}
    assert (await placing.get(placed.id)).config == changed.config
    assert (await placing.update(placed.id, config=None)).config == {}


@pytest.mark.parametrize(
    "key", ["", "$set", "a.b", "config.cwd", "__proto__", "ключ", "a\x00b", "\ud7ff", "/", "%"]
)
async def test_any_key_of_a_config_is_data(placing: Placing, key: str) -> None:
    placed = await placing.place(cwd="/srv", config={"a": {"b": 1}})

    changed = await placing.update(placed.id, config={key: {key: 1}})

    assert changed.config == {"a": {"b": 1}, key: {key: 1}}
    assert (await placing.get(placed.id)).config == changed.config
    assert changed.cwd == "/srv"


def _nested(depth: int) -> Any:
    return {"a": _nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"a": "x" * 16_400}, "16384"),
        (_nested(17), "deep"),
        ({"a": [math.nan]}, "no number"),
        ({"a": math.inf}, "no number"),
    ],
)
async def test_a_config_that_is_no_small_json_is_refused(
    placing: Placing, config: dict[str, Any], said: str
) -> None:
    placed = await placing.place(config={"kept": 1})

    refused = await _refused(placing.update(placed.id, config=config))

    assert refused.violations[0].field == "instance.config"
    assert said in refused.message
    assert (await placing.get(placed.id)).config == {"kept": 1}


async def test_a_config_does_not_outgrow_its_size_by_many_small_changes(placing: Placing) -> None:
    placed = await placing.place(config={"a": "x" * 10_000})

    refused = await _refused(placing.update(placed.id, config={"b": "x" * 10_000}))

    assert "null" in refused.message
    await placing.update(placed.id, config={"b": "x" * 10_000, "a": None})


# Changing


async def test_a_change_that_shows_an_old_etag_is_refused_and_one_without_is_made(
    placing: Placing,
) -> None:
    placed = await placing.place()
    changed = await placing.update(placed.id, cwd="/x")

    refused = await _refused(placing.update(placed.id, placed.etag, cwd="/y"))

    assert refused.reason == Reason.REASON_ETAG_MISMATCH
    assert refused.metadata["etag"] == changed.etag
    assert (await placing.update(placed.id, position=Position(1, -2.5))).position == (
        Position(1, -2.5)
    )
    assert (await placing.get(placed.id)).cwd == "/x"


async def test_what_changes_nothing_leaves_the_etag(placing: Placing) -> None:
    placed = await placing.place(emoji="x")

    assert await placing.update(placed.id, emoji="x", config={}) == placed


async def test_the_mesh_notes_what_an_instance_does_in_nobodys_way(placing: Placing) -> None:
    placed = await placing.place()

    assert await placing.instances.note(ORG, placed.id, Status.RUNNING)
    assert not await placing.instances.note(ORG, "nobody", Status.RUNNING)

    assert (await placing.get(placed.id)).status is Status.RUNNING
    await placing.update(placed.id, placed.etag, emoji="x")


@pytest.mark.parametrize(
    ("field", "value"), [("cwd", "/a\nb"), ("emoji", "\x1b[2J"), ("mcp_configs", ("a", "b\u202e"))]
)
async def test_controls_in_what_is_shown_are_refused(
    placing: Placing, field: str, value: Any
) -> None:
    placed = await placing.place()

    refused = await _refused(placing.update(placed.id, **{field: value}))

    assert refused.violations[0].field.startswith(f"instance.{field}")


async def test_the_servers_of_agent_and_instance_are_told_each_once(placing: Placing) -> None:
    placed = await placing.place(mcp_configs=("web", "files", " web "))

    tools = await placing.instances.tools(ORG, placed.id)

    assert tools.instance.mcp_configs == ("web", "files")
    assert tools.combined == ("files", "web")
    after = await placing.instances.set_tools(ORG, placed.id, ())
    assert after.combined == ("files",)


# Lists and places


async def test_lists_are_narrowed_by_what_instances_belong_to(placing: Placing) -> None:
    talk = await placing.talk("play_a")
    a = await placing.place(conversation_id=talk.id)
    b = await placing.place(conversation_id=talk.id, agent_id="editor")
    c = await placing.place(screenplay_id="play_a", status=Status.ERROR)

    assert await placing.listed() == [c.id, b.id, a.id]
    assert await placing.listed(conversation_id=talk.id) == [b.id, a.id]
    assert await placing.listed(conversation_id=talk.id, agent_id="editor") == [b.id]
    assert await placing.listed(screenplay_id="play_a", status=Status.ERROR) == [c.id]
    assert await placing.listed(reverse=True) == [a.id, b.id, c.id]


async def test_instances_are_in_the_places_they_were_given(placing: Placing) -> None:
    ids = [(await placing.place()).id for _ in range(4)]
    orders = [2.5, -1e300, 0.0, -3.0]

    moved = await placing.instances.reorder(ORG, list(zip(ids, orders, strict=True)))

    assert moved == 4
    assert await placing.listed(order=Order.DISPLAY) == [ids[1], ids[3], ids[2], ids[0]]
    assert await placing.instances.reorder(ORG, [(ids[0], 2.5)]) == 1


async def test_new_places_are_given_to_all_or_to_none(placing: Placing) -> None:
    kept, gone = await placing.place(), await placing.place()
    await placing.delete(gone.id)

    for other in (gone.id, "nobody"):
        refused = await _refused(placing.instances.reorder(ORG, [(kept.id, 1), (other, 2)]))
        assert refused.reason == Reason.REASON_INSTANCE_NOT_FOUND
    twice = await _refused(placing.instances.reorder(ORG, [(kept.id, 1), (kept.id, 2)]))

    assert twice.violations[0].field == "order_updates"
    assert await placing.get(kept.id) == kept


# What they did


async def test_an_instance_says_what_its_runs_came_to(placing: Placing) -> None:
    placed = await placing.place()
    for number, outcome in enumerate(Outcome):
        await placing.histories.record(_run(placed.id, number, outcome))

    totals = (await placing.instances.counted(ORG, placed.id)).totals

    assert (totals.count, totals.success_rate, totals.average_duration) == (3, 50, 2000)


async def test_runs_begin_with_persona_procedure_history_and_directory(placing: Placing) -> None:
    placed = await placing.place(screenplay_id="play_a")
    for number in range(52):
        await placing.histories.record(_run(placed.id, number))

    begun = await placing.instances.beginning(ORG, placed.id)

    assert (begun.voice.text, begun.voice.number, begun.instructions) == ("# Writer", 3, "Write.")
    assert begun.cwd == "/srv/a"
    assert [link.run.question for link in begun.runs] == [f"q{n}" for n in range(2, 52)]
    await placing.update(placed.id, cwd="/own")
    assert (await placing.instances.beginning(ORG, placed.id)).cwd == "/own"


# Going and coming back


async def test_a_deleted_instance_comes_back_as_it_was_until_it_is_purged(
    placing: Placing,
) -> None:
    placed = await placing.place(config={"a": 1})
    await placing.histories.record(_run(placed.id, 1))
    await placing.delete(placed.id)

    assert await placing.listed() == []
    assert await placing.listed(deleted=True) == [placed.id]
    refused = await _refused(placing.get(placed.id))
    assert refused.reason == Reason.REASON_INSTANCE_NOT_FOUND
    back = await placing.instances.undelete(ORG, placed.id)
    assert (back.instance.config, back.totals.count) == ({"a": 1}, 1)
    assert (await placing.instances.undelete(ORG, placed.id)).instance == back.instance

    await placing.delete(placed.id, purge=True)
    assert await placing.histories.list(ORG, Whose(instance_id=placed.id), None, 10) == []
    refused = await _refused(placing.instances.undelete(ORG, placed.id))
    assert refused.reason == Reason.REASON_INSTANCE_NOT_FOUND


async def test_a_purge_that_was_left_is_finished(placing: Placing) -> None:
    memory = Memory()
    store = MemoryStore(memory, COLLECTIONS)
    calm = Placing(store)
    placed = await calm.place()
    await calm.histories.record(_run(placed.id, 1))

    class Dying(MemoryStore):
        count = 0

        async def write(self, *writes: Write) -> None:
            if self.count:
                raise store_unavailable()
            self.count += 1
            await super().write(*writes)

    with pytest.raises(DomainError):
        await Placing(Dying(memory, COLLECTIONS), prefix="d").delete(placed.id, purge=True)

    assert await calm.listed(deleted=True) == []
    assert (await _refused(calm.get(placed.id))).reason == Reason.REASON_INSTANCE_NOT_FOUND
    await calm.sweep()
    assert memory.documents == {}


async def test_organisations_do_not_see_one_another(placing: Placing) -> None:
    placed = await placing.place("left")

    refused = await _refused(placing.instances.get("other", placed.id))

    assert refused.reason == Reason.REASON_INSTANCE_NOT_FOUND
