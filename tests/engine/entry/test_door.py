"""The door: what it lets in, what it refuses and why, and that nothing is changed on the way through."""

import random

import pytest

from engine.entry import door
from proto.columns import (
    BAD_CLIENT_ORDER_ID,
    BAD_PRICE,
    BAD_QUANTITY,
    BATCH_TOO_LARGE,
    CANCEL,
    MALFORMED,
    MASS_CANCEL,
    NEW,
    NO_REASON,
    NOTIONAL_TOO_LARGE,
    POST_ONLY,
    REFUSED,
    REPLACE,
    REPORT_WIDTH,
    TIF_FOK,
    TIF_IOC,
    TYPE_MARKET,
    Batch,
)
from proto.orders import BATCH_MAX, GarbledError, read_batch
from proto.orders_pb2 import CommandBatch

GOOD = (NEW, 1, 5, 0, 100, 10, 0)  # op, id, instrument, flags, price, quantity, target


def batch_of(*rows: tuple[int, ...]) -> Batch:
    return Batch(7, 0, 0, *(list(column) for column in zip(*rows, strict=True)))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD, NO_REASON),
        ((NEW, 1, 5, 0, -100, 10, 0), NO_REASON),
        ((NEW, 2**64 - 1, 2**32 - 1, 0, 2**40 - 1, 2**21, 0), NO_REASON),
        ((CANCEL, 1, 5, 0, 0, 0, 9), NO_REASON),
        ((MASS_CANCEL, 1, 0, 0, 0, 0, 0), NO_REASON),
        ((0, 1, 5, 0, 100, 10, 0), MALFORMED),
        ((5, 1, 5, 0, 100, 10, 0), MALFORMED),
        ((NEW, 1, 5, 1 << 13, 100, 10, 0), MALFORMED),
        ((NEW, 1, 5, 2 << 1 | 3 << 4, 100, 10, 0), MALFORMED),  # a stop that is immediate or cancel
        ((NEW, 1, 5, 5 << 4, 100, 10, 0), MALFORMED),  # a time in force that is not
        ((REPLACE, 1, 5, 3 << 8, 100, 10, 2), MALFORMED),  # a meaning that is not
        ((NEW, 1, 5, POST_ONLY | TYPE_MARKET, 0, 10, 0), MALFORMED),
        ((NEW, 1, 5, POST_ONLY | TIF_IOC, 100, 10, 0), MALFORMED),
        ((NEW, 1, 5, POST_ONLY | TIF_FOK, 100, 10, 0), MALFORMED),
        ((NEW, 0, 5, 0, 100, 10, 0), BAD_CLIENT_ORDER_ID),
        ((NEW, 1, 5, 0, 100, 0, 0), BAD_QUANTITY),
        ((NEW, 1, 5, 0, 100, 2**40, 0), BAD_QUANTITY),
        ((REPLACE, 1, 5, 0, 100, 0, 2), BAD_QUANTITY),
        ((CANCEL, 1, 5, 0, 0, 2**40, 9), BAD_QUANTITY),
        ((NEW, 1, 5, 0, 2**40, 10, 0), BAD_PRICE),
        ((NEW, 1, 5, 0, -(2**40), 10, 0), BAD_PRICE),
        ((NEW, 1, 5, 0, 2**31, 2**31, 0), NOTIONAL_TOO_LARGE),
        ((NEW, 1, 5, 0, -(2**31), 2**31, 0), NOTIONAL_TOO_LARGE),
        ((NEW, 1, 5, 0, 2**31, 2**31 - 1, 0), NO_REASON),
    ],
)
def test_every_fault_of_a_row_has_its_reason(row: tuple[int, ...], reason: int) -> None:
    assert door.check(batch_of(row)) == ([reason] if reason else [])
    assert door.check(batch_of(GOOD, row, GOOD)) == ([NO_REASON, reason, NO_REASON] if reason else [])


def test_a_large_price_beside_a_large_quantity_in_another_row_is_no_fault() -> None:
    assert door.check(batch_of((NEW, 1, 5, 0, 2**40 - 1, 1, 0), (NEW, 2, 5, 0, 1, 2**40 - 1, 0))) == []


def test_columns_of_different_lengths_are_malformed_as_a_whole() -> None:
    batch = batch_of(GOOD, GOOD)
    batch.price.append(1)
    assert door.check(batch) == [MALFORMED, MALFORMED]
    batch = read_batch(7, 0, 0, CommandBatch(op=[1], client_order_id=[1, 2, 3]).SerializeToString())
    reasons = door.check(batch)
    assert reasons == [MALFORMED] * 3
    assert door.refusals(batch, reasons)[1::REPORT_WIDTH] == [1, 2, 3]


def test_a_batch_too_large_is_refused_row_by_row() -> None:
    assert door.check(batch_of(*[GOOD] * BATCH_MAX)) == []
    assert door.check(batch_of(*[GOOD] * (BATCH_MAX + 1))) == [BATCH_TOO_LARGE] * (BATCH_MAX + 1)


def test_no_rows_are_no_fault() -> None:
    assert door.check(read_batch(7, 0, 0, b"")) == []


def test_random_bytes_are_a_batch_or_garbled_and_nothing_else() -> None:
    rng = random.Random(5)
    for _ in range(2_000):
        data = rng.randbytes(rng.randrange(40))
        try:
            batch = read_batch(7, 0, 0, data)
        except GarbledError:
            continue
        door.refusals(batch, door.check(batch))


def test_refusals_say_which_command_and_about_what() -> None:
    batch = batch_of((NEW, 3, 5, 1, 100, 0, 0), GOOD, (REPLACE, 4, 6, 1, 100, 0, 9))
    assert door.refusals(batch, door.check(batch)) == [
        REFUSED, 3, 3, 0, 5, 1, 100, 0, 0, 0, 0, BAD_QUANTITY,
        REFUSED, 4, 9, 0, 6, 1, 100, 0, 0, 0, 0, BAD_QUANTITY,
    ]  # fmt: skip
