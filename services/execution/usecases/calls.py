"""One call of a model: listened to in a task of its own, and given up when it says nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from services.execution.domain import ModelError
from services.execution.ports import Report
from services.kit.errors import Reason

_LOG = logging.getLogger(__name__)
_LETTING_GO_SECONDS = 1.0

Answer = AsyncGenerator[str | Report, None]
Hear = Callable[[str | Report], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a model call may take, in seconds."""

    first_token: float = 120.0
    """Until it says, or thinks, its first word."""
    idle: float = 60.0
    """Between two words."""
    total: float = 600.0
    """In all."""


class ProviderFaultError(Exception):
    """An adapter raised something that it must not."""


class Call:
    """One call of a model.

    Args:
        answer: what the provider yields.
        hear: takes each piece; what it returns is awaited, and that time is not the model's.
        leave: takes the task of a provider that does not let go of its connection in time.
        answering: takes the seconds until the first word, said or thought.
        ended: called when the model has no more to say, before its connection is let go.
    """

    def __init__(
        self,
        answer: Answer,
        hear: Hear,
        patience: Patience,
        leave: Callable[[asyncio.Task[None]], None],
        answering: Callable[[float], None],
        ended: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._hear = hear
        self._patience = patience
        self._leave = leave
        self._answering = answering
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._began = self._heard_at = self._loop.time()
        self._heard = False
        self._hearing = False
        self._outcome: asyncio.Future[None] = self._loop.create_future()
        self._over = False

    async def finish(self) -> None:
        """Hear the whole answer.

        Raises:
            ModelError: the model failed, or was silent for too long.
            ProviderFaultError: from something the adapter raised.
            Exception: what `hear` raised.
        """
        listening = asyncio.create_task(self._listen(), name="listen to a model")
        listening.add_done_callback(self._settle)
        try:
            while not self._outcome.done():
                deadline, late = self._deadline()
                left = deadline - self._loop.time()
                if left <= 0:
                    raise ModelError(late, Reason.REASON_MODEL_TIMEOUT)
                # A first word may move the deadline closer.
                await asyncio.wait({self._outcome}, timeout=min(left, self._patience.idle))
        finally:
            # A provider may go on to speak while it lets go; nobody listens any more.
            self._over = True
            await self._let_go(listening)
        self._outcome.result()

    async def _listen(self) -> None:
        async with aclosing(self._answer) as answer:
            try:
                await self._hear_all(answer)
            except Exception as error:  # noqa: BLE001 it is raised where the outcome is awaited
                # Before the connection is let go, for which nobody has to wait.
                self._settle(error)
            else:
                self._settle(None)

    async def _hear_all(self, answer: Answer) -> None:
        while True:
            try:
                piece = await anext(answer)
            except StopAsyncIteration:
                self._ended()
                return
            except ModelError:
                raise
            except Exception as error:
                raise ProviderFaultError(repr(error)) from error
            if self._over:
                return
            if isinstance(piece, str):
                self._heard_at = self._loop.time()
                if not self._heard:
                    self._heard = True
                    self._answering(self._heard_at - self._began)
            hearing = self._hear(piece)
            if hearing is not None:
                self._hearing = True
                await hearing
                self._hearing = False
                self._heard_at = self._loop.time()

    def _settle(self, ending: Exception | asyncio.Task[None] | None) -> None:
        """Note how the call ended; the first to know says it."""
        if self._over or self._outcome.done():
            return
        if ending is None:
            self._outcome.set_result(None)
        elif isinstance(ending, asyncio.Task):
            sentence = "its connection was cancelled, and it let that through"
            self._outcome.set_exception(ProviderFaultError(sentence))
        else:
            self._outcome.set_exception(ending)

    async def _let_go(self, listening: asyncio.Task[None]) -> None:
        """Give the provider a moment to let go of its connection."""
        whole = self._outcome.done() and self._outcome.exception() is None
        if not whole:
            listening.cancel()
        try:
            await asyncio.wait({listening}, timeout=_LETTING_GO_SECONDS)
        finally:
            if not listening.done():
                listening.cancel()
                _LOG.warning("a provider does not let go of its connection; it is left to itself")
                self._leave(listening)
            elif not listening.cancelled():
                listening.exception()

    def _deadline(self) -> tuple[float, str]:
        """Say until when it is waited for, and what is said then."""
        patience = self._patience
        total = self._began + patience.total
        sentence = f"The model did not end its answer within {patience.total:g} s."
        if self._hearing:
            return total, sentence
        if not self._heard:
            first = self._began + patience.first_token
            began = f"The model did not begin its answer within {patience.first_token:g} s."
            return min((first, began), (total, sentence))
        idle = self._heard_at + patience.idle
        silent = f"The model said nothing more for {patience.idle:g} s."
        return min((idle, silent), (total, sentence))
