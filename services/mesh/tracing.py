"""Envoy's part of a trace, exported when OpenTelemetry's own variables ask for it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from services.kit.settings import environment
from services.mesh.clusters import Config, Remote

COLLECTOR: Final = "otel-collector"
_SERVICE: Final = "conductor-edge"
_PORT: Final = 4317
_MILLION: Final = 1_000_000

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_AUTHORITIES = ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE")

RUNTIME: Final[Config] = {"tracing.opentelemetry.flush_interval_ms": 1000}
"""How Envoy works on spans; by itself it keeps them for 5 s."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_VALUE = re.compile(r"[ -$&-~]*")
"""Envoy takes % for the beginning of a command of its own, and sends nothing then."""

_SAMPLERS = "type.googleapis.com/envoy.extensions.tracers.opentelemetry.samplers.v3"
_RPC = "%PATH(NQ:PATH)%"


@dataclass(frozen=True, slots=True)
class Export:
    """Where spans go, and which."""

    collector: Remote
    """Speaks OTLP over gRPC."""

    ratio: float = 1.0
    """The part of the traces begun here that is recorded, 0 to 1."""

    by_parent: bool = True
    """Whether a caller decides for the trace it began."""

    headers: tuple[tuple[str, str], ...] = ()
    """Sent to the collector."""


def wanted(say: Callable[[str], None]) -> Export | None:
    """What the `OTEL_*` variables ask for; None for no export.

    Variables that cannot be followed are told of, and nothing is exported: the mesh runs all the
    same.
    """
    try:
        return _export()
    except ValueError as error:
        say(f"no spans of Envoy are exported: {error}")
        return None


def _export() -> Export | None:
    endpoint = _first(_ENDPOINTS)
    if (
        not endpoint
        or environment("OTEL_SDK_DISABLED").lower() == "true"
        or environment("OTEL_TRACES_EXPORTER").lower() not in {"", "otlp"}
    ):
        return None
    protocol = _first(_PROTOCOLS) or "grpc"
    if protocol != "grpc":
        raise ValueError(f"OTLP is spoken over grpc, not over {protocol}")
    collector = Remote.from_url(endpoint, port=_PORT, authorities=_first(_AUTHORITIES))
    ratio, by_parent = _sampler()
    return Export(collector, ratio, by_parent, _headers())


def tracer(export: Export | None) -> Config:
    """Continues the caller's W3C trace or begins one, so that every service and log line has it.

    Without an export nothing is sampled that the caller did not sample, and its spans go to a
    collector of no endpoints: the tracer insists on having one.
    """
    ratio, by_parent = (export.ratio, export.by_parent) if export else (0.0, True)
    sampler = _ratio_sampler(ratio)
    headers = [{"key": key, "value": value} for key, value in (export.headers if export else ())]
    return {
        "provider": {
            "name": "envoy.tracers.opentelemetry",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
                "service_name": _SERVICE,
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": COLLECTOR},
                    "timeout": "1s",
                    "initial_metadata": headers,
                },
                "sampler": _parent_based(sampler) if by_parent else sampler,
            },
        },
        "operation": _RPC,
        "custom_tags": [
            # In place of Envoy's own, which has the query: tokens and page tokens are in there.
            {"tag": "http.url", "value": "%REQ(:SCHEME)%://%REQ(:AUTHORITY)%%PATH(NQ:ORIG)%"},
        ],
    }


def _sampler() -> tuple[float, bool]:
    """The ratio, and whether the caller decides first."""
    name = environment("OTEL_TRACES_SAMPLER") or "parentbased_always_on"
    kind = name.removeprefix("parentbased_")
    if kind == "traceidratio":
        said = environment("OTEL_TRACES_SAMPLER_ARG") or "1"
        try:
            ratio = float(said)
        except ValueError:
            ratio = math.nan
        if not 0 <= ratio <= 1:
            raise ValueError(f"OTEL_TRACES_SAMPLER_ARG is {said!r}, which is not from 0 to 1")
    elif kind in {"always_on", "always_off"}:
        ratio = float(kind == "always_on")
    else:
        raise ValueError(f"OTEL_TRACES_SAMPLER is {name!r}, which is not known")
    return ratio, kind != name


def _ratio_sampler(ratio: float) -> Config:
    return {
        "name": "envoy.tracers.opentelemetry.samplers.trace_id_ratio_based",
        "typed_config": {
            "@type": f"{_SAMPLERS}.TraceIdRatioBasedSamplerConfig",
            "sampling_percentage": {
                "numerator": round(ratio * _MILLION),
                "denominator": "MILLION",
            },
        },
    }


def _parent_based(sampler: Config) -> Config:
    return {
        "name": "envoy.tracers.opentelemetry.samplers.parent_based",
        "typed_config": {
            "@type": f"{_SAMPLERS}.ParentBasedSamplerConfig",
            "wrapped_sampler": sampler,
        },
    }


def _headers() -> tuple[tuple[str, str], ...]:
    pairs = [pair.partition("=") for pair in _first(_HEADERS).split(",") if pair.strip()]
    headers = [(unquote(key).strip().lower(), unquote(value).strip()) for key, _, value in pairs]
    for number, (key, value) in enumerate(headers, start=1):
        if not (_NAME.fullmatch(key) and _VALUE.fullmatch(value)):
            # It may be a secret, so it is not repeated.
            raise ValueError(f"the header {number} of those for OTLP is none that Envoy can send")
    return tuple(headers)


def _first(names: tuple[str, ...]) -> str:
    return next((said for name in names if (said := environment(name))), "")
