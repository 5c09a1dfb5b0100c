"""The composition root: settings, store, use cases, handlers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

from conductor.content.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from conductor.content.v1.persona_service_pb2_grpc import add_PersonaServiceServicer_to_server
from conductor.content.v1.screenplay_service_pb2_grpc import (
    add_ScreenplayServiceServicer_to_server,
)
from conductor.content.v1.template_service_pb2_grpc import add_TemplateServiceServicer_to_server
from services.content.adapters.templates import read_templates
from services.content.domain.screenplays import Screenplay
from services.content.handlers.agents import AgentHandlers
from services.content.handlers.personas import PersonaHandlers
from services.content.handlers.screenplays import ScreenplayHandlers
from services.content.handlers.templates import TemplateHandlers
from services.content.ports.deletions import Mortal
from services.content.settings import ContentSettings
from services.content.stores import COLLECTIONS, LOGS
from services.content.stores.agents import StoredAgents
from services.content.stores.personas import StoredPersonas, StoredVersions
from services.content.stores.screenplays import StoredScreenplays, StoredTexts
from services.content.usecases.agents import AgentService, Resolver
from services.content.usecases.deletions import Cascades, Purge
from services.content.usecases.personas import PersonaKin, PersonaService, VersionKin
from services.content.usecases.screenplays import ScreenplayService, TextKin
from services.content.usecases.templates import TemplateService
from services.kit import ids
from services.kit.frame import Work, hosted, open_frame
from services.kit.server import App, main
from services.kit.storage.ports import Store
from services.kit.telemetry import SILENT, Telemetry

T = TypeVar("T", bound=Mortal)

_new_deletion = partial(ids.new_id, "del")


async def compose(
    settings: ContentSettings, stack: AsyncExitStack, telemetry: Telemetry = SILENT
) -> App:
    """Build the service; what it opens is closed by the stack."""
    templates = read_templates()
    frame = await open_frame(settings, COLLECTIONS, LOGS, stack, telemetry)
    stored, lives = StoredAgents(frame.store), StoredPersonas(frame.store)
    versions = StoredVersions(frame.store)
    cascades = Cascades(stored, [PersonaKin(lives, versions)], monotonic=time.monotonic)
    ends = Cascades(lives, [VersionKin(lives, versions)], monotonic=time.monotonic)
    agents = AgentService(stored, cascades, clock=ids.now, new_id=_new_deletion)
    personas = PersonaService(
        lives, versions, agents, ends, cascades.settle, clock=ids.now, new_id=_new_deletion
    )
    screenplays, plays = _screenplays(frame.store)
    if settings.content_processes == 1:
        await cascades.begin()
        await ends.begin()
        await plays.begin()
    resolver = Resolver(agents, personas)
    installer = TemplateService(
        templates, stored, cascades, personas, clock=ids.now, new_id=_new_deletion
    )
    return frame.app(
        hosted(
            add_AgentServiceServicer_to_server,
            AgentHandlers(agents, resolver, settings.content_retention_days),
        ),
        hosted(add_PersonaServiceServicer_to_server, PersonaHandlers(personas)),
        hosted(
            add_ScreenplayServiceServicer_to_server,
            ScreenplayHandlers(screenplays, settings.content_retention_days),
        ),
        hosted(add_TemplateServiceServicer_to_server, TemplateHandlers(installer)),
        background=[
            *_sweeps(settings, cascades),
            *_sweeps(settings, ends),
            *_sweeps(settings, plays),
        ],
    )


def _screenplays(store: Store) -> tuple[ScreenplayService, Cascades[Screenplay]]:
    """Put together what serves screenplays, and what ends their deletions."""
    stored, texts = StoredScreenplays(store), StoredTexts(store)
    cascades = Cascades(stored, [TextKin(texts)], monotonic=time.monotonic)
    service = ScreenplayService(
        stored,
        texts,
        cascades,
        clock=ids.now,
        new_id=partial(ids.new_id, "play"),
        new_deletion_id=_new_deletion,
    )
    return service, cascades


def _sweeps(settings: ContentSettings, cascades: Cascades[T]) -> Iterator[Work]:
    """Yield what finishes the deletions of one kind of things, and purges what is old enough."""
    yield cascades.serve
    if days := settings.content_retention_days:
        yield Purge(cascades, keep_days=days, clock=ids.now).serve


def run() -> None:
    """Serve until SIGTERM."""
    main(ContentSettings, compose, "conductor-content")
