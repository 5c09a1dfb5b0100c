"""What belongs to several things at once: it is deleted while any of them is.

A thing has a tie to each one it belongs to. A tie is the life it has as a part of that one: deletions
of different things have no common order, and the return of one must not bring back what still belongs
to another one that is deleted. What a thing does by itself is its own life.

Whoever marks, takes back or purges for another may come late, or twice: a tie knows the newest deletion
it heard of, and takes no older one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from services.kit.resources import deletions
from services.kit.resources.deletions import Life

Ties: TypeAlias = Mapping[str, Life]
"""By what it is tied to, as `tie` names it. One that was never deleted has no entry."""


def tie(kind: str, id_: str) -> str:
    """Name what something is tied to."""
    return f"{kind}/{id_}"


def fate(own: Life, ties: Ties) -> Life:
    """Tell whether a thing is deleted, and how, all in all.

    Its own deletion counts first, then the earliest of those it is tied to.
    """
    taken = [life for life in ties.values() if not life.live]
    if not own.live or not taken:
        return own
    first = min(taken, key=lambda life: (life.delete_time or 0, life.deletion))
    return replace(own, deletion=first.deletion, delete_time=first.delete_time, inherited=True)


def marked(ties: Ties, to: str, deletion: str, time: int) -> Ties | None:
    """Delete a thing with one it is tied to; None when that changes nothing.

    Args:
        to: what it is tied to.
        deletion: that of the other one.
        time: when the other one was deleted, in microseconds since the epoch.
    """
    life = deletions.marked(ties.get(to, Life()), deletion, time)
    return None if life is None else {**ties, to: life}


def unmarked(ties: Ties, to: str, deletion: str) -> Ties | None:
    """Take a thing back with one it is tied to; None when that changes nothing.

    It comes back from every deletion of the other one up to this one: whoever was deleted twice hands
    on the return from the second one alone. None of these can take it any more.
    """
    life = ties.get(to, Life())
    if life.deletion > deletion or (life.live and life.last_deletion >= deletion):
        return None
    return {**ties, to: Life(last_deletion=max(deletion, life.last_deletion))}
