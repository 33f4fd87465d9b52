"""An account's reports as a list: whole, or it says that it is not."""

import asyncio

import grpc
import pytest

from engine.client import NEW, Client, Commands, IncompleteError, Report, SessionError, UnreachableError, executions
from engine.entry import reports
from engine.entry.link import LinkState
from engine.log import kept
from tests.engines import Engines, run, until
from tests.patience import patience

E1A, E2A = 10, 20


def client_of(engines: Engines, account: int = 7, engine: int = 1) -> Client:
    return Client(engines.endpoints[engine], account, instruments=engines.cluster.instruments)


async def enter(engines: Engines, counts: dict[int, int]) -> None:
    """Orders that rest: so many for each instrument."""
    async with client_of(engines).session(reports=False) as session:
        for instrument, count in counts.items():
            for _ in range(count):
                await (await session.submit(Commands([NEW], instrument=[instrument], price=[5], quantity=[1])))


async def listed(found: executions.Executions) -> list[Report]:
    async with asyncio.timeout(patience(20)):
        return [report async for report in found]


def numbers(found: list[Report], home: int) -> list[int]:
    return [report.seq for report in found if report.home == home]


def test_every_report_of_every_home_is_there_and_then_it_ends() -> None:
    async def test(engines: Engines) -> None:
        await enter(engines, {E1A: 30, E2A: 20})
        found = await listed(client_of(engines).executions())
        assert (numbers(found, 1), numbers(found, 2)) == ([*range(1, 31)], [*range(1, 21)])
        assert {report.symbol for report in found} == {"E1A", "E2A"}
        later = await listed(client_of(engines).executions({1: 28, 2: 20}))
        assert [(report.home, report.seq) for report in later] == [(1, 29), (1, 30)]
        assert await listed(client_of(engines, account=9).executions()) == []

    run(test, 2)


def test_a_reader_who_takes_their_time_gets_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "OUTBOX_MAX", 10)
    monkeypatch.setattr(executions, "PROGRESS_S", 0.5)

    async def test(engines: Engines) -> None:
        await enter(engines, {E1A: 200})
        found: list[int] = []
        async for report in client_of(engines).executions():
            if report.seq in (50, 150):
                await asyncio.sleep(0.7)
            if report.seq == 100:
                await enter(engines, {E1A: 50})
            found.append(report.seq)
        assert found[:200] == [*range(1, 201)]  # those that came meanwhile may be there, too
        assert found == [*range(1, len(found) + 1)]

    run(test)


def test_reports_that_are_no_longer_held_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "HISTORY_MAX", 5)

    async def test(engines: Engines) -> None:
        await enter(engines, {E1A: 12})
        found: list[int] = []
        with pytest.raises(IncompleteError, match="engine 1: reports 1 to 7 are no longer held"):
            async for report in client_of(engines).executions():
                found.append(report.seq)  # noqa: PERF401  (what comes before the exception counts)
        assert found == [*range(8, 13)]
        with pytest.raises(IncompleteError, match=r"no longer held \(engine 1: 4 asked, 8 held\)"):
            await listed(client_of(engines).executions({1: 3}))

    run(test)


def test_an_engine_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "STAND_S", 0.5)
    monkeypatch.setattr(executions, "PROGRESS_S", 0.5)

    async def test(engines: Engines) -> None:
        await enter(engines, {E1A: 3, E2A: 3})
        await engines.down(2)
        await until(lambda: engines[1].links[2].state is LinkState.DOWN)
        with pytest.raises(IncompleteError, match="engine 2: reports 1 to 3 did not come"):
            await listed(client_of(engines).executions())
        with pytest.raises(IncompleteError, match="engine 2 does not answer"):  # nor did it ever say of this account
            await listed(client_of(engines, account=8).executions())
        await engines.up(2)

    run(test, 2)


def test_reports_that_stop_coming_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executions, "PROGRESS_S", 0.5)

    async def test(engines: Engines) -> None:
        await enter(engines, {E1A: 3})
        found = client_of(engines).executions()
        ask = found._stand

        async def boast() -> list[int]:
            silent = await ask()
            found._due[1] = 5
            return silent

        found._stand = boast  # type: ignore[method-assign]
        with pytest.raises(IncompleteError, match="engine 1: reports 4 to 5 did not come"):
            await listed(found)

    run(test)


def test_with_follow_it_goes_on_also_after_a_restart() -> None:
    async def test(engines: Engines) -> None:
        client = client_of(engines)
        found: list[int] = []

        async def follow() -> None:
            async for report in client.executions(follow=True):
                found.append(report.seq)  # noqa: PERF401

        await enter(engines, {E1A: 3})
        reader = asyncio.create_task(follow())
        await until(lambda: found == [1, 2, 3])
        await engines.down(1)
        await engines.up(1)
        client._seeds = [engines.endpoints[1]]
        await enter(engines, {E1A: 2})
        await until(lambda: found == [1, 2, 3, 4, 5])
        reader.cancel()

    run(test)


def test_who_may_not_ask_is_told_and_where_nobody_is_that_is_said() -> None:
    async def test(engines: Engines) -> None:
        with pytest.raises(SessionError) as refused:
            await listed(client_of(engines, account=9).executions())
        assert refused.value.code is grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(UnreachableError, match=r"127\.0\.0\.1:1: nobody answers"):
            await listed(Client("127.0.0.1:1", 7).executions())

    run(test, accounts=(7,))
