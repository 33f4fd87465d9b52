"""A stream's books as they stand at one sequence, as bytes: what a reader who joins or lost too much begins with.

The bytes are those of FEED.md, "Snapshot". Decoding treats every byte as hostile: what is damaged, of a wrong type or
out of range raises FeedError, and nothing else is ever raised. Encoding trusts its caller.
"""

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Final, NamedTuple

import msgspec

from proto.columns import LIMIT
from proto.feed import (
    ID_MAX,
    TIME_MAX,
    U32_MAX,
    U64_MAX,
    Definition,
    FeedError,
    Indication,
    Statistics,
    Status,
    read_definition,
    read_indication,
    read_statistics,
    read_status,
)

CHUNK_SIZE: Final = 262_144  # bytes in one chunk
SNAPSHOT_MAX: Final = 64 << 20  # bytes, unpacked
VERSION: Final = 2
ORDERS_PACKED: Final = 4_096  # at a time

_HEAD: Final = struct.Struct("<BBHI")
_encoder: Final = msgspec.msgpack.Encoder()

Shown = tuple[int, int, int]  # order id, price, quantity


class BookSnapshot(NamedTuple):
    """One instrument. Orders are (order_id, price, quantity) in priority order: best price first, then queue order.

    The statistics include every trade before it, and are None before the first; so is the indication where none holds.
    """

    instrument: int
    definition: Definition | None
    status: Status
    instrument_seq: int
    last_price: int
    last_quantity: int
    last_trade_id: int
    next_trade_id: int
    statistics: Statistics | None
    indication: Indication | None
    bids: list[tuple[int, int, int]]
    asks: list[tuple[int, int, int]]


class Snapshot(NamedTuple):
    """The books of one stream after delta `last_seq` of `epoch`, which ends an event (0: before the first)."""

    engine: int
    channel: int
    incarnation: int
    epoch: int
    last_seq: int
    time_ns: int
    books: list[BookSnapshot]


@dataclass(slots=True)
class Chunk:
    """A part of an encoded snapshot, `index` of `count`, from 0; crc32 is of the body."""

    index: int
    count: int
    crc32: int
    body: bytes


_Side = tuple[list[int], list[int], list[int]]
_Book = tuple[
    int, list[int | str], tuple[int, int], int, tuple[int, int, int, int], list[int], list[int], _Side, _Side
]  # fmt: skip
_decoder: Final = msgspec.msgpack.Decoder(tuple[int, int, int, int, int, int, list[_Book]])


def encode_snapshot(snapshot: Snapshot, compress: bool = True) -> bytes:
    """The body that is cut into chunks."""
    return encode_books(snapshot[:6], [(book, book.bids, book.asks) for book in snapshot.books], compress)


def encode_books(
    head: tuple[int, int, int, int, int, int],
    books: Iterable[tuple[BookSnapshot, Iterable[Shown], Iterable[Shown]]],
    compress: bool = True,
) -> bytes:
    """As encode_snapshot, from books whose orders come one by one; those in the BookSnapshots are not looked at.

    `head` is what a Snapshot has before its books. However many orders there are, no step holds the interpreter for
    more than some milliseconds: on a thread of its own this holds nobody up.
    """
    packed = [_packed_book(*book) for book in books]
    raw = b"".join([b"\x97", *map(_encoder.encode, head), _array_head(len(packed)), *packed])
    payload = zlib.compress(raw, 1) if compress else raw
    return _HEAD.pack(VERSION, int(compress), 0, len(raw)) + payload


def _packed_book(book: BookSnapshot, bids: Iterable[Shown], asks: Iterable[Shown]) -> bytes:
    front = (
        book.instrument,
        book.definition or (),
        book.status,
        book.instrument_seq,
        (book.last_price, book.last_quantity, book.last_trade_id, book.next_trade_id),
        book.statistics or (),
        book.indication or (),
    )
    return b"".join([b"\x99", *map(_encoder.encode, front), _packed_side(bids), _packed_side(asks)])


def _packed_side(orders: Iterable[Shown]) -> bytes:
    """Columns of ids, prices and quantities, packed some at a time."""
    columns: tuple[list[bytes], list[bytes], list[bytes]] = ([], [], [])
    befores = [0, 0]
    count = 0
    it = iter(orders)
    while part := list(islice(it, ORDERS_PACKED)):
        values = list(map(list, zip(*part, strict=True)))
        count += len(part)
        for nth, before in enumerate(befores):
            befores[nth] = values[nth][-1]
            values[nth] = _steps(values[nth], before)
        head = len(_array_head(len(part)))
        for packed, column in zip(columns, values, strict=True):
            packed.append(_encoder.encode(column)[head:])
    array = _array_head(count)
    return b"".join([b"\x93", *(part for packed in columns for part in (array, *packed))])


def _array_head(size: int) -> bytes:
    """How msgpack begins an array."""
    if size < 16:
        return bytes([0x90 + size])
    return b"\xdc" + size.to_bytes(2, "big") if size < 65_536 else b"\xdd" + size.to_bytes(4, "big")


def _steps(values: list[int], before: int) -> list[int]:
    """Each value less the one before it."""
    return [value - earlier for earlier, value in zip([before, *values], values, strict=False)]


def decode_snapshot(body: bytes) -> Snapshot:
    """The snapshot, every value checked. O(orders); at most SNAPSHOT_MAX bytes are unpacked."""
    try:
        engine, channel, incarnation, epoch, last_seq, time_ns, books = _decoder.decode(_unpacked(body))
        if not (
            1 <= engine <= 999
            and 0 <= channel <= 99
            and 0 <= incarnation <= U32_MAX
            and epoch > 0
            and 0 <= last_seq < U64_MAX
            and 0 <= time_ns <= TIME_MAX
        ):
            raise FeedError(
                f"engine {engine}, channel {channel}, epoch {epoch}, last sequence {last_seq}, time {time_ns}"
            )
        snapshot = Snapshot(engine, channel, incarnation, epoch, last_seq, time_ns, [_book(book) for book in books])
        if len({book.instrument for book in snapshot.books}) != len(books):
            raise FeedError("an instrument listed twice")
        return snapshot
    except FeedError:
        raise
    except (msgspec.MsgspecError, ValueError, RecursionError, MemoryError, zlib.error, struct.error) as e:
        raise FeedError(f"snapshot: {type(e).__name__}: {e}") from e


def _unpacked(body: bytes) -> bytes:
    version, packed, reserved, size = _HEAD.unpack_from(body)
    if version != VERSION or packed > 1 or reserved or size > SNAPSHOT_MAX:
        raise FeedError(f"a snapshot of version {version}, packing {packed}, {size} bytes")
    raw = body[_HEAD.size :]
    if packed:
        inflate = zlib.decompressobj()
        raw = inflate.decompress(raw, size + 1)
        if not inflate.eof or inflate.unused_data:
            raise FeedError("a packed snapshot that does not end where it should")
    if len(raw) != size:
        raise FeedError(f"a snapshot of {len(raw)} bytes, not {size}")
    return raw


def _book(fields: _Book) -> BookSnapshot:
    instrument, definition, status, sequence, last, statistics, indication, bids, asks = fields
    price, quantity, trade_id, next_id = last
    if not (
        0 < instrument <= U32_MAX
        and sequence >= 0
        and -LIMIT < price < LIMIT
        and 0 <= quantity < LIMIT
        and 0 <= trade_id < next_id <= ID_MAX
    ):
        raise FeedError(f"instrument {instrument}, sequence {sequence}, last trade {trade_id}, {quantity} at {price}")
    book = BookSnapshot(
        instrument=instrument,
        definition=read_definition(definition) if definition else None,
        status=read_status(status),
        instrument_seq=sequence,
        last_price=price,
        last_quantity=quantity,
        last_trade_id=trade_id,
        next_trade_id=next_id,
        statistics=read_statistics(statistics) if statistics else None,
        indication=read_indication(indication) if indication else None,
        bids=_side(bids, 1),
        asks=_side(asks, -1),
    )
    ids = {order[0] for order in book.bids}
    ids.update(order[0] for order in book.asks)
    if len(ids) != len(book.bids) + len(book.asks):
        raise FeedError(f"instrument {instrument}: an order listed twice")
    return book


def _side(columns: _Side, falling: int) -> list[tuple[int, int, int]]:
    ids = list(accumulate(columns[0]))
    prices = list(accumulate(columns[1]))
    quantities = columns[2]
    if not len(ids) == len(prices) == len(quantities):
        raise FeedError("columns of different lengths")
    if not ids:
        return []
    if min(ids) <= 0 or max(ids) > ID_MAX or min(quantities) <= 0 or max(quantities) >= LIMIT:
        raise FeedError("an order id or a quantity out of range")
    if min(prices) <= -LIMIT or max(prices) >= LIMIT or prices != sorted(prices, reverse=falling > 0):
        raise FeedError("prices out of range or out of order")
    return list(zip(ids, prices, quantities, strict=True))


def chunks(body: bytes, size: int = CHUNK_SIZE) -> list[Chunk]:
    """An encoded snapshot in parts of at most `size` bytes."""
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return [Chunk(i, len(parts), zlib.crc32(part), part) for i, part in enumerate(parts)]


def join_chunks(parts: Iterable[Chunk]) -> bytes:
    """The encoded snapshot again, if all its parts are there, in order and undamaged."""
    bodies: list[bytes] = []
    size = count = 0
    for part in parts:
        if part.index != len(bodies) or part.count != (count or part.count) or part.crc32 != zlib.crc32(part.body):
            raise FeedError(f"chunk {part.index} of {part.count} is damaged or out of place")
        count = part.count
        size += len(part.body)
        if size > SNAPSHOT_MAX:
            raise FeedError("a snapshot too long")
        bodies.append(part.body)
    if not bodies or len(bodies) != count:
        raise FeedError(f"{len(bodies)} chunks of {count}")
    return b"".join(bodies)
