"""A recording of the feed: what one reader received, frame by frame and answer by answer, and the reading of it again.

A recording is a file of records behind a first line, little-endian:

    b"lobmesh recording 1\\n"
    length u32 (of what follows it in this record), kind u8, time_ns u64 (Unix), engine u16, channel u16, body

    kind  body
    V     the instruments there were, as JSON: a list of objects as in cluster.toml; the first record
    F     a frame as it came, topic included (FEED.md)
    S     a snapshot that was asked for and came (FEED.md, "Snapshot")
    R     a range that was asked for: status u8, epoch u64, then each frame behind its length u32
    X     an ask that failed: why, in UTF-8

Records stand in the order in which the reader took them in, so `Player` gives the same to the same state machine and
it goes through the same states. A file that ends within a record was cut off there: what came before is good.
"""

import json
import random
import struct
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import BinaryIO, Final, NamedTuple

from bus.stream.actions import Action, AskRange, AskSnapshot, Withdrawn
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import RangeStatus
from proto.cluster import Instrument
from proto.feed import FeedError
from proto.snapshot import Snapshot, decode_snapshot

MAGIC: Final = b"lobmesh recording 1\n"
VENUE: Final = b"V"
FRAME: Final = b"F"
SNAPSHOT: Final = b"S"
RANGE: Final = b"R"
FAILED: Final = b"X"
SEED: Final = 1  # of the reader's jitter, when it is recorded and when it is played
RECORD_MAX: Final = 128 << 20

_LENGTH: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<cQHH")
_RANGE: Final = struct.Struct("<BQ")


class RecordingError(ValueError):
    """This file is no recording."""


class Record(NamedTuple):
    """One thing that a reader took in."""

    kind: bytes
    time_ns: int
    engine: int
    channel: int
    body: bytes


class Writer:
    """Appends records to a file. Every call raises OSError when the disk does."""

    def __init__(self, file: BinaryIO, instruments: Sequence[Instrument], now_ns: int) -> None:
        self._file = file
        file.write(MAGIC)
        venue = [{name: str(getattr(i, name)) for name in Instrument.__dataclass_fields__} for i in instruments]
        self.write(Record(VENUE, now_ns, 0, 0, json.dumps(venue).encode()))

    def write(self, record: Record) -> None:
        self._file.write(_LENGTH.pack(_HEAD.size + len(record.body)))
        self._file.write(_HEAD.pack(record.kind, record.time_ns, record.engine, record.channel) + record.body)

    def flush(self) -> None:
        self._file.flush()


def read(file: BinaryIO) -> Iterator[Record]:
    """The records, the venue first. Raises: RecordingError, at the place where it is none."""
    if file.read(len(MAGIC)) != MAGIC:
        raise RecordingError("this is no recording")
    while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        if not _HEAD.size <= length <= RECORD_MAX:
            raise RecordingError(f"a record of {length:,} bytes")
        rest = file.read(length)
        if len(rest) < length:
            return
        kind, time_ns, engine, channel = _HEAD.unpack_from(rest)
        yield Record(kind, time_ns, engine, channel, rest[_HEAD.size :])


def venue_of(record: Record) -> list[Instrument]:
    """The instruments of the first record. Raises: RecordingError."""
    if record.kind != VENUE:
        raise RecordingError("it does not begin with its venue")
    try:
        return [
            Instrument(
                id=int(each["id"]),
                symbol=each["symbol"],
                engine=int(each["engine"]),
                channel=int(each["channel"]),
                tick_size=Decimal(each["tick_size"]),
                lot_size=Decimal(each["lot_size"]),
                price_min=int(each["price_min"]),
                price_max=int(each["price_max"]),
            )
            for each in json.loads(record.body)
        ]
    except (ValueError, KeyError, TypeError, ArithmeticError) as e:
        raise RecordingError(f"its venue cannot be read: {e}") from None


def range_body(status: RangeStatus, epoch: int, frames: Sequence[bytes]) -> bytes:
    return _RANGE.pack(status, epoch) + b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames)


def range_of(body: bytes) -> tuple[RangeStatus, int, list[bytes]]:
    """Raises: RecordingError."""
    try:
        status, epoch = _RANGE.unpack_from(body)
        frames, at = [], _RANGE.size
        while at < len(body):
            (length,) = _LENGTH.unpack_from(body, at)
            at += _LENGTH.size + length
            frames.append(body[at - length : at])
        return RangeStatus(status), epoch, frames
    except (struct.error, ValueError) as e:
        raise RecordingError(f"a range that cannot be read: {e}") from None


class Player:
    """The readers of a recording's streams, given what was recorded, one record after the other."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        streams = dict.fromkeys((i.engine, i.channel) for i in instruments)
        self.clients = {stream: FeedClient(*stream, random.Random(SEED)) for stream in streams}
        self.now_ns = 0
        self.unasked = 0  # answers to what was not asked this time
        self._asked: dict[FeedClient, AskRange | AskSnapshot] = {}

    def play(self, record: Record) -> list[tuple[FeedClient, Action]]:
        """What the readers make of it, and of the time until then. Raises: RecordingError."""
        out: list[tuple[FeedClient, Action]] = []
        self.now_ns = record.time_ns
        for client in self.clients.values():
            if client.state is client.state.DOWN:
                self._note(client, client.start(record.time_ns), out)
            self._tick(client, record.time_ns, out)
        reader = self.clients.get((record.engine, record.channel))
        if reader is not None:
            self._note(reader, self._taken_in(reader, record), out)
        return out

    def _tick(self, client: FeedClient, now_ns: int, out: list[tuple[FeedClient, Action]]) -> None:
        before = None
        while (due_ns := client.deadline_ns) is not None and due_ns <= now_ns and due_ns != before:
            before = due_ns
            self._note(client, client.tick(due_ns), out)

    def _taken_in(self, client: FeedClient, record: Record) -> list[Action]:
        if record.kind == FRAME:
            return client.frame(record.body, record.time_ns)
        asked = self._asked.pop(client, None)
        if record.kind == SNAPSHOT and isinstance(asked, AskSnapshot):
            return client.snapshot_reply(asked.ask, _snapshot(record), record.time_ns)
        if record.kind == RANGE and isinstance(asked, AskRange):
            return client.range_reply(asked.ask, *range_of(record.body), record.time_ns)
        if record.kind == FAILED and asked is not None:
            return client.failed(asked.ask, record.body.decode(errors="replace"), record.time_ns)
        self.unasked += 1
        return []

    def _note(self, client: FeedClient, actions: list[Action], out: list[tuple[FeedClient, Action]]) -> None:
        for action in actions:
            if isinstance(action, AskRange | AskSnapshot):
                self._asked[client] = action
            elif isinstance(action, Withdrawn):
                self._asked.pop(client, None)
            out.append((client, action))


def _snapshot(record: Record) -> Snapshot:
    try:
        return decode_snapshot(record.body)
    except FeedError as e:
        raise RecordingError(f"a snapshot that cannot be read: {e}") from None
