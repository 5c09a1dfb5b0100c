"""What the processes of a mesh tell one another, signed with the secret they share.

Each purpose has signatures of its own, so that what was signed for one is worth nothing for another.
Texts fit headers and addresses: two parts of base64url and hexadecimal digits, parted by a dot.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from services.kit.principals import Principal, Scope

PRINCIPAL = "x-conductor-principal"
"""The header of the signed principal, from service to service."""

PEER = "x-conductor-peer"
"""The header by which a service says its name to another one while nothing is signed."""

_PRINCIPAL_MICROSECONDS = 60_000_000
_LONGEST = 4096


class SignatureError(Exception):
    """A text was not signed here for this purpose, or it has expired."""


class Signer:
    """Signs for the processes of one mesh.

    Args:
        secret: what they share.
        clock: microseconds since the epoch.

    Attributes:
        edge_proof: see `edge_proof`.
    """

    def __init__(self, secret: str, clock: Callable[[], int]) -> None:
        self._secret = secret.encode()
        self._clock = clock
        self.edge_proof = edge_proof(secret)

    def principal(self, principal: Principal) -> str:
        """Sign who calls, for the next service; it holds for a minute."""
        return self._signed(
            "principal",
            {
                "org": principal.org_id,
                "name": principal.name,
                "scopes": sorted(principal.scopes),
            },
            self._clock() + _PRINCIPAL_MICROSECONDS,
        )

    def read_principal(self, text: str) -> Principal:
        """Read a signed principal.

        Raises:
            SignatureError: it is not ours, or has expired.
        """
        said = self._read("principal", text)
        scopes = frozenset(scope for scope in Scope if scope.value in said["scopes"])
        return Principal(said["org"], said["name"], scopes)

    def stream_token(self, org: str, resource: str, expire_time: int) -> str:
        """Make the token that stands in for a key where one resource is streamed.

        Args:
            expire_time: microseconds since the epoch.
        """
        return self._signed("stream", {"org": org, "id": resource}, expire_time)

    def read_stream_token(self, token: str, resource: str) -> str:
        """Read for which organisation a token lets a resource be streamed.

        Raises:
            SignatureError: it is not ours, has expired, or is for another resource.
        """
        said = self._read("stream", token)
        if said["id"] != resource:
            raise SignatureError
        org: str = said["org"]
        return org

    def _signed(self, purpose: str, said: Mapping[str, Any], expire_time: int) -> str:
        raw = orjson.dumps({**said, "exp": expire_time})
        encoded = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        return f"{encoded}.{self._signature(purpose, encoded)}"

    def _read(self, purpose: str, text: str) -> dict[str, Any]:
        encoded, _, signature = text.partition(".")
        if len(text) > _LONGEST or not same(signature, self._signature(purpose, encoded)):
            raise SignatureError
        said: dict[str, Any] = decoded(encoded)
        if said["exp"] <= self._clock():
            raise SignatureError
        return said

    def _signature(self, purpose: str, text: str) -> str:
        return _hmac(self._secret, f"{purpose}:{text}")


def edge_proof(secret: str) -> str:
    """Make what Envoy adds to each request, by which it is known to have come through it."""
    return _hmac(secret.encode(), "edge")


def same(one: str, other: str) -> bool:
    """Compare two texts in a time that does not tell how much of them is alike."""
    return hmac.compare_digest(one.encode(), other.encode())


def decoded(text: str) -> Any:
    """Read JSON from base64url, with or without padding.

    Raises:
        ValueError: it is neither.
    """
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None
    return orjson.loads(raw)


def _hmac(secret: bytes, text: str) -> str:
    return hmac.digest(secret, text.encode(), "sha256").hex()
