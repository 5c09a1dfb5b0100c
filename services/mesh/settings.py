"""What the mesh on one machine is told."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from services.kit.settings import Settings, listening_address

_HOST = re.compile(r"\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+")
_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")


class MeshSettings(Settings):
    """The settings of `conductor up`."""

    http_port: int = Field(default=8080, ge=1, le=65535)
    """The one port for REST, server-sent events and gRPC; every other port is chosen free."""

    listen_host: str = "127.0.0.1"
    """The address Envoy listens on. One of the loopback while authentication is off."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may call the mesh, each exact or `regex:` and an expression for all of it.

    None means any port of http://localhost and http://127.0.0.1. In the environment they are parted
    by commas.
    """

    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names callers use, next to localhost, 127.0.0.1 and [::1]; `*` allows any.

    In the environment they are parted by commas.
    """

    @field_validator("listen_host")
    @classmethod
    def _only_addresses(cls, host: str, others: ValidationInfo) -> str:
        return listening_address(host, others.data.get("auth"))

    @field_validator("hosts")
    @classmethod
    def _only_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if host != "*" and not _HOST.fullmatch(host):
                raise ValueError(
                    f"{host!r} is not a host name; write it without scheme and port, like "
                    "mesh.example.org, or * for any"
                )
        return tuple(dict.fromkeys(host.lower() for host in hosts))

    @field_validator("cors_origins", "hosts", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("cors_origins")
    @classmethod
    def _only_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin.startswith("regex:") and _is_expression(origin.removeprefix("regex:")):
                continue
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin; write scheme and host, and a port where it is "
                    "not the scheme's own, like https://app.example.org or http://localhost:3000"
                )
        return origins


def _is_expression(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
