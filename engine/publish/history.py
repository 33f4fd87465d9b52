"""What an engine published long ago: its log, played again, tells the same deltas under the same sequences.

`python -m engine.publish.history` is a child of the engine, at low priority: it takes up the last snapshot before what
is asked for, applies the log from there on as a restart would, and writes HistoryReply messages to its standard output,
each behind its length. The engine only passes them on, and spends nothing else on it. Frames are made anew: neither
where they begin nor when they were sent is logged, and each says so by its flag.

It ends when its standard input does, so that it does not outlive the engine.
"""

from __future__ import annotations

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("engine.publish.history", "history")

import argparse
import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from bus.stream.sequencer import DELTAS_MAX as FRAME_DELTAS
from bus.stream.sequencer import Sequencer
from engine.log import records
from engine.log.condense import EXIT_CANNOT_READ, EXIT_OK, NICE, ROOT, leave_with_stdin
from engine.log.contract import LogError
from engine.log.numbering import Numbering, opening, traded
from engine.log.records import RecordError
from engine.log.replay import Records, beginning, replay
from engine.log.state import EngineState, StateError, load
from engine.log.view import SqliteLogView
from proto import logs, marketdata_pb2
from proto.columns import DELTA_WIDTH, ChannelDeltas, Outcome
from proto.dial import Parser
from proto.feed import END

REPLY_BYTES: Final = 256 << 10
DELTAS_MAX: Final = 1_000_000  # in one history
READ_MAX: Final = 1 << 20  # bytes that wait in the engine for a caller

OK: Final = marketdata_pb2.HISTORY_OK
CUT: Final = marketdata_pb2.HISTORY_CUT
OUT_OF_RANGE: Final = marketdata_pb2.HISTORY_OUT_OF_RANGE
UNKNOWN_EPOCH: Final = marketdata_pb2.HISTORY_UNKNOWN_EPOCH
UNREADABLE: Final = marketdata_pb2.HISTORY_UNREADABLE


@dataclass(frozen=True, slots=True)
class HistorySpan:
    """What is asked for: from a sequence, of an epoch and a channel or (not 0) an instrument, or from a time.

    To a sequence of that epoch, or to before a time; 0: to the end, which is the log's record `through`.
    """

    channel: int
    epoch: int
    first: int
    last: int
    from_ns: int
    to_ns: int
    instrument: int
    through: int


class NotTold(Exception):
    """There is no such history; `status` is a HistoryStatus."""

    def __init__(self, status: marketdata_pb2.HistoryStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class View(Protocol):
    """What is needed of a log (engine/log/view.py)."""

    incarnation: int
    dropped: int

    def read(self, after: int) -> Iterator[tuple[int, bytes]]: ...

    def body(self, position: int) -> bytes | None: ...

    def snapshots(self) -> Iterator[tuple[int, bytes]]: ...


class _Up:
    """A log, up to a position."""

    def __init__(self, log: View, through: int) -> None:
        self._log = log
        self._through = through

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        for position, body in self._log.read(after):
            if position > self._through:
                return
            yield position, body


class Telling:
    """Deltas in, in the order of the log; frames out of those that are asked for, by whole events."""

    def __init__(self, engine: int, incarnation: int, span: HistorySpan, epoch: int, numbering: Numbering) -> None:
        self.epoch = epoch
        self.next_seq = 0  # the sequence after the last one told, of the channel or as asked for; 0: none was
        self.told = 0
        self.done = False
        self.cut = False  # for its length
        self._engine = engine
        self._incarnation = incarnation
        self._span = span
        self._numbering = numbering
        self._begun = False
        self._sequencer: Sequencer | None = None  # of the epoch, once something of it is told
        self._sent_ns = 0  # of the next frame
        self._frames: list[bytes] = []

    def open(self, epoch: int) -> None:
        """An epoch begins. Raises: NotTold if the one asked for has passed."""
        self._take(True)
        self._sequencer = None
        self.ended()
        self.epoch = epoch
        self._numbering.begin()

    def ended(self) -> None:
        """The epoch, or the log, is at its end. Raises: NotTold if more of it was asked for."""
        span = self._span
        if self.done or not span.first or self.epoch != span.epoch:
            return
        reached = self._reached()
        if not span.last and span.first == reached + 1:
            self._begun = True  # at the end: what comes after
            return
        what = f"instrument {span.instrument}" if span.instrument else f"channel {span.channel}"
        if not self._begun or span.last > reached:
            raise NotTold(OUT_OF_RANGE, f"epoch {span.epoch} has 1 to {reached} of {what}")

    def hear(self, time_ns: int, deltas: Sequence[ChannelDeltas]) -> None:
        """These were published."""
        for one in deltas:
            if one.channel == self._span.channel and not self.done:
                self._hear_events(time_ns, one)
        self._numbering.count(deltas)

    def take(self) -> list[bytes]:
        """The frames that are full."""
        taken, self._frames = self._frames, []
        return taken

    def end(self) -> list[bytes]:
        """All the rest."""
        self._take(True)
        return self.take()

    def _reached(self) -> int:
        span, numbering = self._span, self._numbering
        if span.instrument:
            return numbering.instrument_seqs.get(span.instrument, 0)
        return numbering.next_seq(span.channel) - 1

    def _hear_events(self, time_ns: int, deltas: ChannelDeltas) -> None:
        rows = deltas.rows
        first_seq = self._numbering.next_seq(deltas.channel)
        sequences: dict[int, int] = {}  # of instruments, in these rows
        start = 0
        for at in range(0, len(rows), DELTA_WIDTH):
            if not rows[at] & END:
                continue
            event = rows[start : at + DELTA_WIDTH]
            before = dict(sequences) if self._sequencer is None else {}
            for name in event[1::DELTA_WIDTH]:
                sequences[name] = sequences.get(name, self._numbering.instrument_seqs[name]) + 1
            self._judge(time_ns, first_seq + start // DELTA_WIDTH, event, sequences)
            if self.done:
                return
            if self._begun:
                if self._sequencer is None:
                    self._begin(time_ns, first_seq + start // DELTA_WIDTH, before)
                self._tell(time_ns, event, deltas.extras)
            start = at + DELTA_WIDTH

    def _judge(self, time_ns: int, first_seq: int, event: list[int], sequences: dict[int, int]) -> None:
        """Whether this event is the first of those asked for, or behind all of them."""
        span = self._span
        if not self._begun and span.first:
            last = sequences.get(span.instrument, 0) if span.instrument else first_seq + len(event) // DELTA_WIDTH - 1
            self._begun = self.epoch == span.epoch and last >= span.first
        elif not self._begun:
            self._begun = time_ns >= span.from_ns
        if span.to_ns and time_ns >= span.to_ns:
            self.done = True
        elif self.told >= DELTAS_MAX:
            self.done = self.cut = True

    def _begin(self, time_ns: int, first_seq: int, before: dict[int, int]) -> None:
        """What is told of this epoch begins there; `before`: the instruments' sequences that have changed since."""
        span = self._span
        self._sequencer = Sequencer(
            self._engine, span.channel, self._incarnation, self.epoch, fresh=False, ring_frames=0, reframed=True,
            first_seq=first_seq, instrument_seqs={**self._numbering.instrument_seqs, **before},
        )  # fmt: skip
        self._sent_ns = max(self._sent_ns, time_ns)

    def _tell(self, time_ns: int, event: list[int], extras: Sequence[Sequence[object]]) -> None:
        span, sequencer = self._span, self._sequencer
        assert sequencer is not None
        sequencer.append(time_ns, event, extras)
        self.told += len(event) // DELTA_WIDTH
        self.next_seq = sequencer.instrument_seq(span.instrument) + 1 if span.instrument else sequencer.next_seq
        self.done = 0 < span.last < self.next_seq
        if sequencer.pending >= FRAME_DELTAS:
            self._take(False)

    def _take(self, flush: bool) -> None:
        if self._sequencer is not None:
            taken = self._sequencer.take(self._sent_ns, flush)
            self._sent_ns += len(taken)
            self._frames += taken


def tell(log: View, span: HistorySpan) -> Iterator[marketdata_pb2.HistoryReply]:
    """The replies to a request, the last one with its end. Raises: LogError, RecordError."""
    telling: Telling | None = None
    try:
        if span.first:
            _check_epoch(log, span.epoch)
        after, state = _begin(log, span)
        telling = Telling(state.venue.engine, log.incarnation, span, state.epoch, state.numbering)
        frames: list[bytes] = []
        size = 0
        for _ in _played(_Up(log, span.through), after, state, telling):
            for frame in telling.take():
                frames.append(frame)
                size += len(frame)
                if size >= REPLY_BYTES:
                    yield marketdata_pb2.HistoryReply(frames=frames)
                    frames, size = [], 0
            if telling.done:
                break
        else:
            telling.ended()
        frames += telling.end()
        yield _reply(frames, CUT if telling.cut else OK, f"{telling.told:,} deltas", telling.epoch, telling.next_seq)
    except NotTold as e:
        epoch, next_seq = (telling.epoch, telling.next_seq) if telling is not None else (0, 0)
        yield _reply(telling.end() if telling is not None else [], e.status, str(e), epoch, next_seq)


def _reply(
    frames: Sequence[bytes], status: marketdata_pb2.HistoryStatus, reason: str, epoch: int, next_seq: int
) -> marketdata_pb2.HistoryReply:
    end = marketdata_pb2.HistoryEnd(status=status, reason=reason, epoch=epoch, next_seq=next_seq)
    return marketdata_pb2.HistoryReply(frames=frames, end=end)


def _played(log: Records, after: int, state: EngineState, telling: Telling) -> Iterator[None]:
    """Play the log to the telling, a little at a time."""
    markets = state.venue.markets

    def opened(epoch: int, time_ns: int) -> None:
        telling.open(epoch)
        telling.hear(max(time_ns, state.venue.time_ns), opening(traded(markets.values())))

    def release(position: int, time_ns: int, outcome: Outcome) -> None:
        telling.hear(time_ns, outcome.deltas)

    for _ in replay(log, state, after, release, opened):
        yield


def _check_epoch(log: View, epoch: int) -> None:
    """An epoch is the position of the record that opened it, but where a loss was accepted, and behind that."""
    if epoch <= log.dropped:
        raise NotTold(OUT_OF_RANGE, f"the log begins behind its record {log.dropped}, and epoch {epoch} before it")
    if _opens(log.body(epoch), epoch, epoch):
        return
    rare = ((position, body) for position, body in log.read(log.dropped) if records.is_rare(body))
    if not any(_opens(body, position, epoch) for position, body in rare):
        raise NotTold(UNKNOWN_EPOCH, f"there was no epoch {epoch}")


def _opens(body: bytes | None, position: int, epoch: int) -> bool:
    record = None if body is None else records.decode(body)
    return isinstance(record, records.Epoch) and records.epoch_at(position, record) == epoch


def _begin(log: View, span: HistorySpan) -> tuple[int, EngineState]:
    """The last state before what is asked for, and its position."""
    for position, body in log.snapshots():
        try:
            state = load(body)
        except StateError:
            continue
        if log.dropped <= position <= span.through and _is_before(state, span):
            return position, state
    if log.dropped:
        raise NotTold(OUT_OF_RANGE, f"the log begins behind its record {log.dropped}")
    return 0, beginning(log)


def _is_before(state: EngineState, span: HistorySpan) -> bool:
    if not span.first:
        return state.venue.time_ns < span.from_ns
    if state.epoch != span.epoch:
        return state.epoch < span.epoch
    if span.instrument:
        return state.numbering.instrument_seqs[span.instrument] < span.first
    return state.numbering.next_seq(span.channel) <= span.first


class Historian:
    """The engine's side: a child for each request, whose replies are passed on (bus/service.py, Historian).

    command   what makes one, but for its options
    present   the last record that was applied, and the epoch
    """

    def __init__(self, command: Sequence[str], present: Callable[[], tuple[int, int]]) -> None:
        self._command = list(command)
        self._present = present

    async def tell(self, request: marketdata_pb2.HistoryRequest) -> AsyncGenerator[marketdata_pb2.HistoryReply, None]:
        through, epoch = self._present()
        options = {
            "channel": request.channel, "epoch": request.epoch or epoch, "first": request.first_seq,
            "last": request.last_seq, "from-ns": request.from_ns, "to-ns": request.to_ns,
            "instrument": request.instrument, "through": through,
        }  # fmt: skip
        command = [*self._command, "--with-stdin", *(f"--{name}={value}" for name, value in options.items())]
        # Not asyncio's own way, which under uvloop forks: that copies the page tables of all the books.
        process = subprocess.Popen(  # noqa: ASYNC220
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert process.stdin
        assert process.stdout
        reader = asyncio.StreamReader(limit=READ_MAX)
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), process.stdout
        )
        try:
            while True:
                try:
                    size = int.from_bytes(await reader.readexactly(4), "little")
                    reply = marketdata_pb2.HistoryReply.FromString(await reader.readexactly(size))
                except asyncio.IncompleteReadError:
                    yield _reply([], UNREADABLE, "the log could not be played again", 0, 0)
                    return
                yield reply
                if reply.HasField("end"):
                    return
        finally:
            pipe.close()
            process.kill()
            process.wait()
            process.stdin.close()


def write(replies: Iterator[marketdata_pb2.HistoryReply], to: BinaryIO) -> None:
    """Each message behind its length, 4 bytes, little-endian."""
    for reply in replies:
        body = reply.SerializeToString()
        to.write(len(body).to_bytes(4, "little") + body)
        to.flush()


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m engine.publish.history",
        description="Write to standard output what an engine published, out of its log: HistoryReply messages "
        "(proto/marketdata.proto), each behind its length in 4 bytes, little-endian.",
        epilog="example: python -m engine.publish.history --data data/engine-1 --channel 1 --epoch 1 --first 1",
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="where its log is")
    parser.add_argument("--channel", type=int, default=1, metavar="N", help="which of its streams (default 1)")
    parser.add_argument("--epoch", type=int, default=0, metavar="N", help="of the sequences")
    parser.add_argument("--first", type=int, default=0, metavar="SEQ", help="from this sequence on")
    parser.add_argument("--last", type=int, default=0, metavar="SEQ", help="to this one")
    parser.add_argument("--from-ns", type=int, default=0, metavar="NS", help="or from this time on")
    parser.add_argument("--to-ns", type=int, default=0, metavar="NS", help="to before this one")
    parser.add_argument("--instrument", type=int, default=0, metavar="ID", help="whose sequences they are")
    parser.add_argument(
        "--through", type=int, default=1 << 62, metavar="N", help="the last record of the log to look at"
    )
    parser.add_argument("--with-stdin", action="store_true", help="end when standard input does")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when the last reply was written, whatever it says; 2 for wrong usage; 3 if the log cannot be read."""
    args = parser().parse_args(argv)
    logs.set_up()
    if args.with_stdin:
        os.nice(NICE)
        threading.Thread(target=leave_with_stdin, daemon=True).start()
    gc.disable()
    span = HistorySpan(
        args.channel, args.epoch, args.first, args.last, args.from_ns, args.to_ns, args.instrument, args.through
    )
    try:
        log = SqliteLogView(args.data)
        try:
            write(tell(log, span), sys.stdout.buffer)
        finally:
            log.close()
    except BrokenPipeError:
        os._exit(EXIT_OK)  # who asked has heard enough
    except (LogError, RecordError, OSError) as e:
        write(iter([_reply([], UNREADABLE, str(e), 0, 0)]), sys.stdout.buffer)
        print(f"history: {e}", file=sys.stderr)
        return EXIT_CANNOT_READ
    return EXIT_OK
