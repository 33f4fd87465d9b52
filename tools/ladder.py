"""A book as a picture: asks above, the spread, bids below, bars growing outward from the prices.

Lines in, lines out: no terminal is known here. A line is a list of (text, style) pieces of fixed total width, so that
a redraw never leaves anything behind; styles are names (bid, ask, price, dim, head, alarm) that `plain` drops
and a terminal maps to colours. Nothing is told by colour alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, Decimal
from typing import Final

from bus.reader.events import Book, Level, Trade

Pieces = list[tuple[str, str]]  # of a line

WIDTH: Final = 80
DEPTH: Final = 10
_PRICE_WIDTH: Final = 12  # at least: longer prices widen their column
_QUANTITY_WIDTH: Final = 11
_COUNT_WIDTH: Final = 4
_BAR_MIN: Final = 6


@dataclass(frozen=True, slots=True)
class LadderView:
    """One book as it stands, and how far it can be believed.

    `stream` is the state of its reader, `gaps` how many it had; `lag_ms` is how much later than at its best it came.
    """

    book: Book
    engine: int
    channel: int
    stream: str
    gaps: int
    lag_ms: float | None = None
    note: str = ""


def price_text(ticks: int, tick_size: Decimal) -> str:
    """A price as decimal text with the tick size's own number of places."""
    return f"{ticks * tick_size:f}"


def quantity_text(lots: int, lot_size: Decimal) -> str:
    """A quantity as decimal text with thousands separated."""
    return f"{lots * lot_size:,f}"


def draw(view: LadderView, depth: int = DEPTH, width: int = WIDTH, ascii_only: bool = False) -> list[Pieces]:
    """The picture of `view`: 2 * depth + 4 lines of one width, `width` unless that is too narrow. Cost: O(depth)."""
    asks, bids = view.book.asks[:depth], view.book.bids[:depth]
    layout = _Layout(view, (*asks, *bids), width, ascii_only)
    lines = [*_header(view, layout.width, ascii_only), [(layout.rule * layout.width, "dim")]]
    lines += [layout.blank()] * (depth - len(asks))
    lines += [layout.ask(level) for level in reversed(asks)]
    lines.append(layout.spread())
    lines += [layout.bid(level) for level in bids]
    lines += [layout.blank()] * (depth - len(bids))
    return lines if view.book.valid else lines[:2] + [[(text, "dim") for text, _ in line] for line in lines[2:]]


def plain(lines: Sequence[Pieces]) -> list[str]:
    """The lines without their styles."""
    return ["".join(text for text, _ in line) for line in lines]


def _header(view: LadderView, width: int, ascii_only: bool) -> list[Pieces]:
    book = view.book
    state = "no book" if book.state == "unknown" else book.state
    mark = f"{'ok' if ascii_only else '✓'} valid" if book.valid else f"! {state.upper()}"
    if state == "stale":
        mark += f" {book.age_s:.1f} s"
    right = f"engine-{view.engine} channel {view.channel}  epoch {book.epoch:,}  seq {book.sequence:,}"
    first = _spread_out(f"{book.symbol}  {mark}", right, width)
    last = f"last {book.last_quantity:,f} @ {book.last_price:f}" if book.last_price is not None else "no trade yet"
    lag = "" if view.lag_ms is None else f"  lag {view.lag_ms:,.0f} ms"
    second = _spread_out(f"{last}  {view.note}".rstrip(), f"stream {view.stream}{lag}  gaps {view.gaps:,}", width)
    return [[(first, "head" if book.valid else "alarm")], [(second, "")]]


def _spread_out(left: str, right: str, width: int) -> str:
    """`left` and `right` at the two edges; of the right one, parts are left out from its beginning until it fits."""
    left = left[:width]
    room = width - len(left) - 1
    while len(right) > room and "  " in right:
        right = right.partition("  ")[2]
    return left + " " * max(width - len(left) - len(right), 1 if room > 0 else 0) + right[max(len(right) - room, 0) :]


def tape(trades: Sequence[Trade], width: int = WIDTH) -> str:
    """The last trades, the newest first: `sold 5 @ 1.01  bought 2 @ 1.02`."""
    line = "trades"
    for trade in trades:
        did = "sold" if trade.aggressor == "sell" else "bought"
        told = f"  {did} {trade.quantity:,f} @ {trade.price:f}"
        if len(line) + len(told) > width:
            break
        line += told
    return line.ljust(width)[:width]


class _Layout:
    """The columns of one picture: bids' bar, orders, quantity; price; asks' quantity, orders, bar.

    Where there is no room for all of it the bars are left out, then the numbers of orders; never a quantity.
    """

    def __init__(self, view: LadderView, levels: Sequence[Level], width: int, ascii_only: bool) -> None:
        self._view = view
        self._most = max((level.quantity for level in levels), default=Decimal(1))
        self._ascii = ascii_only
        self._price_width = max([_PRICE_WIDTH, *(len(f"{level.price:f}") for level in levels)])
        self.width = max(width, 2 * (_QUANTITY_WIDTH + 1) + self._price_width + 2)
        self._left = (self.width - self._price_width - 2) // 2
        self._right = self.width - self._price_width - 2 - self._left
        self._counts = self._left >= _QUANTITY_WIDTH + _COUNT_WIDTH + 2
        self._bars = self._left >= _QUANTITY_WIDTH + _COUNT_WIDTH + 2 + _BAR_MIN
        self.rule = "-" if ascii_only else "─"

    def ask(self, level: Level) -> Pieces:
        figures = self._quantity(level) + (f" {_short(level.count, _COUNT_WIDTH)} " if self._counts else "")
        bar = self._bar(level.quantity, self._right - len(figures), outward_left=False)
        return [(" " * self._left, ""), self._price(level), (figures + bar, "ask")]

    def bid(self, level: Level) -> Pieces:
        figures = (f" {_short(level.count, _COUNT_WIDTH)} " if self._counts else "") + self._quantity(level)
        bar = self._bar(level.quantity, self._left - len(figures), outward_left=True)
        return [(bar + figures, "bid"), self._price(level), (" " * self._right, "")]

    def spread(self) -> Pieces:
        book = self._view.book
        label = text = ""
        if book.bids and book.asks:
            label, text = "spread", f"{book.asks[0].price - book.bids[0].price:f}"
            if len(text) > self._price_width:  # of a book that makes no sense
                text = "?"
        return [(f"{label:>{self._left}} {text:>{self._price_width}} " + " " * self._right, "dim")]

    def blank(self) -> Pieces:
        dot = "." if self._ascii else "·"
        return [(f"{'':{self._left}} {dot:>{self._price_width}} " + " " * self._right, "dim")]

    def _price(self, level: Level) -> tuple[str, str]:
        return f" {level.price:>{self._price_width}f} ", "price"

    def _quantity(self, level: Level) -> str:
        return _short(level.quantity, _QUANTITY_WIDTH)

    def _bar(self, quantity: Decimal, room: int, outward_left: bool) -> str:
        """A bar in halves of a column, at least one half for anything that rests; in ASCII in whole columns."""
        if not self._bars:
            return " " * room
        halves = max(1, int(2 * room * quantity // self._most))
        if self._ascii:
            bar, half = "#" * max(1, halves // 2), ""
        else:
            bar, half = "█" * (halves // 2), ("▐" if outward_left else "▌") if halves % 2 else ""
        return (half + bar).rjust(room) if outward_left else (bar + half).ljust(room)


def _short(number: Decimal | int, width: int) -> str:
    """A number, right-aligned; one too wide is told in thousands, millions, ..., never cut."""
    text = f"{number:,f}" if isinstance(number, Decimal) else f"{number:,}"
    for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1):
        if len(text) <= width:
            break
        scaled = Decimal(number) / 1000**power
        places = Decimal("0.1") if scaled < 10 else Decimal(1)
        text = f"{scaled.quantize(places, ROUND_DOWN):,f}{unit}"
    return f"{text:>{width}}"
