"""Commands for another engine's instruments: there and back, once, and what becomes of them when it is not well."""

import asyncio
from typing import Any

import grpc
import pytest

from engine.entry import home, link
from proto import orders_pb2 as pb
from proto.columns import (
    ACCEPTED,
    CANCELED,
    DISCONNECTED,
    MASS_CANCELED,
    OUTCOME_UNKNOWN,
    REFUSED,
    REPEAT,
    TRADED,
    UNAVAILABLE,
    UNKNOWN,
    UNKNOWN_ACCOUNT,
)
from tests.engines import EndOfStream, Engines, Stuck, run, status_of, until

E1A, E1B, E2A, E3A = 10, 11, 20, 30


def test_an_order_reaches_its_home_through_any_engine() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        await stream.new(1, E2A, 0, 100, 5)
        assert await stream.next(1) == [(2, 1, ACCEPTED, 1, 1, 5, 5, 0)]
        report = await engines.stub(1).NewOrder(
            pb.NewOrderRequest(account=7, client_order_id=2, symbol="E2A", price="1.01", quantity="4")
        )
        assert (report.kind, report.home, report.seq, report.symbol) == (ACCEPTED, 2, 2, "E2A")
        assert report.position == engines[2].log.position  # of its home's log
        assert [o.client_order_id for o in engines[2].venue.open_orders(7)] == [1, 2]
        assert not engines[1].venue.open_orders(7)
        found = await engines.stub(1).GetOrder(pb.GetOrderRequest(account=7, symbol="E2A", client_order_id=2))
        assert (found.price, found.live) == ("1.01", True)

    run(test, 2)


def test_both_sides_of_a_trade_get_their_reports_wherever_they_are_connected() -> None:
    async def test(engines: Engines) -> None:
        maker, taker = await engines.session(engine=2, account=7), await engines.session(engine=3, account=8)
        await maker.new(1, E1A, 0, 100, 5)
        assert await maker.next(1) == [(1, 1, ACCEPTED, 1, 1, 5, 5, 0)]
        await taker.new(1, E1A, 1, 100, 3)
        assert [r[:3] for r in await taker.next(2)] == [(1, 1, ACCEPTED), (1, 2, TRADED)]
        assert await maker.next(1) == [(1, 2, TRADED, 0, 1, 3, 2, 0)]

    run(test, 3)


def test_a_batch_of_several_homes_is_split_and_keeps_its_order_at_each() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        ids = list(range(1, 9))
        await stream.send(
            op=[1] * 8, client_order_id=ids, instrument=[E1A, E2A, E3A, E2A, E1B, E3A, E1A, 99], price=[5] * 8,
            quantity=[1] * 8,
        )  # fmt: skip
        reports = await stream.next(8)
        by_home = {home: [(r[1], r[2], r[3]) for r in reports if r[0] == home] for home in (1, 2, 3)}
        assert by_home == {
            1: [(1, ACCEPTED, 1), (2, ACCEPTED, 5), (3, ACCEPTED, 7), (4, REFUSED, 8)],
            2: [(1, ACCEPTED, 2), (2, ACCEPTED, 4)],
            3: [(1, ACCEPTED, 3), (2, ACCEPTED, 6)],
        }

    run(test, 3)


def test_the_same_command_through_two_engines_has_one_effect() -> None:
    async def test(engines: Engines) -> None:
        order = pb.NewOrderRequest(account=7, client_order_id=1, symbol="E1A", price="1", quantity="5")
        first = await engines.stub(2).NewOrder(order)
        again = await engines.stub(3).NewOrder(order)
        assert (first.repeat, again.repeat, again.order_id) == (False, True, first.order_id)
        await engines.down(1)
        await engines.up(1)
        await until(engines.linked)
        later = await engines.stub(2).NewOrder(order)
        assert (later.repeat, later.order_id) == (True, first.order_id)
        assert len(engines[1].venue.open_orders(7)) == 1

    run(test, 3)


def test_a_home_that_hangs_costs_its_own_instruments_only() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        stuck = Stuck(engines, 2)
        await stream.send(op=[1] * 2, client_order_id=[1, 2], instrument=[E2A, E1A], price=[5] * 2, quantity=[1] * 2)
        assert await stream.next(1) == [(1, 1, ACCEPTED, 2, 2, 1, 1, 0)]  # the other home answers at once
        for id in range(3, 20):
            await stream.new(id, E3A, 0, 5, 1)
            assert (await stream.next(1))[0][:4] == (3, id - 2, ACCEPTED, id)
        assert await stream.next(1) == [(2, 0, UNKNOWN, 1, 1, 1, 0, OUTCOME_UNKNOWN)]
        await stream.new(20, E2A, 0, 5, 1)  # by now the home is as good as gone
        assert (await stream.next(1))[0][2:4] in ((REFUSED, 20), (UNKNOWN, 20))
        stuck.let_go()
        await until(engines.linked)
        await stream.new(1, E2A, 0, 5, 1)  # again, under the same id
        reports = await stream.next(2)
        # Its effect was there: the report itself comes, and the answer to the repeat, which has no number.
        assert [r[:4] for r in reports if r[3] == 1] == [(2, 1, ACCEPTED, 1), (2, 0, ACCEPTED, 1)]
        assert len([o for o in engines[2].venue.open_orders(7) if o.client_order_id == 1]) == 1

    run(test, 3, answer_s=0.4)


def test_a_home_that_is_gone_makes_its_commands_unavailable_until_it_is_found_again_elsewhere() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        await stream.new(1, E2A, 0, 5, 1)
        await stream.next(1)
        before = engines.endpoints[2]
        await engines.down(2)
        await until(lambda: engines[1].links[2].state is link.LinkState.DOWN)
        await stream.new(2, E2A, 0, 5, 1)
        assert await stream.next(1) == [(2, 0, REFUSED, 2, 2, 1, 0, UNAVAILABLE)]
        report = await engines.stub(1).NewOrder(
            pb.NewOrderRequest(account=7, client_order_id=3, symbol="E2A", price="1", quantity="1")
        )
        assert (report.kind, report.reason, report.home) == (REFUSED, UNAVAILABLE, 2)
        wish = pb.GetOrderRequest(account=7, symbol="E2A", client_order_id=1)
        assert (await status_of(engines.stub(1).GetOrder(wish)))[0] is grpc.StatusCode.UNAVAILABLE
        await engines.up(2)
        assert engines.endpoints[2] != before
        await until(engines.linked)
        await stream.new(2, E2A, 0, 5, 1)
        assert await stream.next(1) == [(2, 2, ACCEPTED, 2, 2, 1, 1, 0)]

    run(test, 2)


def test_reports_missed_while_a_link_was_down_come_when_it_is_up_again_and_once() -> None:
    async def test(engines: Engines) -> None:
        away = await engines.session(engine=2, account=7)
        await away.new(1, E1A, 0, 100, 5)
        await away.next(1)
        await engines.down(1)
        await until(lambda: engines[2].links[1].state is link.LinkState.DOWN)
        endpoint = engines.endpoints.pop(1)
        hidden = engines.endpoints
        engines.endpoints = {}  # nobody finds it, but the test does
        await engines.up(1)
        there = await engines.session(engine=1, account=8)
        for id in (1, 2, 3):
            await there.new(id, E1A, 1, 100, 1)
            await there.next(2)
        hidden[1] = engines.endpoints[1]
        assert hidden[1] != endpoint
        engines.endpoints = hidden
        assert [r[:3] for r in await away.next(3)] == [(1, 2, TRADED), (1, 3, TRADED), (1, 4, TRADED)]
        await there.new(4, E1A, 1, 100, 1)
        assert [r[:3] for r in await away.next(1)] == [(1, 5, TRADED)]

    run(test, 2)


def test_a_session_goes_on_from_its_cursors_of_every_home() -> None:
    async def test(engines: Engines) -> None:
        first = await engines.session(engine=1)
        for id, instrument in enumerate((E1A, E2A, E2A, E1A, E2A), 1):
            await first.new(id, instrument, 0, 5, 1)
            await first.next(1)
        live = await engines.session(engine=1)
        assert sorted((c.home, c.last_seq) for c in live.welcome.cursors) == [(1, 2), (2, 3)]
        cursors = [pb.Cursor(home=1, last_seq=1), pb.Cursor(home=2, last_seq=1)]
        for engine in (1, 2):
            again = await engines.session(engine=engine, cursors=cursors)
            past = [(1, 2)] + [(2, seq) for seq in range(2, 3 + engine)]
            assert sorted(r[:2] for r in await again.next(len(past))) == past
            await again.new(100 + engine, E2A, 0, 5, 1)
            assert (await again.next(1))[0][:4] == (2, 3 + engine, ACCEPTED, 100 + engine)
        assert [r[:4] for r in await live.next(2)] == [(2, 4, ACCEPTED, 101), (2, 5, ACCEPTED, 102)]
        assert [r[:4] for r in await first.next(2)] == [(2, 4, ACCEPTED, 101), (2, 5, ACCEPTED, 102)]

    run(test, 2)


def test_reports_that_came_over_one_link_do_not_leave_by_another() -> None:
    async def test(engines: Engines) -> None:
        streams = {engine: await engines.session(engine=engine) for engine in (1, 2, 3)}
        for id, instrument in enumerate((E1A, E2A, E3A) * 5, 1):
            await streams[1].new(id, instrument, 0, 5, 1)
        for stream in streams.values():
            assert len(await stream.next(15)) == 15
        assert [link.connects for one in (1, 2, 3) for link in engines[one].links.values()] == [1] * 6

    run(test, 3)


def test_a_session_that_catches_up_while_reports_stream_in_misses_none() -> None:
    async def test(engines: Engines) -> None:
        busy = await engines.session(engine=2)
        await busy.new(1, E2A, 0, 5, 1)
        await busy.next(1)

        async def flow() -> None:
            for first in range(2, 20_000, 20):
                await busy.new_many(first, 20, E2A)
                await busy.next(20)

        flowing = asyncio.ensure_future(flow())
        first = await engines.session(engine=1)  # the link follows the account from here on
        for _ in range(20):
            stream = await engines.session(engine=1, cursors=[pb.Cursor(home=2, last_seq=1)])
            assert [r[:2] for r in await stream.next(60)] == [(2, seq) for seq in range(2, 62)]
            stream.call.cancel()
        began = next(c.last_seq for c in first.welcome.cursors if c.home == 2)
        assert [r[1] for r in await first.next(40)] == list(range(began + 1, began + 41))
        flowing.cancel()
        await asyncio.gather(flowing, return_exceptions=True)

    run(test, 2)


def test_a_drop_copy_has_the_reports_of_every_home() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        for id, instrument in enumerate((E1A, E2A), 1):
            await stream.new(id, instrument, 0, 5, 1)
        await stream.next(2)
        copy = engines.stub(2).Executions(pb.ExecutionsRequest(account=7))
        batches = [await copy.read() for _ in range(2)]
        assert sorted((batch.home, batch.first_seq) for batch in batches) == [(1, 1), (2, 1)]

    run(test, 2)


def test_a_mass_cancel_reaches_every_engine_and_names_those_that_did_not_answer() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        for id, instrument in enumerate((E1A, E2A, E2A, E3A), 1):
            await stream.new(id, instrument, 0, 5, 1)
        await stream.next(4)
        orders = await engines.stub(1).OpenOrders(pb.OpenOrdersRequest(account=7))
        assert (len(orders.orders), list(orders.engines_missing)) == (4, [])
        await engines.down(3)
        await until(lambda: engines[1].links[3].state is link.LinkState.DOWN)
        orders = await engines.stub(1).OpenOrders(pb.OpenOrdersRequest(account=7))
        assert (len(orders.orders), list(orders.engines_missing)) == (3, [3])
        reply = await engines.stub(1).MassCancel(pb.MassCancelRequest(account=7, client_order_id=9))
        assert sorted((r.home, r.kind, r.quantity) for r in reply.reports) == [
            (1, MASS_CANCELED, "1"), (2, MASS_CANCELED, "2"),
        ]  # fmt: skip
        assert list(reply.engines_missing) == [3]
        await engines.up(3)
        await until(engines.linked)
        await stream.next(5)
        await stream.send(op=[4], client_order_id=[10])
        answers = [r for r in await stream.next(4) if r[3] == 10]
        assert sorted((r[0], r[2], r[5]) for r in answers) == [
            (1, MASS_CANCELED, 0), (2, MASS_CANCELED, 0), (3, MASS_CANCELED, 1),
        ]  # fmt: skip

    run(test, 3)


def test_when_the_entry_engine_dies_the_home_cancels_for_those_who_asked_and_do_not_come_back() -> None:
    async def test(engines: Engines) -> None:
        back = await engines.session(engine=2, account=7, cancel_on_disconnect=True)
        gone = await engines.session(engine=2, account=8, cancel_on_disconnect=True)
        never = await engines.session(engine=2, account=9)
        for stream in (back, gone, never):
            await stream.new(1, E1A, 0, 5, 1)
            await stream.next(1)
        await engines.down(2)
        resumed = await engines.session(
            engine=1,
            account=7,
            cancel_on_disconnect=True,
            session=back.welcome.session,
            cursors=[pb.Cursor(home=1, last_seq=1)],
        )
        await until(lambda: not engines[1].venue.open_orders(8))
        await asyncio.sleep(0.05)  # a little more than the grace, and nothing else is canceled
        assert len(engines[1].venue.open_orders(7)) == len(engines[1].venue.open_orders(9)) == 1
        resumed.call.cancel()
        await until(lambda: not engines[1].venue.open_orders(7))
        copy = engines.stub(1).Executions(pb.ExecutionsRequest(account=8, cursors=[pb.Cursor(home=1, last_seq=1)]))
        assert [(list(r.kind), list(r.reason)) for r in [await copy.read()]] == [([CANCELED], [DISCONNECTED])]

    run(test, 2)


def test_a_session_that_ends_has_its_orders_canceled_at_every_home() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1, cancel_on_disconnect=True)
        for id, instrument in enumerate((E1A, E2A, E3A), 1):
            await stream.new(id, instrument, 0, 5, 1)
        await stream.next(3)
        stream.call.cancel()
        await until(lambda: not any(engines[engine].venue.open_orders(7) for engine in (1, 2, 3)))

    run(test, 3)


def test_a_session_stays_its_own_while_links_break_and_come_back() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1, cancel_on_disconnect=True)
        await stream.new(1, E2A, 0, 5, 1)
        await stream.next(1)
        await engines.down(2)
        await engines.up(2)  # finds the order in its log: the entry engine has to stand for its session again
        await until(engines.linked)
        await asyncio.sleep(0.5)  # the grace and more
        assert len(engines[2].venue.open_orders(7)) == 1
        stream.call.cancel()
        await until(lambda: not engines[2].venue.open_orders(7))

    run(test, 2, grace_s=0.3)


def test_more_than_a_link_holds_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "QUEUE_MAX", 10)

    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        stuck = Stuck(engines, 2)
        await stream.new_many(1, 8, E2A)
        await stream.new_many(9, 8, E2A)
        assert [(r[2], r[3], r[7]) for r in await stream.next(8)] == [(REFUSED, id, UNAVAILABLE) for id in range(9, 17)]
        stuck.let_go()
        assert [r[:4] for r in await stream.next(8)] == [(2, id, ACCEPTED, id) for id in range(1, 9)]

    run(test, 2, answer_s=10)


def test_repeats_come_back_over_a_link_without_a_number() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        await stream.new(1, E2A, 0, 5, 1)
        await stream.next(1)
        await stream.new(1, E2A, 0, 5, 1)
        batch = pb.ReportBatch.FromString((await stream.read()).reports)
        assert (batch.home, batch.first_seq, list(batch.flags)) == (2, 0, [REPEAT])

    run(test, 2)


HELLO = pb.LinkRequest(hello=pb.LinkHello(engine=2)).SerializeToString()


def linked(account: int, stp: int = 0, session: int = 0) -> bytes:
    """One new order, as an entry engine sends it."""
    order = pb.CommandBatch(op=[1], client_order_id=[1], instrument=[E1A], price=[5], quantity=[1]).SerializeToString()
    message = pb.LinkCommands(account=account, session=session, commands=order)
    if stp:
        message.self_trade_prevention = stp  # type: ignore[assignment]
    return pb.LinkRequest(commands=message).SerializeToString()


def told_session(account: int, session: int, closed: bool = False) -> bytes:
    said = pb.LinkSession(account=account, session=session, cancel_on_disconnect=True, closed=closed)
    return pb.LinkRequest(session=said).SerializeToString()


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([b"\xff"], "garbled"),
        ([pb.LinkRequest(hello=pb.LinkHello(engine=1)).SerializeToString()], "the hello names no other engine"),
        ([b""], "the hello names no other engine"),
        ([pb.LinkRequest(hello=pb.LinkHello(engine=2)).SerializeToString(), b""], "a request of no kind"),
        (
            [
                pb.LinkRequest(hello=pb.LinkHello(engine=2)).SerializeToString(),
                pb.LinkRequest(commands=pb.LinkCommands(account=7, commands=b"\xff")).SerializeToString(),
            ],
            "not a CommandBatch",
        ),
        ([HELLO, linked(account=7, stp=300)], "unknown self-trade prevention"),
        ([HELLO, linked(account=7, stp=5)], "unknown self-trade prevention"),
        ([HELLO, linked(account=0)], "no account is named"),
        ([HELLO, told_session(account=0, session=1)], "a session without a number, or of nobody"),
        ([HELLO, told_session(account=7, session=0)], "a session without a number, or of nobody"),
    ],
)
def test_a_garbled_link_is_ended_and_the_engine_untouched(messages: list[bytes], why: str) -> None:
    async def test(engines: Engines) -> None:
        call: Any = engines.channel().stream_stream("/lobmesh.v1.Peers/Link")()
        for message in messages:
            await call.write(message)
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert ended.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert why in (ended.value.details() or "")
        assert engines[1].log.position == 1

    run(test)


def test_sessions_that_entered_nothing_leave_nothing_in_log_and_core_however_many_a_link_opens_and_closes() -> None:
    async def test(engines: Engines) -> None:
        call: Any = engines.channel().stream_stream("/lobmesh.v1.Peers/Link")()
        await call.write(HELLO)
        for nth in range(1, 301):
            await call.write(told_session(account=nth, session=nth))
            if nth % 2:
                await call.write(told_session(account=nth, session=nth, closed=True))
        await call.write(told_session(account=7, session=999))
        await call.write(linked(account=7, session=999))
        await until(lambda: engines[1].venue.sessions() == [(7, 999)])
        await call.write(told_session(account=7, session=999, closed=True))
        await until(lambda: not engines[1].venue.sessions())
        call.cancel()
        await until(lambda: not engines[1].presence._owners)
        await engines[1].committer.settled()
        assert list(engines[1].venue.accounts) == [7]
        assert engines[1].log.position == 3  # the epoch, the order, and the one end that canceled something
        assert (engines[1].presence._orphans, engines[1].presence._entered) == ({}, set())

    run(test)


@pytest.mark.parametrize("kind", ["sessions are open", "accounts are followed"])
def test_a_link_opens_and_follows_so_many_and_no_more(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "SESSIONS_MAX", 20)
    monkeypatch.setattr(home, "FOLLOWED_MAX", 20)

    def wish(nth: int, over: bool) -> bytes:
        if kind == "sessions are open":
            return told_session(account=nth, session=nth, closed=over)
        return pb.LinkRequest(follow=pb.LinkFollow(account=nth, stop=over)).SerializeToString()

    async def test(engines: Engines) -> None:
        call: Any = engines.channel().stream_stream("/lobmesh.v1.Peers/Link")()
        await call.write(HELLO)
        for nth in range(1, 101):  # what was given up again does not count
            await call.write(wish(nth, False))
            await call.write(wish(nth, True))
        for nth in range(1, 22):
            await call.write(wish(nth, False))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            while await call.read() is not grpc.aio.EOF:
                pass
        assert (ended.value.code(), ended.value.details()) == (
            grpc.StatusCode.INVALID_ARGUMENT, f"garbled: more than 20 {kind}"
        )  # fmt: skip
        assert engines[1].log.position == 1

    run(test)


def test_what_comes_over_a_link_for_an_account_that_may_not_trade_is_refused() -> None:
    async def test(engines: Engines) -> None:
        call: Any = engines.channel().stream_stream("/lobmesh.v1.Peers/Link")()
        for message in (HELLO, linked(account=9)):
            await call.write(message)
        replies = [pb.LinkReply.FromString(await call.read()) for _ in range(3)]
        refused = pb.ReportBatch.FromString(replies[1].reports)
        assert (list(refused.kind), list(refused.reason), refused.first_seq) == ([REFUSED], [UNKNOWN_ACCOUNT], 0)
        assert replies[2].answered == 1
        assert engines[1].log.position == 1

    run(test, accounts=(7,))


def test_a_stopped_engine_ends_its_sessions_so_that_they_come_back() -> None:
    async def test(engines: Engines) -> None:
        stream = await engines.session(engine=1)
        await engines.down(1)
        with pytest.raises(EndOfStream) as ended:
            await stream.read()
        assert (ended.value.code, ended.value.details) == (grpc.StatusCode.UNAVAILABLE, "the engine is stopping")
        await engines.up(1)

    run(test)
