"""Screenplays, an agent and its persona, stored as the content service stores them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator
from contextlib import AsyncExitStack

from services.content.domain import personas, screenplays
from services.content.domain.agents import Agent, Definition
from services.content.domain.personas import Draft
from services.content.domain.screenplays import KEPT_TEXTS, Asked, Screenplay
from services.content.stores import COLLECTIONS, LOGS, agents
from services.content.stores import personas as stored_personas
from services.content.stores import screenplays as stored_screenplays
from services.kit import ids
from services.kit.settings import Settings
from services.kit.storage.opening import open_store
from services.kit.storage.ports import Insert

AGENT = "bench"
TEXT_BYTES = 4096
FEW = 10
"""How many screenplays have RARE, however many there are, and how many both halves."""
RARE, SOME, HALF, OTHER_HALF = "zeppelin", "xylophone", "waterfall", "volcano"
"""Words: FEW have the first, one of SOME_EACH the second, every other one the third, and all others the
fourth, as do those that have the first."""
EVEN_TENTH, OLD_TENTH = "quicksand", "jasmine"
"""Words that a tenth have each: one of ten, and the oldest."""
SOME_EACH = 25

_ORG = "default"
_AUTHOR = "bench"
_AT_ONCE = 500
"""Documents that are written together."""
_SECOND_US = 1_000_000
_NAMES = (
    *("harbour", "morning", "letter", "garden", "engine", "river", "market", "lantern"),
    *("silver", "northern", "quiet", "broken", "early", "hidden", "golden", "last"),
)
_WORDS = (
    *("plan", "of", "a", "release", "that", "tells", "customers", "about", "changes", "in"),
    *("how", "team", "handles", "questions", "from", "people", "first", "day", "their", "notes"),
)


def screenplay_id(number: int) -> str:
    """Tell the id of a screenplay: they count from 0, the oldest first."""
    return f"play_{number:032x}"


def text(mark: str) -> str:
    """Write Markdown of TEXT_BYTES that nothing is wrong with.

    Args:
        mark: what tells it from others, in ASCII.
    """
    said = " ".join(_WORDS)
    scenes = (
        f"## Scene {number}\n\n{said}\n{said}\n\n- one\n- two\n" for number in itertools.count(1)
    )
    written = f"# {mark}\n"
    while len(written) < TEXT_BYTES:
        written += f"\n{next(scenes)}"
    return written[: TEXT_BYTES - 1].rstrip().ljust(TEXT_BYTES - 1, ".") + "\n"


async def fill(settings: Settings, plays: int, versions: int, edited: int = 0) -> None:
    """Store things where a content service with these settings keeps its own.

    Args:
        plays: how many screenplays, a multiple of FEW.
        versions: how many versions the persona of AGENT has.
        edited: how many of the first screenplays have had as many texts as are kept.
    """
    now = ids.now()
    async with AsyncExitStack() as stack:
        store = await open_store(settings, "content", COLLECTIONS, LOGS, stack)
        writes = itertools.chain(
            _screenplays(plays, edited, now), _agent(now), _persona(versions, now)
        )
        while some := list(itertools.islice(writes, _AT_ONCE)):
            await store.write(*some)


def _screenplays(count: int, edited: int, now: int) -> Iterator[Insert]:
    # The same ones each time.
    chance = random.Random(count)
    for number in range(count):
        made = now - (count - number) * _SECOND_US
        values = {
            "name": f"{' '.join(chance.sample(_NAMES, 3))} {number}",
            "description": " ".join([*_marks(number, count), *chance.sample(_WORDS, 12)]),
            "tags": tuple(chance.sample(_NAMES, 2)),
            "content": text(f"Screenplay {number}"),
            "file_path": f"bench/{number}.md",
        }
        play = screenplays.made(_ORG, screenplay_id(number), Asked(values), made, _AUTHOR)
        play = screenplays.used(play, made + chance.randrange(_SECOND_US))
        for _ in range(KEPT_TEXTS - 1 if number < edited else 0):
            replaced = screenplays.text_of(play)
            yield Insert(stored_screenplays.TEXTS, stored_screenplays.text_to_document(replaced))
            play = _edited(play)
        yield Insert(stored_screenplays.SCREENPLAYS, stored_screenplays.to_document(play))


def _edited(play: Screenplay) -> Screenplay:
    content = {"content": text(f"{play.name}, save {play.revision}")}
    changed = screenplays.changed(play, content, play.update_time + 1, _AUTHOR)
    assert changed is not None, play
    return changed


def _marks(number: int, count: int) -> Iterable[str]:
    """Yield the words that a screenplay is to be found by."""
    is_rare, is_even = number % (count // FEW) == 0, number % 2 == 0
    if is_rare:
        yield RARE
    if number % SOME_EACH == 0:
        yield SOME
    if number % 10 == 0:
        yield EVEN_TENTH
    if number < count // 10:
        yield OLD_TENTH
    if is_rare or is_even:
        yield HALF
    if is_rare or not is_even:
        yield OTHER_HALF


def _agent(now: int) -> Iterator[Insert]:
    definition = Definition(
        name="Bench",
        description="Answers what a bench asks.",
        instructions=text("Instructions"),
        tags=("bench", "figures"),
        capabilities=("answer", "measure"),
    )
    made = Agent(_ORG, AGENT, definition, create_time=now, update_time=now)
    yield Insert(agents.AGENTS, agents.to_document(made))


def _persona(versions: int, now: int) -> Iterator[Insert]:
    began = now - versions * _SECOND_US
    version = personas.first_version(_ORG, AGENT, Draft(text("Version 1")), began)
    persona = personas.begun(version)
    for number in range(2, versions + 2):
        yield Insert(stored_personas.VERSIONS, stored_personas.version_to_document(version))
        if number > versions:
            break
        draft = Draft(text(f"Version {number}"), author=_AUTHOR, reason="another bench")
        version = personas.next_version(persona, draft, began + number * _SECOND_US)
        persona = personas.followed(persona, version)
    yield Insert(stored_personas.PERSONAS, stored_personas.to_document(persona))
