"""What is printed: a table on a terminal, else one JSON object a line; words, symbols, and prices in units of price.

A table leaves columns out, from the right, where the terminal is too narrow for them, and says so on stderr; and
never a digit.
"""

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TextIO

from engine.client.report import KINDS, LIQUIDITY, REASONS, SIDES, Report, word, words
from proto import marketdata_pb2 as md
from proto import orders_pb2 as pb
from proto.columns import MASS_CANCELED, NOTHING_TO_CHANGE, REFUSED, TOO_LATE, UNKNOWN
from proto.instrument import FIELDS, Instrument
from proto.orders import decimal_text, notional_text
from proto.refusals import explain

Line = dict[str, Any]

TYPES: Final = words(pb.OrderType, "ORDER_TYPE_")
FORCES: Final = words(pb.TimeInForce, "TIME_IN_FORCE_")
_OPERATOR: Final = {TOO_LATE: "the trade is void already", NOTHING_TO_CHANGE: "it is so already"}
BOOK_STATES: Final = words(md.BookState, "BOOK_")

# Each kind of table: its columns, the most telling first, and how wide they usually are.
REPORTS: Final = {
    "kind": 13, "symbol": 6, "side": 4, "quantity": 8, "price": 8, "open": 6, "client_order_id": 19, "reason": 10,
    "liquidity": 9, "time": 12, "trade_id": 8, "filled": 6, "order_id": 15, "home": 4, "seq": 5,
}  # fmt: skip
ORDERS: Final = {
    "symbol": 6, "side": 4, "open": 8, "price": 8, "client_order_id": 19, "type": 5, "time_in_force": 13, "quantity": 8,
    "filled": 6, "stop_price": 10, "display": 7, "order_id": 15,
}  # fmt: skip
REPLIES: Final = {"engine": 6, "reason": 17, "position": 8}
LEVELS: Final = {"orders": 6, "quantity": 10, "bid": 10, "offer": 10, "quantity ": 10, "orders ": 6}
INSTRUMENTS: Final = {
    "symbol": 6, "id": 4, "engine": 6, "tick_size": 9, "lot_size": 8, "price_min": 9, "price_max": 9,
    "quantity_max": 12, "notional_max": 12, "collar": 8, "band": 8, "allocation": 10, "channel": 7,
    "auction_reference": 17, "state": 8,
}  # fmt: skip
FACTS: Final = {"fact": 20, "value": 20}


class Printer:
    """Prints lines as they come. Raises: OSError, where nobody reads them or there is no room."""

    def __init__(self, out: TextIO, *, table: bool) -> None:
        self.table = table
        self._out = out
        self._widths: dict[str, int] = {}

    def rows(self, lines: Iterable[Line], columns: dict[str, int]) -> None:
        """Lines of one kind, as rows of a table with these columns, or as JSON."""
        if not self.table:
            for line in lines:
                self._say(json.dumps(line, default=str))
            return
        if not self._widths:
            room = shutil.get_terminal_size().columns
            for name, usual in columns.items():
                width = max(len(name), usual)
                room -= width + 2
                if room >= -2 or not self._widths:
                    self._widths[name] = width
            if out := list(columns)[len(self._widths) :]:
                names = ", ".join(out).replace("_", " ")
                print(f"orders: too narrow for {names}; --json has all", file=sys.stderr)
            self._say(self._row([name.replace("_", " ").strip() for name in self._widths]))
        for line in lines:
            self._say(self._row([_cell(name, line.get(name)) for name in self._widths]))

    def _row(self, cells: Sequence[str]) -> str:
        for name, cell in zip(self._widths, cells, strict=True):
            self._widths[name] = max(self._widths[name], len(cell))
        return "  ".join(cell.rjust(width) for cell, width in zip(cells, self._widths.values(), strict=True)).rstrip()

    def _say(self, text: str) -> None:
        print(text, file=self._out, flush=True)


def _cell(name: str, value: Any) -> str:
    if value is None or value == "none":
        return ""
    return str(value)[11:23] if name == "time" else str(value)


def of_report(report: Report) -> Line:
    """A report of the SDK: of a drop copy."""
    line = _report(report, str(report.kind), report.reason, report.side, report.liquidity)
    numbers = {name: getattr(report, name) for name in ("price", "quantity", "open", "filled")}
    line |= {name: "" if number.is_nan() else str(number) for name, number in numbers.items()}
    if report.definition is None and report.row.instrument:  # delisted, and nobody knows its units any more
        line |= {"price_ticks": report.row.price, "quantity_lots": report.row.quantity}
    return _of_no_order(line) | {"command": report.command, "detail": report.detail}


def of_answer(report: pb.Report) -> list[Line]:
    """The answer to a call: the report, and those of what it came to at once."""
    line = _report(
        report, str(word(KINDS, report.kind)), word(REASONS, report.reason), SIDES[report.side],
        word(LIQUIDITY, report.liquidity),
    )  # fmt: skip
    line |= {name: getattr(report, name) for name in ("price", "quantity", "open", "filled", "detail")}
    return [_of_no_order(line), *(one for then in report.then for one in of_answer(then))]


def _of_no_order(line: Line) -> Line:
    """A report that is about no order says nothing of one: no side, and no price, quantity, ... of an unknown order.

    So are those of a mass cancel, whose quantity is how many orders it canceled, of a cancel or a replace that found
    nothing, and of what was refused before anybody looked at the rest of it.
    """
    if line["kind"] == str(KINDS[MASS_CANCELED]):
        return line | {"side": ""}
    if line["kind"] in (str(KINDS[REFUSED]), str(KINDS[UNKNOWN])) and not Decimal(line["quantity"] or 0):
        return line | dict.fromkeys(("side", "price", "quantity", "open", "filled"), "")
    return line


def _report(report: Any, kind: str, reason: object, side: object, liquidity: object) -> Line:
    line = {
        "kind": kind,
        "symbol": report.symbol,
        "side": str(side),
        "reason": str(reason),
        "liquidity": str(liquidity),
    }
    names = ("client_order_id", "order_id", "trade_id", "home", "seq", "position", "time_ns", "priority_kept", "repeat")
    line |= {name: getattr(report, name) for name in names}
    return line | {"time": _time(report.time_ns)}


def _time(time_ns: int) -> str:
    """UTC, to the millisecond."""
    seconds, rest_ns = divmod(time_ns, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 10**6:03}Z" if time_ns else ""


def refusal(line: Line) -> str:
    """What was not done and why, for people; "" if it was done."""
    kind = line.get("kind", "done" if line["reason"] == "none" else "refused")
    return f"{kind}: {line['reason']}: {line['detail']}" if kind in (str(KINDS[REFUSED]), str(KINDS[UNKNOWN])) else ""


def of_order(order: pb.Order) -> Line:
    line: Line = {"symbol": order.symbol, "side": str(SIDES[order.side])}
    line |= {"type": str(word(TYPES, order.type)), "time_in_force": str(word(FORCES, order.time_in_force))}
    rest = [field.name for field in order.DESCRIPTOR.fields if field.name not in line]
    return line | {name: getattr(order, name) for name in rest}


def of_reply(reply: pb.OperatorReply) -> Line:
    return {
        "engine": reply.engine, "reason": str(word(REASONS, reply.reason)),
        "detail": reply.detail or _OPERATOR.get(reply.reason) or explain(reply.reason), "position": reply.position,
    }  # fmt: skip


def of_instrument(instrument: Instrument) -> Line:
    """What an instrument is, and the state it began in; a limit that is none is None."""
    tick, lot = instrument.tick_size, instrument.lot_size

    def limit(value: int, text: Callable[[int], str]) -> str | None:
        return text(value) if value else None

    def price(ticks: int) -> str:
        return decimal_text(ticks, tick)

    return {name: getattr(instrument, name) for name in FIELDS} | {
        "tick_size": f"{tick:f}", "lot_size": f"{lot:f}",
        "price_min": price(instrument.price_min), "price_max": price(instrument.price_max),
        "quantity_max": limit(instrument.quantity_max, lambda lots: decimal_text(lots, lot)),
        "notional_max": limit(instrument.notional_max, lambda value: notional_text(value, tick, lot)),
        "collar": limit(instrument.collar, price), "band": limit(instrument.band, price),
        "auction_reference": limit(instrument.auction_reference, price),
    }  # fmt: skip


def of_book(book: md.Book) -> Line:
    """A book, with what `of_state` says of it."""
    tick, lot = Decimal(book.tick_size), Decimal(book.lot_size)
    sides = {"bids": book.bids, "asks": book.asks}
    return of_state(book) | {
        name: [
            {
                "price": decimal_text(level.price, tick),
                "quantity": decimal_text(level.quantity, lot),
                "orders": level.count,
            }
            for level in levels
        ]
        for name, levels in sides.items()
    }


def levels_of(book: Line) -> list[Line]:
    """The two sides of a book beside each other, the best on top."""
    bids, asks = book["bids"], book["asks"]
    rows: list[Line] = [{} for _ in range(max(len(bids), len(asks)))]
    for row, level in zip(rows, bids, strict=False):
        row |= {"orders": level["orders"], "quantity": level["quantity"], "bid": level["price"]}
    for row, level in zip(rows, asks, strict=False):
        row |= {"offer": level["price"], "quantity ": level["quantity"], "orders ": level["orders"]}
    return rows


def of_state(book: md.Book) -> Line:
    """The trading state, the session so far, and what an auction would trade now."""
    tick, lot = Decimal(book.tick_size), Decimal(book.lot_size)
    line: Line = {
        "symbol": book.symbol, "trading_state": book.trading_state,
        "trading_state_reason": str(word(REASONS, book.trading_state_reason)),
        "book": str(word(BOOK_STATES, book.state)), "engine": book.engine, "channel": book.channel,
        "epoch": book.epoch, "sequence": book.sequence, "instrument_sequence": book.instrument_sequence,
        "age_ns": book.age_ns, "last_trade_id": book.last_trade_id,
    }  # fmt: skip
    if book.last_trade_id:
        line |= {
            "last_price": decimal_text(book.last_price, tick),
            "last_quantity": decimal_text(book.last_quantity, lot),
        }
    if book.HasField("statistics") and book.statistics.trades:
        told = book.statistics
        session: Line = {name: decimal_text(getattr(told, name), tick) for name in ("open", "high", "low", "last")}
        session |= {"volume": decimal_text(told.volume, lot), "turnover": notional_text(told.turnover, tick, lot)}
        line["session"] = session | {"vwap": told.vwap, "trades": told.trades}
    if book.HasField("indication"):
        uncross = book.indication
        line["indication"] = {
            "price": decimal_text(uncross.price, tick), "volume": decimal_text(uncross.volume, lot),
            "imbalance": decimal_text(uncross.imbalance, lot),
        }  # fmt: skip
    return line


def facts(line: Line, of: str = "") -> list[Line]:
    """What a line says, one below the other."""
    rows: list[Line] = []
    for name, value in line.items():
        fact = f"{of}{name}".replace("_", " ")
        rows += facts(value, f"{fact} ") if isinstance(value, dict) else [{"fact": fact, "value": value}]
    return rows
