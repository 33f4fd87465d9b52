"""A refusal says in a sentence what would have been taken, and the sentence is bounded."""

from dataclasses import replace
from decimal import Decimal

import pytest

from proto import columns
from proto import orders_pb2 as pb
from proto.instrument import Instrument
from proto.refusals import DETAIL_MAX, cut, explain

ALFA = Instrument(5, "ALFA", 1, 1, Decimal("0.05"), Decimal("10"), -20, 2_000, 500, 40_000)
NO_REFUSALS = (0, *range(columns.IOC_REMAINDER, columns.UNAVAILABLE))  # none, or why an order was canceled


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (columns.BAD_PRICE, "the price is not on a tick: ALFA takes -1.00 to 100.00 in steps of 0.05"),
        (
            columns.PRICE_OUT_OF_LIMITS,
            "the price is outside the instrument's limits: ALFA takes -1.00 to 100.00 in steps of 0.05",
        ),
        (columns.BAD_QUANTITY, "the quantity is not a whole number of lots, at least one: one of ALFA is 10"),
        (
            columns.QUANTITY_ABOVE_MAX,
            "the quantity is above the instrument's largest: ALFA takes 5000 an order at most",
        ),
        (
            columns.NOTIONAL_ABOVE_MAX,
            "price times quantity is above the instrument's largest: ALFA takes 20000.00 an order at most",
        ),
        (columns.WRONG_STATE, "the instrument's trading state does not allow it: ALFA is halted"),
        (columns.TOO_LATE, "the order is no longer live"),
    ],
)
def test_what_the_instrument_would_have_taken_is_said(reason: int, said: str) -> None:
    assert explain(reason, ALFA, state="halted") == said


def test_the_symbols_there_are_are_named_as_far_as_there_is_room() -> None:
    reason = columns.UNKNOWN_INSTRUMENT
    assert explain(reason, symbol="ZETA", symbols=["BETA", "ALFA"]) == (
        "there is no instrument 'ZETA': there are ALFA, BETA"
    )
    assert explain(reason, symbol="ZETA", symbols=["ALFA"]) == "there is no instrument 'ZETA': there is ALFA"
    assert explain(reason, symbol="ZETA") == "there is no instrument 'ZETA'"
    assert explain(reason) == "there is no such instrument"
    said = explain(reason, symbol="ZETA", symbols=[f"SYMBOL-{n:04}" for n in range(1_000)])
    named, _, rest = said.partition(" and ")
    assert named.count("SYMBOL-") + int(rest.removesuffix(" more")) == 1_000
    assert DETAIL_MAX - 20 < len(said) <= DETAIL_MAX


def test_every_reason_that_refuses_has_a_sentence() -> None:
    reasons = [number for number in pb.Reason.values() if number not in NO_REFUSALS]
    assert [pb.Reason.Name(reason) for reason in reasons if not explain(reason)] == []
    assert [reason for reason in NO_REFUSALS if explain(reason)] == []


def test_no_sentence_is_longer_than_a_detail_may_be() -> None:
    tiny = Decimal("0.000000000001")
    wide = replace(ALFA, symbol="S" * 16, tick_size=tiny, lot_size=tiny, quantity_max=1 << 39, notional_max=1 << 62)
    wide = replace(wide, price_min=1 - (1 << 40), price_max=(1 << 40) - 1)
    symbols = ["T" * 16 + str(n) for n in range(10_000)]
    for reason in pb.Reason.values():
        for symbol in ("", "U" * 100_000):
            assert len(explain(reason, wide, symbol=symbol, symbols=symbols, state="pre-open")) <= DETAIL_MAX
    assert cut("x" * 1_000) == "x" * (DETAIL_MAX - 1) + "…"
