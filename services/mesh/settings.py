"""What the mesh on one machine is told."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import NoDecode

from services.kit.settings import Processes, Settings, SettingsError, listening_address
from services.mesh.clusters import Remote
from services.mesh.table import SERVICES
from services.mesh.tokens import Tokens

_HOST = re.compile(r"\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+")
_ORIGIN = re.compile(r"https?://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:\d{1,5})?")


class MeshSettings(Settings):
    """The settings of `conductor up`."""

    knows_all: ClassVar[bool] = True
    sections_of_others: ClassVar[tuple[str, ...]] = tuple(f"{one.name}_" for one in SERVICES)

    http_port: int = Field(default=8080, ge=1, le=65535)
    """The one port for REST, server-sent events and gRPC; every other port is chosen free."""

    listen_host: str = "127.0.0.1"
    """The address Envoy listens on; one that is not the loopback's needs `auth` to be on."""

    content_processes: Processes = 1
    conversations_processes: Processes = 1
    execution_processes: Processes = 1

    tls_cert: Path | None = None
    """The file of the certificate chain, PEM; with it callers speak TLS."""

    tls_key: Path | None = None
    """The file of its private key, PEM."""

    trusted_hops: int = Field(default=0, ge=0, le=16)
    """How many proxies in front of Envoy are trusted to have named the client's address."""

    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may call the mesh, each exact or `regex:` and an expression for all of it.

    None means any port of http://localhost and http://127.0.0.1. In the environment they are parted
    by commas.
    """

    hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Host names callers use, next to localhost, 127.0.0.1 and [::1]; `*` allows any.

    In the environment they are parted by commas.
    """

    @property
    def has_auth(self) -> bool:
        """Whether callers have to show who they are."""
        return self.auth == "on"

    @property
    def certificate(self) -> tuple[Path, Path] | None:
        """The files of the certificate and its key, absolute; None for plain text."""
        if self.tls_cert is None or self.tls_key is None:
            return None
        return self.tls_cert.expanduser().absolute(), self.tls_key.expanduser().absolute()

    @property
    def tokens(self) -> Tokens | None:
        """Whose tokens are let in; None lets none in."""
        if not self.has_auth or not self.jwt_issuer:
            return None
        return Tokens(self.jwt_issuer, self.jwt_audience, self.jwt_jwks)

    def processes(self, service: str) -> int:
        """How many processes of a service there are."""
        return int(getattr(self, f"{service}_processes"))

    def check_files(self) -> None:
        """Check that the files named here can be used.

        Raises:
            SettingsError: one cannot; a sentence.
        """
        if self.certificate is not None:
            _check_certificate(*self.certificate)
        if self.tokens is not None and not self.tokens.is_remote:
            try:
                Path(self.jwt_jwks).expanduser().read_bytes()
            except OSError as error:
                raise SettingsError(
                    f"CONDUCTOR_JWT_JWKS names {self.jwt_jwks}, which cannot be read: "
                    f"{error.strerror}."
                ) from None

    @field_validator("listen_host")
    @classmethod
    def _only_addresses(cls, host: str, others: ValidationInfo) -> str:
        return listening_address(host, others.data.get("auth"))

    @field_validator("tls_cert", "tls_key", mode="before")
    @classmethod
    def _empty_is_none(cls, path: object) -> object:
        return None if path == "" else path

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        for names in (("tls_cert", "tls_key"), ("jwt_issuer", "jwt_audience", "jwt_jwks")):
            missing = [name for name in names if not getattr(self, name)]
            if missing and len(missing) < len(names):
                raise ValueError(
                    f"{' and '.join(names)} belong together, and {' and '.join(missing)} "
                    f"{'is' if len(missing) == 1 else 'are'} missing"
                )
        if self.tokens is not None and self.tokens.is_remote:
            Remote.from_url(self.jwt_jwks)
        return self

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


def _check_certificate(certificate: Path, key: Path) -> None:
    for name, path in (("CERT", certificate), ("KEY", key)):
        try:
            path.read_bytes()
        except OSError as error:
            raise SettingsError(
                f"CONDUCTOR_TLS_{name} names {path}, which cannot be read: {error.strerror}."
            ) from None
    try:
        # Envoy cannot ask for a password, and neither must this.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except ssl.SSLError as error:
        raise SettingsError(
            f"CONDUCTOR_TLS_CERT ({certificate}) and CONDUCTOR_TLS_KEY ({key}) are no certificate "
            f"and its key without a password, as PEM: {error.reason or error}."
        ) from None


def _is_expression(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
