"""The streams of an engine, as a client opens and ends them."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc

from engine.client.report import UnreachableError
from proto import orders_pb2 as pb

WELCOME_S: Final = 1.0


async def greet(call: Any, hello: pb.Hello) -> pb.Welcome:
    """Begin a session. Raises: TimeoutError after WELCOME_S, and what the stream ended with."""
    async with asyncio.timeout(WELCOME_S):
        await call.write(pb.SessionRequest(hello=hello).SerializeToString())
        data = await call.read()
    if data is grpc.aio.EOF:
        await raise_status(call)
    return pb.SessionReply.FromString(data).welcome


async def raise_status(call: Any) -> None:
    """Raise what a stream ended with; one that ended well is one that has to be opened again, too."""
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        raise grpc.aio.AioRpcError(code, initial, trailing, await call.details())
    raise UnreachableError("the engine ended the session")
