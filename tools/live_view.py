"""The picture of a running cluster: a row for each machine, a row for each instrument, and what happened last."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tools.ladder import price_text, quantity_text

HAPPENED_MAX: Final = 6
UP: Final = "up"
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
    """An instrument as any fabric node shows it; prices in ticks, quantities in lots. `state` as in BookState."""

    symbol: str
    home: int
    tick_size: Decimal
    lot_size: Decimal
    state: str = "unknown"
    bid: tuple[int, int] | None = None
    ask: tuple[int, int] | None = None
    last: int | None = None
    volume: int = 0


@dataclass(slots=True)
class Board:
    """All that the picture shows. Times are seconds since trading began."""

    title: str
    machines: list[MachineRow] = field(default_factory=list)
    instruments: list[InstrumentRow] = field(default_factory=list)
    happened: list[str] = field(default_factory=list)
    phase: str = "starts"
    now_s: float = 0.0
    duration_s: float = 0.0


def render(board: Board) -> RenderableType:
    """The picture as it is now. Its height changes only when machines or instruments come or go."""
    parts: list[RenderableType] = [
        _title(board),
        "",
        _machines(board.machines),
        "",
        _instruments(board.instruments),
        "",
    ]
    lines = board.happened[-HAPPENED_MAX:]
    parts += [Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis") for line in lines]
    return Group(*parts)


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


def _known(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
