"""The numbers of proto/columns.py are those of the .proto files, each under its own name."""

import re
from pathlib import Path
from typing import Any

import pytest

from proto import columns, feed
from proto import orders_pb2 as pb

ROOT = Path(__file__).resolve().parents[2]

# An enum of orders.proto, what its names begin with there and here, and how far its numbers are shifted here.
ENUMS: tuple[tuple[Any, str, str, int], ...] = (
    (pb.Op, "OP_", "", 0),
    (pb.Side, "SIDE_", "", 0),
    (pb.OrderType, "ORDER_TYPE_", "TYPE_", columns.TYPE_SHIFT),
    (pb.TimeInForce, "TIME_IN_FORCE_", "TIF_", columns.TIF_SHIFT),
    (pb.QuantityMeaning, "QUANTITY_", "MEANING_", columns.MEANING_SHIFT),
    (pb.SelfTradePrevention, "STP_", "STP_", 0),
    (pb.ReportKind, "REPORT_", "", 0),
    (pb.Reason, "REASON_", "", 0),
)
RENAMED = {  # since another number has the name, or none
    "REASON_NONE": "NO_REASON",
    "REASON_MASS_CANCEL": "MASS_CANCEL_REASON",
    "REASON_HALTED": "HALTED_REASON",
}
UNSAID = ("OP_UNSPECIFIED", "REPORT_UNSPECIFIED")
# The flags, as the comments of orders.proto number them.
COMMAND_BITS = {
    "sell": "FLAG_SELL",
    "OrderType": "TYPE_MASK",
    "TimeInForce": "TIF_MASK",
    "post-only": "POST_ONLY",
    "QuantityMeaning (replace)": "MEANING_MASK",
    "the replace gives up its place even if it need not": "REQUEUE",
    "all or none": "ALL_OR_NONE",
    "a peg's price is its worst price": "CAPPED",
}
REPORT_BITS = {
    "sell": "FLAG_SELL",
    "maker (of a trade; else taker)": "MAKER",
    "priority kept": "PRIORITY_KEPT",
    "repeat": "REPEAT",
    "a trade of an auction": "AUCTION_TRADE",
}


def names_of(enum: Any, there: str, here: str) -> dict[str, int]:
    """What each number of an enum is called here."""
    said = {name: number for name, number in enum.items() if name not in UNSAID}
    return {RENAMED.get(name, here + name.removeprefix(there)): number for name, number in said.items()}


@pytest.mark.parametrize(("enum", "there", "here", "shift"), ENUMS, ids=[one[1] for one in ENUMS])
def test_each_name_of_an_enum_is_a_constant_of_the_same_number(enum: Any, there: str, here: str, shift: int) -> None:
    wanted = {name: number << shift for name, number in names_of(enum, there, here).items()}
    assert {name: getattr(columns, name, None) for name in wanted} == wanted


def test_each_constant_stands_in_an_enum_or_is_a_flag_or_a_limit() -> None:
    known = {name for enum, there, here, _ in ENUMS for name in names_of(enum, there, here)}
    known |= {*COMMAND_BITS.values(), *REPORT_BITS.values()}
    numbers = {name for name, value in vars(columns).items() if name.isupper() and isinstance(value, int)}
    assert {name for name in numbers - known if not name.endswith(("SHIFT", "LIMIT", "WIDTH"))} == set()


@pytest.mark.parametrize(("message", "bits"), [("CommandBatch", COMMAND_BITS), ("ReportBatch", REPORT_BITS)])
def test_each_flag_is_the_bit_that_the_proto_file_says(message: str, bits: dict[str, str]) -> None:
    text = (ROOT / "proto" / "orders.proto").read_text().partition(f"message {message} {{")[2].partition("\n}")[0]
    words = re.sub(r"\s*\n\s*//", "", text)
    said = re.findall(r"\bbits? ([0-9]+)(?:-([0-9]+))?: ((?:[^;.(]|\([^)]*\))+?)(?:;(?= bit)|\.\n|\n)", words)
    found = {what: sum(1 << bit for bit in range(int(low), int(high or low) + 1)) for low, high, what in said}
    assert found == {what: getattr(columns, name) for what, name in bits.items()}


def test_the_lists_name_every_type_force_meaning_and_mode() -> None:
    for listed, enum, shift in (
        (columns.TYPES, pb.OrderType, columns.TYPE_SHIFT),
        (columns.FORCES, pb.TimeInForce, columns.TIF_SHIFT),
        (columns.MEANINGS, pb.QuantityMeaning, columns.MEANING_SHIFT),
        (columns.STP_MODES, pb.SelfTradePrevention, 0),
    ):
        assert sorted(listed) == sorted(number << shift for number in enum.values())


def test_each_type_is_a_stop_a_peg_and_priced_as_its_name_says() -> None:
    for name, number in pb.OrderType.items():
        flags = number << columns.TYPE_SHIFT
        assert columns.is_stop(flags) == ("STOP" in name), name
        assert columns.is_peg(flags) == ("PEG" in name), name
        priced = name.endswith(("LIMIT", "ICEBERG"))
        assert columns.is_priced(flags) == priced, name
        assert columns.is_priced(flags | columns.CAPPED) == (priced or "PEG" in name), name


def test_the_rows_are_as_wide_as_their_names_and_as_the_messages() -> None:
    assert len(columns.ReportRow._fields) == columns.REPORT_WIDTH
    assert len(columns.DeltaRow._fields) == columns.DELTA_WIDTH
    told = tuple(field.name for field in pb.ReportBatch.DESCRIPTOR.fields)
    assert told[-columns.REPORT_WIDTH :] == columns.ReportRow._fields
    asked = tuple(field.name for field in pb.CommandBatch.DESCRIPTOR.fields)
    assert asked[-len(columns.Terms._fields) :] == columns.Terms._fields


def test_the_trading_states_are_those_of_the_feed() -> None:
    said = {number: name.removeprefix("TRADING_STATE_") for name, number in pb.TradingState.items()}
    assert said == {number: name.upper().replace("-", "_") for number, name in feed.STATE_NAMES.items()}
