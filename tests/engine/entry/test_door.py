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
    STP_NONE,
    THROTTLED,
    TIF_FOK,
    TIF_IOC,
    TYPE_MARKET,
    UNKNOWN_ACCOUNT,
    Batch,
)
from proto.orders import BATCH_MAX, GarbledError, read_batch, write_batch
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


def test_a_good_batch_goes_in_as_it_came() -> None:
    commands = write_batch(batch_of(GOOD, GOOD))
    batch, let_in, refused = door.let_in(7, 9, STP_NONE, commands)
    assert (batch.account, batch.session, batch.stp, batch.op) == (7, 9, STP_NONE, [NEW, NEW])
    assert let_in is commands
    assert refused == []


def test_the_bad_rows_of_a_batch_are_cut_out_and_refused() -> None:
    rows = ((NEW, 1, 5, 0, 100, 10, 0), (NEW, 2, 5, 0, 100, 0, 0), (CANCEL, 3, 5, 0, 0, 0, 1))
    batch, commands, refused = door.let_in(7, 0, 0, write_batch(batch_of(*rows)))
    assert batch.client_order_id == [1, 3]
    assert read_batch(7, 0, 0, commands) == batch
    assert (refused[1], refused[-1], len(refused)) == (2, BAD_QUANTITY, REPORT_WIDTH)


def test_of_those_that_would_pass_the_throttle_lets_the_first_in() -> None:
    throttle = door.Throttle(2, now=10.0)
    rows = [(NEW, id, 5, 0, 100, 0 if id == 2 else 10, 0) for id in range(1, 6)]
    batch, _, refused = door.let_in(7, 0, 0, write_batch(batch_of(*rows)), throttle, 10.0)
    assert batch.client_order_id == [1, 3]
    reasons = dict(zip(refused[1::REPORT_WIDTH], refused[11::REPORT_WIDTH], strict=True))
    assert reasons == {2: BAD_QUANTITY, 4: THROTTLED, 5: THROTTLED}
    batch, _, _ = door.let_in(7, 0, 0, write_batch(batch_of(*rows)), throttle, 10.5)
    assert batch.client_order_id == [1]  # half a second later, one more
    batch, _, _ = door.let_in(7, 0, 0, write_batch(batch_of(*rows)), throttle, 1_000.0)
    assert batch.client_order_id == [1, 3]  # and never more than a second's worth


def test_nothing_of_an_unknown_account_passes() -> None:
    batch, _, refused = door.let_in(7, 0, 0, write_batch(batch_of(GOOD, GOOD)), known=False)
    assert (batch.op, refused[11::REPORT_WIDTH]) == ([], [UNKNOWN_ACCOUNT] * 2)


@pytest.mark.parametrize(("account", "stp"), [(0, 0), (7, -1), (7, 5), (7, 300)])
def test_who_and_how_cannot_be_anything(account: int, stp: int) -> None:
    with pytest.raises(GarbledError):
        door.let_in(account, 0, stp, write_batch(batch_of(GOOD)))
