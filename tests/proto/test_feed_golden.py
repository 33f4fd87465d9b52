"""The frames in FEED.md are what the codec writes and what it reads: every kind, every operation, byte for byte."""

import hashlib
import re
from pathlib import Path
from typing import Any

import msgpack
import pytest

from proto import feed
from proto.columns import LIMIT
from proto.feed import Definition, Digest, Frame, Header, Quote, Row, Statistics, Status
from proto.snapshot import BookSnapshot, Snapshot, decode_snapshot, encode_snapshot

FEED_MD = (Path(__file__).resolve().parents[2] / "proto" / "FEED.md").read_text()

ID = 1 << 48  # order ids of engine 1 begin here
TIME_NS = 1_700_000_000_000_000_000
SENT_NS = TIME_NS + 250_000
FOLLOWS = 0x1F2E3D4C  # the crc32 of the frame before, which is not shown
STREAM: dict[str, Any] = {"engine": 1, "channel": 0, "incarnation": 0x01020304, "epoch": 5}
ALFA = Definition("ALFA", "0.01", "1", 1, 1_000_000)
HALT = Status(feed.HALTED, 2)
SESSION = Statistics(100, 105, 99, 104, 2_000, 204_000, 17)
DIGESTS = [
    Digest(7, 4, 0, 99, LIMIT, feed.orders_hash([ID + 1, 100, 5, ID + 3, 100, 2, ID + 2, 99, 7])),
    Digest(9, 3, 1, -LIMIT, LIMIT, feed.orders_hash([])),
]
QUOTE = Quote(TIME_NS, 7, 4, feed.OPEN, 100, 5, 1, 0, 0, 0, 100, 3, 41)


def header(flags: int, count: int, first_seq: int, kind: int = feed.KIND_D) -> Header:
    follows = FOLLOWS if kind == feed.KIND_D else 0
    return Header(kind, flags, 1, 0, count, feed.CODEC_MSGPACK, 0x01020304, 5, first_seq, SENT_NS, follows)


def one(row: Row, extras: list[Any]) -> Frame:
    """A frame of one delta, which is all of its event."""
    return Frame(header(feed.END_OF_EVENT, 1, 11), [row], [(0, TIME_NS)], [(7, 3)], extras, [])


END = feed.END
FRAMES = {
    "add": one((feed.ADD | END, 7, ID + 1, 100, 5, 0), []),
    "cancel": one((feed.CANCEL | END, 7, ID + 1, 0, 2, 0), []),
    "modify": one((feed.MODIFY | END, 7, ID + 1, 0, 3, 0), []),
    "delete": one((feed.DELETE | feed.SELL | END, 7, ID + 1, 0, 0, 0), []),
    "execute": one((feed.EXECUTE | END, 7, ID + 1, 100, 3, 41), []),
    "trade": one((feed.TRADE | feed.SELL | END, 7, 0, 100, 3, 42), []),
    "clear": one((feed.CLEAR | END, 7, 0, 0, 0, 0), []),
    "definition": one((feed.DEFINITION | END, 7, 0, 0, 0, 0), [ALFA]),
    "status": one((feed.STATUS | END, 7, 0, 0, 0, 0), [HALT]),
    "statistics": one((feed.STATISTICS | END, 7, 0, 0, 0, 0), [SESSION]),
    "indication": one((feed.INDICATION | END, 7, 0, 0, 0, 0), [feed.Indication(101, 30, -5)]),
    "bust": one((feed.BUST | END, 7, 0, 0, 0, 41), []),
    "correction": one((feed.CORRECTION | END, 7, 0, 100, 2, 41), []),
    "trades around a bust": Frame(
        header(feed.END_OF_EVENT, 4, 11),
        [
            (feed.EXECUTE | END, 7, ID + 1, 100, 3, 41),
            (feed.BUST | END, 7, 0, 0, 0, 12),
            (feed.CORRECTION | END, 7, 0, 105, 2, 13),
            (feed.TRADE | END, 7, 0, 104, 1, 42),
        ],
        [(0, TIME_NS)],
        [(7, 3)],
        [],
        [],
    ),
    "several": Frame(
        header(feed.FRESH, 5, 11),
        [
            (feed.ADD, 7, ID + 300, 100, 5, 0),
            (feed.ADD | feed.SELL | END, 9, ID + 301, -3, 1_000_000, 0),
            (feed.EXECUTE | feed.SELL, 9, ID + 301, -3, 400_000, 8),
            (feed.EXECUTE | feed.SELL | END, 9, ID + 301, -3, 600_000, 9),
            (feed.CANCEL, 7, ID + 300, 0, 2, 0),
        ],
        [(0, TIME_NS), (2, TIME_NS + 1_000)],
        [(7, 3), (9, 1)],
        [],
        [],
    ),
    "heartbeat": Frame(header(feed.HEARTBEAT, 0, 16), [], [], [], [], []),
    "heartbeat with digests": Frame(
        header(feed.HEARTBEAT | feed.FRESH | feed.DIGEST, 0, 16), [], [], [], [], DIGESTS
    ),
    "end of stream": Frame(header(feed.HEARTBEAT | feed.END_OF_STREAM, 0, 16), [], [], [], [], []),
    "quote": Frame(
        header(feed.END_OF_EVENT, 1, 15, feed.KIND_Q), [], [(0, TIME_NS)], [(7, 4)], [], [], QUOTE
    ),
    "quote heartbeat": Frame(header(feed.HEARTBEAT, 0, 16, feed.KIND_Q), [], [], [], [], []),
}  # fmt: skip

SNAPSHOT = Snapshot(
    1, 0, 0x01020304, 5, 15, SENT_NS,
    [
        BookSnapshot(
            7, ALFA, Status(feed.AUCTION, 0), 4, 100, 3, 41, 42, SESSION, feed.Indication(101, 30, -5),
            [(ID + 1, 100, 5), (ID + 5, 100, 1_000_000), (ID + 2, -1, 3)],
            [(ID + 4, 101, 2)],
        ),
        BookSnapshot(9, None, Status(0, 0), 3, 0, 0, 0, 1, None, None, [], []),
    ],
)  # fmt: skip


def golden(name: str) -> bytes:
    """The hex under a heading of FEED.md."""
    match = re.search(rf"^#### {name}\n+```\n(.*?)```", FEED_MD, re.DOTALL | re.MULTILINE)
    assert match, f"FEED.md has no bytes for {name!r}"
    return bytes.fromhex(match[1])


def encoded(frame: Frame) -> bytes:
    """What the codec writes for a decoded frame."""
    head = frame.header
    flags = head.flags & (feed.FRESH | feed.END_OF_STREAM)
    if frame.quote:
        return feed.encode_quote(**STREAM, as_of_seq=head.first_seq, sent_ns=SENT_NS, quote=frame.quote)
    if head.kind == feed.KIND_Q:
        return feed.encode_quote_heartbeat(**STREAM, flags=flags, next_seq=head.first_seq, sent_ns=SENT_NS)
    if head.count == 0:
        return feed.encode_heartbeat(
            **STREAM,
            flags=flags,
            next_seq=head.first_seq,
            sent_ns=SENT_NS,
            digests=frame.digests,
            follows=head.follows,
        )
    rows = [value for row in frame.rows for value in row]
    return feed.encode_frame(
        **STREAM,
        flags=flags,
        first_seq=head.first_seq,
        sent_ns=SENT_NS,
        times=frame.times,
        instruments=frame.instruments,
        rows=rows,
        extras=frame.extras,
        follows=head.follows,
    )


@pytest.mark.parametrize("name", FRAMES)
def test_the_codec_writes_the_bytes_of_feed_md(name: str) -> None:
    assert encoded(FRAMES[name]).hex() == golden(name).hex()


@pytest.mark.parametrize("name", FRAMES)
def test_the_codec_reads_the_bytes_of_feed_md(name: str) -> None:
    assert feed.decode(golden(name)) == FRAMES[name]
    assert feed.decode_header(golden(name)) == FRAMES[name].header


@pytest.mark.parametrize("name", FRAMES)
def test_msgpack_writes_the_same_body(name: str) -> None:
    frame = golden(name)
    size = feed.TOPIC_SIZE_Q if frame[:1] == b"Q" else feed.TOPIC_SIZE
    body = frame[size + feed.HEADER_SIZE :]
    assert not body or msgpack.packb(msgpack.unpackb(body)) == body


def test_feed_md_shows_every_frame_and_no_other() -> None:
    assert re.findall(r"^#### (.*)$", FEED_MD, re.MULTILINE) == [*FRAMES, "snapshot"]


def test_the_operations_shown_are_all_there_are() -> None:
    shown = {row[0] & feed.OP_MASK for frame in FRAMES.values() for row in frame.rows}
    assert shown == set(range(feed.ADD, feed.CORRECTION + 1))


def test_the_header_is_laid_out_as_in_the_table() -> None:
    frame = bytes.fromhex(
        "443030313030312e"  # topic D001001.
        "b7" "01" "44" "02"  # magic, version, kind, flags: heartbeat
        "0100" "0000" "0000" "01" "00"  # engine, channel, count, codec, reserved
        "1e79f8d5"  # crc32
        "04030201" "4c3d2e1f"  # incarnation, follows
        "0500000000000000" "1000000000000000" "90d02d36fe9c9717"  # epoch, next sequence, sent
    )  # fmt: skip
    assert feed.decode(frame) == FRAMES["heartbeat"]


def test_the_snapshot_of_feed_md_is_written_and_read() -> None:
    assert encode_snapshot(SNAPSHOT, compress=False).hex() == golden("snapshot").hex()
    assert decode_snapshot(golden("snapshot")) == SNAPSHOT
    assert decode_snapshot(encode_snapshot(SNAPSHOT)) == SNAPSHOT
    raw = golden("snapshot")[8:]
    assert msgpack.packb(msgpack.unpackb(raw)) == raw


def test_the_bytes_of_the_hash_of_no_orders_are_read_as_a_little_endian_number() -> None:
    found = re.search(r"bytes `([0-9a-f ]{23})`: as a number `([0-9a-f]{16})`, ([0-9,]+)", FEED_MD)
    assert found
    written = hashlib.blake2b(b"", digest_size=8).digest()
    assert bytes.fromhex(found[1]) == written
    assert (
        int(found[2], 16) == int(found[3].replace(",", "")) == feed.orders_hash([]) == int.from_bytes(written, "little")
    )


def test_the_hashes_of_feed_md_come_out() -> None:
    lines = re.findall(r"^\| `([-0-9 ,]*)` \| `([0-9a-f]{16})` \|$", FEED_MD, re.MULTILINE)
    assert len(lines) == 4
    for listed, expected in lines:
        assert feed.orders_hash([int(word) for word in listed.replace(",", " ").split()]) == int(expected, 16)
