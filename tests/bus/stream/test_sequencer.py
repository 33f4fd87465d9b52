"""The sequencer gives every delta one place, cuts frames by count, bytes and age, and keeps them to be found."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bus.stream.sequencer import AGE_NS_MAX, BYTES_MAX, RANGE_BYTES_MAX, FrameRing, RangeResult, RangeStatus, Sequencer
from proto import feed
from proto.columns import DELTA_WIDTH
from proto.feed import ADD, CLEAR, DEFINITION, END, STATUS, Definition, Digest, Row, Status

ALFA = Definition("ALFA", "0.01", "1", 1, 100)


def sequencer(fresh: bool = False) -> Sequencer:
    return Sequencer(engine=1, channel=0, incarnation=9, epoch=5, fresh=fresh, ring_frames=100)


def adds(count: int, instrument: int = 7, first_id: int = 1) -> list[int]:
    """Events of one delta each."""
    return [v for i in range(count) for v in (ADD | END, instrument, first_id + i, 100, 5, 0)]


def event(count: int, instrument: int = 7) -> list[int]:
    """One event."""
    rows = adds(count, instrument)
    for at in range(0, len(rows) - DELTA_WIDTH, DELTA_WIDTH):
        rows[at] = ADD
    return rows


def counts(frames: list[bytes]) -> list[tuple[int, int]]:
    return [(head.first_seq, head.count) for head in map(feed.decode_header, frames)]


def rows_of(frames: list[bytes]) -> list[Row]:
    return [row for frame in frames for row in feed.decode(frame).rows]


# When a frame is due


def test_a_full_frame_is_due_at_once_and_the_rest_waits() -> None:
    s = sequencer()
    s.append(1, adds(150))
    assert counts(s.take(1_000, False)) == [(1, 64), (65, 64)]
    assert (s.pending, s.next_seq) == (22, 151)
    assert s.take(1_001, False) == []


def test_a_flush_takes_all() -> None:
    s = sequencer()
    s.append(1, adds(70))
    assert counts(s.take(1_000, True)) == [(1, 64), (65, 6)]
    assert (s.pending, s.due_ns) == (0, 0)
    assert s.take(1_001, True) == []


def test_what_waits_is_due_a_millisecond_after_it_was_first_seen() -> None:
    s = sequencer()
    s.append(1, adds(3))
    assert s.take(1_000, False) == []
    assert s.due_ns == 1_000 + AGE_NS_MAX
    s.append(2, adds(3))
    assert s.take(999 + AGE_NS_MAX, False) == []
    assert counts(s.take(1_000 + AGE_NS_MAX, False)) == [(1, 6)]
    s.append(3, adds(1))
    assert s.take(1_000 + AGE_NS_MAX, False) == []
    assert s.due_ns == 1_000 + 2 * AGE_NS_MAX


def test_an_event_may_span_frames_and_only_its_last_frame_ends_it() -> None:
    s = sequencer()
    s.append(1, event(130))
    flags = [feed.decode_header(frame).flags for frame in s.take(1_000, True)]
    assert flags == [0, 0, feed.END_OF_EVENT]


def test_no_frame_of_several_deltas_is_longer_than_the_limit() -> None:
    s = sequencer()
    wide = [v for i in range(64) for v in (ADD | END, 1 << 31 | i, 1 << 62 - i % 2, (-1) ** i * (1 << 39), 1 << 39, 0)]
    s.append(1, wide)
    frames = s.take(1_000, False)
    assert max(map(len, frames)) <= BYTES_MAX
    assert counts(frames) == [(1, 32), (33, 32)]
    assert [v for row in rows_of(frames) for v in row] == wide


def test_a_delta_that_is_too_long_alone_still_goes() -> None:
    s = sequencer()
    long = ["LONG", "0.01", "1", 1, 100, *["x" * 400] * 4]
    s.append(1, [DEFINITION | END, 7, 0, 0, 0, 0, *adds(1)], [long])
    frames = s.take(1_000, True)
    assert counts(frames) == [(1, 1), (2, 1)]
    assert len(frames[0]) > BYTES_MAX


# What is in it


def test_frames_carry_the_stream_and_say_fresh_if_it_is() -> None:
    for fresh in (False, True):
        s = sequencer(fresh)
        s.append(1, adds(1))
        for frame in s.heartbeat(1_000):
            header = feed.decode_header(frame)
            assert (header.engine, header.channel, header.incarnation, header.epoch) == (1, 0, 9, 5)
            assert (header.flags & feed.FRESH != 0) == fresh


def test_every_frame_and_heartbeat_follows_the_frame_of_deltas_before_it() -> None:
    s = sequencer()
    frames = s.heartbeat(500)
    s.append(1, adds(150))
    frames += s.take(1_000, False) + s.heartbeat(1_100) + s.heartbeat(1_200)
    wide = [v for i in range(64) for v in (ADD | END, 1 << 31 | i, 1 << 62 - i % 2, (-1) ** i * (1 << 39), 1 << 39, 0)]
    s.append(2, wide)  # too long for one frame: the second half follows the first
    frames += s.take(1_300, False) + s.end(1_400)
    assert [count for _, count in counts(frames)] == [0, 64, 64, 22, 0, 0, 32, 32, 0]
    crcs = [0]
    for frame in frames:
        header = feed.decode_header(frame)
        assert header.follows == crcs[-1]
        if header.count:
            crcs.append(feed.crc_of(frame))
    assert len(set(crcs)) == 6
    assert crcs[1:] == [feed.crc_of(frame) for frame in s.ring.find(5, 1, 214).frames]


def test_instruments_are_numbered_each_for_itself() -> None:
    s = sequencer()
    s.append(1, adds(2, 7) + adds(1, 8))
    first = s.take(1_000, True)
    s.append(2, adds(1, 8) + adds(1, 9) + adds(1, 7))
    assert (s.instrument_seq(7), s.instrument_seq(8), s.instrument_seq(9), s.instrument_seq(10)) == (3, 2, 1, 0)
    second = s.take(2_000, True)
    assert [feed.decode(frame).instruments for frame in first + second] == [[(7, 1), (8, 1)], [(8, 2), (9, 1), (7, 3)]]
    assert (s.instrument_seq(7), s.instrument_seq(8), s.instrument_seq(9), s.instrument_seq(10)) == (3, 2, 1, 0)


def test_every_event_keeps_its_time_wherever_the_frames_are_cut() -> None:
    s = sequencer()
    s.append(500, event(60))
    s.append(600, adds(2))
    s.append(600, adds(1))
    s.append(700, event(10))
    frames = s.take(1_000, True)
    assert [feed.decode(frame).times for frame in frames] == [[(0, 500), (60, 600), (63, 700)], [(0, 700)]]
    s.append(700, adds(1))
    s.append(800, adds(1))
    assert [feed.decode(frame).times for frame in s.take(2_000, True)] == [[(0, 700), (1, 800)]]


def test_send_times_rise_even_when_the_clock_does_not() -> None:
    s = sequencer()
    s.append(1, adds(130))
    frames = s.take(1_000, True) + s.heartbeat(1_000) + s.heartbeat(990) + s.end(5_000)
    assert [feed.decode_header(frame).sent_ns for frame in frames] == [1_000, 1_001, 1_002, 1_003, 1_004, 5_000]


def test_extras_follow_their_deltas_through_any_cut() -> None:
    s = sequencer()
    definition = [DEFINITION | END, 7, 1, 0, 0, 0]
    status = [STATUS | END, 7, 0, 0, 0, 0]
    s.append(1, definition + adds(62) + status, [Status(2, 0), ALFA])
    s.append(1, status + adds(1), [Status(3, 1)])
    frames = [feed.decode(frame) for frame in s.take(1_000, True)]
    assert [frame.extras for frame in frames] == [[ALFA, Status(2, 0)], [Status(3, 1)]]
    assert frames[1].rows[0] == (STATUS | END, 7, 0, 0, 0, 0)
    s.append(2, status, [Status(1, 0)])
    assert feed.decode(s.take(2_000, True)[0]).extras == [Status(1, 0)]


def test_a_heartbeat_follows_what_pends_and_tells_the_next_sequence() -> None:
    s = sequencer()
    s.append(1, adds(3))
    digest = Digest(7, 3, 0, -5, 900, 2)
    data, heartbeat = map(feed.decode, s.heartbeat(1_000, [digest]))
    assert (data.header.first_seq, data.header.count) == (1, 3)
    assert (heartbeat.header.first_seq, heartbeat.header.count) == (4, 0)
    assert heartbeat.digests == [digest]
    assert [feed.decode_header(frame).first_seq for frame in s.heartbeat(2_000)] == [4]


def test_the_end_of_the_stream_follows_what_pends_and_nothing_follows_it() -> None:
    s = sequencer()
    s.append(1, adds(3))
    data, end = map(feed.decode_header, s.end(1_000))
    assert (data.count, end.first_seq, end.flags) == (3, 4, feed.HEARTBEAT | feed.END_OF_STREAM)
    with pytest.raises(AssertionError):
        s.append(2, adds(1))


def test_an_event_without_its_end_and_a_time_that_falls_are_our_own_bugs() -> None:
    s = sequencer()
    with pytest.raises(AssertionError):
        s.append(1, [ADD, 7, 1, 100, 5, 0])
    with pytest.raises(AssertionError):
        s.append(1, [ADD | END, 7, 1, 100, 5])
    s.append(2, adds(1))
    with pytest.raises(AssertionError):
        s.append(1, adds(1))


def test_nothing_appended_is_nothing() -> None:
    s = sequencer()
    s.append(1, [])
    assert (s.next_seq, s.pending, s.take(1, True)) == (1, 0, [])


@given(st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=60)
def test_whatever_is_appended_comes_out_once_in_order_and_numbered(seed: int) -> None:
    rng = random.Random(seed)
    s = sequencer()
    put: list[tuple[int, ...]] = []
    frames: list[bytes] = []
    now_ns = time_ns = 0
    for _ in range(rng.randint(1, 25)):
        now_ns += rng.randint(0, AGE_NS_MAX // 2)
        if rng.random() < 0.7:
            time_ns += rng.choice((0, 1, 1_000_000))
            rows = []
            extras: list[Any] = []
            for _ in range(rng.randint(1, 40)):
                op = rng.choice((ADD, CLEAR, STATUS)) | rng.choice((0, END))
                name = rng.randint(1, 3)
                if op & feed.OP_MASK == STATUS:
                    rows.append([op, name, len(extras), 0, 0, 0])
                    extras.append(Status(rng.randint(1, 5), rng.randint(0, 1 << 30)))
                elif op & feed.OP_MASK == ADD:
                    rows.append([op, name, rng.randint(1, 1 << 60), rng.randint(-9, 1 << 39), rng.randint(1, 99), 0])
                else:
                    rows.append([op, name, 0, 0, 0, 0])
            rows[-1][0] |= END
            s.append(time_ns, [v for row in rows for v in row], extras)
            for row in rows:
                told = extras[row[2]] if row[0] & feed.OP_MASK == STATUS else row[2]
                put.append((time_ns, row[0], row[1], told, row[3], row[4]))
        frames += s.take(now_ns, rng.random() < 0.3)
        s.ring._sweep()
    frames += s.heartbeat(now_ns)[:-1]
    got: list[tuple[int, ...]] = []
    seen: dict[int, int] = {}
    sent_ns = -1
    for frame in map(feed.decode, frames):
        assert frame.header.first_seq == len(got) + 1
        assert frame.header.sent_ns > sent_ns
        sent_ns = frame.header.sent_ns
        assert frame.instruments == [(name, seen.get(name, 0) + 1) for name in dict.fromkeys(r[1] for r in frame.rows)]
        for i, row in enumerate(frame.rows):  # type: ignore[assignment]
            seen[row[1]] = seen.get(row[1], 0) + 1
            told = frame.extras[row[2]] if row[0] & feed.OP_MASK == STATUS else row[2]
            got.append((frame.time_of(i), row[0], row[1], told, row[3], row[4]))  # type: ignore[arg-type]
    assert got == put
    assert s.next_seq == len(put) + 1
    if put:
        found = s.ring.find(5, 1, len(put))
        assert found.frames == frames or len(frames) > 100


# The ring


def ring(size: int = 4) -> FrameRing:
    r = FrameRing(size)
    r.clear(5)
    for i in range(6):
        r.append(5, 1 + 10 * i, 10, b"%d" % i)
    return r


@pytest.mark.parametrize(
    ("first", "last", "frames"),
    [
        (21, 30, [b"2"]),
        (25, 26, [b"2"]),
        (30, 31, [b"2", b"3"]),
        (21, 60, [b"2", b"3", b"4", b"5"]),
        (60, 60, [b"5"]),
        (55, 999, [b"5"]),
    ],
)
def test_a_range_is_whole_frames_that_may_overhang(first: int, last: int, frames: list[bytes]) -> None:
    assert ring().find(5, first, last) == RangeResult(RangeStatus.OK, 5, 21, 60, frames)


@pytest.mark.parametrize(("first", "last"), [(20, 30), (1, 60), (61, 70), (30, 29)])
def test_a_range_that_does_not_begin_in_the_ring_is_refused_with_what_is_held(first: int, last: int) -> None:
    assert ring().find(5, first, last) == RangeResult(RangeStatus.OUT_OF_RANGE, 5, 21, 60, [])


def test_a_range_of_another_epoch_is_refused_with_the_epoch() -> None:
    assert ring().find(4, 21, 30) == RangeResult(RangeStatus.WRONG_EPOCH, 5, 21, 60, [])
    empty = FrameRing()
    assert empty.find(5, 1, 1) == RangeResult(RangeStatus.WRONG_EPOCH, 0, 0, 0, [])
    empty.clear(5)
    assert empty.find(5, 1, 1) == RangeResult(RangeStatus.OUT_OF_RANGE, 5, 0, 0, [])


def test_a_long_range_is_cut_at_a_frame() -> None:
    r = FrameRing()
    for i in range(40):
        r.append(5, 1 + i, 1, bytes(60_000))
    found = r.find(5, 1, 40)
    assert (found.status, len(found.frames)) == (RangeStatus.OK, RANGE_BYTES_MAX // 60_000)
    r.append(5, 41, 1, bytes(RANGE_BYTES_MAX + 1))
    assert len(r.find(5, 41, 41).frames) == 1


def test_a_new_epoch_and_a_hole_empty_the_ring() -> None:
    r = ring()
    r.append(6, 1, 10, b"x")
    assert r.find(6, 1, 10) == RangeResult(RangeStatus.OK, 6, 1, 10, [b"x"])
    r.append(6, 12, 1, b"y")
    assert r.find(6, 12, 12) == RangeResult(RangeStatus.OK, 6, 12, 12, [b"y"])
    assert len(r) == 1
    r.append(6, 13, 5, b"z")
    assert r.find(6, 13, 13).frames == [b"z"]
    assert r.find(6, 12, 17).frames == [b"y", b"z"]


def test_frames_that_overlap_are_kept_when_they_reach_further() -> None:
    r = ring()
    r.append(5, 51, 10, b"again")
    r.append(5, 41, 5, b"old")
    assert r.find(5, 41, 60).frames == [b"4", b"5"]
    r.append(5, 58, 6, b"overhang")
    assert r.find(5, 51, 63).frames == [b"5", b"overhang"]
    r.append(5, 51, 20, b"longer")
    assert r.find(5, 41, 70) == RangeResult(RangeStatus.OK, 5, 31, 70, [b"4", b"longer"])


@given(st.integers(0, 1 << 32), st.integers(1, 9))
@settings(deadline=None, max_examples=60)
def test_any_range_agrees_with_a_walk_over_all_frames(seed: int, size: int) -> None:
    rng = random.Random(seed)
    r = FrameRing(size)
    kept: list[tuple[int, int, bytes]] = []
    due = 1
    for i in range(rng.randint(1, 40)):
        count = rng.randint(1, 5)
        r.append(5, due, count, b"%d" % i)
        kept.append((due, due + count - 1, b"%d" % i))
        due += count
    kept = kept[-size:]
    for _ in range(20):
        first, last = sorted((rng.randint(1, due + 2), rng.randint(1, due + 2)))
        found = r.find(5, first, last)
        if kept[0][0] <= first < due:
            assert found.frames == [frame for low, high, frame in kept if high >= first and low <= last]
        else:
            assert (found.status, found.frames) == (RangeStatus.OUT_OF_RANGE, [])
        assert (found.held_first, found.held_last) == (kept[0][0], due - 1)
