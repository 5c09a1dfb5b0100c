"""How many calls a second an organisation may make of a service, over all its processes together.

The generic cell rate algorithm: calls come at an even pace, and whoever made none for a while may make
a second's worth at once. Its whole state is one time for each organisation. In Redis all processes share
it; without Redis, or while it is away, each process allows its share.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from services.kit.settings import PREFIX, Settings, SettingsError
from services.kit.tasks import ended

if TYPE_CHECKING:
    from services.kit.storage.redis import Outage

_REMEMBERED = 1000
_ANSWER_SECONDS = 0.25
"""How long a call waits for Redis, at most."""
_LOOK_AGAIN_SECONDS = 0.5
_BATCH = 200

_ADMIT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local waits = {}
for place, key in ipairs(KEYS) do
  local interval = tonumber(ARGV[2 * place - 1])
  local ahead = tonumber(ARGV[2 * place])
  local due = tonumber(redis.call('GET', key) or '0')
  due = math.min(math.max(due, now), now + ahead + interval)
  local wait = due - ahead - now
  if wait <= 0 then
    due = due + interval
    redis.call('SET', key, string.format('%.0f', due), 'PX', math.ceil((due - now) / 1000) + 1)
  end
  waits[place] = math.max(math.ceil(wait), 0)
end
return waits
"""
"""Admits a call for each key, by the clock of Redis, in microseconds. A time further ahead than any call
can bring it comes from a clock that was set back or from a limit that was changed."""


class Rates(Protocol):
    """Holds organisations to their limits."""

    async def admit(self, org: str) -> float | None:
        """Count a call: None when it may be made, else the seconds after which the next one may."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Calls a second; 0 is no limit."""

    ordinary: float = 0.0
    by_org: Mapping[str, float] = field(default_factory=dict)

    def of(self, org: str) -> float:
        """Look up the limit of an organisation."""
        return self.by_org.get(org, self.ordinary)

    @property
    def limited(self) -> bool:
        """Whether anybody is limited."""
        return self.ordinary > 0 or any(self.by_org.values())


def _pace(rate: float) -> tuple[float, float]:
    """Seconds between two calls at a rate, and how far ahead of that pace a call may come."""
    interval = 1 / rate
    return interval, max(rate - 1, 0.0) * interval


class LocalRates:
    """Allows this process its share of each limit.

    Args:
        processes: how many share a limit.
        monotonic: seconds that never go back.
    """

    def __init__(
        self, limits: Limits, processes: int, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._limits = limits
        self._processes = processes
        self._monotonic = monotonic
        self._due: dict[str, float] = {}
        """When the next call of an organisation would come, had all come at an even pace."""
        self._remembered = _REMEMBERED

    async def admit(self, org: str) -> float | None:
        """Count a call against this process's share."""
        return self.admit_now(org)

    def admit_now(self, org: str) -> float | None:
        """Do the same without waiting for anything."""
        rate = self._limits.of(org) / self._processes
        if not rate:
            return None
        interval, ahead = _pace(rate)
        now = self._monotonic()
        due = max(self._due.get(org, now), now)
        wait = due - ahead - now
        # A rounding error is no reason to wait.
        if wait > 1e-9:
            return wait
        self._due[org] = due + interval
        if len(self._due) > self._remembered:
            self._forget(now)
        return None

    def _forget(self, now: float) -> None:
        """Forget organisations that have made no calls for a while: they begin anew anyway."""
        self._due = {org: due for org, due in self._due.items() if due > now}
        self._remembered = 2 * len(self._due) + _REMEMBERED


class RedisRates:
    """Shares each limit with all processes of the service; while Redis is away each allows its share.

    Calls that come while Redis answers others are asked for together, in one round trip.
    """

    def __init__(self, url: str, service: str, limits: Limits, local: LocalRates) -> None:
        from services.kit.storage import redis  # noqa: PLC0415 only who has a Redis loads its driver

        self._prefix = f"conductor:{service}:rates:"
        self._limits = limits
        self._local = local
        self._client = redis.connect(url, answer_seconds=_ANSWER_SECONDS)
        self._script = self._client.register_script(_ADMIT)
        self._outage: Outage = redis.Outage("each process allows its share of the rates meanwhile")
        self._away = False
        self._closing = False
        self._asked: list[tuple[str, asyncio.Future[float | None]]] = []
        self._more = asyncio.Event()
        self._task = asyncio.create_task(self._serve(), name="rates")

    async def admit(self, org: str) -> float | None:
        """Count a call against the limit that all processes share."""
        if not self._limits.of(org):
            return None
        if self._away:
            return self._local.admit_now(org)
        answer: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._asked.append((org, answer))
        self._more.set()
        return await answer

    async def close(self) -> None:
        """Let go of Redis; calls that wait for it are judged here."""
        # The driver makes an error of its own of a cancellation that meets the end of a connection.
        self._closing = self._away = True
        await ended(self._task)
        self._judge_here(self._asked)
        await self._client.aclose()

    async def _serve(self) -> None:
        while not self._closing:
            await self._more.wait()
            asked, self._asked = self._asked[:_BATCH], self._asked[_BATCH:]
            if not self._asked:
                self._more.clear()
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    waits = await self._ask([org for org, _ in asked])
            except asyncio.CancelledError:
                self._judge_here(asked)
                raise
            except Exception as error:  # noqa: BLE001 whatever the driver meets, calls go on
                self._outage.met(error)
                self._away = True
                self._judge_here(asked)
                self._judge_here(self._asked)
                self._asked.clear()
                await self._return()
                continue
            for (_, answer), wait in zip(asked, waits, strict=True):
                if not answer.done():
                    answer.set_result(wait / 1e6 if wait else None)

    async def _ask(self, orgs: list[str]) -> list[int]:
        paces = [pace * 1e6 for org in orgs for pace in _pace(self._limits.of(org))]
        waits: list[int] = await self._script([f"{self._prefix}{org}" for org in orgs], paces)
        return waits

    def _judge_here(self, asked: list[tuple[str, asyncio.Future[float | None]]]) -> None:
        for org, answer in asked:
            if not answer.done():
                answer.set_result(self._local.admit_now(org))

    async def _return(self) -> None:
        """Wait until Redis does again what it is asked."""
        while self._away and not self._closing:
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            try:
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await self._ask([])
            except Exception:  # noqa: BLE001, S112 it was told already
                continue
            self._outage.over()
            self._away = False


async def open_rates(
    settings: Settings, service: str, processes: int, stack: AsyncExitStack
) -> Rates | None:
    """Open what holds organisations to their limits; None when nobody has one.

    Args:
        service: whose calls are counted; each service has its own count.
        processes: how many share a limit where no Redis is there to count.

    Raises:
        SettingsError: a limit or CONDUCTOR_QUEUE_URL cannot be used.
    """
    for org, rate in settings.rate_limits.items():
        if not (math.isfinite(rate) and rate >= 0):
            raise SettingsError(
                f"The setting {PREFIX}RATE_LIMITS is wrong at {org}: it has to be a number of "
                "calls a second; 0 is no limit."
            )
    limits = Limits(settings.rate_limit, settings.rate_limits)
    if not limits.limited:
        return None
    local = LocalRates(limits, processes)
    url = settings.queue_url.get_secret_value()
    if not url:
        return local
    rates = RedisRates(url, service, limits, local)
    stack.push_async_callback(rates.close)
    return rates
