"""Histories: the runs of an instance or an agent that ended, one after the other, and what they came to.

Every run is one link of one chain: of that of its instance, or, when it has none, of that of its agent.
A link is stored under the number after the newest one's, which nobody else can take, and holds the
totals of all up to it. So each run counts once, together with its link or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

PREVIEW = 2000
"""How many characters of a question and of an answer a history keeps."""


class Outcome(StrEnum):
    """How a run ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Shown(StrEnum):
    """Whether a run is in the lists of histories."""

    SHOWN = "shown"
    HIDDEN = "hidden"
    """A message of it was deleted; it comes back with that."""
    CLEARED = "cleared"
    """For good: nothing is left of it but that it counts."""


@dataclass(frozen=True, slots=True)
class Totals:
    """What the runs of a chain came to, up to one of them. Times are microseconds."""

    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    duration: int = 0
    """Of all together."""
    last_duration: int = 0
    last_time: int = 0
    """When the newest ended, since the epoch; 0 before the first."""

    @property
    def count(self) -> int:
        """How many runs there were."""
        return self.succeeded + self.failed + self.cancelled

    @property
    def success_rate(self) -> float | None:
        """How many of 100 succeeded, those that were cancelled left out; None before the first."""
        counted = self.succeeded + self.failed
        return 100 * self.succeeded / counted if counted else None

    @property
    def average_duration(self) -> float | None:
        """How long a run took on average, in microseconds; None before the first."""
        return self.duration / self.count if self.count else None


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that ended."""

    org: str
    execution_id: str
    agent_id: str
    outcome: Outcome
    duration: int
    """Microseconds."""
    instance_id: str = ""
    """Empty for none."""
    conversation_id: str = ""
    """Empty for none."""
    question: str = ""
    answer: str = ""
    error_reason: str = ""

    @property
    def chain(self) -> str:
        """The chain it joins."""
        return chain_of(self.agent_id, self.instance_id)


@dataclass(frozen=True, slots=True)
class Link:
    """A run that ended, in its chain. But for whether it is shown it never changes."""

    run: Ended
    number: int
    """1, 2, 3, … without gaps within its chain: how many runs of it were counted with this one."""
    create_time: int
    """When it was counted, in microseconds since the epoch; greater than that of the link before."""
    totals: Totals
    shown: Shown = Shown.SHOWN
    version: int = field(default=1, compare=False)
    """Of the stored document."""

    @property
    def org(self) -> str:
        """The organisation."""
        return self.run.org

    @property
    def id(self) -> str:
        """What no other link of the organisation has; text has the order of numbers."""
        return f"{self.run.chain}.{self.number:010d}"

    @property
    def is_told(self) -> bool:
        """Whether later runs of its instance are told it, those outside of conversations."""
        run = self.run
        is_apart = bool(run.instance_id) and not run.conversation_id
        has_answer = run.outcome is Outcome.SUCCEEDED or bool(run.answer)
        return is_apart and self.shown is Shown.SHOWN and has_answer


@dataclass(frozen=True, slots=True)
class Whose:
    """Whose history: either of an agent, with the runs of all its instances, or of an instance."""

    agent_id: str = ""
    instance_id: str = ""


def chain_of(agent_id: str, instance_id: str) -> str:
    """Name the chain of the runs of an instance, or of those of an agent that have no instance."""
    # No id of an instance has a colon.
    return instance_id or f"agent:{agent_id}"


def linked(newest: Link | None, run: Ended, now: int) -> Link:
    """Make the link of a run that comes after the newest one of its chain.

    Args:
        newest: None when it is the first.
        now: microseconds since the epoch.
    """
    run = replace(run, question=run.question[:PREVIEW], answer=run.answer[:PREVIEW])
    if newest is None:
        return Link(run, 1, now, counted(Totals(), run, now))
    # A clock that is behind the one of the link before must not turn their order around.
    now = max(now, newest.create_time + 1)
    return Link(run, newest.number + 1, now, counted(newest.totals, run, now))


def counted(totals: Totals, run: Ended, now: int) -> Totals:
    """Count a run that ended now, in microseconds since the epoch."""
    return Totals(
        totals.succeeded + (run.outcome is Outcome.SUCCEEDED),
        totals.failed + (run.outcome is Outcome.FAILED),
        totals.cancelled + (run.outcome is Outcome.CANCELLED),
        totals.duration + run.duration,
        run.duration,
        now,
    )


def fitting(told: Sequence[Link], max_bytes: int) -> Sequence[Link]:
    """Take of links, newest first, the newest whose texts fit into so many bytes of UTF-8."""
    for count, link in enumerate(told):
        max_bytes -= len(link.run.question.encode()) + len(link.run.answer.encode())
        if max_bytes < 0:
            return told[:count]
    return told


def followed(link: Link, *, deleted: bool) -> Link:
    """Let a link be hidden while a message of its run is deleted; what was cleared stays so."""
    if link.shown is Shown.CLEARED:
        return link
    return replace(link, shown=Shown.HIDDEN if deleted else Shown.SHOWN)


def cleared(link: Link) -> Link:
    """Leave nothing of a run but that it counts."""
    run = replace(link.run, question="", answer="", error_reason="")
    return replace(link, run=run, shown=Shown.CLEARED)
