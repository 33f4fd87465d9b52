"""Deltas in, frames out: gives every delta its place in the stream, and keeps the frames for those who missed one.

Deltas are numbered from 1 within (engine, channel, epoch), and again within each instrument. Frames are cut by
count, bytes and age; an event may span frames. Nothing here reads a clock: time is an argument.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from proto import feed
from proto.columns import DELTA_WIDTH
from proto.feed import END, OP_MASK, TOLD, Digest

DELTAS_MAX: Final = 64  # in a frame
BYTES_MAX: Final = 1_200  # of a frame with more than one delta
AGE_NS_MAX: Final = 1_000_000  # from the first look at a delta to its frame
RING_FRAMES: Final = 65_536
RANGE_BYTES_MAX: Final = 1 << 20  # of frames in one answer


class RangeStatus(IntEnum):
    """What became of a request for a range; numbers as in marketdata.proto."""

    OK = 0
    OUT_OF_RANGE = 1
    WRONG_EPOCH = 2


@dataclass(slots=True)
class RangeResult:
    """Frames from the first sequence asked for on, as published, or why not.

    A long range is cut at RANGE_BYTES_MAX, and one that reaches beyond what is held ends there: ask
    again from the end. held_first and held_last are 0 when nothing is held.
    """

    status: RangeStatus
    epoch: int
    held_first: int
    held_last: int
    frames: list[bytes]


class FrameRing:
    """The latest frames of one epoch, without holes between them, found by sequence.

    Cost: append O(1) amortised; find O(log n) and the frames returned. At most `size` frames.
    """

    __slots__ = ("_ends", "_firsts", "_frames", "_size", "_start", "epoch")

    def __init__(self, size: int = RING_FRAMES) -> None:
        self.epoch = 0
        self._size = size
        self._start = 0  # what lies before is let go of, and removed now and then
        self._firsts: list[int] = []  # strictly rising
        self._ends: list[int] = []  # strictly rising; the sequence after a frame's last
        self._frames: list[bytes] = []

    def __len__(self) -> int:
        return len(self._frames) - self._start

    def append(self, epoch: int, first_seq: int, count: int, frame: bytes) -> None:
        """Keep a frame of `count` deltas from `first_seq` on.

        Frames of another epoch, and those before a hole, are forgotten. A frame that reaches no
        further than what is held is not kept; one that overlaps may be.
        """
        end = first_seq + count
        held_end = self._ends[-1] if self._ends else 0
        if epoch != self.epoch or first_seq > held_end:
            self.clear(epoch)
        elif first_seq < held_end and not self._make_room(first_seq, end):
            return
        self._firsts.append(first_seq)
        self._ends.append(end)
        self._frames.append(frame)
        if len(self._frames) - self._start > self._size:
            self._frames[self._start] = b""
            self._start += 1
            if self._start > self._size // 4:
                self._sweep()

    def _make_room(self, first_seq: int, end: int) -> bool:
        """Let go of frames that a new one covers; False if one held reaches as far as the new one."""
        if end <= self._ends[-1]:
            return False
        while len(self) and first_seq <= self._firsts[-1]:
            self._firsts.pop()
            self._ends.pop()
            self._frames.pop()
        return True

    def clear(self, epoch: int) -> None:
        """Forget all frames; those of `epoch` come next."""
        self.epoch = epoch
        self._start = 0
        self._firsts = []
        self._ends = []
        self._frames = []

    def find(self, epoch: int, first_seq: int, last_seq: int) -> RangeResult:
        """The frames that hold `first_seq` to `last_seq`; they may overhang at both ends."""
        if not len(self):
            status = RangeStatus.OUT_OF_RANGE if epoch == self.epoch else RangeStatus.WRONG_EPOCH
            return RangeResult(status, self.epoch, 0, 0, [])
        held_first, held_last = self._firsts[self._start], self._ends[-1] - 1
        if epoch != self.epoch:
            return RangeResult(RangeStatus.WRONG_EPOCH, self.epoch, held_first, held_last, [])
        if not held_first <= first_seq <= min(last_seq, held_last):
            return RangeResult(RangeStatus.OUT_OF_RANGE, epoch, held_first, held_last, [])
        at = bisect_right(self._ends, first_seq, self._start)
        stop = bisect_left(self._firsts, last_seq + 1, at)
        frames: list[bytes] = []
        size = 0
        for frame in self._frames[at:stop]:
            size += len(frame)
            if frames and size > RANGE_BYTES_MAX:
                break
            frames.append(frame)
        return RangeResult(RangeStatus.OK, epoch, held_first, held_last, frames)

    def _sweep(self) -> None:
        del self._firsts[: self._start]
        del self._ends[: self._start]
        del self._frames[: self._start]
        self._start = 0


class Sequencer:
    """One stream's publisher, without the socket: append what happened, take the frames that are due.

    next_seq     what the next delta appended will be numbered
    ring         every frame taken, heartbeats aside
    """

    __slots__ = (
        "_channel",
        "_engine",
        "_epoch",
        "_extras",
        "_flags",
        "_follows",
        "_framed_seq",
        "_incarnation",
        "_instrument_seqs",
        "_pending_since_ns",
        "_reframed",
        "_rows",
        "_sent_ns",
        "_time_ns",
        "_times",
        "ended",
        "next_seq",
        "ring",
    )

    def __init__(
        self,
        engine: int,
        channel: int,
        incarnation: int,
        epoch: int,
        fresh: bool,
        ring_frames: int = RING_FRAMES,
        *,
        reframed: bool = False,
        first_seq: int = 1,
        instrument_seqs: Mapping[int, int] | None = None,
    ) -> None:
        """`reframed`: what was published once is framed anew, from `first_seq` on, where `instrument_seqs` are the
        sequences of each instrument's last delta before it."""
        self._engine = engine
        self._channel = channel
        self._incarnation = incarnation
        self._epoch = epoch
        self._flags = feed.REFRAMED if reframed else feed.FRESH if fresh else 0
        self._reframed = reframed
        self._rows: list[int] = []  # appended, not framed
        self._extras: list[Sequence[object]] = []  # what they carry, in their order
        self._times: list[tuple[int, int]] = []  # (sequence, time) where it changes, beyond _framed_seq
        self._time_ns = 0  # of the last event framed
        self._framed_seq = first_seq  # the next to be framed
        self._instrument_seqs: dict[int, int] = dict(instrument_seqs or {})  # framed so far
        self._sent_ns = 0
        self._follows = 0  # the crc of the last frame of deltas; 0 before the first
        self._pending_since_ns = 0
        self.next_seq = first_seq
        self.ended = False
        self.ring = FrameRing(ring_frames)
        self.ring.clear(epoch)

    @property
    def pending(self) -> int:
        """How many deltas wait for their frame."""
        return self.next_seq - self._framed_seq

    @property
    def due_ns(self) -> int:
        """When take() must be called at the latest, if anything pends since it was called last; else 0."""
        return self._pending_since_ns + AGE_NS_MAX if self._pending_since_ns else 0

    def instrument_seq(self, instrument: int) -> int:
        """The sequence of the instrument's last delta, pending ones included; 0 before its first. O(pending)."""
        return self._instrument_seqs.get(instrument, 0) + self._rows[1::DELTA_WIDTH].count(instrument)

    def append(self, time_ns: int, rows: Sequence[int], extras: Sequence[Sequence[object]] = ()) -> None:
        """Number the deltas of whole events that happened at `time_ns`, which never falls.

        rows is flat, DELTA_WIDTH values a delta; what rows of the ops in TOLD carry is in extras.
        """
        if not rows:
            return
        assert not self.ended
        assert len(rows) % DELTA_WIDTH == 0
        assert rows[-DELTA_WIDTH] & END, "an event that has not ended"
        latest_ns = self._times[-1][1] if self._times else self._time_ns
        if time_ns != latest_ns:
            assert time_ns > latest_ns, (time_ns, latest_ns)
            self._times.append((self.next_seq, time_ns))
        if extras:
            self._extras += [extras[rows[i + 2]] for i in range(0, len(rows), DELTA_WIDTH) if rows[i] & OP_MASK in TOLD]
        self._rows += rows
        self.next_seq += len(rows) // DELTA_WIDTH

    def take(self, now_ns: int, flush: bool) -> list[bytes]:
        """Frames that are due: those that are full; with `flush`, or when the rest is old enough, all."""
        pending = self.next_seq - self._framed_seq
        if not pending:
            return []
        if not self._pending_since_ns:
            self._pending_since_ns = now_ns
        taken: list[bytes] = []
        at = 0
        while pending - at >= DELTAS_MAX:
            self._frame(at, DELTAS_MAX, now_ns, taken)
            at += DELTAS_MAX
        if at < pending and (flush or now_ns - self._pending_since_ns >= AGE_NS_MAX):
            self._frame(at, pending - at, now_ns, taken)
            at = pending
        if at:
            del self._rows[: at * DELTA_WIDTH]
            self._pending_since_ns = now_ns if at < pending else 0
        return taken

    def heartbeat(self, now_ns: int, digests: Sequence[Digest] = ()) -> list[bytes]:
        """What pends, then a heartbeat with the next sequence; digests are of the books as they now stand."""
        return self._flushed(now_ns, 0, digests)

    def end(self, now_ns: int) -> list[bytes]:
        """What pends, then the end of the stream. Nothing may be appended after it."""
        self.ended = True
        return self._flushed(now_ns, feed.END_OF_STREAM, ())

    def _flushed(self, now_ns: int, flags: int, digests: Sequence[Digest]) -> list[bytes]:
        frames = self.take(now_ns, True)
        self._sent_ns = max(now_ns, self._sent_ns + 1)
        frames.append(
            feed.encode_heartbeat(
                self._engine,
                self._channel,
                self._flags | flags,
                self._incarnation,
                self._epoch,
                self.next_seq,
                self._sent_ns,
                digests,
                self._follows,
            )
        )
        return frames

    def _frame(self, at: int, count: int, now_ns: int, taken: list[bytes]) -> None:
        """Frame `count` pending deltas, in halves if they make it too long."""
        rows = self._rows[at * DELTA_WIDTH : (at + count) * DELTA_WIDTH]
        extras = self._carried_by(rows) if self._extras else []
        names = rows[1::DELTA_WIDTH]
        sequences = self._instrument_seqs
        instruments = [(name, sequences.get(name, 0) + 1) for name in dict.fromkeys(names)]
        first_seq = self._framed_seq
        times = [(0, self._time_ns)]
        changes = 0
        if self._times and self._times[0][0] < first_seq + count:
            times, changes = self._times_within(first_seq, first_seq + count)
        sent_ns = max(now_ns, self._sent_ns + 1)
        frame = feed.encode_frame(
            self._engine,
            self._channel,
            self._flags,
            self._incarnation,
            self._epoch,
            first_seq,
            sent_ns,
            times,
            instruments,
            rows,
            extras,
            self._follows,
        )
        if len(frame) > BYTES_MAX and count > 1:
            self._frame(at, count // 2, now_ns, taken)
            self._frame(at + count // 2, count - count // 2, now_ns, taken)
            return
        if len(instruments) == 1:
            sequences[names[0]] = instruments[0][1] + count - 1
        else:
            for name in names:
                sequences[name] = sequences.get(name, 0) + 1
        if changes:
            self._time_ns = times[-1][1]
            del self._times[:changes]
        if extras:
            del self._extras[: len(extras)]
        self._framed_seq = first_seq + count
        self._sent_ns = sent_ns
        if not self._reframed:  # which belong to no chain
            self._follows = feed.crc_of(frame)
        self.ring.append(self._epoch, first_seq, count, frame)
        taken.append(frame)

    def _carried_by(self, rows: list[int]) -> list[Sequence[object]]:
        """The extras of the next frame's rows, which are made to point at them."""
        count = 0
        for i in range(0, len(rows), DELTA_WIDTH):
            if rows[i] & OP_MASK in TOLD:
                rows[i + 2] = count
                count += 1
        return self._extras[:count]

    def _times_within(self, first_seq: int, end_seq: int) -> tuple[list[tuple[int, int]], int]:
        """The frame's times, and how many entries of _times it uses up."""
        changes = bisect_left(self._times, (end_seq, 0))
        times = [(seq - first_seq, time_ns) for seq, time_ns in self._times[:changes]]
        if times[0][0] > 0:
            times.insert(0, (0, self._time_ns))
        return times, changes
