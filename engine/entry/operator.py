"""The Operator service of an engine: what an operator says is logged like a command, then done, then answered.

An instrument added or delisted here is so at once on this engine; others learn of it through the directory. Whatever
cannot be understood is refused with a reason and a line for people; nothing of it is logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from engine.core.commands import (
    AddInstrument,
    BustTrade,
    CorrectTrade,
    Delist,
    Kill,
    OperatorCommand,
    Roll,
    SetState,
)
from engine.core.venue import Venue
from engine.entry.guard import Guard
from engine.entry.streams import abort, parse
from engine.log.commit import Committer, Submission
from engine.log.records import RecordError
from proto import orders_pb2 as pb
from proto.columns import DUPLICATE_ID, LOG_FAILED, MALFORMED, NO_REASON, UNKNOWN_INSTRUMENT, WRONG_STATE
from proto.feed import CLOSED, PRE_OPEN
from proto.instrument import Instrument, ListingError, contradictions, instrument_of
from proto.orders import BadValueError, lots_of, shown, ticks_of


class OperatorServicer:
    """Handlers of raw bytes (engine/node.py registers them), behind `guard`.

    `taken` is what the whole venue knows of instruments, to refuse an id or a symbol of another engine; `listed` is
    told of one that was added or delisted, before anything else happens to it. A new one is on channel 1 to `channels`.
    `confirm_clock` says what it has ended, if anything was doubted.
    """

    def __init__(
        self,
        venue: Venue,
        committer: Committer,
        taken: Callable[[], dict[str, Instrument]],
        listed: Callable[[Instrument], None],
        *,
        channels: int,
        guard: Guard,
        confirm_clock: Callable[[], str] = lambda: "",
    ) -> None:
        self._venue = venue
        self._committer = committer
        self._taken = taken
        self._listed = listed
        self._channels = channels
        self._guard = guard
        self._confirm_clock = confirm_clock

    async def set_state(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.SetStateRequest, data)

        def command() -> OperatorCommand:
            instrument = self._instrument(request.symbol)
            if not PRE_OPEN <= request.state <= CLOSED:
                raise BadValueError(WRONG_STATE, f"{request.state} is no trading state")
            return SetState(instrument.id, request.state)

        return await self._answer(command)

    async def kill(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.KillRequest, data)
        return await self._answer(
            lambda: Kill(
                request.account, self._instrument(request.symbol).id if request.symbol else 0, not request.lift
            )
        )

    async def add_instrument(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.AddInstrumentRequest, data)
        return await self._answer(lambda: AddInstrument.of(self._definition(request)))

    async def delist(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.DelistRequest, data)
        return await self._answer(lambda: Delist(self._instrument(request.symbol).id))

    async def bust_trade(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.BustTradeRequest, data)
        return await self._answer(lambda: BustTrade(self._instrument(request.symbol).id, request.trade_id))

    async def correct_trade(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.CorrectTradeRequest, data)

        def command() -> OperatorCommand:
            instrument = self._instrument(request.symbol)
            price = ticks_of(request.price, instrument.tick_size)
            return CorrectTrade(instrument.id, request.trade_id, price, lots_of(request.quantity, instrument.lot_size))

        return await self._answer(command)

    async def roll(self, data: bytes, context: Any) -> bytes:
        request = await parse(context, pb.RollRequest, data)
        return await self._answer(lambda: Roll(self._instrument(request.symbol).id))

    async def confirm_clock(self, data: bytes, context: Any) -> bytes:
        await parse(context, pb.ConfirmClockRequest, data)
        return self._reply(NO_REASON, detail=self._confirm_clock() or "the clock was believed already")

    def handlers(self) -> grpc.GenericRpcHandler:
        calls = {
            "SetState": self.set_state,
            "Kill": self.kill,
            "AddInstrument": self.add_instrument,
            "Delist": self.delist,
            "BustTrade": self.bust_trade,
            "CorrectTrade": self.correct_trade,
            "Roll": self.roll,
            "ConfirmClock": self.confirm_clock,
        }
        unary = grpc.unary_unary_rpc_method_handler
        return grpc.method_handlers_generic_handler(
            "lobmesh.v1.Operator", {name: unary(self._guarded(call)) for name, call in calls.items()}
        )

    def _guarded(self, call: Callable[[bytes, Any], Awaitable[bytes]]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def answer(data: bytes, context: Any) -> bytes:
            refused = self._guard.refusal(context.peer(), context.invocation_metadata() or ())
            if refused is not None:
                await abort(context, *refused)
            return await call(data, context)

        return answer

    async def _answer(self, command: Callable[[], OperatorCommand]) -> bytes:
        done: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()

        def tell(position: int, refused: int) -> None:
            if position and refused == NO_REASON:
                if isinstance(said, AddInstrument):
                    self._listed(said.definition)
                elif isinstance(said, Delist):
                    self._listed(self._venue.markets[said.instrument].instrument)
            if not done.done():
                done.set_result((position, refused))

        try:
            said = command()
            submission = Submission.operate(said, tell)
        except BadValueError as e:
            return self._reply(e.reason, detail=str(e))
        except RecordError as e:
            return self._reply(MALFORMED, detail=str(e))
        self._committer.submit(submission)
        position, reason = await done
        if not position:
            return self._reply(LOG_FAILED, detail="not logged")
        return self._reply(reason, position=position)

    def _reply(self, reason: int, *, detail: str = "", position: int = 0) -> bytes:
        reply = pb.OperatorReply(detail=detail, position=position, engine=self._venue.engine)
        reply.reason = reason  # type: ignore[assignment]
        return reply.SerializeToString()

    def _instrument(self, symbol: str) -> Instrument:
        for market in self._venue.markets.values():
            if market.instrument.symbol == symbol:
                return market.instrument
        raise BadValueError(UNKNOWN_INSTRUMENT, f"this engine has no instrument {shown(symbol)}")

    def _definition(self, request: pb.AddInstrumentRequest) -> Instrument:
        """The instrument, checked as one of the cluster's file is. Raises: BadValueError, naming every fault."""
        for other in self._taken().values():
            if other.symbol == request.symbol or other.id == request.id:
                claims = f"engine {self._venue.engine} claims {shown(request.symbol)} as {request.id}"
                has = f"engine {other.engine} has {other.symbol} as instrument {other.id}"
                raise BadValueError(DUPLICATE_ID, f"{has}, and {claims}")
        try:
            instrument = instrument_of(request, engine=self._venue.engine, channel=request.channel or 1)
        except ListingError as e:
            raise BadValueError(MALFORMED, str(e)) from None
        wrong = contradictions(instrument)
        if instrument.channel > self._channels:
            wrong.append(f"engine {self._venue.engine} has no channel {instrument.channel}")
        if wrong:
            raise BadValueError(MALFORMED, "; ".join(wrong))
        return instrument
