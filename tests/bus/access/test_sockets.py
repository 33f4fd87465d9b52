"""Sockets speak IPv6 where they are told to, and name themselves so that the other end finds them."""

import socket

import pytest
import zmq

from bus.access.sockets import bind, connect

PATIENCE_MS = 5_000


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_a_frame_arrives_whatever_the_host_is_called(host: str) -> None:
    if host == "[::1]" and not has_ipv6():
        pytest.skip("no IPv6 on this machine")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    publisher, reader = context.socket(zmq.XPUB), context.socket(zmq.SUB)
    endpoint = bind(publisher, f"tcp://{'127.0.0.1' if host == 'localhost' else host}:0")
    reader.subscribe(b"")
    connect(reader, f"tcp://{host}:{endpoint.rpartition(':')[2]}")
    assert publisher.poll(PATIENCE_MS), "nobody came"
    publisher.send(b"frame")
    assert reader.poll(PATIENCE_MS)
    assert reader.recv() == b"frame"
    if host != "localhost":
        assert endpoint.startswith(f"tcp://{host}:")
    context.destroy(linger=0)
