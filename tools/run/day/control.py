"""Whoever runs the market of a trading day: says to each instrument's home what is due, until it stands.

An instrument's commands go one after the other. One that was not answered is said again: it may have been done, and
doing it twice is harmless.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

import grpc

from proto import connect, orders_pb2_grpc
from proto import orders_pb2 as pb
from proto.feed import CLOSED, PRE_OPEN, STATE_NAMES
from proto.instrument import Instrument
from tools.run.day.plan import ROLL

CALL_S: Final = 2.0
AGAIN_S: Final = 0.1  # after no answer

Where = Callable[[int], str]  # the address of an engine now, host:port; empty while it does not serve


class ControlError(Exception):
    """The venue refused what its operator asked for."""


class MarketControl:
    """The commands to every instrument. `close` ends it, whatever still waits."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._last: dict[int, asyncio.Task[None]] = {}  # by instrument

    async def prepare(self, instruments: tuple[Instrument, ...]) -> None:
        """Begin a day with all of them: what an earlier one left open is closed, and orders may come."""
        for state in (CLOSED, ROLL, PRE_OPEN):
            for instrument in instruments:
                self.order(instrument, state)
        await self.finish(instruments)

    def order(self, instrument: Instrument, state: int) -> None:
        """Put an instrument into a state (or ROLL it), behind whatever was ordered for it before."""
        before = self._last.get(instrument.id)
        self._last[instrument.id] = asyncio.create_task(self._until_done(instrument, state, before))

    async def finish(self, instruments: Iterable[Instrument]) -> None:
        """Until all that was ordered for these stands. Raises: ControlError."""
        await asyncio.gather(*(self._last[i.id] for i in instruments if i.id in self._last))

    async def close(self) -> None:
        tasks = list(self._last.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()

    async def _until_done(self, instrument: Instrument, state: int, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        while not await self._say(instrument, state):
            await asyncio.sleep(AGAIN_S)

    async def _say(self, instrument: Instrument, state: int) -> bool:
        """Whether it stands now. Raises: ControlError."""
        target = self._where(instrument.engine)
        if not target:
            return False
        if target not in self._channels:
            self._channels[target] = connect.channel(target)
        make: Any = orders_pb2_grpc.OperatorStub
        stub = make(self._channels[target])
        try:
            if state == ROLL:
                reply = await stub.Roll(pb.RollRequest(symbol=instrument.symbol), timeout=CALL_S)
            else:
                wish = pb.SetStateRequest(symbol=instrument.symbol, state=state)  # type: ignore[arg-type]
                reply = await stub.SetState(wish, timeout=CALL_S)
        except grpc.aio.AioRpcError:
            return False
        if reply.reason in (pb.REASON_NONE, pb.REASON_NOTHING_TO_CHANGE):
            return True
        if reply.reason == pb.REASON_LOG_FAILED:
            return False
        what = "roll" if state == ROLL else STATE_NAMES[state]
        why = f"{pb.Reason.Name(reply.reason)} {reply.detail}".rstrip()
        raise ControlError(f"{instrument.symbol} does not go to {what}: {why}")
