"""What every service is put together from: `app.py` adds what is its own.

frame = await open_frame(settings, COLLECTIONS, LOGS, stack, telemetry)
notes = Notes(StoredNotes(frame.store), clock=ids.now)
return frame.app(hosted(add_NoteServiceServicer_to_server, NoteHandlers(notes)))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

import grpc

from conductor.audit.v1.audit_service_pb2_grpc import (
    AuditServiceStub,
    add_AuditServiceServicer_to_server,
)
from services.kit.audit import AuditRetention, StoredAudit
from services.kit.audit_service import AuditHandlers
from services.kit.guard import Guard, guard_of, signer_of
from services.kit.keys import Keys
from services.kit.peers import Peers, open_peers
from services.kit.rates import Rates, open_rates
from services.kit.remote_keys import RemoteKeys
from services.kit.server import App, Hosted
from services.kit.settings import ServiceSettings
from services.kit.signing import Signer
from services.kit.storage.opening import open_store
from services.kit.storage.ports import Collection, Store
from services.kit.storage.traced import traced
from services.kit.telemetry import Telemetry

H = TypeVar("H")

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Frame:
    """What a service has before it has anything of its own; the stack closes it."""

    settings: ServiceSettings
    store: Store
    """Its own."""
    signer: Signer | None
    """Of this mesh; None while authentication is off."""
    peers: Peers
    """The other services."""
    rates: Rates | None
    audit: StoredAudit
    """The records of its calls."""
    telemetry: Telemetry
    stack: AsyncExitStack
    """Closes what is put on it when the service ends, the last first."""

    def app(
        self,
        *services: Hosted,
        background: Iterable[Work] = (),
        drain: Callable[[], Awaitable[None]] | None = None,
        keys: Keys | None = None,
        used: Callable[[str], None] | None = None,
        audited: Iterable[str] = (),
    ) -> App:
        """Make the service; AuditService and the sweep of old records come by themselves.

        Args:
            services: what it hosts, each by `hosted`.
            background: what runs beside the calls.
            drain: hands running work back and ends open streams, before the server stops.
            keys: the keys of callers, where this service stores them; else they are read from there.
            used: told of each use of such a key, by its id.
            audited: other services, whose records are listed with its own.

        Raises:
            SettingsError: nothing says where a service is that this one needs.
        """
        others = {name: AuditServiceStub(self.peers.channel(name)) for name in audited}
        handlers = AuditHandlers(self.audit, others)
        return App(
            self.settings.address,
            [*services, hosted(add_AuditServiceServicer_to_server, handlers)],
            background=[*background, *self._sweeps()],
            drain=drain or _nothing,
            guard=self._guard(keys, used),
            auditor=self.audit,
        )

    def _guard(self, keys: Keys | None, used: Callable[[str], None] | None) -> Guard | None:
        def stored() -> Keys:
            return keys or RemoteKeys(self.peers)

        return guard_of(
            self.settings, self.signer, stored, self.rates, used or _unnoted, self.stack
        )

    def _sweeps(self) -> Sequence[Work]:
        days = self.settings.audit_retention_days
        if not days:
            return ()
        return (AuditRetention(self.store, self.settings.service, keep_days=days).serve,)


async def open_frame(
    settings: ServiceSettings,
    collections: Iterable[Collection],
    logs: Iterable[str],
    stack: AsyncExitStack,
    telemetry: Telemetry,
) -> Frame:
    """Open what every service has.

    Args:
        collections: what its store holds, `AUDIT` among it.

    Raises:
        SettingsError: it cannot be opened as the settings say.
        UnreadableStoreError: a newer release wrote the store, or it is damaged.
        DomainError: STORE_UNAVAILABLE or STORE_FULL, from SQLite.
    """
    name = settings.service
    signer = signer_of(settings)
    opened = await open_store(settings, name, collections, logs, stack)
    store = traced(opened, telemetry.tracer, settings, name)
    peers = await open_peers(settings, name, signer, telemetry.tracer, stack)
    rates = await open_rates(settings, name, settings.processes, stack)
    audit = StoredAudit(store, name)
    stack.push_async_callback(audit.close)
    return Frame(settings, store, signer, peers, rates, audit, telemetry, stack)


def hosted(add: Callable[[H, grpc.aio.Server], None], handlers: H) -> Hosted:
    """Say how a service of the protos is served.

    Args:
        add: the generated function that registers it.
        handlers: its rpcs.
    """
    asked = _Named()
    add(handlers, cast("grpc.aio.Server", asked))
    return asked.name, partial(add, handlers)


class _Named:
    """Learns from generated code which service it registers."""

    name = ""

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Pass over what says the same."""

    def add_registered_method_handlers(self, service: str, handlers: object) -> None:  # noqa: ARG002 the signature is given
        """Note the full name."""
        self.name = service


async def _nothing() -> None:
    """Have nothing to hand back."""


def _unnoted(key_id: str) -> None:
    """Leave it to the service that stores the keys, which hears of each use as it is read."""
