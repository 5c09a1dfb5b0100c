"""The settings of the content service."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from services.kit.settings import ListeningAddress, Processes, ServiceSettings


class ContentSettings(ServiceSettings):
    """What the content service is told."""

    section: ClassVar[str] = "content_"

    content_address: ListeningAddress = "127.0.0.1:0"
    content_processes: Processes = 1

    content_retention_days: float = Field(default=30.0, ge=0, le=36_500)
    """How long what was deleted can be taken back; then it goes for good. 0 keeps everything."""

    content_archive_bytes: int = Field(default=2**30, ge=2**20, le=2**32 - 2**20)
    """How many bytes an archive may hold, unpacked; one that is taken in, and one that is made."""
