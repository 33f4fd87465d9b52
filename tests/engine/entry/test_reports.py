"""Reports on their way: bounded, never twice, never with a hole."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.entry import reports
from engine.entry.reports import CutOff, CutOffError, Follower, Hub, Outbox
from engine.log import kept
from engine.log.kept import KeptReports
from proto.columns import AccountReports, Outcome
from proto.orders import read_reports, unwrap, write_reports
from tests.patience import patience

HOME = 1


def rows(first: int, count: int) -> list[int]:
    """Report rows whose command is their number."""
    return [value for n in range(first, first + count) for value in (1, n, n, n, 1, 0, 5, 1, 1, 0, 0, 0)]


def release(hub: Hub, first: int, count: int, account: int = 7) -> None:
    hub.release(account, first, 100 + first, 1_000 + first, rows(first, count))


async def taken(follower: Follower) -> list[int]:
    """The commands of all that waits in its outbox."""
    found: list[int] = []
    for message in await follower.outbox.take():
        body = unwrap(message) if follower.wrapped else message
        assert body is not None
        found += read_reports(body).command
    return found


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), patience(10))

    asyncio.run(main())


def test_a_follower_without_a_cursor_begins_live_and_one_with_a_cursor_after_it() -> None:
    async def test() -> None:
        hub = Hub(KeptReports(HOME))
        release(hub, 1, 3)
        live, past = Follower(7, Outbox(), {}), Follower(7, Outbox(), {HOME: 1})
        other = Follower(8, Outbox(), {})
        for follower in (live, past, other):
            hub.follow(follower)
        release(hub, 4, 2)
        assert await taken(live) == [4, 5]
        assert await taken(past) == [2, 3, 4, 5]
        assert (live.began, past.began, live.cursors) == ({HOME: 3}, {HOME: 1}, {HOME: 5})
        hub.unfollow(live)
        hub.unfollow(live)
        release(hub, 6, 1)
        assert await taken(past) == [6]
        assert live.cursors == {HOME: 5}
        assert hub.followers(8) == [other]

    run(test)


def test_what_a_follower_has_seen_is_dropped_and_a_hole_cuts_it_off() -> None:
    async def test() -> None:
        follower = Follower(7, Outbox(), {HOME: 3})
        batch = write_reports(HOME, 7, 2, 0, 0, rows(2, 4))
        follower.offer(HOME, 2, 4, batch)
        follower.offer(HOME, 2, 4, batch)
        assert await taken(follower) == [4, 5]
        follower.offer(HOME, 7, 1, write_reports(HOME, 7, 7, 0, 0, rows(7, 1)))
        with pytest.raises(CutOffError) as cut:
            await follower.outbox.take()
        assert cut.value.why is CutOff.GAP
        assert "6 to 6" in str(cut.value)

    run(test)


def test_while_it_catches_up_a_follower_waits_for_what_comes_next() -> None:
    async def test() -> None:
        follower = Follower(7, Outbox(), {HOME: 3})
        follower.catching_up.add(HOME)
        for first in (7, 4, 5, 6, 7):
            follower.offer(HOME, first, 1, write_reports(HOME, 7, first, 0, 0, rows(first, 1)))
        assert await taken(follower) == [4, 5, 6, 7]
        assert not follower.catching_up

    run(test)


@pytest.mark.parametrize(
    ("cursor", "options", "first_held", "last_seq", "cut", "after"),
    [
        ({}, [], 1, 5, None, 5),
        ({HOME: 5}, [], 1, 5, None, 5),
        ({HOME: 2}, [], 3, 5, None, 2),
        ({HOME: 1}, [], 3, 5, CutOff.GONE, 1),
        ({HOME: 1}, ["oldest"], 3, 5, CutOff.GONE, 1),
        ({HOME: 1}, ["skip_lost"], 3, 5, None, 2),
        ({HOME: 2}, ["skip_lost"], 3, 5, None, 2),
        ({HOME: 6}, [], 3, 5, CutOff.ANEW, 6),
        ({HOME: 6}, ["skip_lost"], 3, 5, CutOff.ANEW, 6),
        ({HOME: 0}, ["oldest"], 3, 5, None, 2),
        ({HOME: 0}, ["skip_lost"], 3, 5, None, 2),
        ({HOME: 0}, [], 3, 5, CutOff.GONE, 0),
        ({HOME: 0}, [], 1, 0, None, 0),
    ],
)
def test_where_a_home_stands_decides_whether_a_cursor_can_be_continued(
    cursor: dict[int, int], options: list[str], first_held: int, last_seq: int, cut: CutOff | None, after: int
) -> None:
    async def test() -> None:
        follower = Follower(7, Outbox(), dict(cursor), **dict.fromkeys(options, True))
        follower.stands(HOME, first_held, last_seq)
        assert follower.cursors == follower.began == {HOME: after}
        if cut is None:
            follower.outbox.finish()
            assert await follower.outbox.take() == []
        else:
            with pytest.raises(CutOffError) as cut_off:
                await follower.outbox.take()
            assert cut_off.value.why is cut

    run(test)


def test_a_history_is_bounded_and_says_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "HISTORY_MAX", 10)

    async def test() -> None:
        hub = Hub(KeptReports(HOME))
        assert (hub.kept.first_held(7), hub.kept.last_seq(7)) == (1, 0)
        for first in range(1, 100, 3):
            release(hub, first, 3)
        assert (hub.kept.first_held(7), hub.kept.last_seq(7)) == (88, 99)
        follower = Follower(7, Outbox(), {HOME: 0}, oldest=True)
        hub.follow(follower)
        assert await taken(follower) == list(range(88, 100))

    run(test)


def test_a_large_record_is_cut_into_messages_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "REPORTS_MAX", 4)

    async def test() -> None:
        hub = Hub(KeptReports(HOME))
        follower = Follower(7, Outbox(), {})
        hub.follow(follower)
        release(hub, 1, 10)
        hub.release(7, 0, 1, 1, rows(50, 5))
        messages = [read_reports(unwrap(message) or b"") for message in await follower.outbox.take()]
        assert [(m.first_seq, list(m.command)) for m in messages] == [
            (1, [1, 2, 3, 4]), (5, [5, 6, 7, 8]), (9, [9, 10]), (0, [50, 51, 52, 53]), (0, [54]),
        ]  # fmt: skip
        assert hub.kept.last_seq(7) == 10

    run(test)


def test_a_history_made_by_a_replay_is_the_same_to_a_follower() -> None:
    async def test() -> None:
        lived, replayed = Hub(KeptReports(HOME)), Hub(KeptReports(HOME))
        release(lived, 1, 3)
        replayed.kept.remember(101, 1_001, Outcome([AccountReports(7, 1, rows(1, 3))], []))
        found = []
        for hub in (lived, replayed):
            follower = Follower(7, Outbox(), {HOME: 0})
            hub.follow(follower)
            found.append(await follower.outbox.take())
        assert found[0] == found[1]

    run(test)


def test_an_outbox_too_full_cuts_its_reader_off_but_a_history_may_be_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "OUTBOX_MAX", 10)

    async def test() -> None:
        outbox = Outbox()
        outbox.put(b"history", 50, history=True)
        outbox.put(b"live", 10)
        assert await outbox.take() == [b"history", b"live"]
        outbox.put(b"live", 10)
        outbox.put(b"too much", 1)
        with pytest.raises(CutOffError) as cut:
            await outbox.take()
        assert cut.value.why is CutOff.SLOW
        with pytest.raises(CutOffError):
            await outbox.broken()
        outbox.put(b"later", 1)
        with pytest.raises(CutOffError):
            await outbox.take()

    run(test)


def test_a_finished_outbox_gives_what_it_has_and_then_nothing() -> None:
    async def test() -> None:
        outbox = Outbox()
        waiting = asyncio.ensure_future(outbox.take())
        await asyncio.sleep(0)
        outbox.put(b"a")
        outbox.finish()
        assert await waiting == [b"a"]
        assert await outbox.take() == []

    run(test)


def test_a_number_skipped_by_the_core_is_our_own_fault() -> None:
    hub = Hub(KeptReports(HOME))
    release(hub, 1, 2)
    with pytest.raises(AssertionError, match="skipped a report number"):
        release(hub, 4, 1)
