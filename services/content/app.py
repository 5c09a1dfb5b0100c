"""The composition root: settings, store, use cases, handlers."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

from conductor.content.v1.agent_service_pb2_grpc import add_AgentServiceServicer_to_server
from conductor.content.v1.archive_service_pb2_grpc import add_ArchiveServiceServicer_to_server
from conductor.content.v1.persona_service_pb2_grpc import add_PersonaServiceServicer_to_server
from conductor.content.v1.screenplay_service_pb2_grpc import (
    add_ScreenplayServiceServicer_to_server,
)
from conductor.content.v1.system_service_pb2_grpc import add_SystemServiceServicer_to_server
from conductor.content.v1.template_service_pb2_grpc import add_TemplateServiceServicer_to_server
from conductor.conversations.v1.kin_service_pb2 import ParentKind
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from services.content.adapters.archives import ZippedArchives
from services.content.adapters.conversations import OWNER, ConversationsKin
from services.content.adapters.models import ExecutionModels
from services.content.adapters.templates import TemplateFolder, read_templates
from services.content.adapters.yamls import PlainYaml
from services.content.domain.screenplays import Screenplay
from services.content.domain.system import Setup
from services.content.handlers.agents import AgentHandlers
from services.content.handlers.archives import ArchiveHandlers
from services.content.handlers.personas import PersonaHandlers
from services.content.handlers.screenplays import ScreenplayHandlers
from services.content.handlers.system import SystemHandlers
from services.content.handlers.templates import TemplateHandlers
from services.content.settings import ContentSettings
from services.content.stores import COLLECTIONS, LOGS
from services.content.stores.agents import StoredAgents
from services.content.stores.archives import StoredImports, StoredLibrary
from services.content.stores.personas import StoredPersonas, StoredVersions
from services.content.stores.probes import StoredPersonaParts, StoreProbe
from services.content.stores.screenplays import StoredScreenplays, StoredTexts
from services.content.usecases.agents import AgentService, Resolver
from services.content.usecases.exports import Exporter
from services.content.usecases.imports import Importer
from services.content.usecases.keeping import ImportKeeper
from services.content.usecases.personas import PersonaKin, PersonaService, VersionKin
from services.content.usecases.screenplays import ScreenplayService, TextKin
from services.content.usecases.system import SystemCheck
from services.content.usecases.templates import TemplateService
from services.kit import ids
from services.kit.frame import Frame, Work, hosted, open_frame
from services.kit.resources.cascades import Cascades, Kin, Purge
from services.kit.resources.ports import Mortal, Roots
from services.kit.server import App, main
from services.kit.tasks import Workbench
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
    cascades = Cascades(
        stored,
        [PersonaKin(lives, versions)],
        afar=_afar(frame, ParentKind.PARENT_KIND_AGENT, stored),
        monotonic=time.monotonic,
    )
    ends = Cascades(lives, [VersionKin(lives, versions)], monotonic=time.monotonic)
    workbench = Workbench()
    agents = AgentService(stored, cascades, clock=ids.now, new_id=_new_deletion)
    personas = PersonaService(
        lives,
        versions,
        agents,
        ends,
        cascades.settle,
        clock=ids.now,
        new_id=_new_deletion,
        workbench=workbench,
    )
    screenplays, plays = _screenplays(frame, workbench)
    if settings.content_processes == 1:
        await cascades.begin()
        await ends.begin()
        await plays.begin()
    resolver = Resolver(agents, personas)
    installer = TemplateService(
        templates, stored, cascades, personas, clock=ids.now, new_id=_new_deletion
    )
    archives, keeper = await _archives(settings, frame)
    return frame.app(
        hosted(
            add_AgentServiceServicer_to_server,
            AgentHandlers(agents, resolver, settings.content_retention_days),
        ),
        hosted(
            add_PersonaServiceServicer_to_server,
            PersonaHandlers(personas, settings.content_retention_days),
        ),
        hosted(
            add_ScreenplayServiceServicer_to_server,
            ScreenplayHandlers(screenplays, settings.content_retention_days),
        ),
        hosted(add_TemplateServiceServicer_to_server, TemplateHandlers(installer)),
        hosted(add_ArchiveServiceServicer_to_server, archives),
        hosted(
            add_SystemServiceServicer_to_server, SystemHandlers(_check(settings, frame, agents))
        ),
        background=[
            keeper.serve,
            *_sweeps(settings, cascades),
            *_sweeps(settings, ends),
            *_sweeps(settings, plays),
        ],
    )


def _screenplays(
    frame: Frame, workbench: Workbench
) -> tuple[ScreenplayService, Cascades[Screenplay]]:
    """Put together what serves screenplays, and what ends their deletions."""
    stored, texts = StoredScreenplays(frame.store), StoredTexts(frame.store)
    cascades = Cascades(
        stored,
        [TextKin(texts)],
        afar=_afar(frame, ParentKind.PARENT_KIND_SCREENPLAY, stored),
        monotonic=time.monotonic,
    )
    service = ScreenplayService(
        stored,
        texts,
        cascades,
        clock=ids.now,
        new_id=partial(ids.new_id, "play"),
        new_deletion_id=_new_deletion,
        workbench=workbench,
    )
    return service, cascades


def _afar(frame: Frame, kind: ParentKind.ValueType, roots: Roots[T]) -> Sequence[Kin]:
    """Return what belongs to things of a kind at other services, as far as these are told of."""
    return [ConversationsKin(frame.peers, kind, roots)] if OWNER in frame.peers.others else []


async def _archives(
    settings: ContentSettings, frame: Frame
) -> tuple[ArchiveHandlers, ImportKeeper]:
    """Put together what makes and takes in archives; what was committed before is finished first."""
    library, imports = StoredLibrary(frame.store), StoredImports(frame.store)
    files = ZippedArchives(settings.data_dir / settings.service, settings.content_archive_bytes)
    keeper = ImportKeeper(imports, monotonic=time.monotonic)
    frame.stack.push_async_callback(keeper.stop)
    await keeper.start(alone=settings.content_processes == 1)
    importer = Importer(
        library,
        imports,
        files,
        keeper,
        PlainYaml(),
        clock=ids.now,
        monotonic=time.monotonic,
        new_id=partial(ids.new_id, "import"),
        new_play_id=partial(ids.new_id, "play"),
    )
    return ArchiveHandlers(Exporter(library, files, PlainYaml()), importer), keeper


def _check(settings: ContentSettings, frame: Frame, agents: AgentService) -> SystemCheck:
    """Put together what looks whether the mesh is set up well."""
    is_shared = bool(settings.store_url.get_secret_value())
    directory = None if is_shared else settings.data_dir
    execution = "execution" in frame.peers.others
    models = (
        ExecutionServiceStub(frame.peers.channel("execution")).ListModels if execution else None
    )
    return SystemCheck(
        Setup(
            auth=settings.auth == "on",
            shared_store=is_shared,
            queue=bool(settings.queue_url.get_secret_value()),
            processes=settings.content_processes,
            keep_days=settings.content_retention_days,
            audit_days=settings.audit_retention_days,
        ),
        StoreProbe(frame.store, directory, new_id=partial(ids.new_id, "probe")),
        frame.peers,
        ExecutionModels(models),
        agents,
        StoredPersonaParts(frame.store),
        TemplateFolder(),
    )


def _sweeps(settings: ContentSettings, cascades: Cascades[T]) -> Iterator[Work]:
    """Yield what finishes the deletions of one kind of things, and purges what is old enough."""
    yield cascades.serve
    if days := settings.content_retention_days:
        yield Purge(cascades, keep_days=days, clock=ids.now).serve


def run() -> None:
    """Serve until SIGTERM."""
    main(ContentSettings, compose, "conductor-content")
