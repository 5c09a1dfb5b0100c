"""What `conductor up` accepts, and how it refuses the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.kit.settings import SettingsError, load
from services.mesh.settings import MeshSettings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP_PORT", "LISTEN_HOST", "CORS_ORIGINS", "DATA_DIR", "CONFIG"):
        monkeypatch.delenv(f"CONDUCTOR_{name}", raising=False)


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
