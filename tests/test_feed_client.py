"""The table in bus/feed_client.py, cell by cell, and the rules beyond it."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

import bus.feed_client
from bus.feed_client import (
    Action,
    Alarm,
    Applied,
    AskRange,
    AskSnapshot,
    Doubted,
    FeedClient,
    GapOpened,
    GapRepaired,
    Limits,
    MissingSpan,
    State,
    StateChanged,
    Trusted,
    Withdrawn,
)
from bus.mirror import Mirror
from bus.sequencer import FrameRing, RangeStatus
from proto import feed
from proto.feed import ADD, DELETE, END, END_OF_STREAM, FRESH, SELL, Digest, Snapshot

INCARNATION, EPOCH = 77, 5
SECOND = 1_000_000_000
# Nothing waits and a hole of 51 is too far, so that a cell shows all that an input leads to.
AT_ONCE = Limits(
    jitter_ns=0, retry_ns=0, range_ns=10 * SECOND, snapshot_ns=10 * SECOND, hole_max=50, held_max=4_000
)


# A stream in which delta n adds order n: even ones to instrument 1, odd ones to instrument 2.


def instrument_of(seq: int) -> int:
    return 1 + seq % 2


def rows_of(first: int, count: int) -> list[int]:
    return [
        value
        for n in range(first, first + count)
        for value in (ADD | END | (SELL if n % 3 else 0), instrument_of(n), n, 100 + (n if n % 3 else -n), 1 + n % 5, 0)
    ]


def data(
    first: int,
    count: int = 1,
    *,
    sent: int = 0,
    epoch: int = EPOCH,
    incarnation: int = INCARNATION,
    flags: int = 0,
    rows: list[int] | None = None,
) -> bytes:
    """The frame of deltas `first` to `first + count - 1`, sent when its first is due."""
    rows = rows_of(first, count) if rows is None else rows
    instruments = [(name, (first - 1 + (name == 2)) // 2 + 1) for name in dict.fromkeys(rows[1::6])]
    return feed.encode_frame(
        1, 1, flags, incarnation, epoch, first, sent or first * 1000, [(0, 7)], instruments, rows
    )


def beat(next_seq: int, *, sent: int = 0, flags: int = 0, digests: tuple[Digest, ...] = ()) -> bytes:
    return feed.encode_heartbeat(1, 1, flags, INCARNATION, EPOCH, next_seq, sent or next_seq * 1000, digests)


def books_at(last: int) -> Mirror:
    mirror = Mirror()
    if last:
        mirror.apply(feed.decode(data(1, last)).rows)
    return mirror


def snapshot(last: int, *, epoch: int = EPOCH, incarnation: int = INCARNATION, only: tuple[int, ...] = ()) -> Snapshot:
    return books_at(last).snapshot(1, 1, incarnation, epoch, 0, only)


# A client in each state. The top is 15 in all that have one; SNAPSHOT and REPAIR have a hole at 12 and 13.


def reader(limits: Limits = AT_ONCE) -> FeedClient:
    return FeedClient(1, 1, random.Random(5), FrameRing(), limits)


def down() -> FeedClient:
    return reader()


def joining() -> FeedClient:
    client = down()
    client.start(0)
    return client


def in_snapshot() -> FeedClient:
    client = joining()
    client.frame(data(11), 0)
    client.frame(data(14), 0)
    return client


def live() -> FeedClient:
    client = joining()
    client.frame(data(11), 0)
    client.snapshot_reply(client._ask, snapshot(14), 0)
    return client


def in_repair() -> FeedClient:
    client = joining()
    client.frame(data(11), 0)
    client.snapshot_reply(client._ask, snapshot(10), 0)
    client.frame(data(14), 0)
    return client


def stale() -> FeedClient:
    client = live()
    client.tick(SECOND)
    return client


def ended() -> FeedClient:
    client = live()
    client.frame(beat(15, sent=14_500, flags=END_OF_STREAM), 0)
    return client


STATES: dict[str, Callable[[], FeedClient]] = {
    "DOWN": down,
    "JOINING": joining,
    "SNAPSHOT": in_snapshot,
    "LIVE": live,
    "REPAIR": in_repair,
    "STALE": stale,
    "ENDED": ended,
}


def framed(frame: bytes) -> Callable[[FeedClient], list[Action]]:
    return lambda client: client.frame(frame, 0)


def ranged(
    *frames: bytes, status: RangeStatus = RangeStatus.OK, epoch: int = EPOCH
) -> Callable[[FeedClient], list[Action]]:
    return lambda client: client.range_reply(client._ask, status, epoch, frames, 0)


def answered(reply: Snapshot) -> Callable[[FeedClient], list[Action]]:
    return lambda client: client.snapshot_reply(client._ask, reply, 0)


def overdue(client: FeedClient) -> list[Action]:
    return client.tick(client._expires_ns if client._asked else 0)


def third_time_overdue(client: FeedClient) -> list[Action]:
    overdue(client)
    overdue(client)
    return overdue(client)


MISFIT = [DELETE | END, 1, 999, 0, 0, 0]
INPUTS: dict[str, Callable[[FeedClient], list[Action]]] = {
    "start": lambda client: client.start(0),
    "stop": lambda client: client.stop(0),
    "data at the top": framed(data(15)),
    "fresh data from 1": framed(data(1, flags=FRESH)),
    "data beyond the top": framed(data(18)),
    "data far beyond": framed(data(100)),
    "data fills the hole": framed(data(12, 2)),
    "data wholly old": framed(data(11)),
    "data old and new": framed(data(14, 2)),
    "data old, sent anew": framed(data(5, sent=20_000)),
    "heartbeat at the top": framed(beat(15)),
    "heartbeat beyond": framed(beat(18)),
    "fresh heartbeat at 1": framed(beat(1, flags=FRESH)),
    "end at the top": framed(beat(15, flags=END_OF_STREAM)),
    "end beyond": framed(beat(18, flags=END_OF_STREAM)),
    "digest equal": framed(beat(15, digests=books_at(14).digests(1))),
    "digest differs": framed(beat(15, digests=(books_at(14).digests(1)[0]._replace(order_hash=1),))),
    "delta that misfits": framed(data(15, rows=[*MISFIT[:1], 2, *MISFIT[2:]])),
    "filler that misfits": framed(data(12, 2, rows=MISFIT + rows_of(13, 1))),
    "higher epoch": framed(data(3, epoch=9)),
    "higher epoch, fresh": framed(data(1, epoch=9, flags=FRESH)),
    "lower epoch": framed(data(15, epoch=3)),
    "another incarnation": framed(data(15, incarnation=78)),
    "damaged frame": framed(data(15)[:-1] + b"\x00"),
    "held too much": framed(data(15, 600)),
    "silence": lambda client: client.tick(SECOND),
    "tick, nothing due": lambda client: client.tick(1),
    "tick, ask overdue": overdue,
    "third time overdue": third_time_overdue,
    "range fills the hole": ranged(data(12, 2)),
    "range fills a part": ranged(data(12)),
    "range brings nothing": ranged(),
    "range out of range": ranged(status=RangeStatus.OUT_OF_RANGE),
    "range of another epoch": ranged(status=RangeStatus.WRONG_EPOCH, epoch=9),
    "snapshot that splices": answered(snapshot(14)),
    "snapshot before a hole": answered(snapshot(11)),
    "snapshot too old": answered(snapshot(9)),
    "snapshot, older epoch": answered(snapshot(14, epoch=3)),
    "snapshot, newer epoch": answered(snapshot(4, epoch=9)),
    "ask failed": lambda client: client.failed(client._ask, "unavailable", 0),
    "answer not asked for": lambda client: client.snapshot_reply(999, snapshot(14), 0),
}

LETTERS = {
    State.DOWN: "D",
    State.JOINING: "J",
    State.SNAPSHOT: "S",
    State.LIVE: "L",
    State.REPAIR: "R",
    State.STALE: "T",
    State.ENDED: "E",
}


def letter(action: Action) -> str:
    if isinstance(action, AskSnapshot):
        return "c" if action.home else "i" if action.instrument else "s"
    if isinstance(action, GapRepaired):
        return "x" if action.gap.how == "abandoned" else "r"
    return {
        AskRange: "q",
        Withdrawn: "w",
        Applied: "a",
        GapOpened: "g",
        MissingSpan: "m",
        Doubted: "d",
        Trusted: "t",
        Alarm: "!",
        StateChanged: "",
    }[type(action)]


def table() -> dict[tuple[str, str], str]:
    """(input, state): cell, out of the module's docstring."""
    text = bus.feed_client.__doc__
    assert text is not None
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    head = next(line for line in lines if line.startswith("input "))
    columns = [head.index(name) for name in STATES]
    cells: dict[tuple[str, str], str] = {}
    for line in lines[lines.index(head) + 1 :]:
        name = line[: columns[0]].strip()
        if name not in INPUTS:
            break
        for state, (low, high) in zip(STATES, pairwise([*columns, len(line) + 1]), strict=True):
            cells[name, state] = line[low:high].strip()
    return cells


def test_the_table_has_a_row_for_every_input_and_a_cell_for_every_state() -> None:
    cells = table()
    assert list(dict.fromkeys(name for name, _ in cells)) == list(INPUTS)
    assert len(cells) == len(INPUTS) * len(STATES)
    assert all(cells.values())


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", INPUTS)
def test_each_input_in_each_state_does_what_the_table_says(name: str, state: str) -> None:
    client = STATES[state]()
    assert client.state is State[state]
    actions = INPUTS[name](client)
    done = f"{LETTERS[client.state]} {''.join(map(letter, actions))}".strip()
    assert done == table()[name, state]
    counters = client.counters
    assert counters.received + counters.repaired + counters.covered == client.next_seq - 1
    client._held.check(client.next_seq if client._joined else 1)
