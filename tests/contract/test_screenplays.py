"""Screenplays over every store: who gets a path, what lists are in the order of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.content.domain.screenplays import Order, Screenplay, Wanted, text_of
from services.content.stores.screenplays import TEXTS, text_to_document
from services.kit.errors import DomainError, Reason
from services.kit.storage.ports import Insert, Query
from tests.contract.conftest import OpenStore
from tests.fakes.stage import COLLECTIONS, ORG, Stage

TAKEN = Reason.REASON_SCREENPLAY_PATH_TAKEN


@pytest.fixture
async def stage(open_store: OpenStore) -> Stage:
    return Stage(await open_store(COLLECTIONS, ()))


@pytest.mark.parametrize("name", ["file_path", "import_path"])
async def test_of_twenty_who_want_a_path_one_gets_it_and_the_others_are_told_who(
    stage: Stage, name: str
) -> None:
    async def race() -> Screenplay:
        made = await asyncio.gather(
            *(stage.create(str(number), **{name: "docs/a.md"}) for number in range(20)),
            return_exceptions=True,
        )
        (winner,) = (one for one in made if isinstance(one, Screenplay))
        refused = [one for one in made if isinstance(one, DomainError)]
        assert len(refused) == 19
        for error in refused:
            assert (error.reason, error.metadata["holder_id"]) == (TAKEN, winner.id)
        return winner

    first = await race()
    await stage.delete(first.id)
    second = await race()
    with pytest.raises(DomainError) as refused:
        await stage.undelete(first.id)
    assert refused.value.metadata["holder_id"] == second.id
    back = await stage.undelete(first.id, drop=True)
    assert getattr(back, name) == ""
    await stage.create("Elsewhere", org="other", **{name: "docs/a.md"})


async def test_a_screenplay_is_read_as_it_was_made(stage: Stage) -> None:
    text = "\ufeff# π 𝄞\r\n\x00 e\u0301 \u2028\n"
    asked: dict[str, Any] = {
        "content": text,
        "tags": ("é",),
        "export_path": "e.md",
        "request_id": "r",
    }
    made = await stage.create("π", **asked)
    assert await stage.get(made.id) == made
    changed = (await stage.update(made.id, content="")).screenplay
    assert await stage.get(made.id) == changed
    assert (await stage.service.text(ORG, made.id, 1)).content == text
    assert (await stage.create("π", **asked)).id == made.id
    (summary,) = await stage.service.list(ORG, Wanted(query="π", tags=("É",)), None, 10)
    assert (summary.id, summary.content, summary.content_bytes) == (made.id, "", 0)


async def test_lists_go_on_where_they_ended_in_every_order(stage: Stage) -> None:
    for name in ("b", "A", "c", "a", "B"):
        await stage.create(name, tags=("t",))
    for order in Order:
        for query in ("", "a"):
            wanted = Wanted(order=order, tags=("t",), query=query)
            whole = [one.id for one in await stage.service.list(ORG, wanted, None, 10)]
            assert len(whole) == (2 if query else 5)
            paged: list[str] = []
            after = None
            while page := await stage.service.list(ORG, wanted, after, 2):
                paged += [one.id for one in page]
                after = stage.service.place(page[-1], wanted)
            assert paged == whole


async def test_a_text_that_was_left_behind_is_no_second_one(stage: Stage) -> None:
    made = await stage.create(content="one")
    await stage.update(made.id, content="two")
    stored = await stage.get(made.id)
    await stage.store.write(Insert(TEXTS, text_to_document(text_of(stored))))
    assert await stage.kept(made.id) == [2, 1]
    await stage.update(made.id, content="three")
    assert await stage.kept(made.id) == [3, 2, 1]
    await stage.delete(made.id, purge=True)
    assert await stage.store.query(Query(TEXTS, ORG)) == []
