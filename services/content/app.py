"""The composition root: settings, store, use cases, handlers."""

from __future__ import annotations

from contextlib import AsyncExitStack

from services.content.settings import ContentSettings
from services.content.stores import COLLECTIONS, LOGS
from services.kit.frame import open_frame
from services.kit.server import App, main
from services.kit.telemetry import SILENT, Telemetry


async def compose(
    settings: ContentSettings, stack: AsyncExitStack, telemetry: Telemetry = SILENT
) -> App:
    """Build the service; what it opens is closed by the stack."""
    frame = await open_frame(settings, COLLECTIONS, LOGS, stack, telemetry)
    return frame.app()


def run() -> None:
    """Serve until SIGTERM."""
    main(ContentSettings, compose, "conductor-content")
