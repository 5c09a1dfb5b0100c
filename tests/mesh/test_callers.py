"""Callers of a mesh with authentication on: keys and tokens through the real Envoy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from conductor.execution.v1 import execution_service_pb2 as pb
from conductor.execution.v1.execution_service_pb2_grpc import ExecutionServiceStub
from tests.mesh.started import Mesh

NewMesh = Callable[..., Mesh]
ISSUER, AUDIENCE = "https://issuer.example/", "conductor"


async def test_keys_and_tokens_open_the_mesh_and_nothing_else_does(
    new_mesh: NewMesh, tmp_path: Path
) -> None:
    signing = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    published = json.loads(RSAAlgorithm.to_jwk(signing.public_key())) | {"kid": "one"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [published]}))

    def token(**claims: Any) -> str:
        said = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "org_id": "acme",
            "scope": "read run",
            "exp": int(time.time()) + 300,
        }
        return jwt.encode(said | claims, signing, "RS256", headers={"kid": "one"})

    mesh = new_mesh(
        AUTH="on",
        EXECUTION_PROCESSES="2",
        JWT_ISSUER=ISSUER,
        JWT_AUDIENCE=AUDIENCE,
        JWT_JWKS=str(tmp_path / "jwks.json"),
    )
    await mesh.start()
    first = (mesh.data / "bootstrap.key").read_text().strip()
    alice = {"authorization": f"Bearer {token()}"}
    bob = {"authorization": f"Bearer {token(sub='bob', org_id='bolt')}"}
    reader = {"authorization": f"Bearer {token(scope='read')}"}

    async with httpx.AsyncClient(base_url=mesh.url, trust_env=False, timeout=30) as client:
        made = await client.post(
            "/api/keys",
            json={"name": "ours", "org_id": "acme", "scopes": ["SCOPE_READ", "SCOPE_RUN"]},
            headers={"authorization": f"Bearer {first}"},
        )
        assert made.status_code == 200, made.text
        ours = {"x-api-key": made.json()["secret"]}

        for nobody in (
            {},
            {"x-api-key": "cmk_nope"},
            {"authorization": "Bearer word"},
            {"authorization": f"Bearer {token(exp=1)}"},
            {"x-conductor-jwt": "e30", "x-conductor-edge": "forged"},
        ):
            assert (await client.get("/api/executions", headers=nobody)).status_code == 401
        assert (await client.get("/health")).status_code == 200

        run = await client.post("/api/executions", json={"input": "Hi"}, headers=alice)
        assert run.status_code == 200, run.text
        path = f"/api/executions/{run.json()['id']}"
        for friend in (alice, ours, reader):
            assert (await client.get(path, headers=friend)).status_code == 200
        assert (await client.get(path, headers=bob)).status_code == 404
        refused = await client.post("/api/executions", json={"input": "Hi"}, headers=reader)
        assert refused.status_code == 403
        # Somebody else's proof of having come through Envoy does not harm: it is taken away.
        forged = {**ours, "x-conductor-edge": "forged"}
        assert (await client.get(path, headers=forged)).status_code == 200

        job = await client.post("/api/v1/stream-execute", json={"input": "Hi"}, headers=ours)
        stream = await client.get(job.json()["stream_url"])
        assert "end_of_stream" in stream.text
        assert (await client.get(f"/api/v1/stream/{job.json()['job_id']}")).status_code == 401

    async with grpc.aio.insecure_channel(mesh.address) as channel:
        executions = ExecutionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await executions.ListExecutions(pb.ListExecutionsRequest())
        assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
        listed = await executions.ListExecutions(
            pb.ListExecutionsRequest(), metadata=[("authorization", alice["authorization"])]
        )
        assert len(listed.executions) == 2

    # However it got there: no log may hold what opens the mesh.
    await mesh.stop()
    secrets = [first, made.json()["secret"], alice["authorization"].split()[1]]
    secrets.append(job.json()["stream_url"].partition("token=")[2])
    for log in (mesh.data / "logs").iterdir():
        assert not [secret for secret in secrets if secret in log.read_text()], log
