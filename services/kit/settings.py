"""Settings: `config.yaml` and the environment, the environment winning.

A setting `execution_concurrency` is `execution_concurrency:` in the file and
`CONDUCTOR_EXECUTION_CONCURRENCY` in the environment. The file is `./config.yaml` when there is one,
or whatever `CONDUCTOR_CONFIG` names. This module alone reads either.
"""

from __future__ import annotations

import ipaddress
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from pydantic_settings import (
    SettingsError as SourceError,
)
from yaml import YAMLError

PREFIX = "CONDUCTOR_"

SECRET_CHARACTERS = 32
"""The fewest that a secret of the settings has."""

_TARGET = re.compile(r"(dns:///[^/:,\s]+:\d{1,5})|(ipv[46]:[^,\s]+:\d{1,5}(,[^,\s]+:\d{1,5})*)")
_MAX_PORT = 65535
_SECRET = re.compile(r"[!-~]*")


class SettingsError(Exception):
    """A setting is wrong; the message names it and says what it may be."""


class Settings(BaseSettings):
    """What every process of the mesh is told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    section: ClassVar[str] = ""
    """What the names of a service's own settings begin with: one that is not known is refused."""

    knows_all: ClassVar[bool] = False
    """Whether it has all settings there are but those of `sections_of_others`."""

    sections_of_others: ClassVar[tuple[str, ...]] = ()
    """What the names of settings begin with that other processes check."""

    data_dir: Path = Path(".conductor")
    """Where embedded stores, logs and locks live."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    shutdown_seconds: float = Field(default=6.0, ge=0, le=7)
    """How long open calls may take to end after SIGTERM."""

    drain_seconds: float = Field(default=0.0, ge=0, le=60)
    """How long a process that was told to stop goes on serving, after it said so, until those who
    send it calls have noticed."""

    store_url: SecretStr = SecretStr("")
    """Where documents and events are kept: `mongodb://…`; empty for SQLite in the data directory."""

    store_driver: Literal["motor", "pymongo"] = "motor"
    """What speaks to MongoDB: Motor, or the asyncio client of PyMongo itself."""

    queue_url: SecretStr = SecretStr("")
    """What carries work and wake-ups between processes: `redis://…`; empty for none."""

    auth: Literal["off", "on"] = "off"
    """Whether callers have to show who they are."""

    bootstrap_key: SecretStr = SecretStr("")
    """A key that is an operator's from the start; `conductor up` makes one where none is set."""

    mesh_secret: SecretStr = SecretStr("")
    """What the processes of one mesh sign with and know each other by."""

    jwt_issuer: str = ""
    """The `iss` of tokens that are let in; empty lets none in."""

    jwt_audience: str = ""
    """What has to be among the `aud` of such tokens."""

    jwt_jwks: str = ""
    """The keys that sign them: a file, or an address beginning with http:// or https://."""

    jwt_org_claim: str = "org_id"
    """The claim that names the organisation."""

    jwt_scope_claim: str = "scope"
    """The claim that names the scopes, parted by blanks or as a list."""

    rate_limit: float = Field(default=0.0, ge=0, le=1_000_000)
    """Calls a second of each organisation; 0 is no limit."""

    rate_limits: dict[str, float] = Field(default_factory=dict)
    """Calls a second of the organisations named; 0 is no limit."""

    peers: dict[str, str] = Field(default_factory=dict)
    """Where the services of the mesh call one another, by name: one gRPC target each, such as
    `dns:///content:7000` or `ipv4:127.0.0.1:7000,127.0.0.1:7001`."""

    audit_retention_days: float = Field(default=90.0, ge=0)
    """How long audit records are kept; 0 keeps them all."""

    @field_validator("bootstrap_key", "mesh_secret")
    @classmethod
    def _only_secrets(cls, secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if text and (len(text) < SECRET_CHARACTERS or not _SECRET.fullmatch(text)):
            # It is a secret, so it is not repeated.
            raise ValueError(
                f"it needs at least {SECRET_CHARACTERS} characters that fit a header, without "
                "blanks; `openssl rand -hex 32` makes one"
            )
        return secret

    @field_validator("peers")
    @classmethod
    def _only_targets(cls, peers: dict[str, str]) -> dict[str, str]:
        for name, target in peers.items():
            if not _TARGET.fullmatch(target):
                raise ValueError(
                    f"{name} is at {target!r}, which is not a target like dns:///{name}:7000 or "
                    "ipv4:127.0.0.1:7000"
                )
        return peers

    @field_validator("auth", mode="before")
    @classmethod
    def _yaml_reads_on_as_true(cls, value: object) -> object:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _tokens_have_an_audience(self) -> Self:
        if self.jwt_issuer and not self.jwt_audience:
            raise ValueError(
                f"with {PREFIX}JWT_ISSUER, {PREFIX}JWT_AUDIENCE has to say whom the tokens are for; "
                "without it a token made for anybody else would be let in"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 the signature is given
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, file."""
        file = os.environ.get(f"{PREFIX}CONFIG", "config.yaml")
        return init_settings, env_settings, YamlConfigSettingsSource(settings_cls, file)


def environment(name: str) -> str:
    """Read a variable that others named, such as the key of a provider; empty when it is not set."""
    return os.environ.get(name, "").strip()


def listening_address(host: str, auth: object) -> str:
    """Check an address to listen on: one that other machines can reach needs authentication.

    Args:
        auth: the setting `auth`.

    Raises:
        ValueError: it may not be listened on, or it is no address; one sentence with the fix.
    """
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise ValueError(
            f"{host!r} is not an IP address; use 127.0.0.1, ::1 or localhost"
        ) from None
    if not loopback and auth != "on":
        raise ValueError(
            f"{host} can be reached from other machines, and without authentication anyone "
            f"there could run agents here; set {PREFIX}AUTH=on, or use 127.0.0.1"
        )
    return address


def _listened_on(address: str, others: ValidationInfo) -> str:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        raise ValueError(f"{address!r} is not an address like 127.0.0.1:9000")
    listening_address(host, others.data.get("auth"))
    return address


ListeningAddress = Annotated[str, AfterValidator(_listened_on)]
"""Where a service listens; port 0 is any free one. Callers reach Envoy; without authentication this is
an address of the loopback."""

Processes = Annotated[int, Field(ge=1, le=64)]
"""How many processes of a service there are."""


class ServiceSettings(Settings):
    """What the process of a service is told.

    A service `x` has a section `x_`, and in it `x_address`, a ListeningAddress, and `x_processes`.
    """

    @property
    def service(self) -> str:
        """The name of the service."""
        return self.section.removesuffix("_")

    @property
    def address(self) -> str:
        """Where it listens."""
        return str(getattr(self, f"{self.section}address"))

    @property
    def processes(self) -> int:
        """How many processes of it there are."""
        return int(getattr(self, f"{self.section}processes"))


T = TypeVar("T", bound=Settings)


def load(kind: type[T]) -> T:
    """Read the settings of a process.

    Raises:
        SettingsError: a setting or the file cannot be used; one sentence for each.
    """
    named = os.environ.get(f"{PREFIX}CONFIG")
    if named is not None and not Path(named).is_file():
        raise SettingsError(f"{PREFIX}CONFIG names {named}, which is not a file.")
    try:
        _refuse_unknown(kind)
        return kind()
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise SettingsError(" ".join(_sentence(problem) for problem in problems)) from None
    except SourceError as error:
        # It names the field in quotes, and nothing else that helps.
        field = next((one for one in kind.model_fields if f'"{one}"' in str(error)), "")
        if not field:
            raise SettingsError(f"The settings cannot be read: {error}") from None
        raise SettingsError(
            f"The setting {PREFIX}{field.upper()} cannot be read; it has to be JSON."
        ) from None
    except (YAMLError, OSError, ValueError) as error:
        raise SettingsError(f"The settings cannot be read: {error}") from None


def _sentence(problem: ErrorDetails) -> str:
    """Say what is wrong with a setting."""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return f"The settings do not fit together: {message}."
    name, *path = (str(part) for part in problem["loc"])
    at = f" at {'.'.join(path)}" if path else ""
    return f"The setting {PREFIX}{name.upper()} ({name} in config.yaml) is wrong{at}: {message}."


def _refuse_unknown(kind: type[Settings]) -> None:
    """Refuse settings that nobody reads: one that is misspelled is believed to be in force.

    Of a service's own section each has to be known. Of the rest others may read some, so only what
    looks like a known one is refused.
    """
    file = YamlConfigSettingsSource(kind, os.environ.get(f"{PREFIX}CONFIG", "config.yaml"))
    told = (name.lower() for name in os.environ if name.upper().startswith(PREFIX))
    given = (name.removeprefix(PREFIX.lower()) for name in told)
    for name in (*given, *(str(key) for key in file())):
        if name in kind.model_fields:
            continue
        own = bool(kind.section) and name.startswith(kind.section)
        near = get_close_matches(name, kind.model_fields, n=1, cutoff=0.6 if own else 0.75)
        if own or (near and kind.knows_all and not name.startswith(kind.sections_of_others)):
            meant = f"; did you mean {near[0]}" if near else ""
            raise SettingsError(
                f"There is no setting {PREFIX}{name.upper()} ({name} in config.yaml){meant}."
            )
