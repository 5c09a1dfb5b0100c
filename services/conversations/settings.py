"""The settings of the conversations service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from services.kit.settings import ListeningAddress, Processes, ServiceSettings


class ConversationsSettings(ServiceSettings):
    """What the conversations service is told."""

    section: ClassVar[str] = "conversations_"

    conversations_address: ListeningAddress = "127.0.0.1:0"
    conversations_processes: Processes = 1

    conversations_portfolio_agent: str = Field(
        default="technical-writer", pattern=r"^[A-Za-z0-9_-]{1,64}$"
    )
    """The agent that answers the portfolio chat; where there is none of this id, the template is installed."""

    conversations_retention_days: float = Field(default=30.0, ge=0, le=36_500)
    """How long what was deleted can be taken back; then it goes for good. 0 keeps everything."""

    conversations_visitor_days: float = Field(default=30.0, ge=0, le=36_500)
    """How long a session of the portfolio chat is kept after it last changed. 0 keeps all."""
