"""What the settings say of authentication, and which of them do not go together."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.execution.settings import ExecutionSettings
from services.kit.settings import Settings, SettingsError, load

SECRET = "s3cret" * 8


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("address", ["0.0.0.0:9000", "[::]:9000", "192.168.1.5:0"])
def test_an_address_others_can_reach_needs_authentication(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONDUCTOR_EXECUTION_ADDRESS", address)

    with pytest.raises(SettingsError, match=r"CONDUCTOR_EXECUTION_ADDRESS.*CONDUCTOR_AUTH=on"):
        load(ExecutionSettings)

    monkeypatch.setenv("CONDUCTOR_AUTH", "on")
    assert load(ExecutionSettings).execution_address == address


@pytest.mark.parametrize("name", ["BOOTSTRAP_KEY", "MESH_SECRET"])
@pytest.mark.parametrize("value", ["tooshort", "has a blank " * 8, "has\na break" * 8, "ä" * 40])
def test_a_secret_that_is_short_or_fits_no_header_is_refused_and_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"CONDUCTOR_{name}", value)

    with pytest.raises(SettingsError, match=rf"CONDUCTOR_{name}.*32 characters") as refused:
        load(Settings)

    assert value not in str(refused.value)


def test_settings_do_not_show_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_BOOTSTRAP_KEY", SECRET)
    monkeypatch.setenv("CONDUCTOR_MESH_SECRET", SECRET)

    settings = load(Settings)

    assert settings.mesh_secret.get_secret_value() == SECRET
    assert SECRET not in repr(settings)


def test_an_issuer_without_an_audience_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONDUCTOR_JWT_ISSUER", "https://issuer.example.org")

    with pytest.raises(SettingsError, match="CONDUCTOR_JWT_AUDIENCE"):
        load(Settings)
