"""The picture of a running cluster: a row for each machine, a row for each instrument, and what happened last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tools.ladder import price_text, quantity_text

HAPPENED_MAX: Final = 6
DAY_HAPPENED_MAX: Final = 10
CLOSING_MAX: Final = 12
UP: Final = "up"
VALID: Final = "valid"
WIDTH_MAX: Final = 1_000
PHASE_STYLES: Final = {"open": "green", "halted": "bold red", "closed": "dim"}
STYLES: Final = {UP: "green", "paused": "yellow", "starts": "yellow", "down": "bold red"}


@dataclass(slots=True)
class MachineRow:
    """A machine: its engine and its fabric node. `None` is what nobody knows at the moment."""

    number: int
    engine: str = "starts"
    fabric: str = "starts"
    orders_per_s: float = 0.0
    target: str = ""  # where the engine takes orders
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
    addresses: list[str] = field(default_factory=list)  # to be copied, and so always to be seen, whole
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
    if board.addresses:
        parts += [*(Text(f"  {line}", overflow="fold") for line in board.addresses), ""]
    happened = [line for line in board.happened if not line.endswith(tuple(board.addresses) or ("\n",))]
    lines = happened[-(DAY_HAPPENED_MAX if day else HAPPENED_MAX) :]
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


class Column(NamedTuple):
    """`rank`: those with the highest go first where the screen is too narrow; 0 stays."""

    name: str
    justify: Literal["left", "right"] = "right"
    rank: int = 0


class Columns:
    """A table that leaves out whole columns rather than digits."""

    def __init__(self, columns: Sequence[Column], rows: Sequence[Sequence[RenderableType]]) -> None:
        self._columns = columns
        self._rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """As many columns as there is room for."""
        room = options.update(max_width=WIDTH_MAX)
        for rank in sorted({column.rank for column in self._columns}, reverse=True):
            table = self._up_to(rank)
            if Measurement.get(console, room, table).maximum <= options.max_width or not rank:
                yield table
                return

    def _up_to(self, rank: int) -> Table:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False, header_style="bold")
        kept = [at for at, column in enumerate(self._columns) if column.rank <= rank]
        for at in kept:
            table.add_column(self._columns[at].name, justify=self._columns[at].justify, no_wrap=True)
        for row in self._rows:
            table.add_row(*(row[at] for at in kept))
        return table


MACHINES: Final = (
    Column("\n#", "left"),
    Column("\nengine", "left"),
    Column("\nat", "left", 6),
    Column("orders\nper s"),
    Column("\nepoch", rank=4),
    Column("feed\nsequence", rank=3),
    Column("\nfabric", "left"),
    Column("in\nstep"),
    Column("\ngaps", rank=2),
    Column("by\nrange", rank=5),
    Column("by\nsnapshot", rank=5),
    Column("came\nlate", rank=5),
)
INSTRUMENTS: Final = (
    Column("symbol", "left"),
    Column("home", rank=3),
    Column("bid size", rank=2),
    Column("bid"),
    Column("offer"),
    Column("offer size", rank=2),
    Column("last"),
    Column("volume", rank=1),
    Column("book", "left"),
)
TRADING_DAY: Final = (
    Column("symbol", "left"),
    Column("phase", "left"),
    Column("bid"),
    Column("offer"),
    Column("last", rank=2),
    Column("volume", rank=3),
    Column("would trade", rank=1),
    Column("left", "left", 4),
    Column("book", "left", 5),
)
CLOSING: Final = (
    Column("symbol", "left"),
    *(Column(name, rank=rank) for name, rank in (("open", 3), ("high", 2), ("low", 2), ("last", 0), ("volume", 0))),
    Column("trades", rank=3),
    Column("VWAP", rank=1),
)


def _machines(rows: Sequence[MachineRow]) -> Columns:
    return Columns(
        MACHINES,
        [
            (
                str(row.number),
                Text(row.engine, style=STYLES.get(row.engine, "")),
                row.target or "-",
                f"{row.orders_per_s:,.0f}",
                _known(row.epoch),
                _known(row.next_seq),
                Text(row.fabric, style=STYLES.get(row.fabric, "")),
                Text(
                    f"{row.in_step} of {row.streams}",
                    style="green" if row.in_step == row.streams and row.streams > 0 else "yellow",
                ),
                f"{row.gaps:,}",
                f"{row.by_range:,}",
                f"{row.by_snapshot:,}",
                f"{row.by_late:,}",
            )
            for row in rows
        ],
    )


def _instruments(rows: Sequence[InstrumentRow]) -> Columns:
    return Columns(
        INSTRUMENTS,
        [
            (
                row.symbol,
                str(row.home),
                Text(quantity_text(row.bid[1], row.lot_size) if row.bid else "-", style=_side(row)),
                *_prices(row),
                Text(quantity_text(row.ask[1], row.lot_size) if row.ask else "-", style=_side(row)),
                *_traded(row),
                _book(row),
            )
            for row in rows
        ],
    )


def _trading_day(rows: Sequence[InstrumentRow]) -> Columns:
    """Instruments by their phase, with what an auction would trade now, and the side and size it would leave over."""
    return Columns(
        TRADING_DAY,
        [
            (
                row.symbol,
                Text(row.phase, style=PHASE_STYLES.get(row.phase, "bold")),
                *_prices(row),
                *_traded(row),
                *_indicated(row),
                _book(row),
            )
            for row in rows
        ],
    )


def _closing(rows: Sequence[tuple[str, ...]]) -> Columns:
    return Columns(CLOSING, rows)


def _side(row: InstrumentRow) -> str:
    return "" if row.state == VALID else "dim"


def _prices(row: InstrumentRow) -> tuple[Text, Text]:
    bid = Text(price_text(row.bid[0], row.tick_size) if row.bid else "-", style=_side(row) or "green")
    return bid, Text(price_text(row.ask[0], row.tick_size) if row.ask else "-", style=_side(row) or "red")


def _traded(row: InstrumentRow) -> tuple[str, str]:
    last = price_text(row.last, row.tick_size) if row.last is not None else "-"
    return last, quantity_text(row.volume, row.lot_size)


def _book(row: InstrumentRow) -> Text:
    return Text(row.state, style="green" if row.state == VALID else "bold yellow")


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
