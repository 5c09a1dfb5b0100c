"""When pieces of an answer are stored."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from services.execution.ports import FencedError
from services.execution.usecases.recorder import Recorder
from services.kit.storage.ports import store_unavailable
from tests.fakes.virtual import in_virtual_time, monotonic

EVERY = 0.03


class Tape:
    """What was stored, and when."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.pieces: list[tuple[float, str]] = []
        self.failures: list[Exception] = []
        self.error = error
        self._seconds = seconds

    async def store(self, text: str) -> None:
        began = monotonic()
        await asyncio.sleep(self._seconds)
        if self.error is not None:
            raise self.error
        self.pieces.append((began, text))

    def recorder(self) -> Recorder:
        return Recorder(self.store, EVERY, self.failures.append)

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.pieces)


@in_virtual_time
async def test_the_first_token_is_stored_at_once() -> None:
    tape = Tape()
    await asyncio.sleep(1)
    recorder = tape.recorder()
    recorder.add("first")
    await asyncio.sleep(1e-6)
    assert tape.pieces == [(1.0, "first")]
    assert await recorder.close() == ""


@in_virtual_time
async def test_later_tokens_are_gathered_into_pieces_no_closer_than_told() -> None:
    tape = Tape()
    recorder = tape.recorder()
    for number in range(300):
        recorder.add(f"{number} ")
        await asyncio.sleep(0.001)
    rest = await recorder.close()
    times = [time for time, _ in tape.pieces]
    assert all(later - earlier >= EVERY - 1e-9 for earlier, later in pairwise(times))
    assert 9 <= len(times) <= 11
    assert tape.text + rest == recorder.answer == "".join(f"{number} " for number in range(300))


@in_virtual_time
async def test_a_slow_model_has_each_token_stored_as_it_comes() -> None:
    tape = Tape()
    recorder = tape.recorder()
    for number in range(5):
        recorder.add(str(number))
        await asyncio.sleep(1)
    assert tape.pieces == [(float(number), str(number)) for number in range(5)]
    assert await recorder.close() == ""


@in_virtual_time
async def test_a_slow_store_gets_one_piece_at_a_time_and_all_of_it() -> None:
    tape = Tape(seconds=1.0)
    recorder = tape.recorder()
    for number in range(35):
        recorder.add(f"{number} ")
        await asyncio.sleep(0.1)
    rest = await recorder.close()
    assert [round(time) for time, _ in tape.pieces] == [0, 1, 2, 3]
    assert tape.text + rest == recorder.answer


@in_virtual_time
async def test_closing_hands_out_what_is_not_stored_and_stores_no_more() -> None:
    tape = Tape()
    recorder = tape.recorder()
    recorder.add("a")
    await asyncio.sleep(0.001)
    recorder.add("b")
    recorder.add("c")
    assert await recorder.close() == "bc"
    await asyncio.sleep(1)
    assert tape.text == "a"
    assert recorder.answer == "abc"


@in_virtual_time
async def test_closing_waits_for_the_piece_under_way() -> None:
    tape = Tape(seconds=5.0)
    recorder = tape.recorder()
    recorder.add("a")
    await asyncio.sleep(1)
    recorder.add("b")
    assert await recorder.close() == "b"
    assert tape.text == "a"
    assert monotonic() == 5.0


@in_virtual_time
async def test_closing_with_nothing_said_is_nothing() -> None:
    assert await Tape().recorder().close() == ""


@in_virtual_time
async def test_waiting_for_the_store_ends_when_what_was_said_is_stored() -> None:
    tape = Tape(seconds=1.0)
    recorder = tape.recorder()
    assert recorder.add("abc") == 3
    await recorder.flushed()
    assert tape.text == "abc"
    assert recorder.add("d") == 1
    assert await recorder.close() == "d"


@in_virtual_time
async def test_what_cannot_be_stored_is_told_once_and_ends_the_storing() -> None:
    for error in (FencedError(), store_unavailable(), RuntimeError("anything")):
        tape = Tape(error=error)
        recorder = tape.recorder()
        recorder.add("a")
        await asyncio.sleep(1)
        tape.error = None
        recorder.add("b")
        await recorder.flushed()
        await asyncio.sleep(1)
        await recorder.close()
        assert tape.failures == [error]
        assert tape.pieces == []


@in_virtual_time
async def test_an_answer_that_is_whole_is_left_to_the_write_that_ends_it() -> None:
    tape = Tape()
    recorder = tape.recorder()
    recorder.add("all at once")
    recorder.hold()
    await asyncio.sleep(1)
    assert tape.pieces == []
    assert await recorder.close() == "all at once"


@in_virtual_time
async def test_an_answer_that_is_whole_waits_for_what_is_being_stored() -> None:
    tape = Tape(seconds=0.5)
    recorder = tape.recorder()
    recorder.add("first, ")
    await asyncio.sleep(0.1)
    recorder.add("then the rest")
    recorder.hold()
    await asyncio.sleep(1)
    assert await recorder.close() == "then the rest"
    assert tape.text == "first, "
