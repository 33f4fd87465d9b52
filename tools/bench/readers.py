"""Peers that only listen: a process (tools.bench.child) with as many SUB sockets as it is told, which reads them."""

from multiprocessing.connection import Connection
from typing import Any, Final

import zmq

from proto import feed
from proto.feed import END_OF_STREAM, HEARTBEAT

PATIENCE_MS: Final = 20_000


def serve(connection: "Connection[Any, Any]", count: int) -> None:
    """For each (endpoint,): follow it; True when every socket has heard of it, and again when each is at its end."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    while True:
        (endpoint,) = connection.recv()
        sockets = [context.socket(zmq.SUB) for _ in range(count)]
        poller = zmq.Poller()
        for socket in sockets:
            socket.set_hwm(0)
            socket.subscribe(b"D")
            socket.connect(endpoint)
            poller.register(socket, zmq.POLLIN)
        silent, reading = set(sockets), set(sockets)
        while reading:
            ready = poller.poll(PATIENCE_MS)
            assert ready, "the stream ends"
            for socket, _ in ready:
                if _at_end(socket):
                    reading.discard(socket)
                if socket in silent:
                    silent.remove(socket)
                    if not silent:
                        connection.send(True)
        connection.send(True)
        for socket in sockets:
            socket.close(linger=0)


def _at_end(socket: "zmq.Socket[bytes]") -> bool:
    """Read all there is; whether the end of the stream was in it."""
    ended = False
    while True:
        try:
            frame = socket.recv(zmq.NOBLOCK)
        except zmq.Again:
            return ended
        flags = feed.decode_header(frame).flags
        ended = ended or bool(flags & HEARTBEAT and flags & END_OF_STREAM)
