"""The settings of the execution service."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from services.kit.settings import Settings, only_loopback

_MAX_PORT = 65535


class AgentSettings(BaseModel):
    """An agent, as a row of `execution_agents`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ai_provider: str = ""
    model: str = ""


class MockSettings(BaseModel):
    """A mock model of one's own, as a row of `execution_mock_models`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str = "A mock model from the settings."
    tokens: int | None = Field(default=None, ge=1, le=1_000_000)
    delay_ms: float = Field(default=0.0, ge=0)
    token_bytes: int | None = Field(default=None, ge=1, le=2_000_000)
    fail_after: int | None = Field(default=None, ge=0)
    fail_attempts: int = Field(default=0, ge=0)
    stall_after: int | None = Field(default=None, ge=0)


class ExecutionSettings(Settings):
    """What the execution service is told."""

    execution_address: str = "127.0.0.1:0"
    """Where it listens; port 0 is any free one. Envoy is what callers reach, this is loopback."""

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

    execution_agents: dict[str, AgentSettings] = Field(default_factory=dict)
    """Agents by id, next to `default`."""

    @field_validator("execution_address")
    @classmethod
    def _only_loopback(cls, address: str) -> str:
        host, _, port = address.rpartition(":")
        if not (port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
            raise ValueError(f"{address!r} is not an address like 127.0.0.1:9000")
        only_loopback(host)
        return address

    execution_mock_models: dict[str, MockSettings] = Field(default_factory=dict)
    """Mock models by id, next to those there are."""
