"""Making, listing and revoking keys, and noting when they are used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress

from services.execution import domain
from services.execution.domain import Key, KeyAsked
from services.execution.ports import FencedError, Keys
from services.kit.errors import DomainError, Resource
from services.kit.principals import Principal
from services.kit.resources.conflicts import contended

_LOG = logging.getLogger(__name__)
_REVOKE_TRIES = 20
_NOTED_EVERY = 60_000_000

Mint = Callable[[], tuple[str, str, str]]
"""Makes the id of a key, the text its holder shows, and the digest of its secret."""


class KeyKeeper:
    """Makes, lists and revokes keys.

    Args:
        mint: makes the text of a key.
        used: told of each use of a key that is shown to another service, by its id.
        clock: microseconds since the epoch.
    """

    def __init__(
        self, keys: Keys, *, mint: Mint, used: Callable[[str], None], clock: Callable[[], int]
    ) -> None:
        self._keys = keys
        self._used = used
        self._mint = mint
        self._clock = clock

    async def create(self, caller: Principal, asked: KeyAsked) -> tuple[Key, str]:
        """Make a key; answers it and the text its holder shows, which is kept nowhere.

        Raises:
            DomainError: PERMISSION_DENIED, INVALID_REQUEST.
        """
        id_, text, digest = self._mint()
        key = domain.new_key(caller, asked, id_, digest, self._clock())
        await self._keys.add(key)
        return key, text

    async def list(
        self, org: str | None, after: tuple[int, str] | None, limit: int
    ) -> Sequence[Key]:
        """Read a page of the keys of an organisation, or of all for None; newest first."""
        return await self._keys.list(org, after, limit)

    async def resolve(self, key_id: str, digest: str) -> Key:
        """Read a key for a service it was shown to.

        Args:
            digest: of the secret that was shown; empty when nobody showed one.

        Raises:
            DomainError: KEY_NOT_FOUND.
        """
        key = await self._keys.get(key_id)
        if key is None:
            raise domain.key_not_found(key_id)
        if digest == key.digest and domain.works(key, self._clock()):
            self._used(key_id)
        return key

    async def revoke(self, caller: Principal, key_id: str) -> Key:
        """Revoke a key for good.

        Raises:
            DomainError: KEY_NOT_FOUND, CONFLICT.
        """
        for _ in range(_REVOKE_TRIES):
            key = await self._keys.get(key_id)
            if key is None or not domain.may_revoke(caller, key):
                raise domain.key_not_found(key_id)
            revoked = domain.revoke(key, self._clock())
            if revoked is key:
                return key
            with suppress(FencedError):
                return await self._keys.save(revoked)
        raise contended(Resource("key", key_id))


class KeyUses:
    """Notes when keys are used, once a minute for each, without keeping any call waiting.

    Args:
        clock: microseconds since the epoch.
    """

    def __init__(self, keys: Keys, *, clock: Callable[[], int]) -> None:
        self._keys = keys
        self._clock = clock
        self._noted: dict[str, int] = {}
        """When the use of a key was last handed on; none is older than a minute for long."""
        self._due: dict[str, int] = {}
        self._wake = asyncio.Event()

    def note(self, key_id: str) -> None:
        """Take note that a key is used now."""
        now = self._clock()
        if now - self._noted.get(key_id, 0) >= _NOTED_EVERY:
            self._noted[key_id] = self._due[key_id] = now
            self._wake.set()

    async def serve(self) -> None:
        """Store what was noted until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, {}
            for key_id, time in due.items():
                await self._store(key_id, time)
            recently = self._clock() - _NOTED_EVERY
            self._noted = {id_: time for id_, time in self._noted.items() if time > recently}

    async def _store(self, key_id: str, time: int) -> None:
        try:
            key = await self._keys.get(key_id)
            if key is not None:
                # Whoever was faster has noted a use, or revoked it.
                with suppress(FencedError):
                    await self._keys.save(domain.use(key, time))
        except DomainError as error:
            _LOG.warning("the use of a key could not be noted: %s", error)
