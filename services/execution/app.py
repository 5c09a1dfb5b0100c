"""The composition root: settings, store, use cases, handlers."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from functools import partial

from conductor.execution.v1 import execution_service_pb2, execution_service_pb2_grpc
from conductor.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from services.execution.adapters.agents import SettingsAgents
from services.execution.adapters.mock import MockProvider, Script
from services.execution.domain import Agent
from services.execution.handlers import ExecutionHandlers, GatewayHandlers
from services.execution.settings import ExecutionSettings
from services.execution.stores import COLLECTIONS, LOGS, StoredExecutions, StoredLeases
from services.execution.usecases.catalogue import Catalogue
from services.execution.usecases.executions import ExecutionService
from services.execution.usecases.health import Health
from services.execution.usecases.retention import Retention
from services.execution.usecases.watches import Watches
from services.execution.usecases.worker import Pace, Worker
from services.kit import ids
from services.kit.errors import DomainError
from services.kit.server import App, main
from services.kit.settings import SettingsError
from services.kit.storage.inprocess import InProcessQueue, InProcessWakeups
from services.kit.storage.sqlite import SqliteStore


async def compose(settings: ExecutionSettings, stack: AsyncExitStack) -> App:
    """Build the service; what it opens is closed by the stack."""
    directory = settings.data_dir / "execution"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"CONDUCTOR_DATA_DIR cannot be used: {error}") from error
    store = await SqliteStore.open(directory / "execution.db", COLLECTIONS, LOGS)
    stack.push_async_callback(store.close)
    executions, leases = StoredExecutions(store), StoredLeases(store)
    queue, wakeups = InProcessQueue(), InProcessWakeups()

    scripts = {
        id_: Script(**row.model_dump()) for id_, row in settings.execution_mock_models.items()
    }
    catalogue = Catalogue([MockProvider(scripts)])
    configured = {"default": Agent("default")} | {
        id_: Agent(id_, row.ai_provider, row.model)
        for id_, row in settings.execution_agents.items()
    }
    for agent in configured.values():
        try:
            catalogue.choose("", "", agent)
        except DomainError as error:
            raise SettingsError(
                f"CONDUCTOR_EXECUTION_AGENTS: agent {agent.id}: {error.message}"
            ) from None
    worker = Worker(
        executions,
        leases,
        catalogue,
        queue,
        wakeups,
        clock=ids.now,
        monotonic=time.monotonic,
        new_id=partial(ids.new_id, "worker"),
        pace=Pace(
            concurrency=settings.execution_concurrency,
            lease_ttl=settings.execution_lease_seconds,
            renew_every=settings.execution_lease_seconds / 3,
            flush_every=settings.execution_flush_ms / 1000,
        ),
    )
    service = ExecutionService(
        executions,
        SettingsAgents(configured),
        catalogue,
        queue,
        wakeups,
        clock=ids.now,
        new_id=partial(ids.new_id, "exec"),
        default_timeout_ms=round(settings.execution_timeout_seconds * 1000),
    )
    watches = Watches(executions, wakeups, heartbeat_seconds=settings.execution_heartbeat_seconds)
    health = Health(executions, worker)
    background = [worker.serve]
    if settings.execution_retention_seconds:
        retention = Retention(
            executions, service, keep_seconds=settings.execution_retention_seconds, clock=ids.now
        )
        background.append(retention.serve)

    async def drain() -> None:
        watches.close()
        await worker.stop()

    await worker.start()
    return App(
        settings.execution_address,
        [
            (
                execution_service_pb2.DESCRIPTOR.services_by_name["ExecutionService"].full_name,
                partial(
                    execution_service_pb2_grpc.add_ExecutionServiceServicer_to_server,
                    ExecutionHandlers(service, watches, catalogue),
                ),
            ),
            (
                gateway_service_pb2.DESCRIPTOR.services_by_name["GatewayService"].full_name,
                partial(
                    gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server,
                    GatewayHandlers(service, watches, health),
                ),
            ),
        ],
        background=background,
        drain=drain,
    )


def run() -> None:
    """Serve until SIGTERM."""
    main(ExecutionSettings, compose)
