"""The settings of the content service."""

from __future__ import annotations

from typing import ClassVar

from services.kit.settings import ListeningAddress, Processes, ServiceSettings


class ContentSettings(ServiceSettings):
    """What the content service is told."""

    section: ClassVar[str] = "content_"

    content_address: ListeningAddress = "127.0.0.1:0"
    content_processes: Processes = 1
