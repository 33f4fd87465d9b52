"""ZeroMQ sockets as publishers and readers set them alike: how much may wait, dead connections found, IPv6."""

from __future__ import annotations

import re
from typing import Final

import zmq

HIGH_WATER: Final = 8_192  # frames; the ring for ranges holds eight times as many

_IPV4: Final = re.compile(r"[a-z]+://[0-9.*]+:.*")


def bind(socket: zmq.Socket[bytes], endpoint: str) -> str:
    """Bind, to a port that the system chooses where it is 0; returns where. Raises: zmq.ZMQError.

    IPv6 is spoken where the endpoint is of it, "tcp://[::1]:0": a socket that may speak both names itself otherwise.
    """
    _prepare(socket, "[" in endpoint)
    socket.bind(endpoint)
    return socket.get_string(zmq.LAST_ENDPOINT).rstrip("\0")


def connect(socket: zmq.Socket[bytes], endpoint: str) -> None:
    """Connect, over whichever of IPv4 and IPv6 the name leads to. Raises: zmq.ZMQError."""
    _prepare(socket, not _IPV4.fullmatch(endpoint))
    socket.connect(endpoint)


def _prepare(socket: zmq.Socket[bytes], ipv6: bool) -> None:
    """Dead connections are found in three seconds, as TCP alone would in many minutes."""
    socket.setsockopt(zmq.HEARTBEAT_IVL, 1_000)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 3_000)
    socket.setsockopt(zmq.HEARTBEAT_TTL, 3_000)
    socket.setsockopt(zmq.IPV6, int(ipv6))
