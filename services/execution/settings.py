"""The settings of the execution service."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)

from services.kit.settings import ListeningAddress, Processes, ServiceSettings, environment

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_URL = re.compile(r"https?://[^\s@?#]+")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LEAST = Decimal("0.000000001")


def _fits_a_header(value: str) -> bool:
    return value.isascii() and value.isprintable()


class _Row(BaseModel):
    """A row of a setting that is a table."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(_Row):
    """A model by provider and name; what is left out is left open."""

    ai_provider: str = ""
    model: str = ""


class OrgSettings(_Row):
    """An organisation, as a row of `execution_orgs`."""

    weight: float = Field(default=1.0, gt=0, le=1000)
    """How many turns it gets where one with 1 gets one."""
    concurrency: int | None = Field(default=None, ge=0, le=100_000)
    """How many of its runs may go on at a time; None for `execution_org_concurrency`."""


class ProviderSettings(_Row):
    """A provider, as a row of `execution_providers`.

    A row under a known name changes only what it names; any other name is a server of one's own and
    needs a `base_url`.
    """

    protocol: Literal["openai", "anthropic"] = "openai"
    base_url: str = ""
    api_key: SecretStr | None = None
    """The key itself, for when the environment does not say it."""
    key_variable: str = Field(default="", pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")
    """The environment variable that holds the key."""
    keyless: bool = False
    """Whether it works without a key."""
    default_model: str = ""
    """The model for runs that name the provider alone; else the first that is known."""
    models: tuple[str, ...] = ()
    """Models it serves, next to those in the table of models."""
    any_model: bool = False
    """Whether it may be asked for models that are not known."""
    output_limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """How the server calls the most tokens of an answer."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Sent with each request."""

    @property
    def key(self) -> str:
        """The key: the environment's before the file's; empty when there is none."""
        said = environment(self.key_variable) if self.key_variable else ""
        if not said and self.api_key is not None:
            said = self.api_key.get_secret_value().strip()
        return said

    @property
    def is_keyless(self) -> bool:
        """Whether it may be used without a key."""
        return self.keyless or (self.api_key is None and not self.key_variable)

    @field_validator("base_url")
    @classmethod
    def _only_addresses(cls, url: str) -> str:
        if url and not _URL.fullmatch(url):
            raise ValueError(
                "it has to be an address beginning with http:// or https://, without user, "
                "password, ? and #"
            )
        return url

    @field_validator("headers")
    @classmethod
    def _only_headers(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            # The value may be a secret, so it is not repeated.
            if not _HEADER.fullmatch(name) or not _fits_a_header(value):
                raise ValueError(f"the header {name!r} cannot be sent as it is")
        return headers

    @field_validator("api_key")
    @classmethod
    def _only_keys(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not _fits_a_header(key.get_secret_value().strip()):
            raise ValueError("the key holds characters that cannot be sent, such as a line break")
        return key

    def ids(self, known: Iterable[str]) -> list[str]:
        """Name the models it serves, the default first.

        Args:
            known: those of the table of models.
        """
        default = [self.default_model] if self.default_model else []
        return list(dict.fromkeys([*default, *known, *self.models]))


KNOWN_PROVIDERS: Mapping[str, ProviderSettings] = {
    "openai": ProviderSettings(
        base_url="https://api.openai.com/v1",
        key_variable="OPENAI_API_KEY",
        output_limit_field="max_completion_tokens",
    ),
    "anthropic": ProviderSettings(
        protocol="anthropic",
        base_url="https://api.anthropic.com",
        key_variable="ANTHROPIC_API_KEY",
    ),
    "gemini": ProviderSettings(
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        key_variable="GEMINI_API_KEY",
    ),
    "openrouter": ProviderSettings(
        base_url="https://openrouter.ai/api/v1",
        key_variable="OPENROUTER_API_KEY",
        any_model=True,
    ),
    "groq": ProviderSettings(
        base_url="https://api.groq.com/openai/v1",
        key_variable="GROQ_API_KEY",
        output_limit_field="max_completion_tokens",
    ),
    "fireworks": ProviderSettings(
        base_url="https://api.fireworks.ai/inference/v1",
        key_variable="FIREWORKS_API_KEY",
    ),
    "ollama": ProviderSettings(base_url="http://127.0.0.1:11434/v1", keyless=True, any_model=True),
}
"""The providers that need nothing but a key, in order of preference; Ollama needs to be named."""


class MockSettings(_Row):
    """A mock model of one's own, as a row of `execution_mock_models`."""

    description: str = "A mock model from the settings."
    tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    delay_ms: float = Field(default=0.0, ge=0)
    token_bytes: int | None = Field(default=None, ge=1, le=2_000_000)
    fail_after: int | None = Field(default=None, ge=0)
    fail_attempts: int = Field(default=0, ge=0)
    stall_after: int | None = Field(default=None, ge=0)
    recalls: bool = False
    context_tokens: int | None = Field(default=None, ge=1)


class ExecutionSettings(ServiceSettings):
    """What the execution service is told."""

    section: ClassVar[str] = "execution_"

    execution_address: ListeningAddress = "127.0.0.1:0"
    execution_processes: Processes = 1

    execution_concurrency: int = Field(default=100, ge=0, le=10_000)
    """Runs at a time; 0 accepts runs and begins none."""

    execution_timeout_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """How long a run may take that asks for nothing else."""

    execution_flush_ms: float = Field(default=30.0, ge=0, le=1000)
    """The least time between two pieces of one answer."""

    execution_lease_seconds: float = Field(default=6.0, ge=1, le=600)
    """How long a worker may be silent before its runs are taken over."""

    execution_heartbeat_seconds: float = Field(default=15.0, gt=0, le=50)
    """How long a stream may be silent."""

    execution_retention_seconds: float = Field(default=0.0, ge=0)
    """How long a run is kept after its end; 0 keeps everything."""

    execution_providers: dict[str, ProviderSettings] = Field(default_factory=dict)
    """Providers by name: servers of one's own, and changes to the known ones."""

    execution_default_provider: str = ""
    """The provider for runs and agents that choose none; else the first with a key."""

    execution_default_model: str = ""
    """The model for runs and agents that choose none."""

    execution_fallbacks: tuple[ModelSettings, ...] = ()
    """The fallbacks of the default model, in their order."""

    execution_price_file: Path | None = None
    """A file of prices that count before those that come with the mesh; docs/providers.md."""

    execution_attempts: int = Field(default=3, ge=1, le=20)
    """How often a model is called, at most, while its calls fail."""

    execution_retry_pause_seconds: float = Field(default=0.5, ge=0, le=60)
    """Before the second call; it doubles from call to call, half of it left to chance."""

    execution_longest_retry_pause_seconds: float = Field(default=8.0, ge=0, le=600)
    """The longest pause that grows so."""

    execution_longest_retry_after_seconds: float = Field(default=60.0, ge=0, le=3600)
    """The longest pause a provider may ask for; if it asks for more, the model counts as failed."""

    execution_first_token_seconds: float = Field(default=120.0, gt=0, le=86_400)
    """How long a model may take to begin its answer."""

    execution_idle_seconds: float = Field(default=60.0, gt=0, le=86_400)
    """How long a model may be silent once it has begun."""

    execution_call_seconds: float = Field(default=600.0, gt=0, le=86_400)
    """How long one call of a model may take in all."""

    execution_breaker_failures: int = Field(default=5, ge=0, le=10_000)
    """So many failed calls of a model in a row open its circuit; 0 never does."""

    execution_breaker_open_seconds: float = Field(default=30.0, gt=0, le=86_400)
    """How long an open circuit refuses calls."""

    execution_breaker_probes: int = Field(default=1, ge=1, le=1000)
    """How many calls at a time may probe after that."""

    execution_timeout_ceiling_seconds: float = Field(default=86_400.0, gt=0, le=86_400)
    """The longest timeout a run may ask for."""

    execution_output_tokens: int | None = Field(default=None, ge=1, le=2**31)
    """The most output tokens of a run that asks for nothing else; none when left out."""

    execution_output_tokens_ceiling: int | None = Field(default=None, ge=1, le=2**31)
    """The most output tokens a run may ask for."""

    execution_cost_usd: Decimal | None = Field(default=None, ge=_LEAST, le=1_000_000)
    """The most that a run may cost that asks for nothing else; none when left out."""

    execution_cost_usd_ceiling: Decimal | None = Field(default=None, ge=_LEAST, le=1_000_000)
    """The most that a run may ask to cost."""

    execution_org_concurrency: int = Field(default=100, ge=0, le=100_000)
    """How many runs of one organisation may go on at a time, in all processes together."""

    execution_orgs: dict[str, OrgSettings] = Field(default_factory=dict)
    """Organisations that get more or fewer turns, or slots."""

    execution_queue_limit: int = Field(default=10_000, ge=1, le=10_000_000)
    """How many runs may wait, those of all organisations together."""

    @field_validator("execution_price_file", mode="before")
    @classmethod
    def _empty_is_none(cls, path: object) -> object:
        return None if path == "" else path

    @field_validator("execution_providers", mode="before")
    @classmethod
    def _named_alone(cls, rows: object) -> object:
        if not isinstance(rows, dict):
            return rows
        return {name: {} if row is None else row for name, row in rows.items()}

    @field_validator("execution_fallbacks")
    @classmethod
    def _only_fallbacks(cls, rows: tuple[ModelSettings, ...]) -> tuple[ModelSettings, ...]:
        if any(not row.ai_provider and not row.model for row in rows):
            raise ValueError("each fallback has to name an ai_provider or a model")
        return rows

    @field_validator("execution_providers")
    @classmethod
    def _over_the_known(cls, rows: dict[str, ProviderSettings]) -> dict[str, ProviderSettings]:
        merged: dict[str, ProviderSettings] = {}
        for name, row in rows.items():
            if name == "mock" or not _NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no name for a provider; use lower-case letters, digits, - and _, "
                    "and not mock"
                )
            given = {field: getattr(row, field) for field in row.model_fields_set}
            known = KNOWN_PROVIDERS.get(name, ProviderSettings())
            merged[name] = known.model_copy(update=given)
            if not merged[name].base_url:
                raise ValueError(
                    f"{name} is no provider that is known, so it needs a base_url; known are "
                    f"{', '.join(KNOWN_PROVIDERS)}"
                )
        return merged

    @model_validator(mode="after")
    def _defaults_below_ceilings(self) -> Self:
        for default, ceiling in (
            ("execution_timeout_seconds", "execution_timeout_ceiling_seconds"),
            ("execution_output_tokens", "execution_output_tokens_ceiling"),
            ("execution_cost_usd", "execution_cost_usd_ceiling"),
        ):
            given, most = getattr(self, default), getattr(self, ceiling)
            if given is not None and most is not None and given > most:
                raise ValueError(f"{default} must be at most {ceiling}, which is {most}")
        return self

    execution_mock_models: dict[str, MockSettings] = Field(default_factory=dict)
    """Mock models by id, next to those there are."""
