"""The composition root: settings, store, use cases, handlers."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from conductor.auth.v1.key_service_pb2_grpc import add_KeyServiceServicer_to_server
from conductor.content.v1.agent_service_pb2_grpc import AgentServiceStub
from conductor.content.v1.screenplay_service_pb2_grpc import ScreenplayServiceStub
from conductor.conversations.v1.conversation_service_pb2_grpc import ConversationServiceStub
from conductor.conversations.v1.instance_service_pb2_grpc import InstanceServiceStub
from conductor.conversations.v1.turn_service_pb2_grpc import TurnServiceStub
from conductor.execution.v1.execution_service_pb2_grpc import (
    add_ExecutionServiceServicer_to_server,
)
from conductor.gateway.v1.gateway_service_pb2_grpc import add_GatewayServiceServicer_to_server
from services.execution.adapters.agents import OWNER, ContentAgents
from services.execution.adapters.contexts import MeshContexts, Said
from services.execution.adapters.conversations import OWNER as KEEPER
from services.execution.adapters.conversations import KeptConversations, NoConversations
from services.execution.adapters.metrics import MeteredWork, Unmetered
from services.execution.adapters.mock import MockProvider, Script
from services.execution.adapters.prices import FilePrices
from services.execution.adapters.providers import Server, connect
from services.execution.adapters.screenplays import ContentScreenplays
from services.execution.adapters.traces import TracedWork, Untraced
from services.execution.domain import NANO, Agent, Model, Persistence, Tolerance, Turns, Wish
from services.execution.handlers.executions import ExecutionHandlers
from services.execution.handlers.gateway import GatewayHandlers
from services.execution.handlers.keys import KeyHandlers
from services.execution.ports import (
    Agents,
    Contexts,
    Leases,
    Metrics,
    Provider,
    Screenplays,
    Traces,
)
from services.execution.settings import KNOWN_PROVIDERS, ExecutionSettings, OrgSettings
from services.execution.stores import COLLECTIONS, LOGS, StoredExecutions, StoredKeys, StoredLeases
from services.execution.usecases.calls import Patience
from services.execution.usecases.catalogue import Absent, Catalogue, Preference
from services.execution.usecases.circuits import Circuits
from services.execution.usecases.errands import Errands
from services.execution.usecases.executions import ExecutionService, Terms
from services.execution.usecases.health import Health
from services.execution.usecases.keys import KeyKeeper, KeyUses
from services.execution.usecases.retention import Retention
from services.execution.usecases.sessions import Sessions
from services.execution.usecases.talks import Talks
from services.execution.usecases.watches import Watches
from services.execution.usecases.worker import Pace, Worker
from services.kit import ids
from services.kit.errors import DomainError
from services.kit.frame import Work, hosted, open_frame
from services.kit.keys import mint
from services.kit.peers import Peers
from services.kit.server import App, main
from services.kit.settings import PREFIX, SettingsError
from services.kit.storage.opening import open_queue
from services.kit.storage.ports import Store, Wakeups, WorkQueue
from services.kit.telemetry import SILENT, Telemetry
from services.kit.validation import Validation

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 1.0
_DEAF_POLL_SECONDS = 0.1
"""How often watchers look where they hear nothing of what other processes append."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """What the use cases share."""

    executions: StoredExecutions
    catalogue: Catalogue
    circuits: Circuits
    turns: Turns
    queue: WorkQueue
    wakeups: Wakeups
    metrics: Metrics
    traces: Traces
    talks: Talks
    said: Said


async def compose(
    settings: ExecutionSettings, stack: AsyncExitStack, telemetry: Telemetry = SILENT
) -> App:
    """Build the service; what it opens is closed by the stack."""
    frame = await open_frame(settings, COLLECTIONS, LOGS, stack, telemetry)
    shared = await _shared(settings, frame.store, frame.peers, stack, telemetry)

    content, itself = frame.peers.channel(OWNER), frame.peers.itself
    agents = ContentAgents(AgentServiceStub(content), itself, monotonic=time.monotonic)
    stack.push_async_callback(agents.close)
    screenplays = ContentScreenplays(ScreenplayServiceStub(content), itself)
    contexts = MeshContexts(screenplays, shared.said)
    worker = _worker(settings, shared, StoredLeases(frame.store), contexts)
    service = _service(settings, shared, agents, screenplays)
    watches = _watches(settings, shared)
    shared.metrics.observe(
        running=worker.running, waiting=shared.turns.__len__, circuits=shared.circuits.states
    )
    health = Health(shared.executions, worker, frame.peers)
    keys = StoredKeys(frame.store)
    uses = KeyUses(keys, clock=ids.now)
    keeper = KeyKeeper(keys, mint=mint, used=uses.note, clock=ids.now)

    sessions = Sessions(
        service,
        shared.talks,
        watches,
        heartbeat_seconds=settings.execution_heartbeat_seconds,
    )

    async def drain() -> None:
        sessions.close()
        watches.close()
        await worker.stop()

    await worker.start()
    return frame.app(
        hosted(
            add_ExecutionServiceServicer_to_server,
            ExecutionHandlers(
                service,
                watches,
                sessions,
                shared.catalogue,
                shared.circuits,
                Validation().check,
            ),
        ),
        hosted(
            add_GatewayServiceServicer_to_server,
            GatewayHandlers(service, watches, health, frame.signer),
        ),
        hosted(add_KeyServiceServicer_to_server, KeyHandlers(keeper)),
        background=[worker.serve, uses.serve, *_sweeps(settings, shared, service)],
        drain=drain,
        keys=keys,
        used=uses.note,
        audited=frame.peers.others,
    )


async def _shared(
    settings: ExecutionSettings,
    store: Store,
    peers: Peers,
    stack: AsyncExitStack,
    telemetry: Telemetry,
) -> _Shared:
    queue, wakeups = await open_queue(settings, settings.service, stack)
    catalogue = await _catalogue(settings, stack)
    known = frozenset((model.ai_provider, model.id) for model, _ in catalogue.models)
    meter, tracer = telemetry.meter, telemetry.tracer
    tolerance = Tolerance(
        settings.execution_breaker_failures,
        settings.execution_breaker_open_seconds,
        settings.execution_breaker_probes,
    )
    executions, conversations = StoredExecutions(store), _conversations(peers)
    return _Shared(
        executions,
        catalogue,
        Circuits(tolerance, time.monotonic),
        _turns(settings),
        queue,
        wakeups,
        Unmetered() if meter is None else MeteredWork(meter, known),
        Untraced() if tracer is None else TracedWork(tracer),
        Talks(executions, conversations, queue, wakeups),
        conversations,
    )


def _conversations(peers: Peers) -> KeptConversations | NoConversations:
    if KEEPER not in peers.others:
        return NoConversations()
    channel = peers.channel(KEEPER)
    return KeptConversations(
        TurnServiceStub(channel),
        InstanceServiceStub(channel),
        ConversationServiceStub(channel),
        peers.itself,
    )


def _worker(
    settings: ExecutionSettings, shared: _Shared, leases: Leases, contexts: Contexts
) -> Worker:
    return Worker(
        shared.executions,
        leases,
        contexts,
        shared.catalogue,
        shared.circuits,
        shared.queue,
        shared.wakeups,
        shared.turns,
        shared.metrics,
        shared.traces,
        shared.talks,
        clock=ids.now,
        monotonic=time.monotonic,
        new_id=partial(ids.new_id, "worker"),
        chance=random.random,
        pace=Pace(
            concurrency=settings.execution_concurrency,
            lease_ttl=settings.execution_lease_seconds,
            renew_every=settings.execution_lease_seconds / 3,
            flush_every=settings.execution_flush_ms / 1000,
        ),
        patience=Patience(
            settings.execution_first_token_seconds,
            settings.execution_idle_seconds,
            settings.execution_call_seconds,
        ),
        persistence=Persistence(
            settings.execution_attempts,
            settings.execution_retry_pause_seconds,
            settings.execution_longest_retry_pause_seconds,
            settings.execution_longest_retry_after_seconds,
        ),
    )


def _service(
    settings: ExecutionSettings, shared: _Shared, agents: Agents, screenplays: Screenplays
) -> ExecutionService:
    return ExecutionService(
        shared.executions,
        agents,
        screenplays,
        shared.catalogue,
        shared.queue,
        shared.wakeups,
        shared.turns,
        shared.metrics,
        shared.traces,
        shared.talks,
        clock=ids.now,
        new_id=partial(ids.new_id, "exec"),
        terms=_terms(settings),
    )


def _watches(settings: ExecutionSettings, shared: _Shared) -> Watches:
    deaf = settings.execution_processes > 1 and not settings.queue_url.get_secret_value()
    return Watches(
        shared.executions,
        shared.wakeups,
        shared.metrics,
        clock=ids.now,
        heartbeat_seconds=settings.execution_heartbeat_seconds,
        poll_seconds=_DEAF_POLL_SECONDS if deaf else _POLL_SECONDS,
    )


def _sweeps(
    settings: ExecutionSettings, shared: _Shared, service: ExecutionService
) -> Iterator[Work]:
    """Yield what does what is left to be done, and what deletes runs that need not be kept."""
    executions, talks = shared.executions, shared.talks
    yield Errands(executions, talks, service, monotonic=time.monotonic).serve
    if settings.execution_retention_seconds:
        seconds = settings.execution_retention_seconds
        yield Retention(shared.executions, service, keep_seconds=seconds, clock=ids.now).serve


async def _catalogue(settings: ExecutionSettings, stack: AsyncExitStack) -> Catalogue:
    """Connect the providers that are switched on; `mock` comes last."""
    rows = {**KNOWN_PROVIDERS, **settings.execution_providers}
    prices = FilePrices(settings.execution_price_file, rows.keys())
    providers: list[Provider] = []
    absent: dict[str, Absent] = {}
    for name, row in rows.items():
        known = prices.models(name)
        key = row.key
        if not (key.isascii() and key.isprintable()):
            raise SettingsError(
                f"The key of {name} holds characters that cannot be sent, such as a line break; "
                f"see {row.key_variable or 'its api_key'}."
            )
        if key or (row.is_keyless and name in settings.execution_providers):
            models = {id_: known.get(id_, Model(id_, name)) for id_ in row.ids(known)}
            server = Server(
                name,
                row.protocol,
                row.base_url,
                key,
                models,
                row.any_model,
                row.output_limit_field,
                row.headers,
            )
            providers.append(connect(server))
            stack.push_async_callback(providers[-1].close)
        elif name in settings.execution_providers:
            remedy = f"set {row.key_variable or 'its api_key'}"
            absent[name] = Absent(remedy, tuple(known))
            _LOG.warning("the provider %s is configured and has no key; %s", name, remedy)
        elif row.is_keyless:
            absent[name] = Absent(f"name it in {PREFIX}EXECUTION_PROVIDERS", tuple(known))
        else:
            absent[name] = Absent(f"set {row.key_variable or 'its api_key'}", tuple(known))
    scripts = {
        id_: Script(**row.model_dump()) for id_, row in settings.execution_mock_models.items()
    }
    providers.append(MockProvider(scripts))
    preference = Preference(
        Wish(settings.execution_default_provider, settings.execution_default_model),
        tuple(Wish(one.ai_provider, one.model) for one in settings.execution_fallbacks),
    )
    catalogue = Catalogue(providers, prices, absent, preference)
    try:
        catalogue.choose(Wish(), (), Agent("default"))
    except DomainError as error:
        raise SettingsError(
            f"{PREFIX}EXECUTION_DEFAULT_PROVIDER, _DEFAULT_MODEL and _FALLBACKS: {error.message}"
        ) from None
    return catalogue


def _turns(settings: ExecutionSettings) -> Turns:
    rows, ordinary = settings.execution_orgs, OrgSettings()

    def limit(org: str) -> int:
        own = rows.get(org, ordinary).concurrency
        return settings.execution_org_concurrency if own is None else own

    return Turns(lambda org: rows.get(org, ordinary).weight, limit)


def _terms(settings: ExecutionSettings) -> Terms:
    cost, most_cost = settings.execution_cost_usd, settings.execution_cost_usd_ceiling
    return Terms(
        timeout_ms=round(settings.execution_timeout_seconds * 1000),
        most_timeout_ms=round(settings.execution_timeout_ceiling_seconds * 1000),
        max_output_tokens=settings.execution_output_tokens
        or settings.execution_output_tokens_ceiling,
        most_output_tokens=settings.execution_output_tokens_ceiling,
        max_cost=_nano(cost if cost is not None else most_cost),
        most_cost=_nano(most_cost),
        most_waiting=settings.execution_queue_limit,
    )


def _nano(dollars: Decimal | None) -> int | None:
    return None if dollars is None else round(dollars * NANO)


def run() -> None:
    """Serve until SIGTERM."""
    main(ExecutionSettings, compose, "conductor-execution")
