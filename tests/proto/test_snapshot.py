"""Snapshots: what goes in comes out, and what is damaged is refused with FeedError and nothing else."""

import random
import zlib
from contextlib import suppress
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import feed
from proto.columns import LIMIT
from proto.feed import FeedError
from proto.snapshot import (
    SNAPSHOT_MAX,
    BookSnapshot,
    Chunk,
    Snapshot,
    chunks,
    decode_snapshot,
    encode_snapshot,
    join_chunks,
)
from tests.proto.test_feed import (
    ALFA,
    TIME_NS,
    definitions,
    ids,
    indications,
    mutated,
    prices,
    quantities,
    statistics,
    statuses,
    u64,
)

SNAPSHOT = Snapshot(
    12, 3, 99, 5, 15, TIME_NS,
    [
        BookSnapshot(
            7, feed.Definition("ALFA", "0.01", "1", 1, 100), feed.Status(2, 0), 4, 100, 3, 41, 42,
            feed.Statistics(1, 2, 3, 4, 5, 6, 7), feed.Indication(3, 2, -1),
            [(1, 100, 5), (5, 100, 9), (2, -1, 3)], [(4, 101, 2)],
        )
    ],
)  # fmt: skip


def sorted_side(orders: list[tuple[int, int, int]], best: int) -> list[tuple[int, int, int]]:
    return sorted(orders, key=lambda order: order[1] * best)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    books = []
    for instrument in draw(st.lists(st.integers(1, feed.U32_MAX), max_size=3, unique=True)):
        orders = [(i, draw(prices), draw(quantities)) for i in draw(st.lists(ids, max_size=12, unique=True))]
        half = len(orders) // 2
        last_id = draw(st.integers(0, 1 << 60))
        books.append(
            BookSnapshot(
                instrument, draw(st.none() | definitions), draw(statuses), draw(u64),
                draw(prices), draw(quantities), last_id, last_id + 1,
                draw(st.none() | statistics), draw(st.none() | indications),
                sorted_side(orders[:half], -1), sorted_side(orders[half:], 1),
            )
        )  # fmt: skip
    return Snapshot(12, 3, 99, 5, draw(st.integers(0, 1 << 62)), TIME_NS, books)


@given(snapshots(), st.booleans(), st.integers(1, 60))
@settings(deadline=None, max_examples=80)
def test_a_snapshot_comes_out_of_its_chunks_as_it_went_in(snapshot: Snapshot, compress: bool, size: int) -> None:
    parts = chunks(encode_snapshot(snapshot, compress), size)
    assert all(len(part.body) <= size for part in parts)
    assert decode_snapshot(join_chunks(parts)) == snapshot


def test_a_snapshot_of_extremes_comes_out_as_it_went_in() -> None:
    top, price = feed.ID_MAX, LIMIT - 1
    book = BookSnapshot(
        feed.U32_MAX, None, feed.Status(5, feed.U32_MAX), 0, -price, price, top - 1, top, None, None,
        [(top, price, price), (1, price, 1), (2, -price, 1)], [(3, -price, 1), (4, -price, 1), (5, price, 1)],
    )  # fmt: skip
    for stream in ((999, 99, feed.U32_MAX), (1, 0, 0)):
        snapshot = Snapshot(*stream, feed.U64_MAX, feed.U64_MAX - 1, feed.TIME_MAX, [book])
        assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


@given(st.booleans(), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=500)
def test_mutated_snapshots_give_a_feed_error_or_a_snapshot(compress: bool, rng: random.Random) -> None:
    body = mutated(encode_snapshot(SNAPSHOT, compress), rng)
    with suppress(FeedError):
        assert isinstance(decode_snapshot(body), Snapshot)


@given(st.binary(max_size=100))
@settings(deadline=None, max_examples=100)
def test_random_bytes_are_no_snapshot(noise: bytes) -> None:
    with pytest.raises(FeedError):
        decode_snapshot(noise)


def packed_snapshot(payload: bytes, size: int, packing: int = 1) -> bytes:
    return bytes([2, packing, 0, 0]) + size.to_bytes(4, "little") + payload


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zlib.compress(bytes(80 << 20), 1)
    for size in (100, SNAPSHOT_MAX, SNAPSHOT_MAX + 1):
        with pytest.raises(FeedError):
            decode_snapshot(packed_snapshot(bomb, size))


SNAPSHOT_BOOK: list[Any] = [
    7,
    ALFA,
    [2, 0],
    4,
    [100, 3, 41, 42],
    [],
    [],
    [[1, 4], [100, -1], [5, 6]],
    [[3], [101], [2]],
]
BOOK_FAULTS: dict[str, tuple[int, Any]] = {
    "instrument 0": (0, 0),
    "a definition of three": (1, ALFA[:3]),
    "an unknown state": (2, [6, 0]),
    "a negative sequence": (3, -1),
    "a next trade id that is none": (4, [100, 3, 41, 41]),
    "a last quantity of 2^40": (4, [100, 1 << 40, 41, 42]),
    "a last price of 2^40": (4, [1 << 40, 1, 41, 42]),
    "columns of different lengths": (7, [[1, 4], [100, -1], [5]]),
    "two columns": (7, [[1], [100]]),
    "bids that get better": (7, [[1, 4], [100, 1], [5, 6]]),
    "asks that get better": (8, [[2, 6], [101, -1], [2, 2]]),
    "an order twice on a side": (7, [[1, 0], [100, -1], [5, 6]]),
    "an order on both sides": (8, [[5], [101], [2]]),
    "an order id of 0": (8, [[0], [101], [2]]),
    "an order id beyond 63 bits": (8, [[feed.ID_MAX, 1], [101, 0], [2, 2]]),
    "a quantity of 0": (8, [[3], [101], [0]]),
    "a quantity of 2^40": (8, [[3], [101], [1 << 40]]),
    "a price of 2^40": (8, [[3], [1 << 40], [2]]),
    "a float for a price": (8, [[3], [101.0], [2]]),
}


def snapshot_of(books: list[Any], head: tuple[Any, ...] = (12, 3, 99, 5, 15, 1)) -> bytes:
    raw = msgpack.packb([*head, books])
    return packed_snapshot(raw, len(raw), 0)


def test_the_snapshot_those_faults_are_made_from_is_good() -> None:
    book = decode_snapshot(snapshot_of([SNAPSHOT_BOOK])).books[0]
    assert (book.bids, book.asks) == ([(1, 100, 5), (5, 99, 6)], [(3, 101, 2)])


@pytest.mark.parametrize("fault", BOOK_FAULTS)
def test_a_book_with_one_fault_is_refused(fault: str) -> None:
    at, wrong = BOOK_FAULTS[fault]
    with pytest.raises(FeedError):
        decode_snapshot(snapshot_of([[*SNAPSHOT_BOOK[:at], wrong, *SNAPSHOT_BOOK[at + 1 :]]]))


@pytest.mark.parametrize("head", [(0, 3, 99, 5, 15, 1), (1000, 3, 99, 5, 15, 1), (12, 100, 99, 5, 15, 1),
                                  (12, 3, 1 << 32, 5, 15, 1), (12, 3, 99, 0, 15, 1), (12, 3, 99, 5, -1, 1),
                                  (12, 3, 99, 5, 15, -1), (12, 3, 99, 5, 15, 1.0)])  # fmt: skip
def test_a_snapshot_with_a_wrong_head_is_refused(head: tuple[Any, ...]) -> None:
    with pytest.raises(FeedError):
        decode_snapshot(snapshot_of([], head))


def test_a_snapshot_with_an_instrument_twice_is_refused() -> None:
    with pytest.raises(FeedError, match="twice"):
        decode_snapshot(snapshot_of([SNAPSHOT_BOOK, SNAPSHOT_BOOK]))


@pytest.mark.parametrize("packing", [0, 1])
def test_a_snapshot_whose_size_is_not_as_said_is_refused(packing: int) -> None:
    body = encode_snapshot(SNAPSHOT, compress=packing == 1)
    size = int.from_bytes(body[4:8], "little")
    for wrong in (body[:-1], body + b"\0", packed_snapshot(body[8:], size - 1, packing),
                  packed_snapshot(body[8:], size + 1, packing), b"\1" + body[1:],
                  b"\3" + body[1:], body[:1] + b"\2" + body[2:],
                  body[:2] + b"\1" + body[3:]):  # fmt: skip
        with pytest.raises(FeedError):
            decode_snapshot(wrong)


def test_chunks_that_are_missing_mixed_or_damaged_are_refused() -> None:
    parts = chunks(encode_snapshot(SNAPSHOT), 20)
    damaged = Chunk(1, len(parts), parts[1].crc32, parts[1].body[:-1] + b"?")
    recounted = Chunk(1, len(parts) + 1, parts[1].crc32, parts[1].body)
    for wrong in ([], parts[:-1], parts[1:], [*parts[::-1]], [parts[0], *parts], [*parts, parts[-1]],
                  [parts[0], damaged, *parts[2:]], [parts[0], recounted, *parts[2:]]):  # fmt: skip
        with pytest.raises(FeedError):
            join_chunks(wrong)
