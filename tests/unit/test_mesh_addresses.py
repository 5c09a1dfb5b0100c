"""Ports: the one people know, and those that are chosen."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from services.mesh.addresses import claim, free_ports
from services.mesh.errors import CannotStart


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_chosen_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(5)

    assert len(set(ports)) == 5
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


async def test_a_taken_port_is_refused_with_the_way_to_choose_another(taken: int) -> None:
    with pytest.raises(CannotStart, match=f"Port {taken} .*taken.*CONDUCTOR_HTTP_PORT"):
        await claim("127.0.0.1", taken)


async def test_a_port_that_somebody_holds_on_every_address_is_taken() -> None:
    with (
        socket.create_server(("", 0)) as server,
        pytest.raises(CannotStart, match="taken"),
    ):
        await claim("127.0.0.1", server.getsockname()[1])


async def test_a_port_that_becomes_free_in_time_is_claimed() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    with pytest.raises(CannotStart, match="taken"):
        await claim("127.0.0.1", port, patience=0.1)
    server.close()
    await claim("127.0.0.1", port, patience=5)
