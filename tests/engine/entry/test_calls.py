"""The calls that people and scripts make: each answered by a report, or by a status where no report can say it."""

from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor

from proto import orders_pb2 as pb
from proto.columns import (
    ACCEPTED,
    BAD_CLIENT_ORDER_ID,
    BAD_PRICE,
    BAD_QUANTITY,
    CANCELED,
    DUPLICATE_ID,
    MALFORMED,
    MASS_CANCELED,
    PRICE_OUT_OF_LIMITS,
    REFUSED,
    REPLACED,
    UNKNOWN_INSTRUMENT,
    Terms,
)
from proto.refusals import DETAIL_MAX
from tests.engines import Engines, order, run, status_of

INVALID = grpc.StatusCode.INVALID_ARGUMENT


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


REFUSALS: list[tuple[dict[str, Any], int]] = [
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


def test_every_term_of_an_order_is_passed_on() -> None:
    async def test(engines: Engines) -> None:
        stub = engines.stub()
        for id, name in enumerate(Terms._fields, 1):  # none of which goes with a plain order of five lots
            text = pb.NewOrderRequest.DESCRIPTOR.fields_by_name[name].type == FieldDescriptor.TYPE_STRING
            report = await stub.NewOrder(order(id, **{name: "6" if text else 6}))
            assert report.kind == REFUSED, name

    run(test)


def test_garbled_calls_are_invalid_and_leave_the_engine_untouched() -> None:
    async def test(engines: Engines) -> None:
        before = (engines[1].venue.digest(), engines[1].log.position)
        for method in ("NewOrder", "CancelOrder", "ReplaceOrder", "MassCancel", "GetOrder", "OpenOrders"):
            call: Any = engines.channel().unary_unary(f"/lobmesh.v1.Orders/{method}")
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
