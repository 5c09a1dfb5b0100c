"""What processes of a mesh sign for one another, and what of it is believed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kit import call
from services.kit.principals import ANYONE, Principal, Scope
from services.kit.signing import SignatureError, Signer, edge_proof

SECRET = "the secret of this mesh, shared by its processes"
ADA = Principal("acme", "key:1", frozenset({Scope.READ, Scope.RUN}))
NOW = 1_700_000_000_000_000
SECOND = 1_000_000
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def signer(clock: Clock) -> Signer:
    return Signer(SECRET, clock)


def test_a_signed_principal_is_read_by_every_process_with_the_secret(signer: Signer) -> None:
    assert Signer(SECRET, Clock()).read_principal(signer.principal(ADA)) == ADA


def test_a_signed_principal_holds_for_a_minute(signer: Signer, clock: Clock) -> None:
    signed = signer.principal(ADA)
    clock.now += 60 * SECOND - 1
    assert signer.read_principal(signed) == ADA
    clock.now += 1
    with pytest.raises(SignatureError):
        signer.read_principal(signed)


def test_what_another_mesh_signed_is_not_believed(signer: Signer) -> None:
    other = Signer(SECRET + "!", Clock())
    with pytest.raises(SignatureError):
        signer.read_principal(other.principal(ADA))
    with pytest.raises(SignatureError):
        signer.read_stream_token(other.stream_token("acme", "x", NOW + SECOND), "x")


@given(place=st.integers(min_value=0), with_=st.sampled_from("aZ0.-_!ä"))
def test_a_text_with_a_changed_character_is_not_believed(place: int, with_: str) -> None:
    signer = Signer(SECRET, Clock())
    signed = signer.principal(ADA)
    place %= len(signed)
    changed = signed[:place] + with_ + signed[place + 1 :]
    if changed != signed:
        with pytest.raises(SignatureError):
            signer.read_principal(changed)


@pytest.mark.parametrize("text", ["", ".", "a.b", "e30.", "x" * 100_000, "ä.ö"])
def test_what_is_no_signed_text_is_not_believed(signer: Signer, text: str) -> None:
    with pytest.raises(SignatureError):
        signer.read_principal(text)


def test_claims_with_a_signature_made_without_the_secret_are_not_believed(signer: Signer) -> None:
    claims = {"org": "acme", "name": "x", "scopes": ["operator"], "exp": NOW + SECOND}
    encoded = base64.urlsafe_b64encode(orjson.dumps(claims)).decode().rstrip("=")
    made = hmac.new(b"", f"principal:{encoded}".encode(), hashlib.sha256).hexdigest()
    with pytest.raises(SignatureError):
        signer.read_principal(f"{encoded}.{made}")


def test_a_stream_token_is_for_one_resource_of_one_organisation(signer: Signer) -> None:
    token = signer.stream_token("acme", "exec_1", NOW + SECOND)
    assert signer.read_stream_token(token, "exec_1") == "acme"
    with pytest.raises(SignatureError):
        signer.read_stream_token(token, "exec_2")


def test_a_stream_token_expires(signer: Signer, clock: Clock) -> None:
    token = signer.stream_token("acme", "exec_1", NOW + SECOND)
    clock.now += SECOND
    with pytest.raises(SignatureError):
        signer.read_stream_token(token, "exec_1")


def test_what_was_signed_for_one_purpose_is_worth_nothing_for_another(signer: Signer) -> None:
    with pytest.raises(SignatureError):
        signer.read_principal(signer.stream_token("acme", "exec_1", NOW + SECOND))
    with pytest.raises(SignatureError):
        signer.read_stream_token(signer.principal(ADA), "exec_1")


def test_a_stream_token_fits_an_address(signer: Signer) -> None:
    token = signer.stream_token("acme" * 16, "x" * 64, NOW + SECOND)
    assert all(character.isalnum() or character in "-_." for character in token)
    assert len(token) <= 512


def test_the_proof_of_the_edge_tells_nothing_of_the_secret(signer: Signer) -> None:
    assert signer.edge_proof == edge_proof(SECRET)
    assert signer.edge_proof == hmac.new(SECRET.encode(), b"edge", hashlib.sha256).hexdigest()


def test_a_call_does_not_show_its_metadata() -> None:
    served = call.begin("/x/Y", {"x-api-key": "cmk_secret"})
    assert "cmk_secret" not in repr(served)
    assert "cmk_secret" not in repr(replace(served, principal=ANYONE))
