"""The operator of a trading day, beside engines that answer, refuse, or are not there."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from proto import orders_pb2 as pb
from proto import orders_pb2_grpc
from proto.feed import AUCTION, CLOSED, OPEN, PRE_OPEN
from tests.patience import patience
from tools.run.day.control import ControlError, MarketControl
from tools.run.day.plan import ROLL
from tools.run.layout import made_up

ALFA, BRAVO = made_up(1, 2).instruments
DEADLINE_S = patience(10.0)


class Home:
    """An engine's Operator service that notes what it is told; `fail` and `refuse` are used up, one a command."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, int]] = []
        self.fail = 0
        self.refuse: list[int] = []

    async def _answer(self, symbol: str, state: int, context: Any) -> pb.OperatorReply:
        self.heard.append((symbol, state))
        if self.fail:
            self.fail -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "on its way down")
        return pb.OperatorReply(reason=self.refuse.pop(0) if self.refuse else 0, detail="so it is")  # type: ignore[arg-type]

    async def SetState(self, request: pb.SetStateRequest, context: Any) -> pb.OperatorReply:
        return await self._answer(request.symbol, request.state, context)

    async def Roll(self, request: pb.RollRequest, context: Any) -> pb.OperatorReply:
        return await self._answer(request.symbol, ROLL, context)


@asynccontextmanager
async def served(home: Home) -> AsyncIterator[str]:
    server = grpc.aio.server()
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(home, name),
            request_deserializer=getattr(pb, f"{name}Request").FromString,
            response_serializer=pb.OperatorReply.SerializeToString,
        )
        for name in ("SetState", "Roll")
    }
    assert all(hasattr(orders_pb2_grpc.OperatorServicer, name) for name in handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("lobmesh.v1.Operator", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def run(what: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await what

    asyncio.run(within())


def test_a_day_begins_with_a_close_a_roll_and_pre_open_each_instrument_in_that_order() -> None:
    async def scenario() -> None:
        home = Home()
        async with served(home) as target:
            control = MarketControl(lambda engine: target)
            await control.prepare((ALFA, BRAVO))
            await control.close()
        for symbol in ("ALFA", "BRAVO"):
            assert [state for name, state in home.heard if name == symbol] == [CLOSED, ROLL, PRE_OPEN]

    run(scenario())


def test_what_was_not_answered_is_said_again_and_what_follows_waits_for_it() -> None:
    async def scenario() -> None:
        home = Home()
        home.fail = 2
        async with served(home) as target:
            control = MarketControl(lambda engine: target)
            control.order(ALFA, AUCTION)
            control.order(ALFA, OPEN)
            await control.finish([ALFA])
            await control.close()
        assert [state for _, state in home.heard] == [AUCTION, AUCTION, AUCTION, OPEN]

    run(scenario())


def test_an_engine_that_is_down_is_waited_for_and_found_at_its_new_address() -> None:
    async def scenario() -> None:
        home, where = Home(), [""]
        control = MarketControl(lambda engine: where[0])
        control.order(ALFA, AUCTION)
        waits = asyncio.create_task(control.finish([ALFA]))
        done, _ = await asyncio.wait([waits], timeout=0.3)
        assert (done, home.heard) == (set(), [])
        async with served(home) as where[0]:
            await waits
            await control.close()
        assert home.heard == [("ALFA", AUCTION)]

    run(scenario())


def test_a_command_that_was_done_before_is_as_good_as_done() -> None:
    async def scenario() -> None:
        home = Home()
        home.refuse = [pb.REASON_NOTHING_TO_CHANGE]
        async with served(home) as target:
            control = MarketControl(lambda engine: target)
            control.order(ALFA, OPEN)
            await control.finish([ALFA])
            await control.close()
        assert home.heard == [("ALFA", OPEN)]

    run(scenario())


def test_a_refusal_says_what_and_why() -> None:
    async def scenario() -> None:
        home = Home()
        home.refuse = [pb.REASON_WRONG_STATE]
        async with served(home) as target:
            control = MarketControl(lambda engine: target)
            control.order(ALFA, ROLL)
            with pytest.raises(ControlError, match=r"^ALFA does not go to roll: REASON_WRONG_STATE so it is$"):
                await control.finish([ALFA])
            await control.close()

    run(scenario())


def test_closing_ends_what_still_waits() -> None:
    async def scenario() -> None:
        control = MarketControl(lambda engine: "")
        control.order(ALFA, OPEN)
        control.order(ALFA, CLOSED)
        await control.close()

    run(scenario())
