"""Servers of models, connected by the SDK of the protocol they speak."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from services.execution.domain import Model
from services.execution.ports import Provider

_TALKATIVE = ("httpx2", "httpcore2", "openai", "anthropic")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that serves models."""

    name: str
    protocol: Literal["openai", "anthropic"]
    base_url: str
    key: str = field(repr=False)
    models: Mapping[str, Model]
    serves_any: bool
    output_limit_field: Literal["max_tokens", "max_completion_tokens"]
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def connect(server: Server) -> Provider:
    """Make the provider of a server.

    An SDK takes a second and 40 MB to import, so only those are imported that are used.
    """
    for name in _TALKATIVE:
        # A line for each request, and at DEBUG what was said in it.
        logging.getLogger(name).setLevel(logging.WARNING)
    if server.protocol == "anthropic":
        from services.execution.adapters.anthropic_messages import (  # noqa: PLC0415
            AnthropicProvider,
        )

        return AnthropicProvider(
            server.name,
            server.models,
            base_url=server.base_url,
            api_key=server.key,
            serves_any=server.serves_any,
            headers=server.headers,
        )
    from services.execution.adapters.openai_chat import OpenAIProvider  # noqa: PLC0415

    return OpenAIProvider(
        server.name,
        server.models,
        base_url=server.base_url,
        api_key=server.key,
        serves_any=server.serves_any,
        output_limit_field=server.output_limit_field,
        headers=server.headers,
    )
