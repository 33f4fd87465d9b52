"""Sessions and drop copies over real gRPC: commands in, every report out, once, also after a restart."""

import asyncio
from typing import Any

import grpc
import pytest

from engine.entry import reports
from engine.log import kept
from proto import orders_pb2 as pb
from proto.columns import (
    ACCEPTED,
    BAD_CLIENT_ORDER_ID,
    BAD_QUANTITY,
    CANCELED,
    DISCONNECTED,
    DUPLICATE_ID,
    MALFORMED,
    MASS_CANCEL_REASON,
    MASS_CANCELED,
    REFUSED,
    REPEAT,
    THROTTLED,
    TRADED,
)
from proto.connect import REQUEST_MAX
from tests.engines import EndOfStream, Engines, Stream, Stuck, order, run, status_of, until

INVALID = grpc.StatusCode.INVALID_ARGUMENT


async def _read_all(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


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
            call: Any = engines.channel().stream_stream("/lobmesh.v1.Orders/Session")()
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
