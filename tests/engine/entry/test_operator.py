"""The Operator service over real gRPC: each call, each refusal, and who may call at all."""

from typing import Any

import grpc
import pytest

from engine.entry.guard import Guard, is_local
from engine.log.memory import Fault
from proto import feed
from proto import orders_pb2 as pb
from proto.columns import (
    ACCEPTED,
    BAD_PRICE,
    BAD_QUANTITY,
    BUSTED,
    CANCELED,
    CORRECTED,
    DELISTED,
    DUPLICATE_ID,
    EXPIRED,
    KILLED,
    LOG_FAILED,
    MALFORMED,
    NO_REASON,
    NOTHING_TO_CHANGE,
    PRICE_OUT_OF_LIMITS,
    REFUSED,
    TIF_DAY,
    TOO_LATE,
    TRADED,
    UNKNOWN_INSTRUMENT,
    UNKNOWN_TRADE,
    WRONG_STATE,
)
from proto.dial import token_in
from proto.instrument import PRO_RATA
from tests.engines import Engines, run, status_of

E1A, E1B = 10, 11
TOKEN = "0123456789abcdef-correct"
NEW_ONE: dict[str, Any] = {
    "id": 99, "symbol": "GOLD", "channel": 1, "tick_size": "0.05", "lot_size": "10", "price_min": -5, "price_max": 500,
    "quantity_max": 9, "notional_max": 90, "collar": 3, "band": 4, "allocation": "pro-rata", "auction_reference": 7,
    "state": "pre-open",
}  # fmt: skip


def reason_of(reply: pb.OperatorReply) -> int:
    return int(reply.reason)


def test_a_state_is_set_and_orders_are_taken_as_it_allows() -> None:
    async def test(engines: Engines) -> None:
        operator, stream = engines.operator(), await engines.session()
        halted = await operator.SetState(pb.SetStateRequest(symbol="E1A", state=pb.TRADING_STATE_HALTED))
        assert (reason_of(halted), halted.position) == (NO_REASON, engines[1].log.position)
        await stream.new(1, E1A, 0, 100, 5)
        assert [(r[2], r[7]) for r in await stream.next(1)] == [(REFUSED, WRONG_STATE)]
        again = await operator.SetState(pb.SetStateRequest(symbol="E1A", state=pb.TRADING_STATE_HALTED))
        assert reason_of(again) == NOTHING_TO_CHANGE
        none = await operator.SetState(pb.SetStateRequest(symbol="E1A"))
        assert reason_of(none) == WRONG_STATE
        resumed = await operator.SetState(pb.SetStateRequest(symbol="E1A", state=pb.TRADING_STATE_OPEN))
        assert reason_of(resumed) == NO_REASON
        await stream.new(2, E1A, 0, 100, 5)
        assert [r[2] for r in await stream.next(1)] == [ACCEPTED]

    run(test)


def test_what_an_operator_did_is_so_after_a_restart() -> None:
    async def test(engines: Engines) -> None:
        await engines.operator().SetState(pb.SetStateRequest(symbol="E1A", state=pb.TRADING_STATE_HALTED))
        await engines.operator().Kill(pb.KillRequest(account=7))
        await engines.operator().AddInstrument(pb.AddInstrumentRequest(**NEW_ONE))
        await engines.operator().Delist(pb.DelistRequest(symbol="E1B"))
        before = engines[1].venue.digest()
        await engines.down(1)
        await engines.up(1)
        assert engines[1].venue.digest() == before
        assert engines[1].venue.markets[E1A].state == feed.HALTED
        again = await engines.operator().Kill(pb.KillRequest(account=7))
        assert reason_of(again) == NOTHING_TO_CHANGE

    run(test)


def test_the_kill_switch_is_turned_on_and_lifted() -> None:
    async def test(engines: Engines) -> None:
        operator, stream = engines.operator(), await engines.session()
        await stream.new(1, E1A, 0, 100, 5)
        await stream.new(2, E1B, 0, 100, 5)
        await stream.next(2)
        assert reason_of(await operator.Kill(pb.KillRequest(account=7, symbol="E1A"))) == NO_REASON
        assert [(r[2], r[4], r[7]) for r in await stream.next(1)] == [(CANCELED, 1, KILLED)]
        await stream.new(3, E1A, 0, 100, 5)
        assert [(r[2], r[7]) for r in await stream.next(1)] == [(REFUSED, KILLED)]
        assert reason_of(await operator.Kill(pb.KillRequest(account=7, symbol="E1A"))) == NOTHING_TO_CHANGE
        assert reason_of(await operator.Kill(pb.KillRequest(account=7, lift=True))) == NOTHING_TO_CHANGE
        assert reason_of(await operator.Kill(pb.KillRequest(account=7, symbol="E1A", lift=True))) == NO_REASON
        await stream.new(4, E1A, 0, 100, 5)
        assert [r[2] for r in await stream.next(1)] == [ACCEPTED]
        assert reason_of(await operator.Kill(pb.KillRequest())) == NO_REASON  # everybody, everywhere here
        assert [(r[2], r[7]) for r in await stream.next(2)] == [(CANCELED, KILLED)] * 2

    run(test)


def test_a_trade_is_corrected_and_busted_and_both_sides_hear_of_it() -> None:
    async def test(engines: Engines) -> None:
        operator = engines.operator()
        maker, taker = await engines.session(account=7), await engines.session(account=8)
        await maker.new(1, E1A, 0, 100, 5)
        await maker.next(1)
        await taker.new(1, E1A, 1, 100, 5)
        assert [r[2] for r in await maker.next(1) + await taker.next(2)] == [TRADED, ACCEPTED, TRADED]

        async def correct(price: str, quantity: str, trade_id: int = 1) -> int:
            return reason_of(
                await operator.CorrectTrade(
                    pb.CorrectTradeRequest(symbol="E1A", trade_id=trade_id, price=price, quantity=quantity)
                )
            )

        assert await correct("1.01", "4") == NO_REASON
        for side in (maker, taker):
            assert [(r[2], r[5]) for r in await side.next(1)] == [(CORRECTED, 4)]
        assert await correct("1.01", "4") == NOTHING_TO_CHANGE
        assert await correct("1.015", "4") == BAD_PRICE
        assert await correct("1.01", "0") == BAD_QUANTITY
        assert await correct("1000.01", "4") == PRICE_OUT_OF_LIMITS
        assert await correct("1.01", "4", trade_id=2) == UNKNOWN_TRADE
        bust = pb.BustTradeRequest(symbol="E1A", trade_id=1)
        assert reason_of(await operator.BustTrade(bust)) == NO_REASON
        for side in (maker, taker):
            assert [(r[2], r[5]) for r in await side.next(1)] == [(BUSTED, 4)]
        assert reason_of(await operator.BustTrade(bust)) == TOO_LATE
        assert await correct("1.02", "4") == TOO_LATE

    run(test)


def test_the_day_is_closed_and_rolled() -> None:
    async def test(engines: Engines) -> None:
        operator, stream = engines.operator(), await engines.session()
        roll = pb.RollRequest(symbol="E1A")
        assert reason_of(await operator.Roll(roll)) == WRONG_STATE
        await stream.new(1, E1A, 0, 100, 5, TIF_DAY)
        await stream.new(2, E1A, 0, 100, 5)
        await stream.next(2)
        await operator.SetState(pb.SetStateRequest(symbol="E1A", state=pb.TRADING_STATE_CLOSED))
        assert [(r[2], r[4], r[7]) for r in await stream.next(1)] == [(CANCELED, 1, EXPIRED)]
        assert reason_of(await operator.Roll(roll)) == NO_REASON
        assert [order.client_order_id for order in engines[1].venue.open_orders(7)] == [2]

    run(test)


def test_a_mass_cancel_counts_orders_whatever_a_lot_is() -> None:
    async def test(engines: Engines) -> None:
        await engines.operator().AddInstrument(pb.AddInstrumentRequest(**NEW_ONE))
        stub = engines.stub()
        for id in (1, 2, 3):
            await stub.NewOrder(
                pb.NewOrderRequest(account=7, client_order_id=id, symbol="GOLD", price="0.10", quantity="20")
            )
        reply = await stub.MassCancel(pb.MassCancelRequest(account=7, client_order_id=4, symbol="GOLD"))
        assert [(report.symbol, report.quantity) for report in reply.reports] == [("GOLD", "3")]  # a lot is 10

    run(test)


def test_an_instrument_is_added_with_all_its_rules_and_delisted_again() -> None:
    async def test(engines: Engines) -> None:
        operator = engines.operator()
        assert reason_of(await operator.AddInstrument(pb.AddInstrumentRequest(**NEW_ONE))) == NO_REASON
        found = engines[1].venue.markets[99].instrument
        assert (found.engine, found.allocation, found.band, found.state) == (1, PRO_RATA, 4, "pre-open")
        report = await engines.stub().NewOrder(
            pb.NewOrderRequest(account=7, client_order_id=1, symbol="GOLD", price="0.10", quantity="20")
        )
        assert (report.kind, report.open) == (ACCEPTED, "20")
        stream = await engines.session(cursors=[pb.Cursor(home=1, last_seq=report.seq)])
        assert reason_of(await operator.Delist(pb.DelistRequest(symbol="GOLD"))) == NO_REASON
        assert [(r[2], r[7]) for r in await stream.next(1)] == [(CANCELED, DELISTED)]
        gone = await operator.Delist(pb.DelistRequest(symbol="GOLD"))
        assert reason_of(gone) == UNKNOWN_INSTRUMENT
        again = await operator.AddInstrument(pb.AddInstrumentRequest(**NEW_ONE))
        assert reason_of(again) == DUPLICATE_ID

    run(test)


@pytest.mark.parametrize(
    ("changes", "reason", "says"),
    [
        ({"id": 20}, DUPLICATE_ID, "engine 2 has E2A as instrument 20, and engine 1 claims 'GOLD' as 20"),
        ({"symbol": "E2A"}, DUPLICATE_ID, "engine 2 has E2A as instrument 20, and engine 1 claims 'E2A' as 99"),
        ({"id": 0}, MALFORMED, "id = 0 is not within"),
        ({"symbol": "gold"}, MALFORMED, "symbol"),
        ({"channel": 2}, MALFORMED, "engine 1 has no channel 2"),
        ({"tick_size": "x"}, MALFORMED, 'tick_size = "x" is not a decimal number as text'),
        ({"tick_size": "0"}, MALFORMED, "tick_size"),
        (
            {"lot_size": "1000000000000"},
            MALFORMED,
            'lot_size = "1000000000000" is not a decimal',
        ),  # more than the feed can say
        ({"tick_size": "1e999999999"}, MALFORMED, "is not a decimal number as text"),
        ({"auction_reference": 501}, MALFORMED, "auction_reference = 501 is not within the price limits"),
        ({"price_min": 501}, MALFORMED, "price_min = 501 is above price_max = 500"),
        ({"collar": 2**63}, MALFORMED, "collar"),
        ({"allocation": "lottery"}, MALFORMED, "allocation"),
        ({"state": "asleep"}, MALFORMED, "state"),
        ({"id": 0, "symbol": "gold"}, MALFORMED, "; "),  # all that is wrong, at once
    ],
)
def test_an_instrument_that_cannot_be_is_refused_with_what_is_wrong(
    changes: dict[str, Any], reason: int, says: str
) -> None:
    async def test(engines: Engines) -> None:
        before = engines[1].log.position
        reply = await engines.operator().AddInstrument(pb.AddInstrumentRequest(**NEW_ONE | changes))
        assert (reason_of(reply), reply.position) == (reason, 0)
        assert says in reply.detail
        assert engines[1].log.position == before

    run(test, 2)


CALLS: dict[str, Any] = {
    "Roll": pb.RollRequest(symbol="NOPE"),
    "SetState": pb.SetStateRequest(symbol="NOPE", state=pb.TRADING_STATE_OPEN),
    "Kill": pb.KillRequest(symbol="NOPE"),
    "Delist": pb.DelistRequest(symbol="E2A"),  # another engine's
    "BustTrade": pb.BustTradeRequest(symbol="NOPE", trade_id=1),
    "CorrectTrade": pb.CorrectTradeRequest(symbol="NOPE", trade_id=1, price="1", quantity="1"),
}


OPERATOR = pb.DESCRIPTOR.services_by_name["Operator"]


def test_every_call_about_a_listed_instrument_is_among_these() -> None:
    about = {call.name for call in OPERATOR.methods if "symbol" in call.input_type.fields_by_name}
    assert about - {"AddInstrument"} == CALLS.keys()


@pytest.mark.parametrize("name", CALLS)
def test_an_instrument_that_is_not_traded_here_is_refused_by_name(name: str) -> None:
    async def test(engines: Engines) -> None:
        reply = await getattr(engines.operator(), name)(CALLS[name])
        assert (reason_of(reply), reply.position) == (UNKNOWN_INSTRUMENT, 0)
        assert CALLS[name].symbol in reply.detail

    run(test, 2)


@pytest.mark.parametrize("name", [call.name for call in OPERATOR.methods])
def test_garbled_calls_are_invalid(name: str) -> None:
    async def test(engines: Engines) -> None:
        call: Any = engines.channel().unary_unary(f"/lobmesh.v1.Operator/{name}")
        code, details = await status_of(call(b"\xff\xff"))
        assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, f"garbled: not a {name}Request")

    run(test)


def test_a_log_that_fails_refuses_an_operator_too() -> None:
    async def test(engines: Engines) -> None:
        engines.disks[1].faults.append(Fault.FULL)
        reply = await engines.operator().Roll(pb.RollRequest(symbol="E1A"))
        assert (reason_of(reply), reply.detail) == (LOG_FAILED, "not logged")

    run(test)


# Who may


async def roll(engines: Engines, *metadata: tuple[str, str]) -> tuple[grpc.StatusCode, str]:
    return await status_of(engines.operator().Roll(pb.RollRequest(symbol="E1A"), metadata=metadata))


def test_with_a_token_only_those_who_have_it_are_operators() -> None:
    async def test(engines: Engines) -> None:
        right = f"Bearer {TOKEN}"
        assert (await roll(engines, ("authorization", right)))[0] is grpc.StatusCode.OK
        before = engines[1].log.position
        wrong: list[tuple[tuple[str, str], ...]] = [
            (), (("authorization", f"Bearer {TOKEN}x"),), (("authorization", f"Bearer {TOKEN[:-1]}"),),
            (("authorization", TOKEN),), (("authorization", "Bearer "),), (("token", right),),
        ]  # fmt: skip
        for metadata in wrong:
            code, details = await roll(engines, *metadata)
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert "Bearer" in details
            assert TOKEN not in details
        for call in OPERATOR.methods:  # none is left open
            request: Any = getattr(pb, call.input_type.name)()
            code, _ = await status_of(getattr(engines.operator(), call.name)(request))
            assert code is grpc.StatusCode.UNAUTHENTICATED, call.name
        assert engines[1].log.position == before
        assert (await engines.stub().OpenOrders(pb.OpenOrdersRequest(account=7))).engines_missing == []  # traders are

    run(test, operator_token=TOKEN)


def test_without_a_token_only_those_on_this_machine_are_operators() -> None:
    guard = Guard()
    for peer in ("ipv4:127.0.0.1:5001", "ipv4:127.9.9.9:1", "ipv6:[::1]:5001", "ipv6:%5B::1%5D:5001", "unix:/tmp/x"):
        assert guard.refusal(peer, ()) is None, peer
    for peer in ("ipv4:10.0.0.1:127", "ipv6:[2001:db8::1]:5001", "ipv6:%5Bfe80::1%25lo%5D:9", "", "ipv4:", "ipv4:x:1"):
        refused = guard.refusal(peer, [("authorization", "Bearer ")])
        assert refused is not None, peer
        assert refused[0] is grpc.StatusCode.PERMISSION_DENIED
    assert is_local("ipv6:[::ffff:127.0.0.1]:5001")
    assert not is_local("ipv6:[::ffff:10.0.0.1]:5001")


def test_a_token_is_one_line_of_enough_characters() -> None:
    assert token_in(f"  {TOKEN}\n") == TOKEN
    for text in ("", "\n", "short", "two words of some length", "a" * 10 + "\n" + "b" * 10, "ü" * 20):
        with pytest.raises(ValueError, match="no token"):
            token_in(text)
