"""Settings: `config.yaml` and the environment, the environment winning.

A setting `execution_concurrency` is `execution_concurrency:` in the file and
`CONDUCTOR_EXECUTION_CONCURRENCY` in the environment. The file is `./config.yaml` when there is one,
or whatever `CONDUCTOR_CONFIG` names. This module alone reads either.
"""

from __future__ import annotations

import ipaddress
import os
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError
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


class SettingsError(Exception):
    """A setting is wrong; the message names it and says what it may be."""


class Settings(BaseSettings):
    """What every process of the mesh is told."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    section: ClassVar[str] = ""
    """What the names of a service's own settings begin with: one that is not known is refused."""

    data_dir: Path = Path(".conductor")
    """Where embedded stores, logs and locks live."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    shutdown_seconds: float = Field(default=6.0, ge=0, le=7)
    """How long open calls may take to end after SIGTERM."""

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


def only_loopback(host: str) -> str:
    """Check that an address to listen on cannot be reached from other machines.

    Raises:
        ValueError: it can, or it is no address; one sentence with the fix.
    """
    address = "127.0.0.1" if host == "localhost" else host.strip("[]")
    try:
        loopback = ipaddress.ip_address(address).is_loopback
    except ValueError:
        raise ValueError(
            f"{host!r} is not an IP address; use 127.0.0.1, ::1 or localhost"
        ) from None
    if not loopback:
        raise ValueError(
            f"{host} can be reached from other machines, and without authentication anyone "
            "there could run agents here; this release has no authentication yet, so use "
            "127.0.0.1"
        )
    return address


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
    """Refuse settings that nobody reads: one that is misspelled is believed to be in force."""
    if not kind.section:
        return
    file = YamlConfigSettingsSource(kind, os.environ.get(f"{PREFIX}CONFIG", "config.yaml"))
    told = (name.lower() for name in os.environ if name.upper().startswith(PREFIX))
    given = (name.removeprefix(PREFIX.lower()) for name in told)
    for name in (*given, *(str(key) for key in file())):
        if name.startswith(kind.section) and name not in kind.model_fields:
            near = get_close_matches(name, kind.model_fields, n=1)
            meant = f"; did you mean {near[0]}" if near else ""
            raise SettingsError(
                f"There is no setting {PREFIX}{name.upper()} ({name} in config.yaml){meant}."
            )
