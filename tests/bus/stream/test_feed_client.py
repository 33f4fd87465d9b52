"""The table in bus/stream/feed_client.py, cell by cell, and the rules beyond it."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

import bus.stream.feed_client
from bus.stream.actions import (
    Action,
    Alarm,
    Applied,
    AskRange,
    AskSnapshot,
    ClientLimits,
    Doubted,
    GapOpened,
    GapRepaired,
    Lagged,
    MissingSpan,
    Standing,
    State,
    StateChanged,
    Trusted,
    Withdrawn,
)
from bus.stream.feed_client import FeedClient
from bus.stream.lines import Lines
from bus.stream.mirror import Mirror
from bus.stream.sequencer import FrameRing, RangeStatus
from proto import feed
from proto.feed import ADD, DELETE, END, END_OF_STREAM, FRESH, SELL, Digest
from proto.snapshot import Snapshot

INCARNATION, EPOCH = 77, 5
SECOND = 1_000_000_000
# Nothing waits and a hole of 51 is too far, so that a cell shows all that an input leads to.
AT_ONCE = ClientLimits(
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
    after: bytes | None = None,
) -> bytes:
    """The frame of deltas `first` to `first + count - 1`, sent when its first is due.

    It follows the frame `after`, or that of the one delta before it.
    """
    follows = single(first - 1, epoch, incarnation) if after is None else feed.crc_of(after)
    rows = rows_of(first, count) if rows is None else rows
    instruments = [(name, (first - 1 + (name == 2)) // 2 + 1) for name in dict.fromkeys(rows[1::6])]
    return framed_rows(first, rows, instruments, follows, sent, epoch, incarnation, flags)


def framed_rows(
    first: int,
    rows: list[int],
    instruments: list[tuple[int, int]],
    follows: int,
    sent: int = 0,
    epoch: int = EPOCH,
    incarnation: int = INCARNATION,
    flags: int = 0,
) -> bytes:
    return feed.encode_frame(
        1, 1, flags, incarnation, epoch, first, sent or first * 1000, [(0, 7)], instruments, rows, (), follows
    )


SINGLES: dict[tuple[int, int], list[int]] = {}  # by epoch and incarnation: 0, and the crc of each delta's own frame


def single(seq: int, epoch: int = EPOCH, incarnation: int = INCARNATION) -> int:
    crcs = SINGLES.setdefault((epoch, incarnation), [0])
    for n in range(len(crcs), seq + 1):
        instruments = [(instrument_of(n), (n - 1 + (instrument_of(n) == 2)) // 2 + 1)]
        frame = framed_rows(n, rows_of(n, 1), instruments, crcs[-1], 0, epoch, incarnation)
        crcs.append(feed.crc_of(frame))
    return crcs[seq]


def beat(
    next_seq: int, *, sent: int = 0, flags: int = 0, digests: tuple[Digest, ...] = (), after: bytes | None = None
) -> bytes:
    follows = single(next_seq - 1) if after is None else feed.crc_of(after)
    return feed.encode_heartbeat(1, 1, flags, INCARNATION, EPOCH, next_seq, sent or next_seq * 1000, digests, follows)


def books_at(last: int) -> Mirror:
    mirror = Mirror()
    if last:
        mirror.apply(feed.decode(data(1, last)).rows)
    return mirror


def snapshot(last: int, *, epoch: int = EPOCH, incarnation: int = INCARNATION, only: tuple[int, ...] = ()) -> Snapshot:
    return books_at(last).snapshot(1, 1, incarnation, epoch, 0, only)


# A client in each state. The top is 15 in all that have one; SNAPSHOT and REPAIR have a hole at 12 and 13.


def reader(limits: ClientLimits = AT_ONCE) -> FeedClient:
    return FeedClient(1, 1, random.Random(5), FrameRing(), limits)


def down() -> FeedClient:
    return reader()


PAIR = data(12, 2)  # what is missing
TOP = data(14, after=PAIR)
STRAY = data(3)  # nothing follows it


def joining() -> FeedClient:
    client = down()
    client.start(0)
    return client


def in_snapshot() -> FeedClient:
    client = joining()
    client.frame(data(11), 0)
    client.frame(TOP, 0)
    return client


def live() -> FeedClient:
    client = joining()
    client.frame(data(11), 0)
    client.snapshot_reply(client.asking.last, snapshot(14), 0)
    return client


def in_repair() -> FeedClient:
    client = joining()
    client.frame(data(11), 0)
    client.snapshot_reply(client.asking.last, snapshot(10), 0)
    client.frame(TOP, 0)
    return client


def stale() -> FeedClient:
    client = live()
    client.tick(SECOND)
    return client


def ended() -> FeedClient:
    client = live()
    client.frame(beat(15, sent=14_500, flags=END_OF_STREAM, after=TOP), 0)
    return client


def lagged() -> FeedClient:
    client = live()
    client.frame(data(15), 10 * SECOND)
    return client


STATES: dict[str, Callable[[], FeedClient]] = {
    "DOWN": down,
    "JOINING": joining,
    "SNAPSHOT": in_snapshot,
    "LIVE": live,
    "REPAIR": in_repair,
    "STALE": stale,
    "ENDED": ended,
    "LAGGED": lagged,
}


def framed(frame: bytes) -> Callable[[FeedClient], list[Action]]:
    return lambda client: client.frame(frame, 0)


def ranged(
    *frames: bytes, status: RangeStatus = RangeStatus.OK, epoch: int = EPOCH
) -> Callable[[FeedClient], list[Action]]:
    return lambda client: client.range_reply(client.asking.last, status, epoch, frames, 0)


def answered(reply: Snapshot) -> Callable[[FeedClient], list[Action]]:
    return lambda client: client.snapshot_reply(client.asking.last, reply, 0)


def overdue(client: FeedClient) -> list[Action]:
    return client.tick(client.asking.expires_ns if client.asking.asked else 0)


def third_time_overdue(client: FeedClient) -> list[Action]:
    overdue(client)
    overdue(client)
    return overdue(client)


def planted(client: FeedClient) -> list[Action]:
    """An order is in the book that the filler of the hole adds."""
    if client.next_seq == 12:
        client.mirror.apply([(ADD | END, instrument_of(12), 12, 90, 1, 0)])
        client.mirror.books[instrument_of(12)].sequence -= 1
        client.mirror.last_seq -= 1
    return client.frame(PAIR, 0)


def behind_next(frame: bytes) -> Callable[[FeedClient], list[Action]]:
    """With the frame at the top before it."""

    def enter(client: FeedClient) -> list[Action]:
        client.frame(NEXT, 0)
        return client.frame(frame, 0)

    return enter


NEXT = data(15, after=TOP)
MISFIT = [DELETE | END, 1, 999, 0, 0, 0]
INPUTS: dict[str, Callable[[FeedClient], list[Action]]] = {
    "start": lambda client: client.start(0),
    "stop": lambda client: client.stop(0),
    "data at the top": framed(NEXT),
    "fresh data from 1": framed(data(1, flags=FRESH)),
    "data beyond the top": framed(data(18)),
    "data far beyond": framed(data(100)),
    "data fills the hole": framed(PAIR),
    "data wholly old": framed(data(11)),
    "data old and new": framed(data(14, 2)),
    "data old, sent anew": framed(data(5, sent=20_000)),
    "data follows another": behind_next(data(16, after=STRAY)),
    "beat follows another": behind_next(beat(16, after=STRAY)),
    "filler follows another": framed(data(12, 2, after=STRAY)),
    "another fills the hole": framed(data(12, 2, sent=12_001)),
    "heartbeat at the top": framed(beat(15, after=TOP)),
    "heartbeat beyond": framed(beat(18)),
    "fresh heartbeat at 1": framed(beat(1, flags=FRESH)),
    "end at the top": framed(beat(15, flags=END_OF_STREAM, after=TOP)),
    "end beyond": framed(beat(18, flags=END_OF_STREAM)),
    "digest equal": framed(beat(15, digests=books_at(14).digests(1), after=TOP)),
    "digest differs": framed(beat(15, digests=(books_at(14).digests(1)[0]._replace(order_hash=1),), after=TOP)),
    "delta that misfits": framed(data(15, rows=[*MISFIT[:1], 2, *MISFIT[2:]], after=TOP)),
    "filler that misfits": planted,
    "higher epoch": framed(data(3, epoch=9)),
    "higher epoch, fresh": framed(data(1, epoch=9, flags=FRESH)),
    "lower epoch": framed(data(15, epoch=3)),
    "another incarnation": framed(data(15, incarnation=78)),
    "damaged frame": framed(NEXT[:-1] + b"\x00"),
    "held too much": framed(data(15, 600, after=TOP)),
    "lag above the limit": lambda client: client.frame(NEXT, 10 * SECOND),
    "rejoin": lambda client: client.rejoin(0),
    "silence": lambda client: client.tick(SECOND),
    "tick, nothing due": lambda client: client.tick(1),
    "tick, ask overdue": overdue,
    "third time overdue": third_time_overdue,
    "range fills the hole": ranged(PAIR),
    "range follows another": ranged(data(12, 2, after=STRAY)),
    "range fills a part": ranged(data(12)),
    "range brings nothing": ranged(),
    "range out of range": ranged(status=RangeStatus.OUT_OF_RANGE),
    "range of another epoch": ranged(status=RangeStatus.WRONG_EPOCH, epoch=9),
    "snapshot that splices": answered(snapshot(14)),
    "snapshot before a hole": answered(snapshot(11)),
    "snapshot too old": answered(snapshot(9)),
    "snapshot, older epoch": answered(snapshot(14, epoch=3)),
    "snapshot, newer epoch": answered(snapshot(4, epoch=9)),
    "ask failed": lambda client: client.failed(client.asking.last, "unavailable", 0),
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
    State.LAGGED: "G",
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
        Lagged: "l",
        Alarm: "!",
        StateChanged: "",
    }[type(action)]


def table() -> dict[tuple[str, str], str]:
    """(input, state): cell, out of the module's docstring."""
    text = bus.stream.feed_client.__doc__
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


# Rules beyond the table


def test_every_sum_of_the_ledger_holds_in_every_state() -> None:
    for state in STATES.values():
        for enter in INPUTS.values():
            client = state()
            enter(client)
            adds_up(client)


def adds_up(client: FeedClient) -> None:
    """The sums in bus/stream/ledger.py."""
    counters, ledger = client.counters, client.ledger
    assert counters.received + counters.repaired + counters.covered == client.next_seq - 1
    closed = counters.missed_late + counters.missed_ranged + counters.missed_snapshotted + counters.missed_abandoned
    assert counters.missed == closed + sum(gap.last - gap.first + 1 for gap in ledger.open)
    for gap in [*ledger.open, *ledger.closed]:
        assert gap.late + gap.ranged + gap.snapshotted + gap.abandoned + gap.missing == gap.last - gap.first + 1
        assert bool(gap.missing) == (gap in ledger.open)


def standings(client: FeedClient) -> list[str]:
    return [client.standing(instrument).name for instrument in (1, 2)]


def live_at(last: int, limits: ClientLimits = AT_ONCE) -> FeedClient:
    client = reader(limits)
    client.start(0)
    client.frame(beat(last + 1), 0)
    client.tick(limits.jitter_ns)
    client.snapshot_reply(client.asking.last, snapshot(last), 0)
    assert client.state is State.LIVE
    return client


def only(kind: type[Action], actions: list[Action]) -> list[Action]:
    return [action for action in actions if isinstance(action, kind)]


def test_an_instrument_whose_first_held_delta_continues_its_sequence_stays_valid() -> None:
    client = live_at(11)
    assert standings(client) == ["VALID", "VALID"]
    client.frame(data(13), 0)  # 12 is missing, and instrument 2 goes on at its own next sequence
    assert client.state is State.REPAIR
    assert standings(client) == ["DOUBTFUL", "VALID"]
    client.frame(data(17, after=data(14, 3)), 0)
    assert standings(client) == ["DOUBTFUL", "VALID"]
    client.frame(data(12), 0)  # the first hole is filled, and the next begins with instrument 1
    assert client.next_seq == 14
    assert standings(client) == ["DOUBTFUL", "DOUBTFUL"]
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(14, 3)], 0)
    assert standings(client) == ["VALID", "VALID"]


def test_behind_the_next_hole_what_is_held_there_counts() -> None:
    client = live_at(11)
    client.frame(data(13), 0)
    client.frame(data(15), 0)
    client.frame(data(12), 0)
    assert (client.next_seq, standings(client)) == (14, ["DOUBTFUL", "VALID"])


def test_a_snapshot_must_reach_beyond_a_hole_that_is_too_far() -> None:
    client = live_at(10)
    client.frame(data(12), 0)
    client.frame(data(100), 0)
    assert client.state is State.SNAPSHOT
    client.snapshot_reply(client.asking.last, snapshot(50), 0)
    assert (client.state, client.counters.resnapshots) == (State.SNAPSHOT, 0)
    client.snapshot_reply(client.asking.last, snapshot(99), 0)
    assert (client.state, client.next_seq, client.counters.resnapshots) == (State.LIVE, 101, 1)
    closed = [(gap.first, gap.last, gap.how) for gap in client.ledger.closed]
    assert closed == [(11, 11, "snapshot"), (13, 99, "snapshot")]


def test_of_a_range_nothing_is_taken_that_the_line_has_not_announced() -> None:
    client = live_at(10)
    client.frame(data(12, after=data(9, 3)), 0)
    of_others = [data(11, epoch=9), data(11, incarnation=78), data(200), beat(11), b"", feed.topic(feed.KIND_D, 1, 1)]
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, of_others, 0)
    assert client.state is State.REPAIR
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(9, 3)], 0)
    assert (client.state, client.next_seq) == (State.LIVE, 13)
    assert (client.counters.received, client.counters.repaired) == (1, 1)


def test_silence_proves_nothing_but_a_digest_does() -> None:
    client = live_at(11)
    client.frame(beat(13), 0)
    assert standings(client) == ["DOUBTFUL", "DOUBTFUL"]
    client.frame(beat(13, sent=13_100, digests=books_at(12).digests(2)), 0)
    assert standings(client) == ["DOUBTFUL", "VALID"]
    client.frame(beat(13, sent=13_200, digests=books_at(12).digests(1)), 0)
    assert standings(client) == ["DOUBTFUL", "VALID"]


def test_silence_in_repair_takes_validity_and_ends_in_stale() -> None:
    client = live_at(11)
    client.frame(data(13), 0)
    client.tick(client.heard_ns + AT_ONCE.silence_ns)
    assert (client.state, standings(client)) == (State.REPAIR, ["STALE", "STALE"])
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(12)], SECOND)
    assert (client.state, standings(client)) == (State.STALE, ["STALE", "STALE"])
    client.frame(beat(14), SECOND)
    assert (client.state, standings(client)) == (State.LIVE, ["VALID", "VALID"])


def test_the_mirror_changes_by_whole_events_and_they_are_delivered_whole() -> None:
    client = live_at(10)
    rows = rows_of(11, 3)
    rows[0] ^= END
    rows[6] ^= END
    begun = data(11, 2, rows=rows[:12])
    assert client.frame(begun, 0) == []
    assert (client.next_seq, client.position, client.mirror.last_seq) == (13, (EPOCH, 10), 10)
    assert client.mirror.books[2].sequence == 5
    [applied] = client.frame(data(13, rows=rows[12:], after=begun), 0)
    assert isinstance(applied, Applied)
    assert (applied.first, applied.last, [row[2] for row in applied.rows]) == (11, 13, [11, 12, 13])
    assert applied.times == [(0, 7)]
    assert client.position == (EPOCH, 13)


def test_what_rows_carry_stays_with_them_when_an_event_spans_frames() -> None:
    client = live_at(10)
    first, second = feed.Definition("ALFA", "0.01", "1", 1, 9), feed.Definition("BETA", "0.5", "10", -9, 9)

    def frame(seq: int, rows: list[int], extras: list[feed.Definition], follows: int = 0) -> bytes:
        names = [(rows[1], client._received(rows[1]) + 1)]
        return feed.encode_frame(1, 1, 0, INCARNATION, EPOCH, seq, seq * 1000, [(0, 7)], names, rows, extras, follows)

    begun = frame(11, [feed.DEFINITION, 1, 0, 0, 0, 0], [first], single(10))
    client.frame(begun, 0)
    assert client.mirror.books[1].definition is None
    [applied] = client.frame(frame(12, [feed.DEFINITION | END, 2, 0, 0, 0, 0], [second], feed.crc_of(begun)), 0)
    assert isinstance(applied, Applied)
    assert [(row[1], applied.extras[row[2]]) for row in applied.rows] == [(1, first), (2, second)]
    assert [client.mirror.books[name].definition for name in (1, 2)] == [first, second]


def test_what_was_heard_of_an_event_and_not_delivered_is_missing_when_a_snapshot_covers_it() -> None:
    client = live_at(10)
    rows = rows_of(11, 2)
    rows[0] ^= END
    client.frame(data(11, rows=rows[:6]), 0)
    client.frame(data(100), 0)
    assert client.state is State.SNAPSHOT
    actions = client.snapshot_reply(client.asking.last, snapshot(99), 0)
    assert only(MissingSpan, actions) == [MissingSpan(EPOCH, 11, 99)]
    counters = client.counters
    assert (counters.received, counters.repaired, counters.covered) == (2, 0, 98)
    assert (client.next_seq, client.position) == (101, (EPOCH, 100))
    [applied] = client.frame(data(101), 0)
    assert isinstance(applied, Applied)
    assert (applied.first, applied.last, applied.rows[0][2]) == (101, 101, 101)


def test_a_range_is_tried_three_times_with_doubling_times_then_left_to_a_snapshot() -> None:
    client = live_at(11, ClientLimits())
    client.frame(data(13), 0)
    asked: list[tuple[int, int, int]] = []
    while client.state is State.REPAIR:
        deadline_ns = client.deadline_ns
        assert deadline_ns is not None
        for action in client.tick(deadline_ns):
            if isinstance(action, AskRange):
                asked.append((action.first, action.last, action.attempt))
                expected_ns = ClientLimits().range_ns << action.attempt
                assert expected_ns * 3 // 4 <= action.timeout_ns <= expected_ns * 5 // 4
    assert asked == [(12, 12, 0), (12, 12, 1), (12, 12, 2)]
    assert client.state is State.SNAPSHOT


def test_a_range_that_brings_a_part_may_be_tried_three_times_again() -> None:
    client = live_at(11)
    client.frame(data(16), 0)
    for due in (12, 13, 14):
        client.failed(client.asking.last, "unavailable", 0)
        client.failed(client.asking.last, "unavailable", 0)
        client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(due)], 0)
        assert (client.state, client.next_seq) == (State.REPAIR, due + 1)
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(15)], 0)
    assert (client.state, client.next_seq) == (State.LIVE, 17)
    assert [(gap.first, gap.last, gap.how, gap.ranged) for gap in client.ledger.closed] == [(12, 15, "range", 4)]


def test_a_failing_snapshot_is_asked_for_at_another_source_ever_more_slowly() -> None:
    client = reader(ClientLimits())
    client.start(0)
    client.frame(data(11), 0)
    now_ns = 0
    waits: list[int] = []
    for attempt in range(9):
        deadline_ns = client.deadline_ns
        assert deadline_ns is not None
        waits.append(deadline_ns - now_ns)
        now_ns = deadline_ns
        [asked] = client.tick(now_ns)
        assert isinstance(asked, AskSnapshot)
        assert asked.attempt == attempt
        client.failed(asked.ask, "unavailable", now_ns)
    assert waits[0] <= ClientLimits().jitter_ns
    for n, wait in enumerate(waits[1:]):
        expected_ns = min(ClientLimits().retry_ns << n, ClientLimits().retry_ns_max)
        assert expected_ns * 3 // 4 <= wait <= expected_ns * 5 // 4


def test_a_hole_is_accounted_for_by_how_each_part_of_it_came() -> None:
    client = live_at(10)
    client.frame(data(21), 0)
    client.frame(data(13, 2, after=data(10, 3)), 0)  # late: the hole falls in two
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(10, 3)], 0)  # overhangs at the left
    assert client.next_seq == 15
    client.range_reply(client.asking.last, RangeStatus.OUT_OF_RANGE, EPOCH, [], 0)
    actions = client.snapshot_reply(client.asking.last, snapshot(20), 0)
    [gap] = client.ledger.closed
    assert (gap.first, gap.last, gap.cause) == (11, 20, "frame")
    assert (gap.late, gap.ranged, gap.snapshotted, gap.abandoned, gap.missing) == (2, 2, 6, 0, 0)
    assert only(MissingSpan, actions) == [MissingSpan(EPOCH, 15, 20)]
    counters = client.counters
    assert (counters.received, counters.repaired, counters.covered) == (3, 2, 16)
    assert (counters.gaps, counters.gaps_snapshotted, counters.joins, counters.resnapshots) == (1, 1, 1, 1)
    assert list(client.mirror.books[1].orders(0)) == list(books_at(21).books[1].orders(0))


def test_what_was_repaired_can_be_asked_of_us_in_turn() -> None:
    client = live_at(10)
    client.frame(data(11), 0)
    client.frame(TOP, 0)
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [PAIR], 0)
    assert client.ring is not None
    found = client.ring.find(EPOCH, 11, 14)
    assert (found.status, found.frames) == (RangeStatus.OK, [data(11), PAIR, TOP])


def test_the_end_of_stream_waits_until_the_holes_are_closed() -> None:
    client = live_at(10)
    client.frame(beat(13, flags=END_OF_STREAM, after=data(11, 2)), 0)
    assert client.state is State.REPAIR
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(11, 2)], 0)
    assert (client.state, client.next_seq) == (State.ENDED, 13)
    assert standings(client) == ["STALE", "STALE"]
    assert [gap.cause for gap in client.ledger.closed] == ["end"]


def test_held_data_is_bounded() -> None:
    client = live_at(10)
    frame = data(12, 40)
    for first in range(52, 5_040, 40):
        client.frame(frame, 0)
        frame = data(first, 40, after=frame)
    assert client._held.size <= AT_ONCE.held_max
    assert client.state is State.SNAPSHOT
    assert client.counters.overflows > 0
    client.snapshot_reply(client.asking.last, snapshot(2_000), 0)
    assert client.state is State.SNAPSHOT  # what was dropped must be covered, too
    client.snapshot_reply(client.asking.last, snapshot(5_011), 0)
    assert (client.state, standings(client)) == (State.LIVE, ["VALID", "VALID"])


def flip(client: FeedClient, order: int) -> None:
    """One order's quantity changes in memory, as no delta said."""
    book = client.mirror.books[instrument_of(order)]
    client.mirror.apply([(feed.MODIFY | END | (SELL if order % 3 else 0), instrument_of(order), order, 0, 77, 0)])
    book.sequence -= 1
    client.mirror.last_seq -= 1


def test_a_book_whose_digest_differs_is_mended_alone_while_the_stream_goes_on() -> None:
    client = live_at(10)
    flip(client, 4)
    assert standings(client) == ["VALID", "VALID"]
    doubted, asked = client.frame(beat(11, sent=11_001, digests=books_at(10).digests(1)), 0)
    assert doubted == Doubted(1, "digest differs")
    assert isinstance(asked, AskSnapshot)
    assert asked.instrument == 1
    assert standings(client) == ["DOUBTFUL", "VALID"]
    frame = data(11, 4, sent=12_000)
    client.frame(frame, 0)
    assert (client.next_seq, standings(client)) == (15, ["DOUBTFUL", "VALID"])
    # A snapshot of before the doubt will not do; one ahead of the stream waits for it.
    client.snapshot_reply(client.asking.last, snapshot(8, only=(1,)), 0)
    assert standings(client) == ["DOUBTFUL", "VALID"]
    assert client.snapshot_reply(client.asking.last, snapshot(18, only=(1,)), 0) == []
    frame = data(15, 2, after=frame)
    client.frame(frame, 0)
    assert standings(client) == ["DOUBTFUL", "VALID"]
    actions = client.frame(data(17, 2, after=frame), 0)
    assert only(Trusted, actions) == [Trusted(1)]
    assert standings(client) == ["VALID", "VALID"]
    client.mirror.check()
    assert client.mirror.books[1].digests() == books_at(18).books[1].digests()
    counters = client.counters
    assert (counters.instrument_repairs, counters.resnapshots, counters.digests_differing) == (1, 0, 1)
    assert (client.position, client.doubted, client.deadline_ns) == ((EPOCH, 18), [], AT_ONCE.silence_ns)


def test_deltas_published_since_are_applied_to_the_snapshot_of_a_doubted_book() -> None:
    client = live_at(10)
    flip(client, 4)
    client.frame(beat(11, sent=11_001, digests=books_at(10).digests(1)), 0)
    client.frame(data(11, 9, sent=12_000), 0)
    actions = client.snapshot_reply(client.asking.last, snapshot(14, only=(1,)), 0)
    assert actions == [Trusted(1)]
    assert client.mirror.books[1].digests() == books_at(19).books[1].digests()


def test_a_delta_that_does_not_fit_puts_its_book_alone_in_doubt() -> None:
    client = live_at(10)
    rows = [*rows_of(11, 1), DELETE | END, 1, 999, 0, 0, 0, *rows_of(13, 2)]
    actions = client.frame(data(11, 4, rows=rows), 0)
    assert only(Doubted, actions) == [Doubted(1, "order 999 of instrument 1 is not in the book on that side")]
    assert standings(client) == ["DOUBTFUL", "VALID"]
    assert client.mirror.books[2].digests() == books_at(14).books[2].digests()
    assert client.position == (EPOCH, 14)
    truth = books_at(11)
    truth.books[1].sequence += 1  # the delta that did nothing
    truth.apply(feed.decode(data(13, 2)).rows)
    answer = truth.snapshot(1, 1, INCARNATION, EPOCH, 0, (1,))
    assert client.snapshot_reply(client.asking.last, answer, 0) == [Trusted(1)]
    assert client.mirror.books[1].digests() == truth.books[1].digests()


def test_an_instrument_sequence_that_does_not_go_on_takes_trust_from_all_books() -> None:
    client = live_at(10)
    frame = feed.encode_frame(1, 1, 0, INCARNATION, EPOCH, 11, 11_000, [(0, 7)], [(2, 9)], rows_of(11, 1))
    actions = client.frame(frame, 0)
    assert (client.state, standings(client)) == (State.SNAPSHOT, ["DOUBTFUL", "DOUBTFUL"])
    assert len(only(Alarm, actions)) == 1
    client.snapshot_reply(client.asking.last, snapshot(10), 0)
    assert client.state is State.SNAPSHOT  # the frame that contradicts must be covered
    client.snapshot_reply(client.asking.last, snapshot(11), 0)
    assert (client.state, standings(client)) == (State.LIVE, ["VALID", "VALID"])


def test_many_books_in_doubt_are_asked_for_at_once() -> None:
    client = live_at(10, ClientLimits(jitter_ns=0, doubted_max=1))
    flip(client, 4)
    flip(client, 5)
    client.frame(beat(11, sent=11_001, digests=(*books_at(10).digests(1), *books_at(10).digests(2))), 0)
    assert client.state is State.SNAPSHOT
    client.snapshot_reply(client.asking.last, snapshot(10), 0)
    assert (client.state, standings(client), client.doubted) == (State.LIVE, ["VALID", "VALID"], [])


def test_after_an_old_sequence_in_a_newer_frame_only_the_publisher_is_believed() -> None:
    client = live_at(30)
    client.frame(data(31), 0)
    assert client.ring is not None
    assert len(client.ring) == 1
    actions = client.frame(data(5, sent=50_000), 0)
    assert len(client.ring) == 0
    assert [letter(action) for action in actions if letter(action)] == ["!", "c"]
    assert (client.counters.received, client.counters.covered, client.next_seq) == (0, 0, 1)
    client.frame(data(32), 0)  # sent before
    assert client.counters.lower_epoch == 1
    client.snapshot_reply(client.asking.last, snapshot(7), 0)
    client.frame(data(7, sent=50_001), 0)  # sent too soon after it to say anything
    assert client.state is State.SNAPSHOT
    eighth = data(8, sent=BORNE - 2)
    ninth = data(9, sent=BORNE - 1, after=eighth)
    client.frame(ninth, 0)  # it is not known whether it follows what came before
    client.frame(data(10, sent=BORNE, after=STRAY), 0)  # it does not
    assert (client.state, client.counters.regressions) == (State.SNAPSHOT, 1)
    tenth = data(10, sent=BORNE + 1, after=ninth)
    client.frame(beat(11, sent=BORNE + 2, after=tenth), 0)
    assert client.state is State.SNAPSHOT
    client.frame(data(11, sent=BORNE + 3, after=tenth), 0)  # goes on from there
    assert (client.state, client.position, client.counters.regressions) == (State.REPAIR, (EPOCH, 7), 1)
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(8)], 0)  # a frame of the earlier run
    assert client.next_seq == 8
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [eighth, ninth, tenth], 0)
    assert (client.state, client.next_seq, standings(client)) == (State.LIVE, 12, ["VALID", "VALID"])
    adds_up(client)


BORNE = AT_ONCE.bear_ns + 1_000_000


def broken(limits: ClientLimits = AT_ONCE) -> FeedClient:
    """A reader whose publisher went from 31 back to 5, and then said over gRPC that it is at 34."""
    client = live_at(30, limits)
    client.frame(data(31), 0)
    client.frame(data(5, sent=50_000), 0)
    client.frame(data(9, sent=50_001), 0)
    client.tick(0)
    client.snapshot_reply(client.asking.last, snapshot(34), 0)
    return client


def test_a_stream_that_stays_behind_what_its_publisher_says_is_not_shown() -> None:
    client = broken()
    for nth in range(5):
        actions = client.frame(data(10 + nth, sent=BORNE + nth), 0)
        assert only(Alarm, actions)[:1] == [Alarm(f"sequence {10 + nth} was sent after 34, in the same epoch {EPOCH}")]
        assert (client.state, standings(client)) == (State.SNAPSHOT, ["DOUBTFUL", "DOUBTFUL"])
        assert client.deadline_ns is not None
        client.tick(client.deadline_ns)
        assert client.state is State.SNAPSHOT
        client.snapshot_reply(client.asking.last, snapshot(34), 0)
    assert client.counters.regressions == 6
    adds_up(client)


def test_each_further_old_sequence_is_asked_about_later() -> None:
    client = broken(ClientLimits(jitter_ns=0))
    waits = []
    for nth in range(10):
        client.frame(data(10 + nth, sent=BORNE + nth), 0)
        assert client.deadline_ns is not None
        waits.append(client.deadline_ns)  # time stands still but for this
        client.tick(client.deadline_ns)
        client.snapshot_reply(client.asking.last, snapshot(34), 0)
    assert waits[0] < SECOND // 10
    assert min(waits[-3:]) > SECOND


def test_what_was_held_of_a_broken_stream_is_dropped_when_a_later_frame_goes_on_from_the_snapshot() -> None:
    client = broken()
    held = data(36, 2, sent=50_002)
    client.frame(held, 0)
    [asked] = only(AskRange, client.frame(data(38, sent=BORNE, after=held), 0))
    assert isinstance(asked, AskRange)
    assert (asked.first, asked.last, client.state, client.position) == (35, 37, State.REPAIR, (EPOCH, 34))
    adds_up(client)


def test_a_snapshot_that_nothing_bears_out_is_asked_for_again() -> None:
    client = broken()
    assert client.deadline_ns == AT_ONCE.snapshot_ns
    [asked] = only(AskSnapshot, client.tick(AT_ONCE.snapshot_ns))
    assert isinstance(asked, AskSnapshot)
    assert asked.home


def test_a_stream_that_for_long_brings_only_what_a_snapshot_has_overtaken_is_not_shown() -> None:
    client = reader()
    client.start(0)
    client.frame(beat(11), 0)
    client.snapshot_reply(client.asking.last, snapshot(30), 0)
    assert standings(client) == ["VALID", "VALID"]
    late = AT_ONCE.silence_ns
    first = data(11, sent=12_000)
    second = data(12, sent=late, after=first)
    client.frame(first, late)  # it was long on its way
    client.frame(second, late)
    assert (client.state, client.counters.superseded) == (State.LIVE, 2)
    assert only(Alarm, client.frame(data(13, sent=late + 11_001, after=second), late + 1))
    assert (client.state, standings(client)) == (State.SNAPSHOT, ["DOUBTFUL", "DOUBTFUL"])


@pytest.mark.parametrize(
    ("frame", "anew"),
    [
        (data(11, 3, sent=11_500), False),
        (data(11, 3, sent=10_900), True),  # the heartbeat before it was sent later
        (data(11, 3, sent=14_001), True),  # the frame behind it was sent earlier
        (data(9, 5, sent=11_500), True),  # its beginning is in the books by an earlier frame
        (data(9, 5, sent=10_500), False),
    ],
)
def test_a_frame_in_a_range_must_have_been_sent_when_its_sequence_says(frame: bytes, anew: bool) -> None:
    client = live_at(10)
    client.frame(data(14, sent=14_000, after=frame), 0)
    actions = client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [frame], 0)
    assert (client.counters.regressions, len(only(Alarm, actions))) == (anew, anew)
    assert (client.state, client.next_seq) == ((State.SNAPSHOT, 1) if anew else (State.LIVE, 15))
    adds_up(client)


def parted(actions: list[Action]) -> bool:
    return any("follows another frame" in action.text for action in actions if isinstance(action, Alarm))


def test_a_frame_with_the_sequence_due_that_follows_another_puts_all_books_in_doubt() -> None:
    client = live_at(10)
    client.frame(data(11), 0)
    assert parted(client.frame(data(12, after=STRAY), 0))  # all that was sent between may have been lost
    assert (client.state, client.counters.regressions) == (State.SNAPSHOT, 1)
    assert standings(client) == ["DOUBTFUL", "DOUBTFUL"]
    assert isinstance(client.asking.asked, AskSnapshot)
    assert client.asking.asked.home
    client.snapshot_reply(client.asking.last, snapshot(13), 0)
    thirteenth = data(13, sent=BORNE)
    client.frame(thirteenth, 0)
    assert client.state is State.SNAPSHOT
    client.frame(data(14, sent=BORNE + 1, after=thirteenth), 0)
    assert (client.state, client.position, standings(client)) == (State.LIVE, (EPOCH, 14), ["VALID", "VALID"])
    adds_up(client)


def test_a_heartbeat_that_follows_another_frame_puts_all_books_in_doubt() -> None:
    client = live_at(10)
    client.frame(data(11), 0)
    assert client.frame(beat(12), 0) == []
    assert parted(client.frame(beat(12, sent=12_001, after=STRAY), 0))
    assert standings(client) == ["DOUBTFUL", "DOUBTFUL"]


def test_a_frame_follows_what_the_heartbeat_before_it_follows() -> None:
    client = live_at(10)
    client.frame(beat(11, sent=11_001), 0)
    assert parted(client.frame(data(11, sent=11_002, after=STRAY), 0))


def test_what_was_held_behind_a_hole_must_follow_what_fills_it() -> None:
    for frame, fine in ((PAIR, True), (data(12, 2, sent=12_001), False)):
        client = in_repair()
        assert parted(client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [frame], 0)) is not fine
        assert (client.state, client.next_seq) == ((State.LIVE, 15) if fine else (State.SNAPSHOT, 1))
        adds_up(client)


def test_what_was_sent_before_the_newest_frame_is_refused_when_a_hole_was_filled_with_another() -> None:
    client = in_repair()
    assert parted(client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(12, 2, after=STRAY)], 0))
    client.frame(data(13), 0)
    assert (client.state, client.counters.lower_epoch, client._held.pieces) == (State.SNAPSHOT, 1, [])


def test_what_fills_a_hole_must_be_what_the_heartbeat_follows_that_showed_it() -> None:
    for frame, fine in ((data(11, 2), True), (data(11, 2, sent=11_001), False)):
        client = live_at(10)
        client.frame(beat(13, after=data(11, 2)), 0)
        assert parted(client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [frame], 0)) is not fine
        assert (client.state, client.next_seq) == ((State.LIVE, 13) if fine else (State.SNAPSHOT, 1))
        adds_up(client)


def test_what_fills_a_hole_must_not_begin_within_the_frame_before_it() -> None:
    client = live_at(10)
    client.frame(data(11), 0)
    client.frame(data(13, after=data(11, 2)), 0)
    assert parted(client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(11, 2)], 0))


def test_the_first_frame_behind_a_snapshot_may_follow_any_and_the_next_one_must_follow_it() -> None:
    client = live_at(10)
    client._top_next = 0  # as if nothing had been heard before the snapshot
    first = data(9, 4, sent=11_001, after=STRAY)
    assert only(Alarm, client.frame(first, 0)) == []
    assert (client.state, client.next_seq) == (State.LIVE, 13)
    assert only(Alarm, client.frame(data(13, after=first), 0)) == []
    assert parted(client.frame(data(14, after=first), 0))


@pytest.mark.parametrize("first", [data(1, flags=FRESH, after=STRAY), beat(1, flags=FRESH, after=STRAY)])
def test_the_first_frame_of_an_epoch_follows_none(first: bytes) -> None:
    client = joining()
    assert parted(client.frame(first, 0))
    assert client.state is State.SNAPSHOT
    client = joining()
    client.frame(beat(1, flags=FRESH), 0)
    assert client.state is State.LIVE
    assert parted(client.frame(data(1, sent=1_001, flags=FRESH, after=STRAY), 0))


def test_the_first_frame_of_an_epoch_follows_none_in_a_range_either() -> None:
    client = joining()
    client.frame(beat(1, flags=FRESH), 0)
    first = data(1, sent=1_001, flags=FRESH, after=STRAY)
    client.frame(data(2, flags=FRESH, after=first), 0)
    assert parted(client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [first], 0))


def test_another_incarnation_is_believed_when_the_publisher_says_so() -> None:
    client = live_at(30)
    [asked] = client.frame(data(5, incarnation=78, epoch=1), 0)
    assert isinstance(asked, AskSnapshot)
    assert (asked.home, asked.instrument) == (True, 0)
    assert standings(client) == ["VALID", "VALID"]
    assert client.snapshot_reply(asked.ask, snapshot(30), 0) == []  # not so
    assert (client.state, client.position, client.counters.foreign) == (State.LIVE, (EPOCH, 30), 1)
    [asked] = client.frame(data(5, incarnation=78, epoch=1), 0)
    assert isinstance(asked, AskSnapshot)
    client.snapshot_reply(asked.ask, snapshot(5, incarnation=78, epoch=1), 0)
    assert (client.state, client.position, client.incarnation) == (State.LIVE, (1, 5), 78)
    client.frame(data(6, incarnation=78, epoch=1), 0)
    assert client.next_seq == 7


def test_old_books_stay_readable_and_marked_until_the_new_epochs_snapshot() -> None:
    client = live_at(10)
    client.frame(data(3, epoch=9), 0)
    assert (client.position, standings(client)) == ((EPOCH, 10), ["DOUBTFUL", "DOUBTFUL"])
    assert client.mirror.books[1].digests() == books_at(10).books[1].digests()
    client.snapshot_reply(client.asking.last, snapshot(2, epoch=9), 0)
    assert (client.position, standings(client)) == ((9, 3), ["VALID", "VALID"])


def test_frames_a_snapshot_has_overtaken_are_no_regression() -> None:
    client = live()
    for seq in (12, 13, 14):
        assert client.frame(data(seq), 0) == []
    assert (client.state, client.counters.superseded, client.counters.regressions) == (State.LIVE, 3, 0)


# Lag and lines

LAG = AT_ONCE.lag_ns


def test_a_reader_too_far_behind_says_so_and_begins_again_in_the_present() -> None:
    client = live_at(10)
    before = data(11, sent=11_001)
    assert only(Applied, client.frame(before, LAG))
    actions = client.frame(data(12, after=before), LAG + SECOND)
    assert client.state is State.LAGGED
    assert only(Lagged, actions) == [Lagged(LAG + SECOND - 1_000, False)]  # the best was heartbeat 11, sent at 11,000
    assert client.frame(data(13), LAG + SECOND) == []
    assert (client.counters.lags, client.counters.passed_over, client.position) == (1, 1, (EPOCH, 11))
    assert standings(client) == ["STALE", "STALE"]
    assert client.deadline_ns is None
    client.rejoin(LAG + 2 * SECOND)
    assert (client.state, standings(client)) == (State.JOINING, ["DOUBTFUL", "DOUBTFUL"])
    actions = client.frame(data(31), LAG + 2 * SECOND)
    [opened] = only(GapOpened, actions)
    assert isinstance(opened, GapOpened)
    assert (opened.gap.first, opened.gap.last, opened.gap.cause) == (12, 30, "lag")
    client.snapshot_reply(client.asking.last, snapshot(25), LAG + 2 * SECOND)
    assert client.counters.resnapshots == 0  # what was passed over must be covered
    actions = client.snapshot_reply(client.asking.last, snapshot(30), LAG + 2 * SECOND)
    assert only(MissingSpan, actions) == [MissingSpan(EPOCH, 12, 30)]
    assert (client.state, client.position, standings(client)) == (State.LIVE, (EPOCH, 31), ["VALID", "VALID"])
    assert [(gap.first, gap.last, gap.cause, gap.how) for gap in client.ledger.closed] == [(12, 30, "lag", "snapshot")]
    adds_up(client)


def test_a_hole_that_is_open_when_the_reader_lags_is_covered_by_the_snapshot_behind_it() -> None:
    client = live_at(10)
    client.frame(data(13), 0)
    client.frame(data(14), 10 * SECOND)
    assert (client.state, client._held.pieces) == (State.LAGGED, [])
    client.rejoin(10 * SECOND)
    client.frame(beat(21), 10 * SECOND)
    client.snapshot_reply(client.asking.last, snapshot(20), 10 * SECOND)
    assert (client.state, client.position) == (State.LIVE, (EPOCH, 20))
    closed = [(gap.first, gap.last, gap.cause, gap.how) for gap in client.ledger.closed]
    assert closed == [(11, 12, "frame", "snapshot"), (14, 20, "lag", "snapshot")]
    adds_up(client)


def test_lag_is_measured_from_the_least_delay_and_may_be_of_no_interest() -> None:
    client = live_at(10)
    frames = [data(11, sent=12_000)]
    for seq, sent in ((12, 0), (13, 1), (14, 2)):
        frames.append(data(seq, sent=LAG + SECOND + sent, after=frames[-1]))
    client.frame(frames[0], LAG)
    assert client.age_ns(LAG + 5) == LAG - 1_000 + 5  # heard just now, and that late
    client.frame(frames[1], SECOND)  # its clock is ahead: this is the least from here on
    client.frame(frames[2], SECOND + LAG)
    assert client.counters.lags == 0
    client.frame(frames[3], SECOND + LAG + 3)
    assert client.counters.lags == 1
    patient = live_at(10, ClientLimits(lag_ns=0, jitter_ns=0))
    patient.frame(data(11, sent=11_001), 3_600 * SECOND)
    assert patient.state is State.LIVE


def test_a_drift_of_clocks_is_no_lag() -> None:
    client = live_at(10)
    seq, before = 11, data(10)
    for minute in range(600):  # a second an hour, and more: without a window, three hours would be lag
        now_ns = minute * 60 * SECOND + 1
        client.tick(now_ns)
        before = data(seq, sent=max(now_ns - minute * SECOND // 50, seq * 1_000), after=before)
        client.frame(before, now_ns)
        assert client.state is State.LIVE
        seq += 1


def test_repaired_frames_are_no_lag_though_they_are_old() -> None:
    client = live_at(10)
    client.frame(data(12, sent=10 * SECOND), 10 * SECOND)
    client.range_reply(client.asking.last, RangeStatus.OK, EPOCH, [data(11)], 20 * SECOND)
    assert client.state is State.LIVE
    client.frame(data(9), 20 * SECOND)
    assert (client.state, client.counters.duplicates) == (State.LIVE, 1)


def test_who_prefers_the_conflated_quotes_is_told_to_go_over() -> None:
    client = live_at(10, ClientLimits(conflate=True))
    actions = client.frame(data(11, sent=11_001), 10 * SECOND)
    assert only(Lagged, actions) == [Lagged(10 * SECOND - 1, True)]


def test_of_two_lines_the_first_to_bring_a_frame_wins() -> None:
    client = live_at(10)
    client.lines = Lines(2)
    for seq, order in ((11, (0, 1)), (12, (1, 0)), (13, (1, 0))):
        [applied] = client.frame(data(seq), seq, order[0])
        assert isinstance(applied, Applied)
        assert client.frame(data(seq), seq, order[1]) == []
    assert client.lines.first == [1, 2]
    assert (client.counters.received, client.counters.duplicates, client.position) == (3, 3, (EPOCH, 13))


def test_with_two_lines_up_a_hole_waits_for_the_other_line_before_it_is_asked_for() -> None:
    limits = ClientLimits(jitter_ns=0)
    client = live_at(10, limits)
    client.lines = Lines(2)
    client.frame(data(11), 0, 0)
    client.frame(data(11), 0, 1)
    assert only(AskRange, client.frame(data(13), 1_000, 0)) == []
    assert client.deadline_ns == 1_000 + limits.reorder_ns
    client.frame(data(12), 2_000, 1)
    assert (client.state, client.deadline_ns) == (State.LIVE, 1_000 + limits.silence_ns)
    assert [gap.how for gap in client.ledger.closed] == ["late"]
    client.frame(data(15), 3_000, 0)
    [asked] = client.tick(3_000 + limits.reorder_ns)
    assert isinstance(asked, AskRange)


def test_with_one_of_two_lines_up_a_hole_is_asked_for_at_once() -> None:
    client = live_at(10, ClientLimits(jitter_ns=0))
    client.lines = Lines(2)
    client.frame(data(11), 0, 1)
    assert only(AskRange, client.frame(data(13), client.limits.silence_ns, 0))


def test_a_lagged_book_is_stale_and_as_old_as_what_was_applied_last() -> None:
    client = live_at(10)
    before = data(11, sent=11_001)
    client.frame(before, SECOND)
    client.frame(data(12, after=before), 20 * SECOND)
    assert client.standing(2) is Standing.STALE
    assert client.age_ns(20 * SECOND) == 20 * SECOND - 1


@pytest.mark.parametrize("seed", range(3))
def test_hostile_bytes_are_counted_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    client = live_at(10)
    good = data(11, 5)
    for n in range(300):
        hostile = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            hostile[rng.randrange(len(hostile))] ^= 1 << rng.randrange(8)
        if bytes(hostile) == good:
            continue
        assert client.frame(bytes(hostile[: rng.randrange(len(hostile) + 1)]), n) == []
    assert client.next_seq == 11
    assert client.counters.bad_frames >= 290
