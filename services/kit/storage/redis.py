"""Work and wake-ups between the processes of a service, over Redis.

Both are hints. The store says what is due, so Redis may be flushed, restarted or away: nothing is lost
by it, what waited for a hint waits for the next sweep instead, and nobody who calls this notices more
than that.

Work is a stream with one consumer group: each entry goes to one process, and to another one when that
process dies with it. Wake-ups are published: each goes to all who listen at that moment.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as DisconnectedError
from redis.exceptions import RedisError, ResponseError

from services.kit.settings import PREFIX, SettingsError
from services.kit.storage.inprocess import InProcessWakeups
from services.kit.tasks import ended

_LOG = logging.getLogger(__name__)
_ANSWER_SECONDS = 2.0
"""How long a command may take, and so may connecting."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
_FAREWELL_SECONDS = 1.0
"""How long the last of what is to be sent may take when a process stops."""
_BLOCK_SECONDS = 2.0
_ALIVE_SECONDS = 5.0
"""A connection that is silent for so long is asked whether it is alive."""
_BATCH = 500
_MOST_UNSENT = 20_000
_MOST_WAITING = 100_000
"""Entries of the stream; what is beyond is left to the sweeps."""
_GROUP = "workers"

_PUT = """
local function parts(id)
  local time, number = string.match(id, '(%d+)-(%d+)')
  return tonumber(time), tonumber(number)
end
local handed_out = '0-0'
if redis.call('EXISTS', KEYS[1]) == 1 then
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local facts = {}
    for place = 1, #group, 2 do facts[group[place]] = group[place + 1] end
    if facts['name'] == ARGV[1] then handed_out = facts['last-delivered-id'] end
  end
end
local last_time, last_number = parts(handed_out)
for place = 3, #ARGV do
  local item = ARGV[place]
  local id = redis.call('HGET', KEYS[2], item)
  local waits = false
  if id and #redis.call('XRANGE', KEYS[1], id, id) > 0 then
    local time, number = parts(id)
    waits = time > last_time or (time == last_time and number > last_number)
  end
  if not waits then
    id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'item', item)
    redis.call('HSET', KEYS[2], item, id)
  end
end
if redis.call('HLEN', KEYS[2]) > 2 * tonumber(ARGV[2]) then redis.call('DEL', KEYS[2]) end
"""
"""Adds items that do not wait. An item waits when the entry it was last added as is in the stream and
was not handed out: what an entry says that is there no more holds nobody up."""

_DONE = """
for place = 2, #ARGV do
  local id = ARGV[place]
  local found = redis.call('XRANGE', KEYS[1], id, id)
  if found[1] then
    local item = found[1][2][2]
    if redis.call('HGET', KEYS[2], item) == id then redis.call('HDEL', KEYS[2], item) end
    redis.call('XACK', KEYS[1], ARGV[1], id)
    redis.call('XDEL', KEYS[1], id)
  end
end
"""
"""Deletes entries that were taken care of."""

_TAKE_OVER = """
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], '-', '+', ARGV[4])
for _, one in ipairs(pending) do
  if #redis.call('XRANGE', KEYS[1], one[1], one[1]) == 0 then
    redis.call('XACK', KEYS[1], ARGV[1], one[1])
  end
end
local claimed = redis.call(
  'XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], '0-0', 'COUNT', ARGV[4])
local entries = {}
for _, entry in ipairs(claimed[2]) do
  if entry then entries[#entries + 1] = {entry[1], entry[2][2]} end
end
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local facts = {}
  for place = 1, #consumer, 2 do facts[consumer[place]] = consumer[place + 1] end
  if facts['pending'] == 0 and facts['idle'] > tonumber(ARGV[5]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], facts['name'])
  end
end
return entries
"""
"""Takes over entries whose taker did not say `done`, and forgets consumers that went without a word.
Entries that the stream was too short for are pending for ever unless somebody says otherwise."""

_LEAVE = """
local mine = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1000, ARGV[2])
for _, one in ipairs(mine) do
  local found = redis.call('XRANGE', KEYS[1], one[1], one[1])
  if found[1] then
    local item = found[1][2][2]
    local id = redis.call('XADD', KEYS[1], '*', 'item', item)
    redis.call('HSET', KEYS[2], item, id)
  end
  redis.call('XACK', KEYS[1], ARGV[1], one[1])
  redis.call('XDEL', KEYS[1], one[1])
end
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
"""
"""Puts back what a consumer holds, and forgets it."""

_PUBLISH = """
for place = 2, #ARGV do redis.call('PUBLISH', ARGV[place], ARGV[1]) end
"""


def connect(url: str, *, answer_seconds: float = _ANSWER_SECONDS) -> Redis:
    """Make a client for a Redis that may be away: it connects when it is used.

    Args:
        answer_seconds: how long a command may take, and so may connecting.

    Raises:
        SettingsError: the URL cannot be used. It may hold a password, so it is not repeated.
    """
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in {"redis", "rediss"}
            and bool(parts.hostname)
            and parts.port != 0
            and re.fullmatch(r"/?\d*", parts.path) is not None
            and all(name.startswith("ssl_") for name in parse_qs(parts.query))
        )
    except ValueError:
        usable = False
    if not usable:
        raise _unusable()
    client = Redis.from_url(
        url,
        decode_responses=True,
        encoding_errors="surrogatepass",
        protocol=2,
        driver_info=None,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=answer_seconds,
        socket_connect_timeout=min(answer_seconds, _ANSWER_SECONDS),
    )
    pool = client.connection_pool
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, ValueError, RedisError):
        raise _unusable() from None
    return client


def _unusable() -> SettingsError:
    return SettingsError(
        f"{PREFIX}QUEUE_URL cannot be used; it has to be "
        "redis://[[user]:password@]host[:port][/database], or rediss:// for TLS."
    )


def _cancelled() -> bool:
    """Tell whether the task that asks has to end.

    The driver makes an error of its own of a cancellation that meets the end of a connection.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Outage:
    """Says once that Redis is away, and once that it is back.

    Args:
        until_then: what happens meanwhile.
    """

    def __init__(self, until_then: str) -> None:
        self._until_then = until_then
        self._lasts = False

    def met(self, error: Exception) -> None:
        """Note that Redis did not do what it was asked."""
        if self._lasts:
            return
        self._lasts = True
        expected = isinstance(error, (RedisError, OSError))
        _LOG.warning(
            "Redis cannot be used, %s: %s",
            self._until_then,
            error,
            exc_info=None if expected else error,
        )

    def over(self) -> None:
        """Note that Redis does what it is asked."""
        if self._lasts:
            self._lasts = False
            _LOG.warning("Redis can be used again")


class _Outbox:
    """Sends in the background what may be lost; what waits already is not added again.

    Args:
        send: is given a batch; what fails is sent again, as long as there is room.
    """

    def __init__(
        self, send: Callable[[Sequence[str]], Awaitable[None]], outage: Outage, name: str
    ) -> None:
        self._send = send
        self._outage = outage
        self._unsent: dict[str, None] = {}
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._emptied.set()
        self._task = asyncio.create_task(self._serve(), name=name)

    def add(self, one: str) -> None:
        self._unsent[one] = None
        if len(self._unsent) > _MOST_UNSENT:
            del self._unsent[next(iter(self._unsent))]
        self._emptied.clear()
        self._filled.set()

    async def _serve(self) -> None:
        pause = _FIRST_PAUSE
        while not _cancelled():
            await self._filled.wait()
            batch = list(islice(self._unsent, _BATCH))
            for one in batch:
                del self._unsent[one]
            try:
                await self._send(batch)
            except Exception as error:  # noqa: BLE001 whatever the driver meets, this goes on
                self._outage.met(error)
                later = self._unsent
                self._unsent = dict.fromkeys([*batch, *later][-_MOST_UNSENT:])
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            self._outage.over()
            pause = _FIRST_PAUSE
            if not self._unsent:
                self._filled.clear()
                self._emptied.set()

    async def close(self) -> None:
        """Send the rest if Redis is there, and end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._emptied.wait()
        await ended(self._task)


class RedisQueue:
    """A stream with one consumer group; its items go to whichever process takes them first.

    Args:
        service: whose work it is; part of the names of its keys.
        idle_seconds: how long a taker may be silent about an item before another one gets it.
        gone_seconds: how long a consumer that holds nothing may be silent before it is forgotten.
    """

    def __init__(
        self,
        url: str,
        service: str,
        *,
        idle_seconds: float = 5.0,
        gone_seconds: float = 60.0,
    ) -> None:
        self._commands = connect(url)
        self._blocking = connect(url, answer_seconds=_BLOCK_SECONDS + _ANSWER_SECONDS)
        self._stream = f"conductor:{service}:work"
        self._keys = [self._stream, f"conductor:{service}:waiting"]
        self._me = token_hex(8)
        self._idle_seconds = idle_seconds
        self._gone_seconds = gone_seconds
        self._next_take_over = 0.0
        self._put = self._commands.register_script(_PUT)
        self._done = self._commands.register_script(_DONE)
        self._take_over = self._commands.register_script(_TAKE_OVER)
        self._leave = self._commands.register_script(_LEAVE)
        self._takers = 0
        self._wanted = asyncio.Event()
        self._ready: asyncio.Queue[tuple[str, str]] = asyncio.Queue()
        """Entries, id and item, for takers that wait."""
        self._taken: dict[str, set[str]] = {}
        """The ids of items that were taken."""
        self._outage = Outage("work is found by the sweeps meanwhile")
        self._added = _Outbox(self._send_added, self._outage, "work added")
        self._finished = _Outbox(self._send_finished, self._outage, "work done")
        self._reading = asyncio.create_task(self._read(), name="work taken")

    async def put(self, item: str) -> None:
        """Let an item be added; it may take a moment."""
        self._added.add(item)

    async def take(self) -> str:
        """Wait for an item, through every outage."""
        self._takers += 1
        self._wanted.set()
        try:
            id_, item = await self._ready.get()
        except asyncio.CancelledError:
            if self._takers == 1:
                self._give_back()
            raise
        finally:
            self._takers -= 1
        self._taken.setdefault(item, set()).add(id_)
        return item

    async def done(self, item: str) -> None:
        """Let an item be deleted; it may take a moment."""
        for id_ in self._taken.pop(item, ()):
            self._finished.add(id_)

    async def close(self) -> None:
        """Put back what was taken and not done, and let go of Redis."""
        await ended(self._reading)
        self._give_back()
        await asyncio.gather(self._added.close(), self._finished.close())
        with suppress(RedisError, OSError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._leave(self._keys, [_GROUP, self._me])
        await self._blocking.aclose()
        await self._commands.aclose()

    def _give_back(self) -> None:
        """Let others have what came when nobody was there to take it any more."""
        while not self._ready.empty():
            id_, item = self._ready.get_nowait()
            self._added.add(item)
            self._finished.add(id_)

    async def _send_added(self, items: Sequence[str]) -> None:
        await self._put(self._keys, [_GROUP, _MOST_WAITING, *items])

    async def _send_finished(self, ids: Sequence[str]) -> None:
        await self._done(self._keys, [_GROUP, *ids])

    async def _read(self) -> None:
        """Fetch as many items as takers wait for, so that none lies where nobody is free for it."""
        pause = _FIRST_PAUSE
        while not _cancelled():
            while (missing := self._takers - self._ready.qsize()) <= 0:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                entries = await self._fetch(missing)
            except Exception as error:  # noqa: BLE001 whatever the driver meets, this goes on
                if _without_group(error) and await self._make_group():
                    continue
                self._outage.met(error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            self._outage.over()
            pause = _FIRST_PAUSE
            for entry in entries:
                self._ready.put_nowait(entry)
            if not self._takers:
                self._give_back()

    async def _fetch(self, most: int) -> list[tuple[str, str]]:
        now = asyncio.get_running_loop().time()
        if now >= self._next_take_over:
            facts = [_milliseconds(self._idle_seconds), most, _milliseconds(self._gone_seconds)]
            left = await self._take_over(self._keys, [_GROUP, self._me, *facts])
            if left:
                return [(id_, item) for id_, item in left]
            self._next_take_over = now + self._idle_seconds
        block = min(_BLOCK_SECONDS, max(self._next_take_over - now, 0.0))
        answer: Any = await self._blocking.xreadgroup(
            _GROUP, self._me, {self._stream: ">"}, count=most, block=_milliseconds(block)
        )
        return [(id_, entry["item"]) for _, entries in answer or () for id_, entry in entries]

    async def _make_group(self) -> bool:
        """Begin with what the stream holds; Redis may be new or flushed."""
        try:
            await self._commands.xgroup_create(self._stream, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            return "BUSYGROUP" in str(error)
        except (RedisError, OSError):
            return False
        return True


def _milliseconds(seconds: float) -> int:
    """Turn seconds into milliseconds; never 0, which would be for ever."""
    return max(1, round(seconds * 1000))


def _without_group(error: Exception) -> bool:
    """Tell whether a command failed because the stream or its group is not there."""
    said = str(error)
    return isinstance(error, ResponseError) and ("NOGROUP" in said or "UNBLOCKED" in said)


class RedisWakeups:
    """Wake-ups for watchers in this process, directly, and in all others, by publishing.

    Whoever subscribes is woken once as soon as the subscription holds, and again after each outage:
    what was published before that was not heard.
    """

    def __init__(self, url: str, service: str) -> None:
        self._client = connect(url)
        # Publishing knows no databases.
        database = self._client.connection_pool.connection_kwargs.get("db", 0)
        self._prefix = f"conductor:{service}:{database}:"
        self._me = token_hex(8)
        self._publish = self._client.register_script(_PUBLISH)
        self._local = InProcessWakeups()
        self._subscribers: Counter[str] = Counter()
        self._subscribed: set[str] = set()
        """The channels this connection was told of."""
        self._doubted: set[str] = set()
        """Channels to look at again."""
        self._changed = asyncio.Event()
        self._heard = 0.0
        self._outage = Outage("watchers in other processes look by themselves meanwhile")
        self._published = _Outbox(self._send, self._outage, "wake-ups sent")
        self._listening = asyncio.create_task(self._listen(), name="wake-ups heard")

    async def publish(self, channel: str) -> None:
        """Wake who is here, and let others be told; it may take a moment."""
        await self._local.publish(channel)
        self._published.add(channel)

    def subscribe(self, channel: str, wake: Callable[[], None]) -> Callable[[], None]:
        """Subscribe until the returned function is called; calling it twice is harmless."""
        stop = self._local.subscribe(channel, wake)
        self._subscribers[channel] += 1
        self._look_at([channel])
        holds = True

        def unsubscribe() -> None:
            nonlocal holds
            stop()
            if holds:
                holds = False
                self._subscribers[channel] -= 1
                if not self._subscribers[channel]:
                    del self._subscribers[channel]
                    self._look_at([channel])

        return unsubscribe

    async def close(self) -> None:
        """Send the last wake-ups and let go of Redis."""
        await self._published.close()
        await ended(self._listening)
        await self._client.aclose()

    async def _send(self, channels: Sequence[str]) -> None:
        await self._publish([], [self._me, *self._names(channels)])

    def _look_at(self, channels: Iterable[str]) -> None:
        self._doubted.update(channels)
        self._changed.set()

    async def _listen(self) -> None:
        pause = _FIRST_PAUSE
        while not _cancelled():
            began = asyncio.get_running_loop().time()
            try:
                async with self._client.pubsub() as listener:
                    await self._hear(listener)
            except Exception as error:  # noqa: BLE001 whatever the driver meets, this goes on
                self._outage.met(error)
            if self._heard > began:
                pause = _FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _hear(self, listener: PubSub) -> None:
        """Hear what is published until the connection ends."""
        self._subscribed.clear()
        # A channel of its own, so that the connection is there before the first subscriber.
        await listener.subscribe(self._prefix)
        self._look_at(self._subscribers)
        self._heard = asyncio.get_running_loop().time()
        tasks = (
            asyncio.create_task(self._follow(listener), name="wake-ups wanted"),
            asyncio.create_task(self._wake(listener), name="wake-ups passed on"),
        )
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    async def _wake(self, listener: PubSub) -> None:
        while not _cancelled():
            said = await listener.get_message(timeout=None)
            self._heard = asyncio.get_running_loop().time()
            if said is None:
                continue
            self._outage.over()
            news = said["type"] == "message" and said["data"] != self._me
            if news or said["type"] == "subscribe":
                await self._local.publish(said["channel"].removeprefix(self._prefix))

    async def _follow(self, listener: PubSub) -> None:
        """Subscribe to what is wanted here, and see that the connection lives."""
        while not _cancelled():
            with suppress(TimeoutError):
                async with asyncio.timeout(_ALIVE_SECONDS):
                    await self._changed.wait()
            if asyncio.get_running_loop().time() - self._heard > 2 * _ALIVE_SECONDS:
                raise DisconnectedError("it says nothing any more")
            if not self._changed.is_set():
                await listener.ping()
                continue
            self._changed.clear()
            doubted, self._doubted = self._doubted, set()
            wanted = doubted & self._subscribers.keys()
            for some in _batches(wanted - self._subscribed):
                await listener.subscribe(*self._names(some))
            for some in _batches((doubted - wanted) & self._subscribed):
                await listener.unsubscribe(*self._names(some))
            self._subscribed |= wanted
            self._subscribed -= doubted - wanted

    def _names(self, channels: Iterable[str]) -> list[str]:
        return [self._prefix + channel for channel in channels]


def _batches(channels: set[str]) -> Iterator[list[str]]:
    left = list(channels)
    while left:
        yield left[:_BATCH]
        del left[:_BATCH]
