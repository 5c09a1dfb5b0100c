"""Turns: which runs answer in a conversation, in which order, and what a busy one says to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from services.kit.errors import DomainError, Reason, Resource

MOST_WAITING = 20
"""How many runs of a conversation wait at most for those before them."""
MOST_TURNS = 100
"""How many it has at most, those among them that were interrupted and have not ended."""


class Policy(StrEnum):
    """What happens to a message while another run answers."""

    REJECT = "reject"
    QUEUE = "queue"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class Turn:
    """A run that answers in a conversation, or will."""

    execution_id: str
    policy: Policy = Policy.QUEUE
    """That of its message; who asks again is told again whom it interrupted."""


Turns = tuple[Turn, ...]
"""The turns of a conversation in their order. The first one runs."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a turn stands."""

    turns: Turns
    place: int
    """How many runs answer before it."""
    interrupted: Sequence[str]
    """The runs before it that have to be cancelled, in their order."""


def added(turns: Turns, execution_id: str, policy: Policy, conversation_id: str) -> Placed:
    """Give a run its place behind the others; one that has a place keeps it.

    Raises:
        DomainError: CONVERSATION_BUSY.
    """
    if place_of(turns, execution_id) is None:
        _check_room(turns, policy, conversation_id)
        turns = (*turns, Turn(execution_id, policy))
    return placed(turns, execution_id)


def placed(turns: Turns, execution_id: str) -> Placed:
    """Tell where a turn stands; one that has ended stands before all others."""
    place = place_of(turns, execution_id)
    if place is None:
        return Placed(turns, 0, ())
    interrupts = turns[place].policy is Policy.INTERRUPT
    before = tuple(turn.execution_id for turn in turns[:place]) if interrupts else ()
    return Placed(turns, place, before)


def ended(turns: Turns, execution_id: str) -> Turns:
    """Let the others move up."""
    return tuple(turn for turn in turns if turn.execution_id != execution_id)


def place_of(turns: Turns, execution_id: str) -> int | None:
    """Count the turns before that of a run; None when it has none."""
    ids = [turn.execution_id for turn in turns]
    return ids.index(execution_id) if execution_id in ids else None


def not_found(execution_id: str, conversation_id: str) -> DomainError:
    """Make the error for a run that answers nothing in a conversation."""
    return DomainError(
        Reason.REASON_TURN_NOT_FOUND,
        f"The conversation {conversation_id} has no turn of run {execution_id}.",
        resources=[Resource("execution", execution_id)],
    )


def withdrawn(execution_id: str) -> DomainError:
    """Make the error for a turn that was taken back before its run began."""
    return DomainError(
        Reason.REASON_TURN_WITHDRAWN,
        f"The turn of run {execution_id} was taken back.",
        resources=[Resource("execution", execution_id)],
    )


def _check_room(turns: Turns, policy: Policy, conversation_id: str) -> None:
    if not turns:
        return
    running = turns[0].execution_id
    if policy is Policy.REJECT:
        raise _busy(
            conversation_id, running, f"Run {running} answers in it: wait for it, or cancel it"
        )
    if policy is Policy.QUEUE and len(turns) > MOST_WAITING:
        raise _busy(
            conversation_id, running, f"{len(turns) - 1} runs wait behind {running}: wait for them"
        )
    if len(turns) >= MOST_TURNS:
        raise _busy(conversation_id, running, f"{len(turns)} runs are still to end: wait for them")


def _busy(conversation_id: str, running: str, why: str) -> DomainError:
    return DomainError(
        Reason.REASON_CONVERSATION_BUSY,
        f"Conversation {conversation_id} is busy. {why}.",
        resources=[Resource("conversation", conversation_id)],
        metadata={"execution_id": running},
    )
