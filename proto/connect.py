"""Connections over gRPC: every channel of ours is opened here, with the same options.

A machine that hangs, or whose network is gone, is found out by keepalive pings within eight seconds; one that comes
back is tried again at least twice a second. Every channel has connections of its own: sharing them, the library would
share how long it waits before it tries again, too.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import grpc

REQUEST_MAX: Final = 1 << 20  # bytes of a message that a machine takes from whoever calls it
REPLY_MAX: Final = 4 << 20  # bytes of a message that whoever calls must take
STREAMS_MAX: Final = 1_024  # calls at once on one connection
KEEPALIVE: Final = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
_SERVED: Final = (
    *KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # clients ping as often as they like
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.max_receive_message_length", REQUEST_MAX),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
    ("grpc.so_reuseport", 0),
)
_OPTIONS: Final = (
    *KEEPALIVE,
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 1_000),  # how long an attempt may take
    ("grpc.max_reconnect_backoff_ms", 500),
)

# What reading from or writing to a stream raises that has ended: the library has three ways to say so.
BROKEN_STREAM: Final = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError)


def channel(target: str, *, reply_max: int = REPLY_MAX) -> grpc.aio.Channel:
    """A connection to a machine, for the running event loop; messages of up to `reply_max` bytes are taken from it."""
    return grpc.aio.insecure_channel(target, options=_options(reply_max))


def blocking_channel(target: str, *, reply_max: int = REPLY_MAX) -> grpc.Channel:
    """The same for programs without an event loop."""
    return grpc.insecure_channel(target, options=_options(reply_max))


def server() -> grpc.aio.Server:
    """A machine's server, for the running event loop; see `bind`."""
    return grpc.aio.server(options=_SERVED)


def bind(server: grpc.aio.Server, address: str) -> int:
    """Have a server serve at HOST:PORT, once it is started; the port, also where 0 had the system choose.

    Raises: OSError, which says why not.
    """
    host, _, port = address.rpartition(":")
    _try(host.strip("[]"), int(port), address)  # the library's own complaint says less, and writes to stderr besides
    try:
        return server.add_insecure_port(address)
    except RuntimeError as e:
        raise OSError(str(e)) from None


def _try(host: str, port: int, address: str) -> None:
    """Raises: OSError if none of the host's addresses can be had."""
    why = ""
    try:
        for family, kind, _, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            try:
                with socket.socket(family, kind) as tried:
                    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    tried.bind(place)
                    return
            except OSError as e:
                why = why or e.strerror or str(e)
    except OSError as e:
        why = e.strerror or str(e)
    raise OSError(f"{address}: {why}")


def _options(reply_max: int) -> list[tuple[str, int]]:
    return [*_OPTIONS, ("grpc.max_receive_message_length", reply_max)]
