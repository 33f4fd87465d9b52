"""The picture of a running cluster: a row for each machine, a row for each instrument, and what happened last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tools.ladder import price_text, quantity_text

HAPPENED_MAX: Final = 6
DAY_HAPPENED_MAX: Final = 10
CLOSING_MAX: Final = 12
UP: Final = "up"
PHASE_STYLES: Final = {"open": "green", "halted": "bold red", "closed": "dim"}
STYLES: Final = {UP: "green", "paused": "yellow", "starts": "yellow", "down": "bold red"}


@dataclass(slots=True)
class MachineRow:
    """A machine: its engine and its fabric node. `None` is what nobody knows at the moment."""

    number: int
    engine: str = "starts"
    fabric: str = "starts"
    orders_per_s: float = 0.0
    epoch: int | None = None
    next_seq: int | None = None
    gaps: int = 0
    by_range: int = 0
    by_snapshot: int = 0
    by_late: int = 0
    in_step: int = 0
    streams: int = 0


@dataclass(slots=True)
class InstrumentRow:
    """An instrument as any fabric node shows it; prices in ticks, quantities in lots. `state` as in BookState.

    On a trading day `phase` is its trading state in words, and `indication` what an auction would trade now: price,
    volume, and how much more is bought than sold.
    """

    symbol: str
    home: int
    tick_size: Decimal
    lot_size: Decimal
    state: str = "unknown"
    bid: tuple[int, int] | None = None
    ask: tuple[int, int] | None = None
    last: int | None = None
    volume: int = 0
    phase: str = ""
    indication: tuple[int, int, int] | None = None


@dataclass(slots=True)
class Board:
    """All that the picture shows. Times are seconds since trading began.

    `closing` has a row for each instrument after a day: symbol, open, high, low, last, volume, trades, VWAP.
    """

    title: str
    machines: list[MachineRow] = field(default_factory=list)
    instruments: list[InstrumentRow] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    closing: list[tuple[str, ...]] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    phase: str = "starts"
    now_s: float = 0.0
    duration_s: float = 0.0
    failed: bool = False  # a venue without a verdict did not end well


def render(board: Board) -> RenderableType:
    """The picture as it is now. Its height changes when machines or instruments come or go, or a day closes."""
    day = any(row.phase for row in board.instruments)
    parts: list[RenderableType] = [
        _title(board),
        "",
        _machines(board.machines),
        "",
        _trading_day(board.instruments) if day else _instruments(board.instruments),
        "",
    ]
    if board.refusals:
        parts += [Padding(Text("refused: " + counts_in_words(board.refusals), style="dim"), (0, 0, 0, 2)), ""]
    if board.closing:
        parts += [_closing(board.closing[:CLOSING_MAX]), ""]
    lines = board.happened[-(DAY_HAPPENED_MAX if day else HAPPENED_MAX) :]
    return Group(*parts, *(_line(line) for line in lines))


def _line(text: str) -> Text:
    return Text(f"  {text}", style="dim", no_wrap=True, overflow="ellipsis")


def counts_in_words(counts: Mapping[str, int]) -> str:
    """`would trade 17, wrong state 2`: the most first."""
    return ", ".join(f"{what} {count:,}" for what, count in sorted(counts.items(), key=lambda kv: -kv[1]))


def _title(board: Board) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(" lobmesh ", style="bold reverse")
    clock = f"{board.now_s:.1f} s" + (f" of {board.duration_s:g}" if board.duration_s else "")
    text.append(f"  {board.phase}  {clock}", style="bold")
    text.append(f"   {board.title}")
    return text


def _table(*columns: tuple[str, str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify="left" if justify == "l" else "right", no_wrap=True)
    return table


def _machines(rows: Sequence[MachineRow]) -> Table:
    table = _table(
        ("\n#", "l"),
        ("\nengine", "l"),
        ("orders\nper s", "r"),
        ("\nepoch", "r"),
        ("feed\nsequence", "r"),
        ("\nfabric", "l"),
        ("in\nstep", "r"),
        ("\ngaps", "r"),
        ("by\nrange", "r"),
        ("by\nsnapshot", "r"),
        ("came\nlate", "r"),
    )
    for row in rows:
        whole = row.in_step == row.streams and row.streams > 0
        table.add_row(
            str(row.number),
            Text(row.engine, style=STYLES.get(row.engine, "")),
            f"{row.orders_per_s:,.0f}",
            _known(row.epoch),
            _known(row.next_seq),
            Text(row.fabric, style=STYLES.get(row.fabric, "")),
            Text(f"{row.in_step} of {row.streams}", style="green" if whole else "yellow"),
            f"{row.gaps:,}",
            f"{row.by_range:,}",
            f"{row.by_snapshot:,}",
            f"{row.by_late:,}",
        )
    return table


def _instruments(rows: Sequence[InstrumentRow]) -> Table:
    table = _table(
        ("symbol", "l"),
        ("home", "r"),
        ("bid size", "r"),
        ("bid", "r"),
        ("offer", "r"),
        ("offer size", "r"),
        ("last", "r"),
        ("volume", "r"),
        ("book", "l"),
    )
    for row in rows:
        valid = row.state == "valid"
        side = "" if valid else "dim"
        table.add_row(
            row.symbol,
            str(row.home),
            Text(quantity_text(row.bid[1], row.lot_size) if row.bid else "-", style=side),
            Text(price_text(row.bid[0], row.tick_size) if row.bid else "-", style=side or "green"),
            Text(price_text(row.ask[0], row.tick_size) if row.ask else "-", style=side or "red"),
            Text(quantity_text(row.ask[1], row.lot_size) if row.ask else "-", style=side),
            price_text(row.last, row.tick_size) if row.last is not None else "-",
            quantity_text(row.volume, row.lot_size),
            Text(row.state, style="green" if valid else "bold yellow"),
        )
    return table


def _trading_day(rows: Sequence[InstrumentRow]) -> Table:
    """Instruments by their phase, with what an auction would trade now, and the side and size it would leave over."""
    table = _table(
        ("symbol", "l"),
        ("phase", "l"),
        ("bid", "r"),
        ("offer", "r"),
        ("last", "r"),
        ("volume", "r"),
        ("would trade", "r"),
        ("left", "l"),
        ("book", "l"),
    )
    for row in rows:
        valid = row.state == "valid"
        side = "" if valid else "dim"
        table.add_row(
            row.symbol,
            Text(row.phase, style=PHASE_STYLES.get(row.phase, "bold")),
            Text(price_text(row.bid[0], row.tick_size) if row.bid else "-", style=side or "green"),
            Text(price_text(row.ask[0], row.tick_size) if row.ask else "-", style=side or "red"),
            price_text(row.last, row.tick_size) if row.last is not None else "-",
            quantity_text(row.volume, row.lot_size),
            *_indicated(row),
            Text(row.state, style="green" if valid else "bold yellow"),
        )
    return table


def _closing(rows: Sequence[tuple[str, ...]]) -> Table:
    names = ("open", "high", "low", "last", "volume", "trades", "VWAP")
    table = _table(("symbol", "l"), *((name, "r") for name in names))
    for row in rows:
        table.add_row(*row)
    return table


def _indicated(row: InstrumentRow) -> tuple[str, str]:
    if row.indication is None:
        return "", ""
    price, volume, imbalance = row.indication
    if not volume:
        return "nothing", ""
    side = "buy" if imbalance > 0 else "sell"
    left = f"{side} {quantity_text(abs(imbalance), row.lot_size)}" if imbalance else "-"
    return f"{quantity_text(volume, row.lot_size)} @ {price_text(price, row.tick_size)}", left


def _known(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
