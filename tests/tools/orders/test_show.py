"""What tools.orders prints: a table on a terminal, which leaves out columns and never a digit, else JSON lines."""

import io
import json
from decimal import Decimal

import pytest

from engine.client import Report
from proto import marketdata_pb2 as md
from proto import orders_pb2 as pb
from proto.columns import BUY, MASS_CANCELED, REFUSED, SELL, TRADED, ReportRow
from proto.instrument import FIELDS, Instrument
from proto.orders import decimal_text
from tools.orders import show

GOLD = Instrument(
    99,
    "GOLD",
    1,
    1,
    Decimal("0.05"),
    Decimal(10),
    20,
    10_000,
    quantity_max=7,
    notional_max=900,
    band=50,
    auction_reference=30,
)
ROW = ReportRow(TRADED, 5, 5, 281474976710657, 99, SELL, 201, 3, 1, 3, 12, 0)
REPORT = Report(1, 4, 17, 1_795_944_718_969_313_311, ROW, GOLD)


def printed(lines: list[show.Line], columns: dict[str, int], *, table: bool) -> list[str]:
    out = io.StringIO()
    show.Printer(out, table=table).rows(lines, columns)
    return out.getvalue().splitlines()


def test_a_report_is_a_line_in_words_and_units() -> None:
    assert json.loads(printed([show.of_report(REPORT)], show.REPORTS, table=False)[0]) == {
        "kind": "traded", "symbol": "GOLD", "side": "sell", "reason": "none", "liquidity": "taker",
        "client_order_id": 5, "order_id": 281474976710657, "trade_id": 12, "home": 1, "seq": 4, "position": 17,
        "time_ns": 1_795_944_718_969_313_311, "time": "2026-11-29T09:31:58.969Z", "priority_kept": False,
        "repeat": False, "price": "10.05", "quantity": "30", "open": "10", "filled": "30", "command": 5, "detail": "",
    }  # fmt: skip
    unknown = show.of_report(REPORT._replace(definition=None))
    assert (unknown["symbol"], unknown["price"], unknown["price_ticks"], unknown["quantity_lots"]) == (
        "#99",
        "",
        201,
        3,
    )


def test_a_narrow_terminal_has_fewer_columns_and_every_digit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = show.of_report(REPORT._replace(row=ROW._replace(price=(1 << 40) - 1)))
    for width, last in ((60, "open"), (80, "client order id"), (300, "seq")):
        monkeypatch.setenv("COLUMNS", str(width))
        heading, row, other = printed([show.of_report(REPORT), wide], show.REPORTS, table=True)
        assert heading.endswith(last)
        assert len(heading) <= width
        assert row.split()[:6] == ["traded", "GOLD", "sell", "30", "10.05", "10"]
        assert f" {decimal_text((1 << 40) - 1, GOLD.tick_size)} " in other
        names = [name.replace("_", " ") for name in show.REPORTS]
        rest = ", ".join(names[names.index(last) + 1 :])  # what a column short of everything says
        assert capsys.readouterr().err == (f"orders: too narrow for {rest}; --json has all\n" if rest else "")
    assert "2026" not in row
    assert " 09:31:58.969 " in row


def test_limits_are_in_units_and_one_that_is_none_is_empty() -> None:
    line = show.of_instrument(GOLD)
    names = ("price_min", "price_max", "quantity_max", "notional_max", "collar", "band", "auction_reference")
    assert [line[name] for name in names] == ["1.00", "500.00", "70", "450.00", None, "2.50", "1.50"]
    assert list(line) == list(FIELDS)
    assert {*show.INSTRUMENTS} == {*FIELDS}
    assert "None" not in printed([line], show.INSTRUMENTS, table=True)[1]


def test_a_book_is_two_sides_beside_each_other() -> None:
    book = md.Book(symbol="GOLD", tick_size="0.05", lot_size="10", state=md.BOOK_VALID, trading_state="auction")
    book.bids.add(price=200, quantity=3, count=2)
    book.bids.add(price=199, quantity=1, count=1)
    book.asks.add(price=-1, quantity=4, count=1)
    book.indication.CopyFrom(md.Indication(price=200, volume=2, imbalance=-3))
    line = show.of_book(book)
    assert line["bids"][0] == {"price": "10.00", "quantity": "30", "orders": 2}
    assert line["indication"] == {"price": "10.00", "volume": "20", "imbalance": "-30"}
    assert [row.split() for row in printed(show.levels_of(line), show.LEVELS, table=True)[1:]] == [
        ["2", "30", "10.00", "-0.05", "40", "1"], ["1", "10", "9.95"],
    ]  # fmt: skip
    assert {"fact": "indication volume", "value": "20"} in show.facts(show.of_state(book))
    assert "last_price" not in line  # nothing has traded


def test_only_what_was_not_done_is_a_refusal() -> None:
    assert show.refusal(show.of_reply(pb.OperatorReply(engine=1, position=5))) == ""
    again = show.of_reply(pb.OperatorReply(engine=1, reason=pb.REASON_NOTHING_TO_CHANGE))
    assert show.refusal(again) == "refused: nothing-to-change: it is so already"
    refused = pb.Report(kind=pb.REPORT_REFUSED, reason=pb.REASON_KILLED, detail="the kill switch is on")
    traded = pb.Report(kind=pb.REPORT_TRADED, symbol="GOLD", quantity="10", trade_id=3, liquidity=pb.LIQUIDITY_MAKER)
    accepted = pb.Report(kind=pb.REPORT_ACCEPTED, symbol="GOLD", quantity="10", side=pb.SIDE_SELL)
    accepted.then.append(traded)
    assert [show.refusal(line) for line in show.of_answer(accepted)] == ["", ""]
    assert [line["side"] for line in show.of_answer(accepted)] == ["sell", "buy"]
    (line,) = show.of_answer(refused)
    assert (line["side"], show.refusal(line)) == ("", "refused: killed: the kill switch is on")
    unknown = pb.Report(kind=pb.REPORT_UNKNOWN, reason=pb.REASON_OUTCOME_UNKNOWN, detail="ask again")
    assert show.refusal(show.of_answer(unknown)[0]) == "unknown: outcome-unknown: ask again"


def test_a_report_about_no_order_has_no_side_and_no_price() -> None:
    """What the columns hold there is zero, and zero is a buy."""
    nothing = ROW._replace(kind=REFUSED, flags=BUY, price=0, quantity=0, open=0, filled=0, order_id=0)
    swept = ROW._replace(kind=MASS_CANCELED, flags=BUY, price=0, quantity=3, open=0, instrument=0)
    for row, definition, quantity in ((nothing, GOLD, ""), (swept, None, "3")):
        line = show.of_report(REPORT._replace(row=row, definition=definition))
        assert (line["side"], line["quantity"], line["price"]) == ("", quantity, "")
    for kind, quantity, shown in ((pb.REPORT_REFUSED, "0", ""), (pb.REPORT_MASS_CANCELED, "3", "3")):
        (line,) = show.of_answer(pb.Report(kind=kind, side=pb.SIDE_BUY, quantity=quantity))
        assert (line["side"], line["quantity"], line["price"]) == ("", shown, "")
