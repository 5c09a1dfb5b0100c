"""The composition root: settings, store, use cases, handlers."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar

from conductor.content.v1.template_service_pb2_grpc import TemplateServiceStub
from conductor.conversations.v1.conversation_service_pb2_grpc import (
    add_ConversationServiceServicer_to_server,
)
from conductor.conversations.v1.instance_service_pb2_grpc import (
    add_InstanceServiceServicer_to_server,
)
from conductor.conversations.v1.kin_service_pb2_grpc import add_KinServiceServicer_to_server
from conductor.conversations.v1.message_service_pb2_grpc import (
    add_MessageServiceServicer_to_server,
)
from conductor.conversations.v1.portfolio_service_pb2_grpc import (
    add_PortfolioServiceServicer_to_server,
)
from conductor.conversations.v1.turn_service_pb2_grpc import add_TurnServiceServicer_to_server
from conductor.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from services.conversations.adapters.catalogue import OWNER, ContentCatalogue
from services.conversations.adapters.runs import VisitorRuns
from services.conversations.handlers.conversations import ConversationHandlers
from services.conversations.handlers.instances import InstanceHandlers
from services.conversations.handlers.kin import KinHandlers
from services.conversations.handlers.messages import MessageHandlers
from services.conversations.handlers.portfolio import PortfolioHandlers
from services.conversations.handlers.turns import TurnHandlers
from services.conversations.settings import ConversationsSettings
from services.conversations.stores import COLLECTIONS, LOGS
from services.conversations.stores.conversations import StoredConversations
from services.conversations.stores.histories import StoredLinks
from services.conversations.stores.instances import StoredInstances, StoredParents
from services.conversations.stores.messages import StoredMessages
from services.conversations.stores.visitors import StoredVisitors
from services.conversations.usecases.clones import Cloner
from services.conversations.usecases.conversations import ConversationService, MessageKin
from services.conversations.usecases.histories import HistoryService
from services.conversations.usecases.instances import InstanceService
from services.conversations.usecases.kin import Cast, HistoryKin, InstanceKin, KinService
from services.conversations.usecases.messages import MessageService
from services.conversations.usecases.portfolio import Portfolio
from services.conversations.usecases.references import References
from services.conversations.usecases.transcripts import Transcript
from services.conversations.usecases.turns import TurnService
from services.kit import ids
from services.kit.frame import Work, hosted, open_frame
from services.kit.resources.cascades import Cascades, Kin, Purge
from services.kit.resources.ports import Mortal
from services.kit.server import App, main
from services.kit.telemetry import SILENT, Telemetry

T = TypeVar("T", bound=Mortal)

_new_deletion = partial(ids.new_id, "del")
_new_conversation = partial(ids.new_id, "conv")
_new_message = partial(ids.new_id, "msg")


def _new_session() -> str:
    return f"sess_{secrets.token_urlsafe(24)}"


async def compose(
    settings: ConversationsSettings, stack: AsyncExitStack, telemetry: Telemetry = SILENT
) -> App:
    """Build the service; what it opens is closed by the stack."""
    frame = await open_frame(settings, COLLECTIONS, LOGS, stack, telemetry)
    stored, said = StoredConversations(frame.store), StoredMessages(frame.store)
    histories = HistoryService(StoredLinks(frame.store), said, clock=ids.now)
    transcript = Transcript(
        stored,
        said,
        histories,
        clock=ids.now,
        new_id=_new_message,
        new_change_id=partial(ids.new_id, "chg"),
    )
    placed = StoredInstances(frame.store)
    ends = Cascades(placed, [HistoryKin(histories)], monotonic=time.monotonic)
    cast = Cast(placed, ends, clock=ids.now, new_deletion_id=_new_deletion)
    # What goes and comes with a conversation, in this order.
    belonging: list[Kin] = [InstanceKin(cast), MessageKin(said, histories)]
    cascades = Cascades(stored, belonging, monotonic=time.monotonic)
    catalogue = ContentCatalogue(frame.peers)
    kin = KinService(
        StoredParents(frame.store),
        stored,
        cascades,
        cast,
        catalogue,
        clock=ids.now,
        new_deletion_id=_new_deletion,
    )
    instances = InstanceService(
        placed,
        ends,
        cascades,
        stored,
        cast,
        kin,
        catalogue,
        histories,
        clock=ids.now,
        new_id=partial(ids.new_id, "inst"),
        new_deletion_id=_new_deletion,
    )
    references = References(catalogue, instances)
    conversations = ConversationService(
        stored,
        transcript,
        references,
        cascades,
        kept=kin.kept,
        clock=ids.now,
        new_id=_new_conversation,
        new_deletion_id=_new_deletion,
    )
    cloner = Cloner(
        stored,
        said,
        transcript,
        instances,
        cascades,
        kept=kin.kept,
        clock=ids.now,
        new_id=_new_conversation,
        new_message_id=_new_message,
        new_deletion_id=_new_deletion,
    )
    turns = TurnService(stored, said, transcript, histories, instances, instances, clock=ids.now)
    if settings.conversations_processes == 1:
        await ends.begin()
        await cascades.begin()
    keep_days = settings.conversations_retention_days
    portfolio = Portfolio(
        StoredVisitors(frame.store),
        VisitorRuns(
            GatewayServiceStub(frame.peers.channel("execution")),
            TemplateServiceStub(frame.peers.channel(OWNER)),
        ),
        conversations,
        settings.conversations_portfolio_agent,
        keep_days=settings.conversations_visitor_days,
        clock=ids.now,
        new_session_id=_new_session,
    )
    return frame.app(
        hosted(
            add_ConversationServiceServicer_to_server,
            ConversationHandlers(conversations, cloner, keep_days),
        ),
        hosted(
            add_MessageServiceServicer_to_server,
            MessageHandlers(MessageService(stored, said, transcript, references)),
        ),
        hosted(add_TurnServiceServicer_to_server, TurnHandlers(turns, histories)),
        hosted(add_PortfolioServiceServicer_to_server, PortfolioHandlers(portfolio)),
        hosted(
            add_InstanceServiceServicer_to_server,
            InstanceHandlers(instances, histories, keep_days),
        ),
        hosted(add_KinServiceServicer_to_server, KinHandlers(kin)),
        background=[
            *_sweeps(settings, ends),
            *_sweeps(settings, cascades),
            portfolio.serve,
        ],
    )


def _sweeps(settings: ConversationsSettings, cascades: Cascades[T]) -> Iterator[Work]:
    """Yield what finishes the deletions of one kind of things, and purges what is old enough."""
    yield cascades.serve
    if days := settings.conversations_retention_days:
        yield Purge(cascades, keep_days=days, clock=ids.now).serve


def run() -> None:
    """Serve until SIGTERM."""
    main(ConversationsSettings, compose, "conductor-conversations")
