"""Watching runs: the log after a cursor, then what is appended, until the terminal event.

A watcher holds a cursor and nothing else; what it has not taken yet stays in the store. The watchers of
one run share a feed: one reader of the log, whose newest pages they take when they keep up. Who falls
behind, or comes late, reads the log at their own pace.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from services.execution import domain
from services.execution.domain import Event
from services.execution.ports import Executions, Metrics, Wakeups
from services.execution.usecases.channels import events_channel
from services.execution.usecases.logs import settle
from services.kit.errors import DomainError, Reason

_LOG = logging.getLogger(__name__)

_KEPT_PAGES = 24
_WORTH_KEEPING = 64
"""Events; smaller pages are made anew, so that a late reader is not served in morsels."""

_RECENT_PAGES = 8

_SECONDS_PER_WATCHER = 0.0001
_MAX_COALESCING = 0.1
"""With many watchers, appends are gathered for a while, so that serving them does not take the
processor from those who append."""

T = TypeVar("T")


class Page:
    """Some consecutive events of a run, and the forms they were already turned into."""

    __slots__ = ("_forms", "events", "execution_id", "last", "terminal")

    def __init__(self, execution_id: str, events: Sequence[Event]) -> None:
        self.execution_id = execution_id
        self.events = events
        self.last = events[-1].sequence
        self.terminal = events[-1].kind in domain.TERMINAL_KINDS
        self._forms: dict[Callable[..., Any], Any] = {}

    def form(self, encode: Callable[[str, Sequence[Event]], T]) -> T:
        """Turn the events into a form, once for all who want the same."""
        try:
            made: T = self._forms[encode]
        except KeyError:
            made = self._forms[encode] = encode(self.execution_id, self.events)
        return made


@dataclass(frozen=True, slots=True)
class Watch:
    """A watch that has begun."""

    pages: AsyncGenerator[Page | None, None]
    """Pages of events, or None as a sign of life; to be closed by who asked for it."""
    caught_up: bool
    """Whether the cursor is at the last event, so that the first page may take a while."""
    end: Event | None
    """The terminal event, when the cursor is already there, so that there are no pages."""


class Watches:
    """Serves watchers.

    Args:
        clock: microseconds since the epoch.
        heartbeat_seconds: how long a watch may be silent.
        poll_seconds: how soon a lost wake-up is made up for.
    """

    def __init__(
        self,
        executions: Executions,
        wakeups: Wakeups,
        metrics: Metrics,
        *,
        clock: Callable[[], int],
        heartbeat_seconds: float = 15.0,
        poll_seconds: float = 1.0,
    ) -> None:
        self._executions = executions
        self._wakeups = wakeups
        self._metrics = metrics
        self._clock = clock
        self._heartbeat_seconds = heartbeat_seconds
        self._poll_seconds = poll_seconds
        self._feeds: dict[tuple[str, str], _Feed] = {}
        self._kept: OrderedDict[tuple[str, str, int], Page] = OrderedDict()
        self._watchers = 0
        self._closing = False

    async def open(self, org: str, execution_id: str, after: int) -> Watch:
        """Begin a watch after a sequence; it ends after the page with the terminal event.

        Raises:
            DomainError: EXECUTION_NOT_FOUND, CURSOR_OUT_OF_RANGE; while watching also SHUTTING_DOWN.
        """
        first = await self._replay(org, execution_id, after)
        # What was kept may be of a deleted run, and so may be what is left of a log.
        if await self._executions.version(org, execution_id) is None:
            raise domain.not_found(execution_id)
        if first is not None:
            return Watch(self._watch(org, execution_id, first), caught_up=False, end=None)
        last = await self._executions.last_event(org, execution_id)
        head = last.sequence if last is not None else 0
        if after > head:
            raise DomainError(
                Reason.REASON_CURSOR_OUT_OF_RANGE,
                f"after_sequence: {after} is beyond the last event, {head}.",
                metadata={"last_sequence": str(head)},
            )
        if after == head and last is not None and last.kind in domain.TERMINAL_KINDS:
            await settle(self._executions, org, execution_id, last, self._clock)
            return Watch(_nothing(), caught_up=True, end=last)
        return Watch(self._follow(org, execution_id, after), caught_up=True, end=None)

    async def ended(self, org: str, execution_id: str) -> None:
        """Wait for the terminal event of a run."""
        last = await self._executions.last_event(org, execution_id)
        after = 0 if last is None else last.sequence - 1
        watch = await self.open(org, execution_id, max(after, 0))
        async with aclosing(watch.pages) as pages:
            async for _ in pages:
                pass

    def close(self) -> None:
        """End every watch; each can go on from its cursor elsewhere."""
        self._closing = True
        for feed in self._feeds.values():
            feed.wake_watchers()

    async def _watch(
        self, org: str, execution_id: str, first: Page
    ) -> AsyncGenerator[Page | None, None]:
        """Yield the pages there are, then live ones."""
        page: Page | None = first
        after = 0
        while page is not None:
            yield page
            if page.terminal:
                return
            after = page.last
            page = await self._replay(org, execution_id, after)
        async with aclosing(self._follow(org, execution_id, after)) as live:
            async for page in live:
                yield page

    async def _follow(
        self, org: str, execution_id: str, after: int
    ) -> AsyncGenerator[Page | None, None]:
        """Yield live pages, and None as a sign of life."""
        with self._join(org, execution_id, after) as feed:
            beats = feed.beats
            while True:
                page = await self._next(feed, org, execution_id, after)
                if page is not None:
                    self._measure(feed, page)
                    yield page
                    if page.terminal:
                        return
                    after, beats = page.last, feed.beats
                elif beats != feed.beats:
                    beats = feed.beats
                    yield None
                else:
                    self._check_open()
                    await feed.changed()

    def _measure(self, feed: _Feed, page: Page) -> None:
        """Measure how old a page is, for one of as many that are handed out as there are watchers."""
        feed.handed += 1
        if feed.handed >= feed.watchers:
            feed.handed = 0
            self._metrics.handed(max(0, self._clock() - page.events[0].time) / 1e6)

    async def _next(self, feed: _Feed, org: str, execution_id: str, after: int) -> Page | None:
        """Find the page after a cursor; None when there is nothing new."""
        page = feed.after(after)
        if page is None and feed.head > after:
            page = await self._replay(org, execution_id, after)
        if feed.broken:
            raise DomainError(Reason.REASON_INTERNAL, "The events of the run cannot be read.")
        if page is None and (feed.gone or feed.head > after):
            # What the feed has read is there no more: the run was deleted.
            raise domain.not_found(execution_id)
        return page

    def _check_open(self) -> None:
        if self._closing:
            raise DomainError(
                Reason.REASON_SHUTTING_DOWN,
                "The server is stopping; watch again from the last event seen.",
                retry_after=0.5,
            )

    async def _replay(self, org: str, execution_id: str, after: int) -> Page | None:
        """Read the page after a cursor; None at the end of the log."""
        self._check_open()
        key = (org, execution_id, after)
        kept = self._kept.get(key)
        if kept is not None:
            self._kept.move_to_end(key)
            return kept
        page = await read_page(self._executions, org, execution_id, after, self._clock)
        if page is not None and len(page.events) >= _WORTH_KEEPING:
            self._kept[key] = page
            if len(self._kept) > _KEPT_PAGES:
                self._kept.popitem(last=False)
        return page

    @contextmanager
    def _join(self, org: str, execution_id: str, after: int) -> Iterator[_Feed]:
        key = (org, execution_id)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = _Feed(self, org, execution_id, after)
        feed.watchers += 1
        self._watchers += 1
        try:
            yield feed
        finally:
            feed.watchers -= 1
            self._watchers -= 1
            if not feed.watchers:
                del self._feeds[key]
                feed.close()

    def feed_parts(self) -> tuple[Executions, Wakeups, Callable[[], int], float, float]:
        """Lend a feed what it reads from, and how often it beats and looks, in seconds."""
        beat, poll = self._heartbeat_seconds, self._poll_seconds
        return self._executions, self._wakeups, self._clock, beat, poll

    def coalescing(self) -> float:
        """Say how long appends are gathered before watchers are told, in seconds."""
        return min(_MAX_COALESCING, self._watchers * _SECONDS_PER_WATCHER)


async def read_page(
    executions: Executions, org: str, id_: str, after: int, clock: Callable[[], int]
) -> Page | None:
    """Read the page after a cursor; None when there is none.

    Nobody gets to see that a run has ended before all others can.
    """
    events = await executions.events(org, id_, after)
    if not events:
        return None
    page = Page(id_, events)
    if page.terminal:
        await settle(executions, org, id_, events[-1], clock)
    return page


async def _nothing() -> AsyncGenerator[Page | None, None]:
    """Yield no page: the cursor is at the end."""
    pages: tuple[Page, ...] = ()
    for page in pages:
        yield page


class _Feed:
    """Reads the log of a run that is watched live, once for all its watchers."""

    def __init__(self, watches: Watches, org: str, execution_id: str, after: int) -> None:
        self._watches = watches
        parts = watches.feed_parts()
        self._executions, wakeups, self._clock, self._heartbeat_seconds, self._poll_seconds = parts
        self._org = org
        self._id = execution_id
        self.head = after
        self.beats = 0
        self.gone = False
        self.broken = False
        self.watchers = 0
        self.handed = 0
        """How many pages its watchers got since one was measured."""
        self._recent: deque[tuple[int, Page]] = deque(maxlen=_RECENT_PAGES)
        self._waiting: list[asyncio.Future[None]] = []
        self._woken = asyncio.Event()
        self._unsubscribe = wakeups.subscribe(events_channel(org, execution_id), self._woken.set)
        # It outlives the call that happens to need it first, and belongs to none.
        self._task = asyncio.create_task(
            self._serve(), name=f"feed {execution_id}", context=contextvars.Context()
        )

    def after(self, sequence: int) -> Page | None:
        """Find a recent page that begins after a sequence."""
        for begin, page in self._recent:
            if begin == sequence:
                return page
        return None

    async def changed(self) -> None:
        """Wait for a page or a sign of life."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        await waiter

    def wake_watchers(self) -> None:
        """Let every waiting watcher look again."""
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def close(self) -> None:
        """Stop reading."""
        self._unsubscribe()
        self._task.cancel()

    async def _serve(self) -> None:
        try:
            await self._follow()
        except Exception:  # noqa: BLE001 its watchers have to hear of whatever it is
            _LOG.exception("the feed of %s met a fault", self._id)
            self.broken = True
            self.wake_watchers()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while True:
            self._woken.clear()
            page = await self._read()
            if page is not None:
                heard = loop.time()
                self.wake_watchers()
                if page.terminal:
                    return
                await asyncio.sleep(self._watches.coalescing())
                continue
            if loop.time() - heard >= self._heartbeat_seconds:
                heard = loop.time()
                self.gone = await self._is_gone()
                self.beats += 1
                self.wake_watchers()
                if self.gone:
                    return
            with suppress(TimeoutError):
                async with asyncio.timeout(min(self._poll_seconds, self._heartbeat_seconds)):
                    await self._woken.wait()

    async def _read(self) -> Page | None:
        """Read the next page, if there is one and the store answers."""
        try:
            page = await read_page(self._executions, self._org, self._id, self.head, self._clock)
        except DomainError as error:
            _LOG.warning("the feed of %s waits for the store: %s", self._id, error)
            return None
        if page is not None:
            self._recent.append((self.head, page))
            self.head = page.last
        return page

    async def _is_gone(self) -> bool:
        """Tell whether the run was deleted."""
        with suppress(DomainError):
            return await self._executions.version(self._org, self._id) is None
        return False
