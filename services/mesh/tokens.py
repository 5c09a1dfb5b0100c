"""Tokens of others (JWT) checked at Envoy, which tells the services what they say.

The kit judges our own keys. A token is judged here, once: a service gets its payload in a header
that nobody else can set, and never the token.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.mesh.clusters import Config, Remote, web_cluster

FILTER: Final = "envoy.filters.http.jwt_authn"
PAYLOAD_HEADER: Final = "x-conductor-jwt"
"""The payload of the token, as its issuer wrote it: JSON in base64url without padding."""

_CLUSTER: Final = "jwks"
_PROVIDER: Final = "issuer"
_KEYS_CACHED: Final = "600s"
_KEYS_TIMEOUT: Final = "5s"
_OUR_KEY = r"(?i)bearer\s+cmk_.*"
_TOKEN = r"(?i)bearer(\s.*)?"  # noqa: S105 what a token looks like


@dataclass(frozen=True, slots=True)
class Tokens:
    """Whose tokens are let in."""

    issuer: str
    """Their `iss`."""

    audience: str
    """What has to be among their `aud`."""

    jwks: str
    """The keys that sign them: a file, or an address beginning with http:// or https://."""

    @property
    def is_remote(self) -> bool:
        """Whether the keys are fetched."""
        return self.jwks.startswith(("http://", "https://"))


def clusters(tokens: Tokens) -> list[Config]:
    """Where the keys are fetched from, if they are."""
    return [web_cluster(_CLUSTER, Remote.from_url(tokens.jwks))] if tokens.is_remote else []


def token_filter(tokens: Tokens) -> Config:
    """Refuses tokens that do not hold; lets through callers without one and those with our keys."""
    return {
        "providers": {
            _PROVIDER: {
                "issuer": tokens.issuer,
                "audiences": [tokens.audience],
                **_keys(tokens),
                # Not in the query too, where it is looked for by default.
                "from_headers": [{"name": "Authorization", "value_prefix": "Bearer "}],
                "require_expiration": True,
                "forward": False,
                "forward_payload_header": PAYLOAD_HEADER,
            }
        },
        "rules": [
            {"match": _authorization(_OUR_KEY)},
            {"match": _authorization(_TOKEN), "requires": {"provider_name": _PROVIDER}},
        ],
    }


def _keys(tokens: Tokens) -> Config:
    if not tokens.is_remote:
        return {"local_jwks": {"filename": str(Path(tokens.jwks).expanduser().absolute())}}
    return {
        "remote_jwks": {
            "http_uri": {"uri": tokens.jwks, "cluster": _CLUSTER, "timeout": _KEYS_TIMEOUT},
            "cache_duration": _KEYS_CACHED,
            "async_fetch": {},
        }
    }


def _authorization(expression: str) -> Config:
    return {
        "prefix": "/",
        "headers": [
            {"name": "authorization", "string_match": {"safe_regex": {"regex": expression}}}
        ],
    }
