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

from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import RangeStatus
from proto.instrument import FIELDS, Instrument
from proto.snapshot import Snapshot, encode_snapshot

MAGIC: Final = b"lobmesh recording 1\n"
VENUE: Final = b"V"
FRAME: Final = b"F"
SNAPSHOT: Final = b"S"
RANGE: Final = b"R"
FAILED: Final = b"X"
SEED: Final = 1  # of the readers' jitter, when they are recorded and when they are played

LENGTH: Final = struct.Struct("<I")
HEAD: Final = struct.Struct("<cQHH")
RANGE_HEAD: Final = struct.Struct("<BQ")


class Record(NamedTuple):
    """One thing that a reader took in."""

    kind: bytes
    time_ns: int
    engine: int
    channel: int
    body: bytes


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
        self.write(Record(VENUE, now_ns, 0, 0, json.dumps(venue).encode()))

    def write(self, record: Record) -> None:
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
        self._since_ns = time.time_ns() - time.monotonic_ns()  # the readers' clock is the monotonic one

    def frame(self, client: FeedClient, frame: bytes, now_ns: int) -> None:
        self._keep(client, FRAME, now_ns, frame)

    def snapshot(self, client: FeedClient, snapshot: Snapshot, now_ns: int) -> None:
        self._keep(client, SNAPSHOT, now_ns, encode_snapshot(snapshot))

    def range(self, client: FeedClient, status: RangeStatus, epoch: int, frames: Sequence[bytes], now_ns: int) -> None:
        self._keep(client, RANGE, now_ns, range_body(status, epoch, frames))

    def failed(self, client: FeedClient, reason: str, now_ns: int) -> None:
        self._keep(client, FAILED, now_ns, reason.encode())

    def _keep(self, client: FeedClient, kind: bytes, now_ns: int, body: bytes) -> None:
        writer = self._writer
        if writer is None:
            return
        time_ns = self._since_ns + now_ns
        try:
            writer.write(Record(kind, time_ns, client.engine, client.channel, body))
        except OSError as e:
            self._writer = None
            at = f"{datetime.fromtimestamp(time_ns / 1e9):%H:%M:%S.%f}"
            self._ended(f"{e.strerror}: {writer.size:,} bytes are good, what came from {at} on is missing")


def range_body(status: RangeStatus, epoch: int, frames: Sequence[bytes]) -> bytes:
    return RANGE_HEAD.pack(status, epoch) + b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)
