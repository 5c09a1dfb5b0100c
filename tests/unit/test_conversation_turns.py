"""Who answers in a conversation, in which order, and what a busy one says."""

from __future__ import annotations

import pytest

from services.conversations.domain import turns
from services.conversations.domain.turns import MOST_TURNS, MOST_WAITING, Policy, Turn, Turns
from services.kit.errors import DomainError, reason_name


def queue(*ids: str) -> Turns:
    return tuple(Turn(id_) for id_ in ids)


def busy(there: Turns, policy: Policy) -> DomainError:
    with pytest.raises(DomainError) as error:
        turns.added(there, "next", policy, "conv_1")
    assert reason_name(error.value.reason) == "CONVERSATION_BUSY"
    return error.value


@pytest.mark.parametrize("policy", Policy)
def test_a_free_conversation_takes_any_message_at_once(policy: Policy) -> None:
    placed = turns.added((), "a", policy, "conv_1")

    assert placed.turns == (Turn("a", policy),)
    assert (placed.place, list(placed.interrupted)) == (0, [])


def test_a_message_that_would_not_wait_is_told_which_run_answers() -> None:
    error = busy(queue("a", "b"), Policy.REJECT)

    assert error.metadata == {"execution_id": "a"}
    assert error.message == (
        "Conversation conv_1 is busy. Run a answers in it: wait for it, or cancel it."
    )


def test_a_message_that_waits_comes_behind_all_others_and_moves_up() -> None:
    placed = turns.added(queue("a", "b"), "c", Policy.QUEUE, "conv_1")

    assert (placed.place, list(placed.interrupted)) == (2, [])
    assert turns.placed(turns.ended(placed.turns, "a"), "c").place == 1
    assert turns.placed(turns.ended(placed.turns, "c"), "c").place == 0


def test_twenty_wait_behind_the_one_that_runs_and_no_more() -> None:
    there = queue(*map(str, range(MOST_WAITING)))

    full = turns.added(there, "last", Policy.QUEUE, "conv_1")

    assert full.place == MOST_WAITING
    error = busy(full.turns, Policy.QUEUE)
    assert error.metadata == {"execution_id": "0"}
    assert "20 runs wait behind 0" in error.message


def test_a_message_that_interrupts_names_all_before_it_however_many_wait() -> None:
    there = queue(*map(str, range(MOST_WAITING + 1)))

    placed = turns.added(there, "now", Policy.INTERRUPT, "conv_1")

    assert list(placed.interrupted) == [turn.execution_id for turn in there]
    assert placed.place == len(there)


def test_interruptions_that_nobody_follows_end_somewhere() -> None:
    busy(queue(*map(str, range(MOST_TURNS))), Policy.INTERRUPT)


@pytest.mark.parametrize("policy", Policy)
def test_a_turn_that_is_asked_for_again_is_told_the_same_as_the_first_time(policy: Policy) -> None:
    there = queue("a", "b") if policy is not Policy.REJECT else ()
    once = turns.added(there, "c", policy, "conv_1")

    for again in Policy:
        assert turns.added(once.turns, "c", again, "conv_1") == once
    behind = turns.added(once.turns, "d", Policy.QUEUE, "conv_1").turns
    assert turns.placed(behind, "c").interrupted == once.interrupted
