"""What all handlers of a call share: how one begins, is served, and ends with a status.

status               when
INVALID_ARGUMENT     garbled: bytes that are no message, or a message that cannot be
OUT_OF_RANGE         a cursor whose reports are no longer held, or ahead of its home engine
RESOURCE_EXHAUSTED   a reader too slow
DATA_LOSS            reports were missed on the way: come back with the cursors
UNAVAILABLE          the engine is stopping
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message

from engine.entry.reference import Reference
from engine.entry.reports import CutOff, CutOffError, Outbox
from proto.orders import GarbledError

ORDERS: Final = "lobmesh.v1.Orders"
PEERS: Final = "lobmesh.v1.Peers"
DRAIN_S: Final = 5.0  # how long a stream whose other side is done still gets its answers

Status = tuple[grpc.StatusCode, str]
ENDED_WELL: Final[Status] = (grpc.StatusCode.OK, "")
_STATUS: Final = {
    CutOff.SLOW: grpc.StatusCode.RESOURCE_EXHAUSTED,
    CutOff.GONE: grpc.StatusCode.OUT_OF_RANGE,
    CutOff.ANEW: grpc.StatusCode.OUT_OF_RANGE,
    CutOff.GAP: grpc.StatusCode.DATA_LOSS,
    CutOff.STOPPED: grpc.StatusCode.UNAVAILABLE,
}

logger = logging.getLogger(__name__)

_M = TypeVar("_M", bound=Message)


def status_of(error: GarbledError | DecodeError | CutOffError) -> Status:
    """What a stream ends with that was ended by this."""
    if isinstance(error, CutOffError):
        return _STATUS[error.why], str(error)
    return grpc.StatusCode.INVALID_ARGUMENT, f"garbled: {error}"


class Streams:
    """The streams that an engine serves. When it stops they end in good order: nothing more is read, what was read is
    answered, and what waits to be written is.
    """

    def __init__(self) -> None:
        self._open: dict[Outbox, None] = {}
        self._stopping: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._ended: asyncio.Event = asyncio.Event()

    def open(self) -> Outbox:
        """What is put into it is written to a stream, once `serve` does so; `close` it in any case."""
        outbox = Outbox()
        self._open[outbox] = None
        return outbox

    def close(self, outbox: Outbox) -> None:
        del self._open[outbox]
        self._ended.set()

    async def stop(self, within_s: float) -> None:
        """End every stream, and any that is opened yet. A reader that does not take what is its own in time loses it,
        and may have it again with its cursors.
        """
        if not self._stopping.done():
            self._stopping.set_result(None)
        try:
            async with asyncio.timeout(within_s):
                while self._open:
                    self._ended.clear()
                    await self._ended.wait()
        except TimeoutError:
            self.break_off()

    def break_off(self) -> None:
        """End every stream at once: nothing that waits is sent any more."""
        if not self._stopping.done():
            self._stopping.set_result(None)
        for outbox in self._open:
            outbox.cut(CutOff.STOPPED)

    async def serve(
        self,
        context: Any,
        outbox: Outbox,
        answered: Callable[[], Coroutine[Any, Any, None]],
        receive: Coroutine[Any, Any, None] | None = None,
    ) -> None:
        """Serve a stream until the other side has said that it is done and has its answers, or the engine stops.

        `receive` takes what comes in, and ends when nothing more does; `answered` waits until all of it is answered.
        Raises: CutOffError, and what `receive` raises.
        """
        writing = asyncio.create_task(first_to_end(_write_all(context, outbox), outbox.broken()))
        reading = None if receive is None else asyncio.create_task(receive)
        waiting: list[asyncio.Future[None]] = [writing, self._stopping, *([] if reading is None else [reading])]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                if reading is not None and reading.done():
                    reading.result()
                elif reading is not None:
                    await cancelled(reading)
                settling = asyncio.ensure_future(answered())
                await asyncio.wait((settling, writing), timeout=DRAIN_S, return_when=asyncio.FIRST_COMPLETED)
                settling.cancel()
                outbox.finish(CutOff.STOPPED if self._stopping.done() else None)
            await writing
        finally:
            await cancelled(writing, *([] if reading is None else [reading]))


async def begin(context: Any) -> None:
    """Begin a stream's answer before anything else does.

    A status cannot end a stream while its first write is under way: the library would begin the answer twice.
    """
    await context.send_initial_metadata(())


async def end(context: Any, how: Status) -> None:
    """CutOff a stream, with a status if it did not end well, if anybody is there to hear it."""
    if how == ENDED_WELL:
        return
    try:
        await context.abort(*how)
    except grpc.aio.InternalError:
        logger.debug("gone before it was told: %s", how[1])


async def parse(context: Any, kind: type[_M], data: bytes) -> _M:
    """The message of that kind; aborts the call if the bytes are none."""
    try:
        return kind.FromString(data)
    except DecodeError:
        return await abort(context, grpc.StatusCode.INVALID_ARGUMENT, f"garbled: not a {kind.DESCRIPTOR.name}")


async def check_account(context: Any, reference: Reference, account: int) -> None:
    """Aborts the call unless the account may trade."""
    if not account:
        await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "no account is named")
    if not reference.may_trade(account):
        await abort(context, grpc.StatusCode.PERMISSION_DENIED, f"account {account} may not trade here")


async def abort(context: Any, code: grpc.StatusCode, details: str) -> NoReturn:
    """CutOff a call with a status; the library's own `abort` does not say that it never returns."""
    await context.abort(code, details)
    raise AssertionError("abort returned")


async def first_to_end(*steps: Coroutine[Any, Any, None]) -> None:
    """Run coroutines side by side until the first ends, then cancel the others; its exception, if any, is raised."""
    tasks = [asyncio.create_task(step) for step in steps]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancelled(*tasks)


async def cancelled(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _write_all(context: Any, outbox: Outbox) -> None:
    """Write what comes into an outbox, until it is finished or the reader is gone. Raises: CutOffError."""
    while messages := await outbox.take():
        for message in messages:
            try:
                await context.write(message)
            except grpc.aio.InternalError:
                return
