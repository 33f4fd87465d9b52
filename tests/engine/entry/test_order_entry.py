"""Order entry on one engine, over real gRPC: calls, sessions, drop copies, and everything that is refused."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]

from engine.entry import reports
from engine.entry.streams import PEERS
from engine.log import kept
from engine.log.memory import Fault
from proto import orders_pb2 as pb
from proto.columns import (
    ACCEPTED,
    BAD_CLIENT_ORDER_ID,
    BAD_PRICE,
    BAD_QUANTITY,
    CANCELED,
    DISCONNECTED,
    DUPLICATE_ID,
    LOG_FAILED,
    MALFORMED,
    MASS_CANCEL_REASON,
    MASS_CANCELED,
    PRICE_OUT_OF_LIMITS,
    REFUSED,
    REPEAT,
    REPLACED,
    THROTTLED,
    TRADED,
    UNKNOWN_INSTRUMENT,
)
from proto.connect import REQUEST_MAX
from proto.refusals import DETAIL_MAX
from tests.engines import EndOfStream, Engines, Stream, Stuck, run, status_of, until

INVALID = grpc.StatusCode.INVALID_ARGUMENT


def order(id: int = 1, **changes: Any) -> pb.NewOrderRequest:
    fields = {"account": 7, "client_order_id": id, "symbol": "E1A", "price": "1.50", "quantity": "5"} | changes
    return pb.NewOrderRequest(**fields)


def test_an_order_is_accepted_and_can_be_looked_at() -> None:
    async def test(engines: Engines) -> None:
        stub = engines.stub()
        report = await stub.NewOrder(order())
        assert report == pb.Report(
            kind=pb.REPORT_ACCEPTED,
            home=1,
            seq=1,
            account=7,
            client_order_id=1,
            order_id=(1 << 48) + 1,
            symbol="E1A",
            price="1.50",
            quantity="5",
            open="5",
            filled="0",
            time_ns=report.time_ns,
            position=engines[1].log.position,
        )
        expected = pb.Order(
            account=7, client_order_id=1, order_id=(1 << 48) + 1, symbol="E1A", price="1.50", quantity="5", open="5",
            filled="0", live=True, visible=True,
        )  # fmt: skip
        assert await stub.GetOrder(pb.GetOrderRequest(account=7, symbol="E1A", client_order_id=1)) == expected
        assert await stub.OpenOrders(pb.OpenOrdersRequest(account=7)) == pb.OpenOrdersReply(orders=[expected])
        assert await stub.OpenOrders(pb.OpenOrdersRequest(account=7, symbol="E1B")) == pb.OpenOrdersReply()
        assert await stub.OpenOrders(pb.OpenOrdersRequest(account=8)) == pb.OpenOrdersReply()
        await stub.NewOrder(order(2, post_only=True))
        orders = (await stub.OpenOrders(pb.OpenOrdersRequest(account=7))).orders
        assert [found.post_only for found in orders] == [False, True]

    run(test)


def test_the_answer_to_a_call_tells_what_the_order_came_to_at_once() -> None:
    def told(report: pb.Report) -> list[tuple[int, int, str, str, str, int, int]]:
        return [(r.seq, r.kind, r.price, r.quantity, r.open, r.reason, r.liquidity) for r in report.then]

    async def test(engines: Engines) -> None:
        home, entry = engines.stub(1), engines.stub(2)
        await home.NewOrder(order(1, account=8, quantity="2", price="1.49"))
        await home.NewOrder(order(2, account=8, quantity="2", price="1.48"))
        taken = order(1, side=pb.SIDE_SELL, price="1.48", quantity="5", time_in_force=pb.TIME_IN_FORCE_IOC)
        report = await entry.NewOrder(taken)
        assert (report.kind, report.open, report.seq) == (ACCEPTED, "5", 1)
        assert told(report) == [
            (2, pb.REPORT_TRADED, "1.49", "2", "3", 0, pb.LIQUIDITY_TAKER),
            (3, pb.REPORT_TRADED, "1.48", "2", "1", 0, pb.LIQUIDITY_TAKER),
            (4, CANCELED, "1.48", "5", "0", pb.REASON_IOC_REMAINDER, pb.LIQUIDITY_NONE),
        ]
        assert {(r.client_order_id, r.symbol, r.side, r.home, r.position) for r in report.then} == {
            (1, "E1A", pb.SIDE_SELL, 1, report.position)
        }
        repeat = await entry.NewOrder(taken)
        assert (repeat.repeat, list(repeat.then)) == (True, [])
        assert not (await home.NewOrder(order(2, price="1.60"))).then  # it rests
        await home.NewOrder(order(3, account=8, side=pb.SIDE_SELL, price="1.70"))
        change = pb.ReplaceOrderRequest(
            account=7, client_order_id=4, symbol="E1A", target=2, price="1.70", quantity="5"
        )
        replaced = await entry.ReplaceOrder(change)
        assert (replaced.kind, replaced.open) == (REPLACED, "5")
        assert told(replaced) == [(7, pb.REPORT_TRADED, "1.70", "5", "0", 0, pb.LIQUIDITY_TAKER)]

    run(test, 2)


def test_replace_and_cancel_and_mass_cancel_by_call() -> None:
    async def test(engines: Engines) -> None:
        stub = engines.stub()
        await stub.NewOrder(order(1, quantity="9"))
        replaced = await stub.ReplaceOrder(
            pb.ReplaceOrderRequest(
                account=7,
                client_order_id=2,
                symbol="E1A",
                target=1,
                price="1.50",
                quantity="3",
                meaning=pb.QUANTITY_REDUCE_BY,
            )
        )
        assert (replaced.kind, replaced.client_order_id, replaced.quantity, replaced.open, replaced.priority_kept) == (
            REPLACED, 1, "6", "6", True,
        )  # fmt: skip
        canceled = await stub.CancelOrder(pb.CancelOrderRequest(account=7, client_order_id=3, symbol="E1A", target=1))
        assert (canceled.kind, canceled.client_order_id, canceled.open) == (CANCELED, 1, "0")
        await stub.NewOrder(order(4))
        await stub.NewOrder(order(5, symbol="E1B"))
        reply = await stub.MassCancel(pb.MassCancelRequest(account=7, client_order_id=6, symbol="E1B"))
        assert [(r.kind, r.client_order_id, r.quantity) for r in reply.reports] == [(MASS_CANCELED, 6, "1")]
        reply = await stub.MassCancel(pb.MassCancelRequest(account=7, client_order_id=7))
        assert [(r.kind, r.client_order_id, r.quantity) for r in reply.reports] == [(MASS_CANCELED, 7, "1")]
        assert not reply.engines_missing

    run(test)


REFUSALS = [
    ({"price": "NaN"}, BAD_PRICE),
    ({"price": "inf"}, BAD_PRICE),
    ({"price": "-Infinity"}, BAD_PRICE),
    ({"price": "1e999999"}, BAD_PRICE),
    ({"price": "1.505"}, BAD_PRICE),
    ({"price": str(0.1 + 0.2)}, BAD_PRICE),
    ({"price": ""}, BAD_PRICE),
    ({"price": "99999999999999999999"}, BAD_PRICE),
    ({"quantity": "0"}, BAD_QUANTITY),
    ({"quantity": "-1"}, BAD_QUANTITY),
    ({"quantity": "0.5"}, BAD_QUANTITY),
    ({"quantity": "nan"}, BAD_QUANTITY),
    ({"quantity": str(2**40)}, BAD_QUANTITY),
    ({"quantity": "1e999999"}, BAD_QUANTITY),
    ({"client_order_id": 0}, BAD_CLIENT_ORDER_ID),
    ({"symbol": "NOPE"}, UNKNOWN_INSTRUMENT),
    ({"symbol": ""}, UNKNOWN_INSTRUMENT),
    ({"side": 2}, MALFORMED),
    ({"type": 8}, MALFORMED),
    ({"type": pb.ORDER_TYPE_STOP}, BAD_PRICE),
    ({"type": pb.ORDER_TYPE_STOP, "stop_price": "1", "time_in_force": pb.TIME_IN_FORCE_FOK}, MALFORMED),
    ({"type": pb.ORDER_TYPE_ICEBERG, "display": "0"}, BAD_QUANTITY),
    ({"type": pb.ORDER_TYPE_PEG_MID, "price": "", "offset": "0.005"}, BAD_PRICE),
    ({"minimum": "0.5"}, BAD_QUANTITY),
    ({"expires_ns": 2**63, "time_in_force": pb.TIME_IN_FORCE_GTD}, MALFORMED),
    ({"time_in_force": 5}, MALFORMED),
    ({"time_in_force": 100}, MALFORMED),
    ({"time_in_force": pb.TIME_IN_FORCE_IOC, "post_only": True}, MALFORMED),
    ({"self_trade_prevention": 9}, MALFORMED),
]


DETAILS = {BAD_PRICE: "0.01", BAD_QUANTITY: "one", UNKNOWN_INSTRUMENT: "E1A, E1B"}


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


def test_what_the_door_refuses_has_a_reason_and_leaves_the_engine_untouched() -> None:
    async def test(engines: Engines) -> None:
        stub, engine = engines.stub(), engines[1]
        await stub.NewOrder(order(1))
        before = (engine.venue.digest(), engine.log.position)
        for changes, reason in REFUSALS:
            report = await stub.NewOrder(order(2, **changes))
            assert (report.kind, report.reason, report.seq) == (REFUSED, reason, 0), changes
            assert {BAD_PRICE: "0.01", BAD_QUANTITY: "one", UNKNOWN_INSTRUMENT: "E1A, E1B"}.get(
                reason, ""
            ) in report.detail
            assert 0 < len(report.detail) <= DETAIL_MAX, changes
        assert (engine.venue.digest(), engine.log.position) == before
        assert (await stub.NewOrder(order(2))).kind == ACCEPTED

    run(test)


def test_what_the_venue_refuses_is_logged_and_numbered() -> None:
    async def test(engines: Engines) -> None:
        stub = engines.stub()
        for id, changes, reason, detail in (
            (1, {"price": "1000.01"}, PRICE_OUT_OF_LIMITS, "E1A takes 0.01 to 1000.00 in steps of 0.01"),
            (2, {"price": "-1"}, PRICE_OUT_OF_LIMITS, "E1A takes 0.01 to 1000.00 in steps of 0.01"),
            (1, {"price": "1000.02"}, DUPLICATE_ID, "another command of this account had this client order id"),
        ):
            report = await stub.NewOrder(order(id, **changes))
            assert (report.kind, report.reason) == (REFUSED, reason)
            assert report.detail.endswith(detail)
            assert report.seq
        assert not (await stub.NewOrder(order(3))).detail
        await engines.operator().SetState(pb.SetStateRequest(symbol="E1A", state=pb.TRADING_STATE_HALTED))
        assert (await stub.NewOrder(order(4))).detail.endswith("E1A is halted")
        assert engines[1].log.position == 7

    run(test)


def test_garbled_calls_are_invalid_and_leave_the_engine_untouched() -> None:
    async def test(engines: Engines) -> None:
        before = (engines[1].venue.digest(), engines[1].log.position)
        for method in ("NewOrder", "CancelOrder", "ReplaceOrder", "MassCancel", "GetOrder", "OpenOrders"):
            call = engines.channel().unary_unary(f"/lobmesh.v1.Orders/{method}")
            assert await status_of(call(b"\xff\xff")) == (INVALID, f"garbled: not a {method}Request")
            assert (await status_of(call(b"")))[1] == "no account is named"
        stub = engines.stub()
        unknown = (INVALID, "there is no instrument 'NOPE': there are E1A, E1B")
        wish = pb.GetOrderRequest(account=7, symbol="NOPE", client_order_id=1)
        assert await status_of(stub.GetOrder(wish)) == unknown
        assert await status_of(stub.OpenOrders(pb.OpenOrdersRequest(account=7, symbol="NOPE"))) == unknown
        wish = pb.GetOrderRequest(account=7, symbol="E1A", client_order_id=1)
        assert (await status_of(stub.GetOrder(wish)))[0] is grpc.StatusCode.NOT_FOUND
        assert (engines[1].venue.digest(), engines[1].log.position) == before

    run(test)


def test_sessions_that_cannot_be_are_refused_with_a_status() -> None:
    async def test(engines: Engines) -> None:
        hello = pb.SessionRequest(hello=pb.Hello(account=7))
        for messages, expected in (
            ([b"\xff"], (INVALID, "garbled: not a SessionRequest")),
            ([b""], (INVALID, "the first request of a session is the hello")),
            ([b"\x12\x00"], (INVALID, "the first request of a session is the hello")),
            ([pb.SessionRequest(hello=pb.Hello()).SerializeToString()], (INVALID, "no account is named")),
            (
                [pb.SessionRequest(hello=pb.Hello(account=9)).SerializeToString()],
                (grpc.StatusCode.PERMISSION_DENIED, "account 9 may not trade here"),
            ),
            ([b"\x0a\x04\x08\x07\x18\x09"], (INVALID, "unknown self-trade prevention")),
            ([hello.SerializeToString(), b"\x12\x02\xff\xff"], (INVALID, "garbled: not a CommandBatch")),
            ([hello.SerializeToString(), b"\xff"], (INVALID, "garbled: Error parsing message")),
            ([hello.SerializeToString(), hello.SerializeToString()], (INVALID, "garbled: a request without commands")),
        ):
            call = engines.channel().stream_stream("/lobmesh.v1.Orders/Session")()
            for message in messages:
                await call.write(message)
            code, details = await status_of(_read_all(call))
            assert (code, details[: len(expected[1])]) == expected, messages
        assert engines[1].log.position == 1
        assert (await engines.stub().NewOrder(order())).kind == ACCEPTED

    run(test, accounts=(7,))


def test_a_message_too_large_ends_the_session_and_nothing_else() -> None:
    async def test(engines: Engines) -> None:
        stream, other = await engines.session(), await engines.session(account=8)
        await stream.call.write(pb.SessionRequest(commands=bytes(REQUEST_MAX + 1)))
        with pytest.raises(EndOfStream) as ended:
            await stream.read()
        assert ended.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert engines[1].log.position == 1
        await other.new(1, 10, 0, 100, 5)
        assert await other.next(1) == [(1, 1, ACCEPTED, 1, 1, 5, 5, 0)]

    run(test)


def test_the_good_rows_of_a_batch_go_in_and_the_bad_ones_are_refused() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session()
        await stream.send(
            op=[1, 1, 9, 1, 2],
            client_order_id=[1, 2, 3, 0, 5],
            instrument=[10] * 5,
            price=[100, 100, 100, 100, 0],
            quantity=[5, 2**40, 5, 5, 0],
            target=[0, 0, 0, 0, 1],
        )
        assert await stream.next(5) == [
            (1, 0, REFUSED, 2, 2, 2**40, 0, BAD_QUANTITY),
            (1, 0, REFUSED, 3, 3, 5, 0, MALFORMED),
            (1, 0, REFUSED, 0, 0, 5, 0, BAD_CLIENT_ORDER_ID),
            (1, 1, ACCEPTED, 1, 1, 5, 5, 0),
            (1, 2, CANCELED, 5, 1, 5, 0, 0),
        ]

    run(test)


def test_both_sides_of_a_trade_get_their_reports() -> None:
    async def test(engines: Engines) -> None:
        maker, taker = await engines.session(account=7), await engines.session(account=8)
        await maker.new(1, 10, 0, 100, 5)
        assert await maker.next(1) == [(1, 1, ACCEPTED, 1, 1, 5, 5, 0)]
        await taker.new(1, 10, 1, 100, 3)
        assert [(r[2], r[4], r[5], r[6]) for r in await taker.next(2)] == [(ACCEPTED, 1, 3, 3), (TRADED, 1, 3, 0)]
        assert await maker.next(1) == [(1, 2, TRADED, 0, 1, 3, 2, 0)]

    run(test)


def test_every_report_names_the_record_that_caused_it() -> None:
    async def test(engines: Engines) -> None:
        maker, taker = await engines.session(account=7), await engines.session(account=8)
        await maker.new(1, 10, 0, 150, 5)
        entered = await maker.positions(1)
        sold = await engines.stub().NewOrder(order(2, account=8, side=pb.SIDE_SELL))
        assert entered == [sold.position - 1]
        assert await maker.positions(1) == [sold.position]  # the other side of the same event
        assert await taker.positions(2) == [sold.position] * 2
        unknown = await engines.stub().CancelOrder(
            pb.CancelOrderRequest(account=7, client_order_id=3, symbol="E1A", target=99)
        )
        assert (unknown.kind, unknown.position) == (REFUSED, engines[1].log.position)
        reply = await engines.stub().MassCancel(pb.MassCancelRequest(account=7, client_order_id=4))
        assert [report.position for report in reply.reports] == [engines[1].log.position]
        door = await engines.stub().NewOrder(order(5, quantity="0"))
        assert (door.kind, door.position) == (REFUSED, 0)  # nothing was logged
        copy = engines.stub().Executions(pb.ExecutionsRequest(account=8))
        told = pb.ReportBatch.FromString((await copy.read()).SerializeToString())
        assert (told.position, list(told.kind)) == (sold.position, [ACCEPTED, TRADED])
        copy.cancel()

    run(test)


def test_a_command_again_is_answered_as_before_and_has_one_effect_also_after_a_restart() -> None:
    async def test(engines: Engines) -> None:
        first = await engines.stub().NewOrder(order())
        again = await engines.stub().NewOrder(order())
        await engines.down(1)
        await engines.up(1)
        later = await engines.stub().NewOrder(order())
        for repeat in (again, later):
            assert repeat.repeat
            assert (repeat.kind, repeat.order_id, repeat.seq) == (ACCEPTED, first.order_id, 0)
        assert len((await engines.stub().OpenOrders(pb.OpenOrdersRequest(account=7))).orders) == 1
        other = await engines.stub().NewOrder(order(price="1.51"))
        assert (other.kind, other.reason) == (REFUSED, DUPLICATE_ID)

    run(test)


def test_a_session_goes_on_from_its_cursors_and_starts_live_without() -> None:
    async def test(engines: Engines) -> None:
        stub = engines.stub()
        for id in (1, 2, 3):
            await stub.NewOrder(order(id))
        live = await engines.session()
        assert list(live.welcome.cursors) == [pb.Cursor(home=1, last_seq=3)]
        past = await engines.session(cursors=[pb.Cursor(home=1, last_seq=1)])
        assert [r[1] for r in await past.next(2)] == [2, 3]
        await engines.down(1)
        await engines.up(1)
        replayed = await engines.session(cursors=[pb.Cursor(home=1, last_seq=1)])
        await engines.stub().NewOrder(order(4))
        assert [r[1] for r in await replayed.next(3)] == [2, 3, 4]
        with pytest.raises(EndOfStream) as ended:
            await live.next(1)
        assert ended.value.code is grpc.StatusCode.UNAVAILABLE

    run(test)


def test_a_cursor_inside_a_batch_gets_the_rest_of_it() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session()
        await stream.new_many(1, 5, 10)
        await stream.next(5)
        rest = await engines.session(cursors=[pb.Cursor(home=1, last_seq=3)])
        assert [r[:4] for r in await rest.next(2)] == [(1, 4, ACCEPTED, 4), (1, 5, ACCEPTED, 5)]

    run(test)


def test_a_cursor_that_cannot_be_continued_is_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "HISTORY_MAX", 2)

    async def test(engines: Engines) -> None:
        stub = engines.stub()
        for id in (1, 2, 3, 4):
            await stub.NewOrder(order(id))
        for cursor, why in ((1, "no longer held (engine 1: 2 asked, 3 held)"), (5, "come back without it (engine 1: ")):
            stream = await engines.session(cursors=[pb.Cursor(home=1, last_seq=cursor)])
            with pytest.raises(EndOfStream) as ended:
                await stream.next(1)
            assert ended.value.code is grpc.StatusCode.OUT_OF_RANGE
            assert why in ended.value.details
        skips = await engines.session(cursors=[pb.Cursor(home=1, last_seq=1)], skip_lost=True)
        assert list(skips.welcome.cursors) == [pb.Cursor(home=1, last_seq=2)]
        assert [seq for _, seq, *_ in await skips.next(2)] == [3, 4]
        copy = stub.Executions(pb.ExecutionsRequest(account=7))
        assert [(await copy.read()).first_seq for _ in range(2)] == [3, 4]

    run(test)


def test_a_reader_too_slow_is_cut_off_and_may_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "OUTBOX_MAX", 1_000)

    async def test(engines: Engines) -> None:
        slow, busy = await engines.session(cancel_on_disconnect=True), await engines.session()
        await slow.new(1, 10, 0, 2, 1)
        await busy.next(1)
        sent = 2
        while engines[1].venue.open_orders(7)[0].client_order_id == 1:  # until its disconnect cancels it
            await busy.new_many(sent, 256, 10)
            await busy.next(256)
            sent += 256
            assert sent < 200_000, "it was never cut off"
        got = 0
        with pytest.raises(EndOfStream) as ended:
            while True:
                got = (await slow.next(1))[0][1]
        assert ended.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert got < sent
        back = await engines.session(cursors=[pb.Cursor(home=1, last_seq=got)])
        assert (await back.next(1))[0][1] == got + 1

    run(test)


def test_a_drop_copy_has_all_reports_and_goes_on_live() -> None:
    async def test(engines: Engines) -> None:
        stub = engines.stub()
        await stub.NewOrder(order(1))
        copy = stub.Executions(pb.ExecutionsRequest(account=7))
        assert (await copy.read()).command == [1]
        await stub.NewOrder(order(2))
        assert (await copy.read()).command == [2]
        from_two = stub.Executions(pb.ExecutionsRequest(account=7, cursors=[pb.Cursor(home=1, last_seq=1)]))
        assert (await from_two.read()).command == [2]

    run(test)


def test_what_exceeds_the_throttle_is_refused() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(throttle=3)
        await stream.new_many(1, 5, 10)
        assert [(r[2], r[3], r[7]) for r in await stream.next(5)] == [
            (REFUSED, 4, THROTTLED), (REFUSED, 5, THROTTLED), (ACCEPTED, 1, 0), (ACCEPTED, 2, 0), (ACCEPTED, 3, 0),
        ]  # fmt: skip
        await asyncio.sleep(1.05 / 3)  # one more is allowed
        await stream.new_many(6, 2, 10)
        assert sorted((r[2], r[3]) for r in await stream.next(2)) == [(ACCEPTED, 6), (REFUSED, 7)]
        assert [o.client_order_id for o in engines[1].venue.open_orders(7)] == [1, 2, 3, 6]

    run(test)


async def _rest(stream: Stream) -> None:
    await stream.new(1, 10, 0, 100, 5)
    await stream.new(2, 11, 0, 100, 5)
    await stream.next(2)


@pytest.mark.parametrize("way", ["done", "cancel"])
def test_a_session_that_asked_for_it_has_its_orders_canceled_when_it_ends(way: str) -> None:
    async def test(engines: Engines) -> None:
        watch = await engines.session()
        leaving, staying = await engines.session(cancel_on_disconnect=True), await engines.session()
        await leaving.new(1, 10, 0, 100, 5)
        await staying.new(2, 10, 0, 100, 5)
        await watch.next(2)
        await staying.call.done_writing()
        if way == "done":
            await leaving.call.done_writing()
        else:
            leaving.call.cancel()
        assert await watch.next(1) == [(1, 3, CANCELED, 0, 1, 5, 0, DISCONNECTED)]
        assert [o.client_order_id for o in engines[1].venue.open_orders(7)] == [2]

    run(test)


def test_a_session_that_says_it_is_done_gets_its_answers_first() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session()
        stuck = Stuck(engines, 1)
        await stream.new_many(1, 3, 10)
        await stream.call.done_writing()
        await until(lambda: engines[1].committer.backlog == 3)
        await asyncio.sleep(0.05)  # for the end of its commands to arrive, too
        stuck.let_go()
        assert [r[3] for r in await stream.next(3)] == [1, 2, 3]
        with pytest.raises(EndOfStream) as ended:
            await stream.read()
        assert ended.value.code is grpc.StatusCode.OK

    run(test)


def test_after_a_restart_a_session_that_comes_back_keeps_its_orders_and_one_that_does_not_loses_them() -> None:
    async def test(engines: Engines) -> None:
        back = await engines.session(account=7, cancel_on_disconnect=True)
        gone = await engines.session(account=8, cancel_on_disconnect=True)
        await _rest(back)
        await _rest(gone)
        await engines.down(1)
        await engines.up(1)
        assert len(engines[1].venue.open_orders(7)) == len(engines[1].venue.open_orders(8)) == 2
        again = await engines.session(account=7, cancel_on_disconnect=True, session=back.welcome.session)
        assert again.welcome.session == back.welcome.session
        await until(lambda: not engines[1].venue.open_orders(8))
        assert len(engines[1].venue.open_orders(7)) == 2
        again.call.cancel()
        await until(lambda: not engines[1].venue.open_orders(7))

    run(test)


def test_a_failed_log_refuses_commands_with_its_reason_and_reads_go_on() -> None:
    async def test(engines: Engines) -> None:
        stub, stream = engines.stub(), await engines.session()
        await stub.NewOrder(order(1))
        await stream.next(1)
        before = engines[1].venue.digest()
        engines.disks[1].faults.append(Fault.BEFORE)
        await stream.new(2, 10, 0, 100, 5)
        assert await stream.next(1) == [(1, 0, REFUSED, 2, 2, 5, 0, LOG_FAILED)]
        report = await stub.NewOrder(order(3))
        assert (report.kind, report.reason) == (REFUSED, LOG_FAILED)
        assert engines[1].venue.digest() == before
        assert len((await stub.OpenOrders(pb.OpenOrdersRequest(account=7))).orders) == 1

    run(test)


def test_health_says_whether_the_log_takes_commands_and_trading_goes_on_when_it_does() -> None:
    async def test(engines: Engines) -> None:
        stub, health = engines.stub(), health_pb2_grpc.HealthStub(engines.channel())

        async def serves(status: int) -> bool:
            asked = [health.Check(health_pb2.HealthCheckRequest(service=name)) for name in ("", "lobmesh.v1.Orders")]
            return [(await reply).status for reply in asked] == [status, status]

        async def until_it(status: int) -> None:
            async with asyncio.timeout(10):
                while not await serves(status):
                    await asyncio.sleep(0.01)

        assert await serves(health_pb2.HealthCheckResponse.SERVING)
        engines.disks[1].faults.extend([Fault.FULL] * 1_000_000)
        engines[1].committer._resume_s = 0.01
        assert (await stub.NewOrder(order(1))).reason == LOG_FAILED
        await until_it(health_pb2.HealthCheckResponse.NOT_SERVING)
        assert (await stub.NewOrder(order(2))).reason == LOG_FAILED
        assert not (await stub.OpenOrders(pb.OpenOrdersRequest(account=7))).orders
        engines.disks[1].faults.clear()
        await until_it(health_pb2.HealthCheckResponse.SERVING)
        assert (await stub.NewOrder(order(1))).kind == ACCEPTED

    run(test)


def test_an_unknown_outcome_ends_the_engine_without_an_answer() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session()
        engines.disks[1].faults.append(Fault.LOST)
        await stream.new(1, 10, 0, 100, 5)
        assert await asyncio.wait_for(engines[1].stopping, 5) == 4
        with pytest.raises(EndOfStream) as ended:
            await stream.next(1)
        assert ended.value.code is grpc.StatusCode.UNAVAILABLE

    run(test)


def test_a_mass_cancel_in_a_session_reports_each_order_and_then_itself() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session()
        await _rest(stream)
        await stream.send(op=[4], client_order_id=[9])
        assert await stream.next(3) == [
            (1, 3, CANCELED, 0, 1, 5, 0, MASS_CANCEL_REASON),
            (1, 4, CANCELED, 0, 2, 5, 0, MASS_CANCEL_REASON),
            (1, 5, MASS_CANCELED, 9, 0, 2, 0, 0),
        ]

    run(test)


def test_repeats_have_no_number_and_are_flagged() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session()
        await stream.new(1, 10, 0, 100, 5)
        await stream.next(1)
        await stream.new(1, 10, 0, 100, 5)
        batch = pb.ReportBatch.FromString((await stream.read()).reports)
        assert (batch.first_seq, list(batch.kind), list(batch.flags)) == (0, [ACCEPTED], [REPEAT])

    run(test)


def test_an_engine_says_whether_its_links_to_all_others_stand() -> None:
    async def test(engines: Engines) -> None:
        health = health_pb2_grpc.HealthStub(engines.channel())
        request = health_pb2.HealthCheckRequest(service=PEERS)

        async def told(serves: bool) -> None:
            async with asyncio.timeout(10):
                while ((await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING) is not serves:
                    await asyncio.sleep(0.01)

        await told(True)
        await engines.down(2)
        await told(False)
        await engines.up(2)
        await told(True)

    run(test, 2)


def test_health_and_reflection_answer() -> None:
    async def test(engines: Engines) -> None:
        channel = engines.channel()
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = [service.name for service in (await call.read()).list_services_response.service]
        assert "lobmesh.v1.Orders" in names
        call.cancel()

    run(test)
