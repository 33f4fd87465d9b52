"""orders.proto to bytes and back: nothing is changed on the way, and a decimal is exact or refused."""

import random
from decimal import Decimal

import pytest

from engine.entry.door import SOUND_FLAGS
from proto import orders
from proto.columns import (
    BAD_PRICE,
    BAD_QUANTITY,
    CANCEL,
    NEW,
    REPLACE,
    REPORT_WIDTH,
    Batch,
)
from proto.orders import BadValueError, GarbledError
from proto.orders_pb2 import CommandBatch, ReportBatch, SessionReply, SessionRequest


def batch_of(*rows: tuple[int, ...]) -> Batch:
    return Batch(7, 0, 0, *(list(column) for column in zip(*rows, strict=True)))


def test_a_column_left_out_is_zero_throughout() -> None:
    data = CommandBatch(op=[CANCEL, CANCEL], client_order_id=[1, 2], instrument=[5, 5], target=[8, 9])
    assert orders.read_batch(7, 3, 1, data.SerializeToString()) == Batch(
        7, 3, 1, [CANCEL] * 2, [1, 2], [5, 5], [0, 0], [0, 0], [0, 0], [8, 9]
    )


def test_a_batch_survives_writing_and_reading() -> None:
    rng = random.Random(11)
    for _ in range(50):
        rows = [
            (
                rng.choice((NEW, CANCEL, REPLACE)),
                rng.randrange(1, 2**64),
                rng.randrange(2**32),
                rng.choice(sorted(SOUND_FLAGS)),
                rng.randrange(-(2**40), 2**40),
                rng.randrange(2**40),
                rng.choice((0, rng.randrange(2**64))),
            )
            for _ in range(rng.randrange(1, 20))
        ]
        batch = batch_of(*rows)
        assert orders.read_batch(7, 0, 0, orders.write_batch(batch)) == batch, rows


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x05\x01", b"\x0a\xff\xff\xff\xff\xff", b"not a batch", b"\x07"])
def test_bytes_that_are_no_batch_are_garbled(data: bytes) -> None:
    with pytest.raises(GarbledError):
        orders.read_batch(7, 0, 0, data)


def test_reports_survive_writing_and_reading() -> None:
    rng = random.Random(3)
    limits = (2**9, 2**64, 2**64, 2**63, 2**32, 2**9, 2**40, 2**40, 2**40, 2**40, 2**63, 2**9)
    for case in range(60):
        zero = {column for column in range(1, REPORT_WIDTH) if rng.random() < 0.3}
        small = case % 2
        rows = [
            0 if i % REPORT_WIDTH in zero else rng.randrange(1, min(limits[i % REPORT_WIDTH], 100 if small else 2**64))
            for i in range(REPORT_WIDTH * rng.randrange(1, 9))
        ]
        reports = orders.read_reports(orders.write_reports(1, 2, 3, 4, 5, rows))
        assert (reports.home, reports.account, reports.first_seq, reports.position, reports.time_ns) == (1, 2, 3, 4, 5)
        assert [value for row in zip(*orders.report_columns(reports), strict=True) for value in row] == rows, case


def test_a_negative_price_is_reported_as_it_is() -> None:
    rows = [1, 2, 2, 3, 4, 0, -5, 6, 6, 0, 0, 0]
    assert list(orders.read_reports(orders.write_reports(1, 2, 3, 4, 5, rows)).price) == [-5]


def test_reports_after_a_number_are_those_after_it() -> None:
    rows = [value for n in range(1, 6) for value in (1, n, n, n, 1, 0, 100, 10, 10, 0, 0, 0)]
    whole = orders.write_reports(1, 2, 11, 4, 5, rows)
    assert orders.later_reports(whole, 10) == whole
    assert orders.later_reports(whole, 13) == orders.write_reports(1, 2, 14, 4, 5, rows[3 * REPORT_WIDTH :])


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 70_000])
def test_a_wrapped_body_is_field_two_of_a_message(size: int) -> None:
    body = bytes(size)
    assert orders.wrap(body) == (SessionReply(reports=body).SerializeToString())
    assert orders.unwrap(SessionRequest(commands=body).SerializeToString()) == body


@pytest.mark.parametrize(
    "message",
    [b"", b"\x12", b"\x12\x05abc", b"\x12\x02abc", b"\x0a\x01a", b"\x12\xff\xff\xff\xff\xff", b"\x12\x80\x80\x80"],
)
def test_a_message_with_anything_else_in_it_is_read_the_long_way(message: bytes) -> None:
    assert orders.unwrap(message) is None


@pytest.mark.parametrize(
    ("text", "tick", "ticks"),
    [
        ("10.25", "0.01", 1025),
        ("-10.25", "0.01", -1025),
        ("+1", "0.5", 2),
        ("1e3", "0.01", 100_000),
        ("0", "0.01", 0),
        ("0.000000000000000001", "0.000000000000000001", 1),
        ("1000000", "1000000", 1),
        ("1.10", "0.1", 11),
        ("0e999999", "0.01", 0),
    ],
)
def test_a_price_is_so_many_ticks(text: str, tick: str, ticks: int) -> None:
    assert orders.ticks_of(text, Decimal(tick)) == ticks
    assert Decimal(orders.decimal_text(ticks, Decimal(tick))) == Decimal(text)


NO_NUMBERS = [
    "", " ", "nan", "NaN", "sNaN", "inf", "-Infinity", "1e999999", "-1e999999", "1e-999999", "1e9999999999", "0x10",
    "1_000", " 1", "1 ", "1,5", "1.", ".5", "--1", "١", "1e60", "9" * 70, "0.1" + "0" * 70, "1.005", "0.001",
    "10.250000000000001",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_what_is_no_price_on_a_tick_is_refused(text: str) -> None:
    with pytest.raises(BadValueError) as refused:
        orders.ticks_of(text, Decimal("0.01"))
    assert refused.value.reason == BAD_PRICE


@pytest.mark.parametrize("text", [*NO_NUMBERS, "0", "-1", "-0", "1099511627776", "0.5"])
def test_what_is_no_quantity_of_whole_lots_is_refused(text: str) -> None:
    with pytest.raises(BadValueError) as refused:
        orders.lots_of(text, Decimal(1))
    assert refused.value.reason == BAD_QUANTITY


def test_a_price_too_far_from_zero_is_refused() -> None:
    assert orders.ticks_of(str(2**40 - 1), Decimal(1)) == 2**40 - 1
    with pytest.raises(BadValueError):
        orders.ticks_of(str(2**40), Decimal(1))


def test_decimal_text_is_exact_for_the_smallest_tick_and_the_largest_number() -> None:
    tick = Decimal("0.000000000000000001")
    assert orders.decimal_text(2**40 - 1, tick) == "0.000001099511627775"
    assert orders.decimal_text(3, Decimal("0.50")) == "1.50"


def test_a_repeated_field_written_unpacked_reads_alike() -> None:
    unpacked = b"\x08\x01\x08\x02" + CommandBatch(client_order_id=[1, 2]).SerializeToString()
    assert orders.read_batch(7, 0, 0, unpacked).op == [NEW, CANCEL]
    assert len(ReportBatch.FromString(orders.write_reports(1, 2, 0, 0, 0, [1] * REPORT_WIDTH)).kind) == 1
