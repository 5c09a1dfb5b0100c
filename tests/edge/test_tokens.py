"""Tokens of others, judged by Envoy; and what tells services that a request came through it."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from services.mesh.table import SERVICES
from services.mesh.tokens import Tokens
from tests.edge.conftest import PROOF, RunningEdge, StartEdge, assert_error
from tests.edge.stub import Stub

ISSUER = "https://issuer.example/"
AUDIENCE = "conductor"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
STRANGER = rsa.generate_private_key(public_exponent=65537, key_size=2048)
FORGED = {
    "x-conductor-jwt": "theirs",
    "X-Conductor-Edge": "theirs",
    "x_conductor_jwt": "theirs",
}


def keys() -> dict[str, Any]:
    """The set of keys that the issuer publishes."""
    return {
        "keys": [
            {
                **json.loads(RSAAlgorithm.to_jwk(RSA.public_key())),
                "kid": "rsa",
                "alg": "RS256",
                "use": "sig",
            },
            {
                **json.loads(ECAlgorithm.to_jwk(EC.public_key())),
                "kid": "ec",
                "alg": "ES256",
                "use": "sig",
            },
        ]
    }


def token(key: Any = RSA, algorithm: str = "RS256", kid: str = "rsa", **claims: Any) -> str:
    """A token; a claim that is None is left out."""
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "org_id": "acme",
        "scope": "read run",
        "iat": now,
        "exp": now + 300,
    } | claims
    payload = {name: value for name, value in said.items() if value is not None}
    return jwt.encode(payload, key, algorithm, headers={"kid": kid})


def _confused() -> str:
    """Signed with the public key, as if it were a shared secret."""
    public = RSA.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    head, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in (
            {"alg": "HS256", "typ": "JWT", "kid": "rsa"},
            {"iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 300},
        )
    )
    signature = hmac.digest(public, head + b"." + payload, hashlib.sha256)
    sealed = base64.urlsafe_b64encode(signature).rstrip(b"=")
    return b".".join((head, payload, sealed)).decode()


BAD: dict[str, Callable[[], str]] = {
    "expired": lambda: token(exp=int(time.time()) - 3600),
    "without an end": lambda: token(exp=None),
    "not yet good": lambda: token(nbf=int(time.time()) + 3600),
    "of another issuer": lambda: token(iss="https://other.example/"),
    "for another audience": lambda: token(aud="other"),
    "for no audience": lambda: token(aud=None),
    "signed by a stranger": lambda: token(STRANGER),
    "signed by a key nobody knows": lambda: token(STRANGER, kid="other"),
    "not signed": lambda: token(None, "none"),
    "signed with the public key": _confused,
    "changed": lambda: token()[:-6] + "AAAAAA",
    "none at all": lambda: "word",
}


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(keys()))
    return path


@pytest_asyncio.fixture
async def edge(start_edge: StartEdge, upstream: int, jwks: Path) -> RunningEdge:
    """Envoy with authentication on, in front of the stub."""
    return await start_edge(
        SERVICES,
        {"execution": [("127.0.0.1", upstream)]},
        tokens=Tokens(ISSUER, AUDIENCE, str(jwks)),
        proves_itself=True,
    )


def payload(metadata: dict[str, str]) -> dict[str, Any]:
    """What Envoy told the service of a token."""
    said = metadata["x-conductor-jwt"]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
    return claims


async def test_a_token_that_holds_is_told_by_its_payload_and_goes_no_further(
    client: httpx.AsyncClient,
) -> None:
    for good in (token(), token(EC, "ES256", "ec"), token(aud=["other", AUDIENCE])):
        response = await client.get(
            "/api/executions/one", headers={**FORGED, "authorization": f"Bearer {good}"}
        )

        metadata = response.json()["metadata"]
        told = payload(metadata)
        assert (told["sub"], told["org_id"], told["scope"]) == ("alice", "acme", "read run")
        assert metadata["x-conductor-edge"] == PROOF
        assert good not in response.text
        assert "theirs" not in response.text


async def test_a_token_that_does_not_hold_never_reaches_a_service(
    client: httpx.AsyncClient, edge: RunningEdge, stub: Stub
) -> None:
    async with grpc.aio.insecure_channel(edge.target) as channel:
        executions = ExecutionServiceStub(channel)
        for name, make in BAD.items():
            said = {"authorization": f"Bearer {make()}", "origin": "http://localhost"}
            for path in ("/api/executions/one", "/nope"):
                refused = await client.get(path, headers=said)
                assert_error(refused, httpx.codes.UNAUTHORIZED, 16)
                assert refused.json()["message"].startswith("The token is not accepted: "), name
                assert refused.headers["access-control-allow-origin"] == "http://localhost"
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await executions.GetExecution(
                    pb.GetExecutionRequest(execution_id="one"),
                    metadata=[("authorization", said["authorization"])],
                )
            assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED, name

    assert stub.calls == []


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"authorization": "Bearer cmk_abc"},
        {"authorization": "bearer  cmk_abc"},
        {"authorization": "Basic YTpi"},
        {"x-api-key": "cmk_abc"},
    ],
)
async def test_what_is_no_token_is_left_to_the_service(
    client: httpx.AsyncClient, said: dict[str, str]
) -> None:
    response = await client.get("/api/executions/one", headers={**FORGED, **said})

    metadata = response.json()["metadata"]
    assert said.items() <= metadata.items()
    assert metadata["x-conductor-edge"] == PROOF
    assert "x-conductor-jwt" not in metadata
    assert "theirs" not in response.text


async def test_a_token_in_the_query_is_none(client: httpx.AsyncClient) -> None:
    response = await client.get(f"/api/v1/stream/missing?access_token={token()}")

    assert response.status_code == httpx.codes.BAD_REQUEST


async def test_a_preflight_needs_no_token(client: httpx.AsyncClient) -> None:
    response = await client.options(
        "/api/executions",
        headers={
            "origin": "http://localhost:3000",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,x-api-key",
        },
    )

    assert response.status_code == httpx.codes.OK
    assert "Authorization" in response.headers["access-control-allow-headers"]


async def test_keys_are_fetched_where_they_are_published(
    start_edge: StartEdge, upstream: int
) -> None:
    async with published() as url:
        edge = await start_edge(
            SERVICES,
            {"execution": [("127.0.0.1", upstream)]},
            tokens=Tokens(ISSUER, AUDIENCE, url),
        )
        async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as client:
            good, bad = [
                await client.get("/api/executions/one", headers={"authorization": f"Bearer {one}"})
                for one in (token(), token(STRANGER))
            ]

    assert payload(good.json()["metadata"])["sub"] == "alice"
    assert bad.status_code == httpx.codes.UNAUTHORIZED


async def test_with_authentication_off_no_proof_is_given_and_none_passed_on(
    start_edge: StartEdge, upstream: int
) -> None:
    edge = await start_edge(SERVICES, {"execution": [("127.0.0.1", upstream)]})

    async with httpx.AsyncClient(base_url=edge.url, trust_env=False) as client:
        response = await client.get("/api/executions/one", headers=FORGED)

    assert not [name for name in response.json()["metadata"] if "conductor" in name]


@asynccontextmanager
async def published() -> AsyncIterator[str]:
    """A web server that publishes the issuer's keys."""
    body = json.dumps(keys()).encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"
