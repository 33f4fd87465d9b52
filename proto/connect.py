"""Connections over gRPC: every channel of ours is opened here, with the same options.

A machine that hangs, or whose network is gone, is found out by keepalive pings within eight seconds; one that comes
back is tried again at least twice a second. Every channel has connections of its own: sharing them, the library would
share how long it waits before it tries again, too.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

REPLY_MAX: Final = 4 << 20  # bytes of a message that whoever calls must take
KEEPALIVE: Final = (
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
# What a server of ours bears: pings as often as a client likes.
SERVED: Final = (
    *KEEPALIVE,
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
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


def _options(reply_max: int) -> list[tuple[str, int]]:
    return [*_OPTIONS, ("grpc.max_receive_message_length", reply_max)]
