"""The SDK's reconnect contract: whatever breaks, each command has one effect and each report comes once, in order."""

import asyncio
import pickle
import random
import threading
from dataclasses import replace
from decimal import Decimal
from functools import partial
from inspect import signature
from typing import Any

import grpc
import pytest

from engine import node
from engine.client import (
    BadCommandError,
    Client,
    Commands,
    OutcomeUnknownError,
    RefusedError,
    Report,
    ReportsLostError,
    Session,
    SessionError,
    UnknownSymbolError,
    UnreachableError,
    report_queue,
)
from engine.client import session as sdk
from engine.client.sent import Sent
from engine.entry import reports
from engine.entry.link import LinkState
from engine.entry.reports import Follower, Outbox
from engine.log import kept
from engine.log.commit import Submission
from engine.log.memory import Fault
from proto import orders_pb2 as pb
from proto.columns import (
    ACCEPTED,
    BUY,
    CANCELED,
    LOG_FAILED,
    NEW,
    OUTCOME_UNKNOWN,
    REFUSED,
    REPLACED,
    SELL,
    TIF_IOC,
    TOO_LATE,
    TRADED,
    TYPE_MARKET,
    UNAVAILABLE,
    UNKNOWN,
    Terms,
)
from proto.orders import read_batch, unwrap, write_batch, write_reports
from tests.engines import Engines, Stuck, cluster_of, run, until
from tests.patience import patience

E1A, E2A = 10, 20


class Seeds:
    """A directory that always knows: a port that leads to where an engine is now."""

    def __init__(self, engines: Engines) -> None:
        self._engines = engines

    def client(self, account: int = 7, engine: int = 1, patience_s: float = 10.0, **options: object) -> Client:
        client = Client(["127.0.0.1:1"], account, engine=engine, patience_s=patience_s, **options)  # type: ignore[arg-type]
        for instrument in self._engines.cluster.instruments:
            client.instruments[instrument.id] = client.instruments[instrument.symbol] = instrument
        client.find = self._find(engine)  # type: ignore[method-assign]
        return client

    def _find(self, engine: int):  # type: ignore[no-untyped-def]
        async def find() -> str:
            endpoint = self._engines.endpoints.get(engine)
            if endpoint is None:
                raise UnreachableError("nobody knows")
            return endpoint

        return find


async def read(session: Session, count: int) -> list[Report]:
    """The next reports."""
    found: list[Report] = []

    async def collect() -> None:
        async for report in session:
            found.append(report)
            if len(found) == count:
                return

    await asyncio.wait_for(collect(), patience(10))
    return found


def test_single_commands_are_answered_by_their_reports() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            new = await session.new("E1A", BUY, "1.50", 5)
            assert (new.kind, new.price, new.quantity, new.row.price) == (ACCEPTED, Decimal("1.50"), 5, 150)
            replaced = await session.replace("E1A", new.client_order_id, Decimal("1.51"), "7")
            assert (replaced.kind, replaced.price, replaced.open) == (REPLACED, Decimal("1.51"), 7)
            canceled = await session.cancel("E1A", new.client_order_id)
            assert (canceled.kind, canceled.open) == (CANCELED, 0)
            with pytest.raises(RefusedError, match="too-late: the order is no longer live") as refused:
                await session.cancel("E1A", new.client_order_id)
            assert refused.value.reason == TOO_LATE
            await session.new("E1A", SELL, "1.50", 5)
            await session.new("E1A", BUY, quantity=2, type=TYPE_MARKET, time_in_force=TIF_IOC)
            # The last two: the market order meets the account's own and is taken back (self-trade prevention).
            assert [report.kind for report in await read(session, 7)] == [
                ACCEPTED, REPLACED, CANCELED, REFUSED, ACCEPTED, ACCEPTED, CANCELED,
            ]  # fmt: skip
            assert (await session.mass_cancel("E1A")).canceled == 1
            order = await session.client.order("E1A", new.client_order_id)
            assert order is not None
            assert not order.live
            assert await session.client.order("E1A", 1) is None
            assert not (await session.client.open_orders()).orders

    run(test)


UNSENDABLE: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"price": 1.5}, TypeError, "price is text or a Decimal, in units of price, not float"),
    ({"price": 120}, TypeError, "whole ticks go by price_ticks="),
    ({"price": True}, TypeError, "not bool"),
    ({"price": "nan"}, BadCommandError, "price 'nan' is not on a tick of 0.01"),
    ({"price": Decimal("NaN")}, BadCommandError, "bad-price"),
    ({"price": "1.505"}, BadCommandError, "price '1.505' is not on a tick of 0.01"),
    ({"price": "1e40"}, BadCommandError, "bad-price"),
    ({"price": ""}, BadCommandError, "bad-price"),
    ({"price": None}, BadCommandError, "an order of this type needs a price"),
    ({"price_ticks": 5}, TypeError, "price and price_ticks say the same"),
    ({"price": None, "price_ticks": 1.0}, TypeError, "price_ticks is a whole number, not float"),
    ({"price": None, "price_ticks": 1 << 80}, BadCommandError, "a value that its column cannot hold"),
    ({"quantity": -1}, BadCommandError, "bad-quantity: quantity '-1' is not one lot of 1 or more"),
    ({"quantity": 0}, BadCommandError, "bad-quantity"),
    ({"quantity": 10**30}, BadCommandError, "bad-quantity"),
    ({"quantity": 10**5000}, BadCommandError, "malformed"),
    ({"quantity": "five"}, BadCommandError, "quantity 'five'"),
    ({"quantity": 5.0}, TypeError, "not float; whole lots go by quantity_lots="),
    ({"quantity": True}, TypeError, "not bool"),
    ({"quantity": None}, BadCommandError, "the quantity is missing"),
    ({"quantity": None, "quantity_lots": -1}, BadCommandError, "a value that its column cannot hold"),
    ({"quantity_lots": 1}, TypeError, "quantity and quantity_lots say the same"),
    ({"display": 2.5}, TypeError, "display is an int, text or a Decimal"),
    ({"minimum_lots": -3}, BadCommandError, "malformed"),
    ({"stop_price": 9}, TypeError, "whole ticks go by stop_price_ticks="),
    ({"offset": 1}, TypeError, "whole ticks go by offset_ticks="),
    ({"expires_ns": -1}, BadCommandError, "malformed"),
    ({"expires_ns": None}, TypeError, "expires_ns is a whole number, not NoneType"),
    ({"oco": "7"}, TypeError, "oco is a whole number, not str"),
    ({"client_order_id": -5}, BadCommandError, "malformed"),
    ({"client_order_id": 1 << 64}, BadCommandError, "malformed"),
    ({"client_order_id": "5"}, TypeError, "client_order_id is a whole number"),
    ({"side": 2}, BadCommandError, "side is BUY or SELL"),
    ({"side": "buy"}, BadCommandError, "side is BUY or SELL"),
    ({"type": 1}, BadCommandError, "type one of TYPE_"),
    ({"time_in_force": 1}, BadCommandError, "time_in_force one of TIF_"),
    ({"type": TYPE_MARKET}, BadCommandError, "a market order has no price"),
    ({"symbol": "NOPE"}, UnknownSymbolError, "there is no instrument 'NOPE': there are E1A, E1B"),
    ({"symbol": 99}, UnknownSymbolError, "there are E1A, E1B"),
]


def test_what_cannot_be_sent_is_said_and_leaves_nothing_behind() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            order: dict[str, Any] = {"symbol": "E1A", "side": BUY, "price": "1.50", "quantity": 5, "client_order_id": 5}
            for wrong, kind, says in UNSENDABLE:
                with pytest.raises(kind) as error:
                    await session.new(**{**order, **wrong})
                assert says in str(error.value), wrong
                assert isinstance(error.value, RefusedError | TypeError)
                assert session.unanswered == 0, wrong
            with pytest.raises(BadCommandError, match="a replace states the price anew"):
                await session.replace("E1A", 5, quantity=5)
            with pytest.raises(TypeError, match="whole ticks go by price_ticks="):
                await session.replace("E1A", 5, price=150, quantity=5)  # type: ignore[arg-type]
            with pytest.raises(BadCommandError):
                await session.cancel("E1A", -1)
            assert (await session.new(**order)).client_order_id == 5  # its id was never taken
            assert [report.client_order_id for report in await read(session, 1)] == [5]
            await asyncio.wait_for(session.close(), 1)

    run(test)


def test_every_term_of_an_order_is_sent() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            for name in Terms._fields:  # none of which goes with a plain order of five lots
                whole = signature(session.new).parameters[name].default == 0
                with pytest.raises(RefusedError):
                    await session.new("E1A", BUY, price="1.50", quantity=5, **{name: 6 if whole else "6"})  # type: ignore[arg-type]

    run(test)


def test_a_batch_that_cannot_be_sent_leaves_nothing_behind() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            for wrong, says in (
                (Commands([NEW] * 2, [7, 7], [E1A] * 2, price=[5] * 2, quantity=[1] * 2), "an id that is given twice"),
                (Commands([NEW] * 2, [7, 8], [E1A], price=[5] * 2, quantity=[1] * 2), "columns of different lengths"),
                (Commands([NEW], [7], [E1A], price=[5], quantity=[-1]), "cannot hold"),
                (Commands([NEW], [7], [E1A], price=[None], quantity=[1]), "cannot hold"),
                (Commands([NEW], [7], [E1A], price=["5"], quantity=[1]), "cannot hold"),
                (Commands([NEW], [7], [E1A], price=[0.5], quantity=[1]), "cannot hold"),
                (Commands([NEW], [7], [1 << 32], price=[5], quantity=[1]), "cannot hold"),
            ):
                with pytest.raises(BadCommandError, match=says):
                    await session.submit(wrong)
                assert session.unanswered == 0
            right = await session.submit(Commands([NEW], [7], [E1A], price=[5], quantity=[1]), answers=True)
            assert [answer.kind for answer in await right] == [ACCEPTED]

    run(test)


def test_units_and_lots_say_the_same_of_an_instrument_whose_lot_is_not_one() -> None:
    async def test(engines: Engines) -> None:
        client = Seeds(engines).client()
        whole = client.instruments["E1A"]
        client.instruments["E1A"] = client.instruments[E1A] = replace(whole, lot_size=Decimal("0.5"))
        async with client.session() as session:
            for said in ({"quantity": 3}, {"quantity": "3.0"}, {"quantity": Decimal(3)}, {"quantity_lots": 6}):
                report = await session.new("E1A", BUY, price_ticks=150, **said)
                assert (report.quantity, report.row.quantity) == (3, 6)
                assert str(report.quantity) == "3.0"
            with pytest.raises(BadCommandError, match=r"not one lot of 0\.5 or more"):
                await session.new("E1A", BUY, "1.50", "0.25")

    run(test)


def test_a_report_shows_words_and_is_read_as_numbers() -> None:
    async def test(engines: Engines) -> None:
        seeds = Seeds(engines)
        async with seeds.client().session() as session, seeds.client(8).session() as other:
            await other.new("E1A", SELL, "1.50", 2, client_order_id=3)
            await session.new("E1A", BUY, "1.60", 5, client_order_id=4)
            accepted, traded = await read(session, 2)
            assert str(accepted) == "accepted E1A buy 5 @ 1.60, open 5, id 4"
            assert str(traded) == "traded E1A buy 2 @ 1.50, open 3, taker of trade 1, id 4"
            assert repr(traded) == f"<Report 1:2 {traded}>"
            assert f"{traded.kind:>8}|{traded.side}|{traded.symbol}" == "  traded|buy|E1A"
            assert (traded.kind, traded.side, traded.price, traded.row.price) == (TRADED, BUY, Decimal("1.50"), 150)
            assert pickle.loads(pickle.dumps(traded)).liquidity.word == "taker"
            with pytest.raises(RefusedError) as refused:
                await session.new("E1A", BUY, "2000", 1, client_order_id=5)
            assert str(refused.value) == (
                "refused: price-out-of-limits: the price is outside the instrument's limits: "
                "E1A takes 0.01 to 1000.00 in steps of 0.01"
            )
            (report,) = await read(session, 1)
            assert str(report).startswith("refused E1A price-out-of-limits, the price is outside")
            unknown = report._replace(definition=None)
            assert (unknown.symbol, unknown.price.is_nan(), unknown.quantity.is_nan()) == ("#10", True, True)

    run(test)


def test_a_batch_is_answered_row_by_row() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            commands = Commands(op=[NEW] * 3, instrument=[E1A] * 3, price=[5, 6, 200_000], quantity=[1, 2, 3])
            sent = await session.submit(commands, answers=True)
            answers = await asyncio.wait_for(sent, patience(5))
            assert [(a.client_order_id, a.row.price, a.reason) for a in answers] == [
                (id, price, reason)
                for id, price, reason in zip(commands.client_order_id, (5, 6, 200_000), (0, 0, 21), strict=True)
            ]
            assert session.unanswered == 0
            empty = await session.submit(Commands())
            assert await empty == []
            with pytest.raises(BadCommandError, match="a batch of 4097 commands"):
                await session.submit(Commands(op=[NEW] * 4_097))

    run(test)


def test_columns_are_what_rows_are() -> None:
    rows = Commands()
    rows.add(NEW, 1, E1A, 1, 5, 6, 7)
    rows.add(NEW, 2, E2A)
    columns = Commands([NEW] * 2, [1, 2], [E1A, E2A], [1, 0], [5, 0], [6, 0], [7, 0])
    assert write_batch(rows) == write_batch(columns)


def test_what_was_not_answered_is_sent_again_and_has_one_effect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "STOP_S", 0.05)  # an engine that goes does not wait for its log so long

    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            stuck = Stuck(engines, 1)
            orders = Commands(op=[NEW] * 50, instrument=[E1A] * 50, price=[5] * 50, quantity=[1] * 50)
            sent = await session.submit(orders, answers=True)
            await until(lambda: engines[1].committer.backlog == 50)
            waiting = asyncio.ensure_future(asyncio.wait_for(sent, patience(10)))
            # The append goes through while the engine, going down, waits for it: what was logged is not answered.
            threading.Timer(0.2, stuck.let_go).start()
            await engines.down(1)
            engines.disks[1].before_append = None
            assert not waiting.done()
            await engines.up(1)
            entered = Entered(engines, 1)
            fresh = await session.submit(Commands([NEW] * 3, [7, 8, 9], [E1A] * 3, price=[5] * 3, quantity=[1] * 3))
            answers = await waiting
            await asyncio.wait_for(fresh, patience(5))
            ids = [answer.client_order_id for answer in answers]
            assert ids == orders.client_order_id
            assert [order.client_order_id for order in engines[1].venue.open_orders(7)] == [*ids, 7, 8, 9]
            assert [report.seq for report in await read(session, 53)] == list(range(1, 54))
            assert session.connects == 2
            # One is sent again, since reports from the cursor on answer all that were had; then what never was.
            assert entered.ids == [ids[0], 7, 8, 9]

    run(test)


def test_commands_that_never_arrived_are_sent_again_in_their_order() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            endpoint = engines.endpoints.pop(1)
            await engines.down(1)
            batches = [
                await session.submit(Commands([NEW] * 2, [id, id + 1], [E1A] * 2, price=[5] * 2, quantity=[1] * 2))
                for id in (1, 3, 5)
            ]
            await engines.up(1)
            assert engines.endpoints[1] != endpoint
            for sent in batches:
                await asyncio.wait_for(sent, patience(5))
            assert [order.client_order_id for order in engines[1].venue.open_orders(7)] == [1, 2, 3, 4, 5, 6]

    run(test)


class Entered:
    """The ids of all commands that an engine hands to its log from now on."""

    def __init__(self, engines: Engines, engine: int) -> None:
        self.ids: list[int] = []
        committer = engines[engine].committer
        submit = committer.submit

        def noted(submission: Submission) -> None:
            self.ids += submission.batch.client_order_id if submission.batch is not None else []
            submit(submission)

        committer.submit = noted  # type: ignore[method-assign]


def test_reports_go_on_after_restarts_without_a_hole_and_without_a_repeat() -> None:
    seed = 17
    rng = random.Random(seed)

    async def test(engines: Engines) -> None:
        seeds = Seeds(engines)
        async with seeds.client(7).session() as maker, seeds.client(8, engine=2).session() as taker:
            got: dict[int, list[Report]] = {7: [], 8: []}

            async def follow(session: Session, account: int) -> None:
                async for report in session:
                    got[account].append(report)

            readers = [asyncio.ensure_future(follow(maker, 7)), asyncio.ensure_future(follow(taker, 8))]
            for step in range(12):
                flow = [
                    (session, Commands(
                        op=[NEW] * 20,
                        instrument=[rng.choice((E1A, E2A)) for _ in range(20)],
                        flags=[side] * 20,
                        price=[rng.randint(95, 105) for _ in range(20)],
                        quantity=[rng.randint(1, 9) for _ in range(20)],
                    ))
                    for session, side in ((maker, BUY), (taker, SELL))
                ]  # fmt: skip
                sent = [await session.submit(commands) for session, commands in flow]
                if step % 3 == 1:
                    engine = rng.choice((1, 2))
                    await engines.down(engine)
                    await engines.up(engine)
                await asyncio.wait_for(asyncio.gather(*(_all(one) for one in sent)), patience(10))
            await until(engines.linked)
            for account in (7, 8):
                for home in (1, 2):
                    last = engines[home].kept.last_seq(account)
                    await until(partial(_has, got[account], home, last))
                    assert _numbers(got[account], home) == list(range(1, last + 1)), seed
            bought = sum(r.quantity for r in got[7] if r.kind == TRADED)
            assert bought == sum(r.quantity for r in got[8] if r.kind == TRADED) > 0
            for reader in readers:
                reader.cancel()

    run(test, 2)


def _numbers(got: list[Report], home: int) -> list[int]:
    return [report.seq for report in got if report.home == home and report.seq]


def _has(got: list[Report], home: int, last: int) -> bool:
    return len(_numbers(got, home)) >= last


async def _listen(session: Session, told: list[int]) -> None:
    """Take in the numbers of all reports, until reading raises."""
    async with asyncio.timeout(patience(10)):
        async for batch in session.batches():
            told.extend(batch.first_seq + row for row in range(len(batch.kind)))


async def _all(sent: "Sent") -> None:
    await sent


def test_cursors_of_an_earlier_session_go_on_in_a_new_one() -> None:
    async def test(engines: Engines) -> None:
        seeds = Seeds(engines)
        async with seeds.client().session() as session:
            for _ in range(3):
                await session.new("E1A", BUY, "0.05", 1)
        async with seeds.client().session({1: 1}) as again:
            assert [report.seq for report in await read(again, 2)] == [2, 3]
            assert again.cursors == {1: 3}

    run(test)


def test_a_command_whose_home_does_not_answer_is_asked_for_again_under_its_id() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            stuck = Stuck(engines, 2)
            order = asyncio.ensure_future(session.new("E2A", BUY, "0.05", 1, client_order_id=77))
            await until(lambda: engines[1].links[2].state is LinkState.DOWN)  # it did not answer in time
            fresh = session.new("E2A", BUY, "0.05", 1, client_order_id=78)
            with pytest.raises(RefusedError) as refused:
                await fresh
            assert refused.value.reason == UNAVAILABLE
            assert not order.done()
            stuck.let_go()
            assert (await asyncio.wait_for(order, patience(10))).kind == ACCEPTED
            assert [order.client_order_id for order in engines[2].venue.open_orders(7)] == [77]
            kinds = [(report.kind, report.command) for report in await read(session, 2)]
            assert sorted(kinds) == [(ACCEPTED, 77), (REFUSED, 78)]  # and no word of what was not known for a while

    run(test, 2, answer_s=0.3)


def test_a_batch_whose_home_does_not_answer_is_unknown_as_a_whole_within_the_patience() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client(patience_s=0.5).session() as session:
            stuck = Stuck(engines, 2)
            orders = Commands([NEW] * 40, instrument=[E2A] * 40, price=[5] * 40, quantity=[1] * 40)
            sent = await session.submit(orders, answers=True)
            answers = await asyncio.wait_for(sent, patience(5))
            assert [(answer.kind, answer.reason) for answer in answers] == [(UNKNOWN, OUTCOME_UNKNOWN)] * 40
            assert [(report.command, report.kind) for report in await read(session, 40)] == [
                (id, UNKNOWN) for id in sent.ids
            ]
            stuck.let_go()
            await until(lambda: len(engines[2].venue.open_orders(7)) == 40)

    run(test, 2, answer_s=0.3)


def test_an_outcome_that_stays_unknown_is_said_within_the_patience_and_can_be_asked_for_again() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client(patience_s=0.5).session() as session:
            stuck = Stuck(engines, 2)
            with pytest.raises(OutcomeUnknownError) as unknown:
                await asyncio.wait_for(session.new("E2A", BUY, "0.05", 1, client_order_id=77), patience(5))
            assert unknown.value.report.command == 77
            stuck.let_go()
            await until(engines.linked)
            assert (await session.new("E2A", BUY, "0.05", 1, client_order_id=77)).kind == ACCEPTED
            assert [order.client_order_id for order in engines[2].venue.open_orders(7)] == [77]

    run(test, 2, answer_s=0.3)


def test_a_mass_cancel_of_everything_waits_for_every_engine() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            for symbol in ("E1A", "E2A", "E2B"):
                await session.new(symbol, BUY, "0.05", 1)
            assert await asyncio.wait_for(session.mass_cancel(), patience(5)) == (3, [])
            await engines.down(2)
            await until(lambda: engines[1].links[2].state is LinkState.DOWN)
            assert await asyncio.wait_for(session.mass_cancel(), patience(5)) == (0, [2])
            await engines.up(2)

    run(test, 2)


def test_a_log_failure_reaches_the_trader_as_a_reason() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            engines.disks[1].faults.append(Fault.FULL)
            for _ in range(2):
                with pytest.raises(RefusedError) as refused:
                    await session.new("E1A", BUY, "0.05", 1)
                assert refused.value.reason == LOG_FAILED

    run(test)


def test_a_session_that_is_not_wanted_says_why() -> None:
    async def test(engines: Engines) -> None:
        with pytest.raises(SessionError, match="account 9 may not trade here") as refused:
            async with Seeds(engines).client(9).session():
                pass
        assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED

    run(test, accounts=(7,))


def test_lost_reports_are_said_once_where_they_are_and_commands_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "HISTORY_MAX", 2)

    async def test(engines: Engines) -> None:
        seeds = Seeds(engines)
        async with seeds.client().session() as session:
            for _ in range(5):
                await session.new("E1A", BUY, "0.05", 1)
        async with seeds.client().session({1: 1}) as session:
            await session.new("E1A", BUY, "0.05", 1)
            with pytest.raises(ReportsLostError, match=r"engine 1: 2 to 3\): they are no longer held") as lost:
                await read(session, 1)
            assert lost.value.lost == {1: (2, 3)}
            assert [report.seq for report in await read(session, 3)] == [4, 5, 6]
        ahead = seeds.client().session({1: 9})  # of another log
        with pytest.raises(ReportsLostError, match="come back without it"):
            async with ahead:
                await read(ahead, 1)

    run(test)


def test_reports_that_nobody_reads_hold_nobody_up_and_are_told_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_queue, "UNREAD_MAX", 10)

    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            for _ in range(25):
                await asyncio.wait_for(session.new("E1A", BUY, "0.05", 1), patience(5))
            with pytest.raises(ReportsLostError, match="more than 10 reports were not read") as lost:
                await read(session, 1)
            assert lost.value.lost == {1: (1, 15)}
            assert [report.seq for report in await read(session, 10)] == list(range(16, 26))

    run(test)


@pytest.mark.parametrize("kept_for_reading", [False, True])
def test_a_mass_cancel_of_more_orders_than_there_is_room_for_gives_its_answer(
    monkeypatch: pytest.MonkeyPatch, kept_for_reading: bool
) -> None:
    monkeypatch.setattr(kept, "HISTORY_MAX", 500)
    monkeypatch.setattr(kept, "REPORTS_MAX", 100)
    monkeypatch.setattr(reports, "OUTBOX_MAX", 500)
    count = 3_000

    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session(reports=kept_for_reading) as session:
            orders = [Commands([NEW] * 100, instrument=[E1A] * 100, price=[5] * 100, quantity=[1] * 100)] * (
                count // 100
            )
            for commands in orders:
                commands.client_order_id = [0] * 100
                await (await session.submit(commands))
            assert await asyncio.wait_for(session.mass_cancel("E1A"), patience(10)) == (count, [])
            await session.new("E1A", BUY, "0.05", 1)
            assert await asyncio.wait_for(session.mass_cancel(), patience(10)) == (1, [])
            if kept_for_reading:
                told: list[int] = []
                with pytest.raises(ReportsLostError) as lost:
                    await _listen(session, told)
                ((first, last),) = lost.value.lost.values()
                assert told == list(range(1, first))
                assert [report.seq for report in await read(session, 2)] == [last + 1, last + 2]

    run(test)


def test_an_engine_that_does_not_come_back_is_unreachable_within_the_patience() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client(patience_s=0.3).session() as session:
            await engines.down(1)
            engines.endpoints.clear()
            with pytest.raises(UnreachableError, match=r"engine 1 did not come back within 0\.3 s: nobody knows"):
                await asyncio.wait_for(session.new("E1A", BUY, "0.05", 1), patience(5))
            with pytest.raises(UnreachableError):
                await session.new("E1A", BUY, "0.05", 1)
            await engines.up(1)

    run(test)


def test_a_seed_without_a_directory_is_itself_the_engine() -> None:
    async def test(engines: Engines) -> None:
        client = Client([engines.endpoints[1]], 7, instruments=engines.cluster.instruments)
        async with client.session() as session:
            assert (await session.new("E1A", BUY, "0.05", 1)).kind == ACCEPTED
            assert session.engine == 1

    run(test)


def test_submit_waits_when_too_much_is_unanswered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "WINDOW", 10)

    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            stuck = Stuck(engines, 1)
            orders = [Commands(op=[NEW] * 11, instrument=[E1A] * 11, price=[5] * 11, quantity=[1] * 11) for _ in (1, 2)]
            await session.submit(orders[0])
            second = asyncio.ensure_future(session.submit(orders[1]))
            await asyncio.sleep(0.05)
            assert not second.done()
            stuck.let_go()
            await asyncio.wait_for(second, patience(5))

    run(test)


def test_a_command_sent_again_is_not_taken_for_refused_because_its_home_is_not_linked_yet() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            stuck = Stuck(engines, 2)
            sent = await session.submit(
                Commands(op=[NEW] * 90, instrument=[E2A] * 90, price=[5] * 90, quantity=[1] * 90), answers=True
            )
            await until(lambda: engines[2].committer.backlog == 90)
            endpoint = engines.endpoints.pop(2)  # so that the restarted entry engine finds its way back late
            await engines.down(1)
            stuck.let_go()
            await engines.up(1)
            await until(lambda: session.connects == 2)
            assert len(engines[2].venue.open_orders(7)) == 90
            fresh = await session.submit(Commands(op=[NEW], instrument=[E2A], price=[5], quantity=[1]), answers=True)
            assert [answer.reason for answer in await asyncio.wait_for(fresh, patience(5))] == [UNAVAILABLE]
            assert not sent.done
            entered = Entered(engines, 2)
            engines.endpoints[2] = endpoint
            assert [answer.kind for answer in await asyncio.wait_for(sent, patience(5))] == [ACCEPTED] * 90
            assert [report.kind for report in await read(session, 91)] == [REFUSED, *[ACCEPTED] * 90]
            assert entered.ids in (
                [],
                sent.ids[:1],
            )  # the answers of all others come with the reports from the cursor on

    run(test, 2, answer_s=5.0)


class Wire:
    """A session without a connection: what it would write is taken from it, and what comes is put into it."""

    def __init__(self, patience_s: float) -> None:
        instruments = cluster_of(2).instruments
        self.session = Client("127.0.0.1:1", 7, patience_s=patience_s, instruments=instruments).session()
        self.session._task, self.session._loop = asyncio.current_task(), asyncio.get_running_loop()
        self.session._welcome(pb.Welcome(engine=1, session=1, engines=[1, 2]))

    async def written(self) -> list[int]:
        """The ids of the commands of its next messages."""
        await until(lambda: self.session._out)
        ids: list[int] = []
        while self.session._out:
            sent, message = self.session._out.popleft()
            sent.begun = True
            ids += read_batch(7, 0, 0, unwrap(message) or b"").client_order_id
        return ids

    def said(self, ids: list[int], kind: int, reason: int = 0, first_seq: int = 0) -> None:
        """Engine 2 says so of these commands."""
        rows = [value for id in ids for value in (kind, id, id, 0, E2A, 0, 5, 1, 0, 0, 0, reason)]
        self.session._take(write_reports(2, 7, first_seq, 0, 0, rows))


def test_a_silent_home_is_asked_for_one_command_and_for_the_rest_once_it_answers() -> None:
    async def test() -> None:
        wire = Wire(patience_s=30)
        orders = Commands([NEW] * 40, instrument=[E2A] * 40, price=[5] * 40, quantity=[1] * 40)
        sent = await wire.session.submit(orders, answers=True)
        assert await wire.written() == sent.ids
        wire.said(sent.ids, UNKNOWN, OUTCOME_UNKNOWN)
        for _ in range(2):
            assert await wire.written() == sent.ids[:1]
            wire.said(sent.ids[:1], REFUSED, UNAVAILABLE)
        assert await wire.written() == sent.ids[:1]
        wire.said(sent.ids[1:3], ACCEPTED, first_seq=1)  # had after all: its reports say so
        wire.said(sent.ids[:1], ACCEPTED, first_seq=3)
        assert await wire.written() == sent.ids[3:]  # the others never arrived
        wire.said(sent.ids[3:], ACCEPTED, first_seq=4)
        assert [answer.kind for answer in await asyncio.wait_for(sent, 1)] == [ACCEPTED] * 40

    asyncio.run(test())


def test_after_a_reconnect_a_home_that_hangs_does_not_hold_up_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "WELCOME_S", 0.1)

    async def test() -> None:
        wire = Wire(patience_s=30)
        both = Commands([NEW] * 4, [1, 2, 3, 4], [E2A, E1A, E2A, E1A], price=[5] * 4, quantity=[1] * 4)
        sent = await wire.session.submit(both)
        assert await wire.written() == [1, 2, 3, 4]
        wire.session._welcome(pb.Welcome(engine=1, session=1, engines=[1, 2]))
        fresh = await wire.session.submit(Commands([NEW], [5], [E1A], price=[5], quantity=[1]))
        assert await wire.written() == [1, 2]  # one of each home
        rows = [ACCEPTED, 2, 2, 0, E1A, 0, 5, 1, 0, 0, 0, 0]
        wire.session._take(write_reports(1, 7, 1, 0, 0, rows))
        assert await wire.written() == [4, 5]  # engine 2 hangs: its second one waits for the answer to its first
        assert not sent.done
        assert not fresh.done

    asyncio.run(test())


def test_reports_that_come_twice_are_given_once() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            for _ in range(3):
                await session.new("E1A", BUY, "0.05", 1)
            again = Follower(7, Outbox(), {1: 0})
            engines[1].hub.follow(again)
            for message in await again.outbox.take():
                session._take(unwrap(message) or b"")
            rows = [value for report in await read(session, 3) for value in report.row]
            session._take(write_reports(1, 7, 2, 0, 0, rows[12:] + rows[24:]))  # two old ones and a new one
            assert [report.seq for report in await read(session, 1)] == [4]

    run(test)
