"""What `conductor up` accepts, and how it refuses the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from services.kit.settings import SettingsError, load
from services.mesh.edge import edge
from services.mesh.settings import MeshSettings
from services.mesh.table import SERVICES
from services.mesh.tokens import Tokens
from tests.fakes.certificates import new_certificate


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CONDUCTOR_")]:
        monkeypatch.delenv(name)


def test_without_settings_it_is_port_8080_of_the_loopback() -> None:
    settings = load(MeshSettings)

    assert (settings.listen_host, settings.http_port) == ("127.0.0.1", 8080)
    assert settings.cors_origins == ()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "[::1]", "localhost"])
def test_addresses_of_the_loopback_are_taken(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_LISTEN_HOST", host)

    assert load(MeshSettings).listen_host in {"127.0.0.1", "127.8.0.1", "::1"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5"])
def test_an_address_others_can_reach_is_refused_with_the_reason(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_LISTEN_HOST", host)

    with pytest.raises(SettingsError, match=r"CONDUCTOR_LISTEN_HOST.*authentication"):
        load(MeshSettings)


def test_a_host_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_LISTEN_HOST", "example.org")

    with pytest.raises(SettingsError, match="not an IP address"):
        load(MeshSettings)


@pytest.mark.parametrize("port", ["0", "65536", "http", ""])
def test_a_port_that_is_none_is_refused_by_name(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_HTTP_PORT", port)

    with pytest.raises(SettingsError, match="CONDUCTOR_HTTP_PORT"):
        load(MeshSettings)


def test_origins_are_parted_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "CONDUCTOR_CORS_ORIGINS", "https://a.example, http://localhost:3000,regex:https://.*[.]b"
    )

    assert load(MeshSettings).cors_origins == (
        "https://a.example",
        "http://localhost:3000",
        "regex:https://.*[.]b",
    )


@pytest.mark.parametrize(
    "origin", ["*", "example.org", "https://a.example/", "ftp://a.example", "regex:("]
)
def test_what_is_no_origin_is_refused(origin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_CORS_ORIGINS", origin)

    with pytest.raises(SettingsError, match=r"CONDUCTOR_CORS_ORIGINS.*not an origin"):
        load(MeshSettings)


def test_a_list_in_the_file_is_taken(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("cors_origins: ['https://a.example']\nhttp_port: 9000\n")

    settings = load(MeshSettings)

    assert settings.cors_origins == ("https://a.example",)
    assert settings.http_port == 9000


def test_with_authentication_on_others_may_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_AUTH", "on")

    for host, listened in (("0.0.0.0", "0.0.0.0"), ("[::]", "::"), ("localhost", "127.0.0.1")):
        monkeypatch.setenv("CONDUCTOR_LISTEN_HOST", host)
        assert load(MeshSettings).listen_host == listened
    monkeypatch.setenv("CONDUCTOR_LISTEN_HOST", "example.org")
    with pytest.raises(SettingsError, match="not an IP address"):
        load(MeshSettings)


def test_every_service_has_a_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {load(MeshSettings).processes(service.name) for service in SERVICES} == {1}

    for service in SERVICES:
        monkeypatch.setenv(f"CONDUCTOR_{service.name.upper()}_PROCESSES", "3")
        assert load(MeshSettings).processes(service.name) == 3
        monkeypatch.setenv(f"CONDUCTOR_{service.name.upper()}_PROCESSES", "0")
        with pytest.raises(SettingsError, match=rf"CONDUCTOR_{service.name.upper()}_PROCESSES"):
            load(MeshSettings)
        monkeypatch.delenv(f"CONDUCTOR_{service.name.upper()}_PROCESSES")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("TLS_CERT",), "tls_key is missing"),
        (("TLS_KEY",), "tls_cert is missing"),
        (("JWT_JWKS",), "jwt_issuer and jwt_audience are missing"),
        (("JWT_ISSUER", "JWT_AUDIENCE"), "jwt_jwks is missing"),
        (("JWT_AUDIENCE", "JWT_JWKS"), "jwt_issuer is missing"),
    ],
)
def test_settings_that_belong_together_come_together(
    given: tuple[str, ...], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in given:
        monkeypatch.setenv(f"CONDUCTOR_{name}", "something")

    with pytest.raises(SettingsError, match=f"belong together.*{missing}"):
        load(MeshSettings)


def test_tokens_are_let_in_only_with_authentication_on(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ISSUER", "AUDIENCE", "JWKS"):
        monkeypatch.setenv(f"CONDUCTOR_JWT_{name}", name)

    assert load(MeshSettings).tokens is None
    monkeypatch.setenv("CONDUCTOR_AUTH", "on")
    assert load(MeshSettings).tokens == Tokens("ISSUER", "AUDIENCE", "JWKS")


def test_files_that_cannot_be_used_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = new_certificate(tmp_path)
    monkeypatch.setenv("CONDUCTOR_TLS_CERT", str(good.chain))
    monkeypatch.setenv("CONDUCTOR_TLS_KEY", str(good.key))
    load(MeshSettings).check_files()

    for cert, key, said in (
        (tmp_path / "none", good.key, r"CONDUCTOR_TLS_CERT names .*none, .*No such file"),
        (good.chain, tmp_path, r"CONDUCTOR_TLS_KEY names .*Is a directory"),
        (good.key, good.key, r"CONDUCTOR_TLS_CERT .* are no certificate and its key"),
    ):
        monkeypatch.setenv("CONDUCTOR_TLS_CERT", str(cert))
        monkeypatch.setenv("CONDUCTOR_TLS_KEY", str(key))
        with pytest.raises(SettingsError, match=said):
            load(MeshSettings).check_files()


def test_a_file_of_keys_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_AUTH", "on")
    for name in ("ISSUER", "AUDIENCE", "JWKS"):
        monkeypatch.setenv(f"CONDUCTOR_JWT_{name}", "nowhere")

    with pytest.raises(SettingsError, match=r"CONDUCTOR_JWT_JWKS names nowhere, .*No such file"):
        load(MeshSettings).check_files()


@pytest.mark.parametrize(
    ("name", "meant"), [("AUHT", "auth"), ("RATE_LIMT", "rate_limit"), ("STORE_URI", "store_url")]
)
def test_a_misspelled_setting_is_refused(
    name: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CONDUCTOR_{name}", "on")
    with pytest.raises(
        SettingsError, match=rf"no setting CONDUCTOR_{name}.*did you mean {meant}\."
    ):
        load(MeshSettings)


@pytest.mark.parametrize("name", ["API_KEY", "ADDRESS", "EXECUTION_CONCURRENCY"])
def test_what_others_read_is_let_be(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"CONDUCTOR_{name}", "1")
    load(MeshSettings)


def test_proxies_in_front_are_trusted_as_far_as_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_TRUSTED_HOPS", "2")
    told = typer.Typer()
    told.command()(edge)
    endpoints = [f"--endpoint={service.name}=127.0.0.1:7000" for service in SERVICES]

    rendered = CliRunner().invoke(told, endpoints)

    assert rendered.exit_code == 0, rendered.output
    (listener,) = json.loads(rendered.stdout)["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert manager["xff_num_trusted_hops"] == 2
