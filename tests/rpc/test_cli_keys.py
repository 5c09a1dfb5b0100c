"""`conductor keys`, and the key every command shows, against the real service."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from google.protobuf.timestamp_pb2 import Timestamp

from conductor.auth.v1 import access_pb2
from conductor.auth.v1.key_pb2 import Key
from conductor_ai.client import Client, ConductorError
from services.kit.keys import parts
from tests.rpc.serving import served
from tests.rpc.terminal import COLOUR, Outcome, Terminal, unstyled

SECRET = "the-secret-of-this-mesh-shared-by-its-processes"
BOOTSTRAP = "the-first-key-of-all-of-this-mesh-as-configured"
KEY = "CONDUCTOR_API_KEY"
CREATE = ("keys", "create")
LIST = ("keys", "list")
REVOKE = ("keys", "revoke")


@pytest_asyncio.fixture
async def terminal(tmp_path: Path) -> AsyncIterator[Terminal]:
    """The command line of an operator of a mesh that authenticates its callers."""
    async with served(tmp_path, auth="on", mesh_secret=SECRET, bootstrap_key=BOOTSTRAP) as mesh:
        terminal = Terminal(f"127.0.0.1:{mesh.port}")
        terminal.env[KEY] = BOOTSTRAP
        yield terminal


async def made(terminal: Terminal, *options: str) -> Key:
    outcome = await terminal.run(*CREATE, "tests", *options, "--json")
    assert outcome.status == 0, outcome.err
    told = json.loads(outcome.out)
    expire = Timestamp()
    if "expire_time" in told:
        expire.FromJsonString(told["expire_time"])
    return Key(id=told["id"], secret=told["secret"], org_id=told["org_id"], expire_time=expire)


async def test_a_new_key_is_alone_on_stdout_and_said_to_be_shown_once(terminal: Terminal) -> None:
    outcome = await terminal.run(*CREATE, "ci", "--scope", "run")

    assert outcome.status == 0
    shown = parts(outcome.out.removesuffix("\n"))
    assert shown is not None
    assert outcome.err == (
        f"this is the only time the key is shown; `conductor keys revoke {shown[0]}` ends it\n"
    )
    listed = await terminal.run(*LIST)
    assert shown[0] in listed.out
    assert shown[1] not in listed.out + listed.err


async def test_a_key_is_made_as_it_is_asked_for(terminal: Terminal) -> None:
    key = await made(
        terminal, *("--scope", "read", "--scope", "ADMIN", "--org", "acme", "--expires", "90d")
    )

    assert abs(key.expire_time.seconds - time.time() - 90 * 86_400) < 60
    outcome = await terminal.run(*LIST, "--org", "acme")
    titles, line = outcome.out.splitlines()
    assert titles.split() == [
        *("id", "state", "name", "org", "scopes", "created", "expires", "last", "used"),
    ]
    assert line.split()[:5] == [key.id, "active", "tests", "acme", "read,admin"]
    assert line.split()[-1] == "-"
    assert (await terminal.run(*LIST)).err == "no keys yet\n"


async def test_a_revoked_key_says_so(terminal: Terminal) -> None:
    key = await made(terminal, "--scope", "read")

    assert await terminal.run(*REVOKE, key.id) == Outcome(0, f"{key.id} revoked\n", "")
    told = json.loads((await terminal.run(*LIST, "--json")).out)
    assert (told["id"], "revoke_time" in told, "secret" in told) == (key.id, True, False)
    shown = (await terminal.show(*LIST)).out
    assert COLOUR in shown
    assert f"{key.id}  revoked" in unstyled(shown)
    outcome = await terminal.run(*REVOKE, "nobody")
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err == "error: No key has the id nobody. (KEY_NOT_FOUND)\n"


async def test_without_a_key_the_way_to_one_is_told(terminal: Terminal) -> None:
    del terminal.env[KEY]

    for command in (LIST, ("models", "list"), ("executions", "get", "x"), ("run", "hello")):
        outcome = await terminal.run(*command)
        assert (outcome.status, outcome.out) == (2, "")
        assert "(UNAUTHENTICATED)" in outcome.err
        assert "CONDUCTOR_API_KEY" in outcome.err


async def test_a_key_is_shown_by_option_too_and_never_printed(terminal: Terminal) -> None:
    key = await made(terminal, "--scope", "run", "--org", "acme")
    del terminal.env[KEY]

    ran = await terminal.run("run", "hello", "--api-key", key.secret)
    assert (ran.status, ran.err) == (0, "")
    denied = await terminal.run(*LIST, "--api-key", key.secret)
    assert denied.status == 2
    assert "admin" in denied.err
    assert "(PERMISSION_DENIED)" in denied.err
    terminal.env[KEY] = key.secret
    helped = await terminal.run(*LIST, "--help")
    assert "CONDUCTOR_API_KEY" in helped.out
    for outcome in (ran, denied, helped):
        assert key.secret not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((*CREATE, "ci"), "--scope"),
        ((*CREATE, "ci", "--scope", "all"), "operator"),
        ((*CREATE, "ci", "--scope", "run", "--expires", "someday"), "90d"),
        ((*CREATE, "ci", "--scope", "run", "--expires", "2001-01-01"), "key.expire_time"),
    ],
)
async def test_a_key_that_makes_no_sense_is_refused(
    terminal: Terminal, arguments: tuple[str, ...], told: str
) -> None:
    outcome = await terminal.run(*arguments)

    assert (outcome.status, outcome.out) == (2, "")
    assert told in outcome.err


async def test_a_key_that_cannot_be_sent_is_a_sentence_without_it(terminal: Terminal) -> None:
    terminal.env[KEY] = "line\nbreak"

    outcome = await terminal.run(*LIST)

    assert outcome.status == 2
    assert "cannot be sent" in outcome.err
    assert "break" not in outcome.err.replace("line break", "")


async def test_a_client_shows_its_key_on_every_call(terminal: Terminal) -> None:
    address = terminal.env["CONDUCTOR_ADDRESS"]
    async with Client(address, api_key=BOOTSTRAP) as client:
        events = [event async for event in client.run("Hello")]
        id_ = events[0].execution_id
        assert [event async for event in client.watch(id_)] == events
        assert (await client.start("Hello", request_id="again")).id
        assert (await client.get(id_)).id == id_
        assert id_ in [one.id async for one in client.list()]
        assert (await client.models())[0].id
        await client.delete(id_)
        key = await client.create_key("tests", [access_pb2.SCOPE_READ])
        assert [one.id async for one in client.list_keys()] == [key.id]
        assert (await client.revoke_key(key.id)).HasField("revoke_time")
        with pytest.raises(ConductorError, match="EXECUTION_NOT_FOUND"):
            await client.cancel(id_)
    async with Client(address) as client:
        with pytest.raises(ConductorError, match="UNAUTHENTICATED"):
            await client.models()
