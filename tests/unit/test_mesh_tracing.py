"""What of Envoy's spans is exported follows from OpenTelemetry's own variables."""

from __future__ import annotations

import pytest

from services.mesh.clusters import Remote
from services.mesh.tracing import Export, wanted

COLLECTOR = Remote("collector.example", 4317, tls=False)
URL = "http://collector.example:4317"


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "SDK_DISABLED",
        "TRACES_EXPORTER",
        "TRACES_SAMPLER",
        "TRACES_SAMPLER_ARG",
        *(
            f"EXPORTER_OTLP_{kind}{what}"
            for kind in ("", "TRACES_")
            for what in ("ENDPOINT", "PROTOCOL", "HEADERS", "CERTIFICATE")
        ),
    ):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)


def asked(monkeypatch: pytest.MonkeyPatch, **variables: str) -> Export | None:
    """What is exported with these variables, about which nothing has to be said."""
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    said: list[str] = []
    export = wanted(said.append)
    assert said == []
    return export


def test_without_an_endpoint_nothing_is_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, TRACES_SAMPLER="always_on") is None


@pytest.mark.parametrize(
    ("endpoint", "collector"),
    [
        (URL, COLLECTOR),
        ("http://10.0.0.1", Remote("10.0.0.1", 4317, tls=False)),
        ("https://otel.example:443/", Remote("otel.example", 443, tls=True)),
    ],
)
def test_everything_is_exported_to_an_endpoint_that_is_named(
    endpoint: str, collector: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(monkeypatch, EXPORTER_OTLP_ENDPOINT=endpoint) == Export(collector)


def test_what_is_said_of_traces_counts_before_what_is_said_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    export = asked(
        monkeypatch,
        EXPORTER_OTLP_ENDPOINT="http://all.example:4317",
        EXPORTER_OTLP_TRACES_ENDPOINT=URL,
        EXPORTER_OTLP_HEADERS="x-all=1",
        EXPORTER_OTLP_TRACES_HEADERS="X-Team=a%20b, x-more=2",
        EXPORTER_OTLP_PROTOCOL="http/protobuf",
        EXPORTER_OTLP_TRACES_PROTOCOL="grpc",
    )

    assert export == Export(COLLECTOR, headers=(("x-team", "a b"), ("x-more", "2")))


@pytest.mark.parametrize(
    "off", [{"SDK_DISABLED": "true"}, {"TRACES_EXPORTER": "none"}, {"TRACES_EXPORTER": "console"}]
)
def test_it_can_be_switched_off(off: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, EXPORTER_OTLP_ENDPOINT=URL, **off) is None


@pytest.mark.parametrize(
    ("sampler", "argument", "ratio", "by_parent"),
    [
        ("always_on", "", 1.0, False),
        ("always_off", "", 0.0, False),
        ("traceidratio", "0.25", 0.25, False),
        ("parentbased_always_on", "", 1.0, True),
        ("parentbased_always_off", "", 0.0, True),
        ("parentbased_traceidratio", "0.5", 0.5, True),
        ("parentbased_traceidratio", "", 1.0, True),
    ],
)
def test_the_sampler_is_the_one_that_is_named(
    sampler: str, argument: str, ratio: float, by_parent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = asked(
        monkeypatch,
        EXPORTER_OTLP_ENDPOINT=URL,
        TRACES_SAMPLER=sampler,
        TRACES_SAMPLER_ARG=argument,
    )

    assert export == Export(COLLECTOR, ratio=ratio, by_parent=by_parent)


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"EXPORTER_OTLP_ENDPOINT": "collector:4317"}, "'collector:4317' is not an address"),
        ({"EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "over grpc, not over http/protobuf"),
        ({"EXPORTER_OTLP_HEADERS": "x-one=1,x-two=50%25"}, "the header 2 of those for OTLP"),
        ({"EXPORTER_OTLP_HEADERS": "x%20one=1"}, "the header 1 of those for OTLP"),
        ({"EXPORTER_OTLP_HEADERS": "x-one=a%0Ab"}, "the header 1 of those for OTLP"),
        ({"EXPORTER_OTLP_HEADERS": "=1"}, "the header 1 of those for OTLP"),
        ({"TRACES_SAMPLER": "jaeger_remote"}, "OTEL_TRACES_SAMPLER is 'jaeger_remote'"),
        (
            {"TRACES_SAMPLER": "traceidratio", "TRACES_SAMPLER_ARG": "2"},
            "OTEL_TRACES_SAMPLER_ARG is '2'",
        ),
    ],
)
def test_what_cannot_be_followed_is_told_and_nothing_exported(
    variables: dict[str, str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"EXPORTER_OTLP_ENDPOINT": URL} | variables).items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    said: list[str] = []

    assert wanted(said.append) is None
    assert len(said) == 1
    assert why in said[0]
