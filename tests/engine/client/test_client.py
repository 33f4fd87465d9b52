"""The SDK's reconnect contract: whatever breaks, each command has one effect and each report comes once, in order."""

import asyncio
import random
import threading
from decimal import Decimal
from functools import partial

import grpc
import pytest

from engine.client import client as sdk
from engine.client.client import (
    Client,
    Commands,
    OutcomeUnknownError,
    RefusedError,
    Report,
    ReportsLostError,
    Session,
    SessionError,
    UnreachableError,
)
from engine.entry.links import LinkState
from engine.entry.reports import Follower, Outbox
from engine.log import kept
from engine.log.memory import Fault
from proto.columns import (
    ACCEPTED,
    BUY,
    CANCELED,
    LOG_FAILED,
    NEW,
    REFUSED,
    REPLACED,
    REPORT_WIDTH,
    SELL,
    TIF_IOC,
    TOO_LATE,
    TRADED,
    TYPE_MARKET,
    UNAVAILABLE,
)
from proto.orders import unwrap, write_batch, write_reports
from tests.engines import Engines, Stuck, run, until

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

    await asyncio.wait_for(collect(), 10)
    return found


def test_single_commands_are_answered_by_their_reports() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            new = await session.new("E1A", BUY, "1.50", 5)
            assert (new.kind, new.price, new.quantity) == (ACCEPTED, 150, 5)
            replaced = await session.replace("E1A", new.client_order_id, Decimal("1.51"), "7")
            assert (replaced.kind, replaced.price, replaced.open) == (REPLACED, 151, 7)
            canceled = await session.cancel("E1A", new.client_order_id)
            assert (canceled.kind, canceled.open) == (CANCELED, 0)
            with pytest.raises(RefusedError, match="REASON_TOO_LATE") as refused:
                await session.cancel("E1A", new.client_order_id)
            assert refused.value.reason == TOO_LATE
            await session.new("E1A", SELL, 150, 5)
            await session.new("E1A", BUY, 0, 2, type=TYPE_MARKET, time_in_force=TIF_IOC)
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


def test_a_float_is_no_price_and_no_quantity() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            with pytest.raises(TypeError):
                await session.new("E1A", BUY, 1.5, 5)  # type: ignore[arg-type]
            with pytest.raises(TypeError):
                await session.new("E1A", BUY, "1.5", 5.0)  # type: ignore[arg-type]
            with pytest.raises(KeyError):
                await session.new("NOPE", BUY, "1.5", 5)

    run(test)


def test_a_batch_is_answered_row_by_row() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            commands = Commands(op=[NEW] * 3, instrument=[E1A] * 3, price=[5, 6, 200_000], quantity=[1, 2, 3])
            sent = await session.submit(commands, answers=True)
            answers = await asyncio.wait_for(sent, 5)
            assert [(a.client_order_id, a.price, a.reason) for a in answers] == [
                (id, price, reason)
                for id, price, reason in zip(commands.client_order_id, (5, 6, 200_000), (0, 0, 21), strict=True)
            ]
            assert session.unanswered == 0
            empty = await session.submit(Commands())
            assert await empty == []
            with pytest.raises(ValueError, match="a batch of 4097 commands"):
                await session.submit(Commands(op=[NEW] * 4_097))

    run(test)


def test_columns_are_what_rows_are() -> None:
    rows = Commands()
    rows.add(NEW, 1, E1A, 1, 5, 6, 7)
    rows.add(NEW, 2, E2A)
    columns = Commands([NEW] * 2, [1, 2], [E1A, E2A], [1, 0], [5, 0], [6, 0], [7, 0])
    assert write_batch(rows.batch(7)) == write_batch(columns.batch(7))


def test_what_was_not_answered_is_sent_again_and_has_one_effect() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            stuck = Stuck(engines, 1)
            orders = Commands(op=[NEW] * 50, instrument=[E1A] * 50, price=[5] * 50, quantity=[1] * 50)
            sent = await session.submit(orders, answers=True)
            await until(lambda: engines[1].committer.backlog == 50)
            waiting = asyncio.ensure_future(asyncio.wait_for(sent, 10))
            # The append goes through while the engine, going down, waits for it: what was logged is not answered.
            threading.Timer(0.2, stuck.let_go).start()
            await engines.down(1)
            engines.disks[1].before_append = None
            assert not waiting.done()
            await engines.up(1)
            answers = await waiting
            assert [answer.client_order_id for answer in answers] == orders.client_order_id
            assert [order.client_order_id for order in engines[1].venue.open_orders(7)] == orders.client_order_id
            assert [report.seq for report in await read(session, 50)] == list(range(1, 51))
            assert session.connects == 2

    run(test)


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
                await asyncio.wait_for(asyncio.gather(*(_all(one) for one in sent)), 10)
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


async def _all(sent: sdk.Sent) -> None:
    await sent


def test_cursors_of_an_earlier_session_go_on_in_a_new_one() -> None:
    async def test(engines: Engines) -> None:
        seeds = Seeds(engines)
        async with seeds.client().session() as session:
            for _ in range(3):
                await session.new("E1A", BUY, 5, 1)
        async with seeds.client().session({1: 1}) as again:
            assert [report.seq for report in await read(again, 2)] == [2, 3]
            assert again.cursors == {1: 3}

    run(test)


def test_a_forwarded_command_without_an_answer_has_an_unknown_outcome_and_can_be_sent_again() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            stuck = Stuck(engines, 2)
            with pytest.raises(OutcomeUnknownError) as unknown:
                await session.new("E2A", BUY, 5, 1, client_order_id=77)
            assert unknown.value.report.command == 77
            with pytest.raises(RefusedError) as refused:
                await session.new("E2A", BUY, 5, 1, client_order_id=78)
            assert refused.value.reason == UNAVAILABLE
            stuck.let_go()
            await until(engines.linked)
            assert (await session.new("E2A", BUY, 5, 1, client_order_id=77)).kind == ACCEPTED
            assert [order.client_order_id for order in engines[2].venue.open_orders(7)] == [77]

    run(test, 2, answer_s=0.3)


def test_a_mass_cancel_of_everything_waits_for_every_engine() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            for symbol in ("E1A", "E2A", "E2B"):
                await session.new(symbol, BUY, 5, 1)
            assert await asyncio.wait_for(session.mass_cancel(), 5) == (3, [])
            await engines.down(2)
            await until(lambda: engines[1].links[2].state is LinkState.DOWN)
            assert await asyncio.wait_for(session.mass_cancel(), 5) == (0, [2])
            await engines.up(2)

    run(test, 2)


def test_a_log_failure_reaches_the_trader_as_a_reason() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            engines.disks[1].faults.append(Fault.FULL)
            for _ in range(2):
                with pytest.raises(RefusedError) as refused:
                    await session.new("E1A", BUY, 5, 1)
                assert refused.value.reason == LOG_FAILED

    run(test)


def test_a_session_that_is_not_wanted_says_why() -> None:
    async def test(engines: Engines) -> None:
        with pytest.raises(SessionError, match="account 9 may not trade here") as refused:
            async with Seeds(engines).client(9).session():
                pass
        assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED

    run(test, accounts=(7,))


def test_lost_reports_are_said_and_not_jumped_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "HISTORY_MAX", 2)

    async def test(engines: Engines) -> None:
        seeds = Seeds(engines)
        async with seeds.client().session() as session:
            for _ in range(5):
                await session.new("E1A", BUY, 5, 1)
        async with seeds.client().session({1: 1}) as session:
            with pytest.raises(ReportsLostError):
                await read(session, 1)
            with pytest.raises(ReportsLostError):
                await session.new("E1A", BUY, 5, 1)

    run(test)


def test_an_engine_that_does_not_come_back_is_unreachable_within_the_patience() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client(patience_s=0.3).session() as session:
            await engines.down(1)
            engines.endpoints.clear()
            with pytest.raises(UnreachableError):
                await asyncio.wait_for(session.new("E1A", BUY, 5, 1), 5)
            with pytest.raises(UnreachableError):
                await session.new("E1A", BUY, 5, 1)
            await engines.up(1)

    run(test)


def test_a_seed_without_a_directory_is_itself_the_engine() -> None:
    async def test(engines: Engines) -> None:
        client = Client([engines.endpoints[1]], 7, instruments=engines.cluster.instruments)
        async with client.session() as session:
            assert (await session.new("E1A", BUY, 5, 1)).kind == ACCEPTED
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
            await asyncio.wait_for(second, 5)

    run(test)


def test_a_command_sent_again_is_not_taken_for_refused_because_its_home_is_not_linked_yet() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            stuck = Stuck(engines, 2)
            sent = await session.submit(
                Commands(op=[NEW] * 3, instrument=[E2A] * 3, price=[5] * 3, quantity=[1] * 3), answers=True
            )
            await until(lambda: engines[2].committer.backlog == 3)
            endpoint = engines.endpoints.pop(2)  # so that the restarted entry engine finds its way back late
            await engines.down(1)
            stuck.let_go()
            await engines.up(1)
            await until(lambda: session.connects == 2)
            assert len(engines[2].venue.open_orders(7)) == 3
            fresh = await session.submit(Commands(op=[NEW], instrument=[E2A], price=[5], quantity=[1]), answers=True)
            assert [answer.reason for answer in await asyncio.wait_for(fresh, 5)] == [UNAVAILABLE]
            assert not sent.done
            engines.endpoints[2] = endpoint
            assert [answer.kind for answer in await asyncio.wait_for(sent, 5)] == [ACCEPTED] * 3
            assert [report.kind for report in await read(session, 4)] == [REFUSED, ACCEPTED, ACCEPTED, ACCEPTED]

    run(test, 2, answer_s=5.0)


def test_reports_that_come_twice_are_given_once() -> None:
    async def test(engines: Engines) -> None:
        async with Seeds(engines).client().session() as session:
            for _ in range(3):
                await session.new("E1A", BUY, 5, 1)
            again = Follower(7, Outbox(), {1: 0})
            engines[1].hub.follow(again)
            for message in await again.outbox.take():
                session._take(unwrap(message) or b"")
            rows = [value for report in await read(session, 3) for value in report[-REPORT_WIDTH:]]
            session._take(write_reports(1, 7, 2, 0, 0, rows[12:] + rows[24:]))  # two old ones and a new one
            assert [report.seq for report in await read(session, 1)] == [4]

    run(test)
