"""A recording of the feed: what its readers took in, frame by frame and answer by answer.

A recording is a file of records behind a first line, little-endian:

    b"lobmesh recording 1\\n"
    length u32 (of what follows it in this record), kind u8, time_ns u64 (Unix), engine u16, channel u16, body

    kind  body
    V     the instruments there were, as JSON: a list of objects as in cluster.toml; the first record
    F     a frame as it came, topic included (FEED.md)
    S     a snapshot that was asked for and came (FEED.md, "Snapshot")
    R     a range that was asked for: status u8, epoch u64, then each frame behind its length u32
    X     an ask that failed: why, in UTF-8

Records stand in the order in which the readers took them in, so that playing them (tools/tail/play.py) leads through
the same states. A file that ends within a record was cut off there: what came before is good.
"""

import json
import struct
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import BinaryIO, Final, NamedTuple

from bus.access.asking import Ranged, Taken
from bus.stream.feed_client import FeedClient
from proto.instrument import FIELDS, Instrument
from proto.snapshot import encode_snapshot

MAGIC: Final = b"lobmesh recording 1\n"
VENUE: Final = b"V"
FRAME: Final = b"F"
SNAPSHOT: Final = b"S"
RANGE: Final = b"R"
FAILED: Final = b"X"
SINCE_NS: Final = time.time_ns() - time.monotonic_ns()  # the readers' clock is the monotonic one
SEED: Final = 1  # of the readers' jitter, when they are recorded and when they are played

LENGTH: Final = struct.Struct("<I")
HEAD: Final = struct.Struct("<cQHH")
RANGE_HEAD: Final = struct.Struct("<BQ")


class TapeRecord(NamedTuple):
    """One thing that a reader took in."""

    kind: bytes
    body: bytes
    time_ns: int
    engine: int
    channel: int


class Writer:
    """Appends records to a file, which must not buffer: whatever the disk has not taken is known at once.

    `size` is how many bytes of whole records the file holds. Every call raises OSError when the disk does.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self._file = file
        self._put(MAGIC)

    def begin(self, instruments: Sequence[Instrument], now_ns: int) -> None:
        """Write the first record."""
        venue = [dict(zip(FIELDS, instrument.values, strict=True)) for instrument in instruments]
        self.write(TapeRecord(VENUE, json.dumps(venue).encode(), now_ns, 0, 0))

    def write(self, record: TapeRecord) -> None:
        head = HEAD.pack(record.kind, record.time_ns, record.engine, record.channel)
        self._put(LENGTH.pack(HEAD.size + len(record.body)) + head + record.body)

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]
        self.size += len(data)


class Recorder:
    """Writes down all that the readers of a feed take in (bus/access/asking.py, Tap), until the disk takes no more.

    `ended` is called once, then, with what is to be said of it.
    """

    def __init__(self, writer: Writer, ended: Callable[[str], None]) -> None:
        self._writer: Writer | None = writer
        self._ended = ended

    def tap(self, client: FeedClient, taken: Taken, now_ns: int) -> None:
        """A reader has taken this in."""
        writer, time_ns = self._writer, now_ns + SINCE_NS
        if writer is None:
            return
        try:
            writer.write(TapeRecord(*_written(taken), time_ns, client.engine, client.channel))
        except OSError as e:
            self._writer = None
            at = f"{datetime.fromtimestamp(time_ns / 1e9):%H:%M:%S.%f}"
            self._ended(f"{e.strerror}: {writer.size:,} bytes are good, what came from {at} on is missing")


def _written(taken: Taken) -> tuple[bytes, bytes]:
    """Kind and body."""
    if isinstance(taken, bytes):
        return FRAME, taken
    if isinstance(taken, str):
        return FAILED, taken.encode()
    return (RANGE, range_body(taken)) if isinstance(taken, Ranged) else (SNAPSHOT, encode_snapshot(taken))


def range_body(ranged: Ranged) -> bytes:
    frames = b"".join(LENGTH.pack(len(frame)) + frame for frame in ranged.frames)
    return RANGE_HEAD.pack(ranged.status, ranged.epoch) + frames
