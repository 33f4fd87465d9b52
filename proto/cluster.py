"""cluster.toml: which engines a venue has, what they trade, and who may trade there.

    [venue]
    name = "demo"

    [[engine]]                    # at least one
    id = 1                        # 1 .. 999
    grpc = "127.0.0.1:0"          # host:port; port 0: the system picks one
    feed = "tcp://127.0.0.1:0"
    channels = 1                  # 1 .. 99

    [[instrument]]
    id = 1                        # 1 .. 2^32 - 1
    symbol = "ALFA"               # 1-16 of A-Z 0-9 . - _
    engine = 1                    # its home
    channel = 1                   # 1 .. the engine's channels
    tick_size = "0.01"            # decimal text, at most 12 digits either side of the point: a float would round it
    lot_size = "1"
    price_min = 1                 # ticks, may be negative
    price_max = 1000000
    quantity_max = 0              # lots an order may have; 0: as many as there can be
    notional_max = 0              # ticks times lots an order may have; 0: no limit
    collar = 0                    # ticks a market order may go from the last price; 0: any
    band = 0                      # ticks a trade may be from the reference before trading halts; 0: any
    allocation = "fifo"           # or "pro-rata"
    auction_reference = 0         # ticks; the first reference of auctions, and of a band, which needs it
    state = "open"                # it begins in: pre-open, open, halted, auction, closed

    [[account]]                   # without any, every account may trade
    id = 7                        # 1 .. 2^64 - 1
    name = "maker"

Optional are an engine's `grpc`, `feed` and `channels`, an instrument's `channel` and all behind `price_max`, an
account's `name`, and the venue's name; the values above are their defaults, but for the names. Whatever is wrong with a
file is told at once, in one `ClusterError`. What an edit does to an engine that has a log: engine/log/edits.py.
"""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Annotated, Final

import msgspec

from proto.dial import wrong_address, wrong_endpoint
from proto.instrument import Channel, EngineId, Instrument, read_table
from proto.table import Table, lines, quote, repeats

DEFAULT_GRPC: Final = "127.0.0.1:0"
DEFAULT_FEED: Final = "tcp://127.0.0.1:0"

_NAME: Final = r"[^\x00-\x1f\x7f]"


class ClusterError(ValueError):
    """The file cannot be used; `faults` has one line for each thing that is wrong with it."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))
        self.source = source
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """An engine and the endpoints it binds; a port of 0 is picked by the system."""

    id: EngineId
    grpc: str = DEFAULT_GRPC
    feed: str = DEFAULT_FEED
    channels: Channel = 1


@dataclass(frozen=True, slots=True)
class Account:
    """Someone who may trade."""

    id: Annotated[int, msgspec.Meta(ge=1)]
    name: Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}{{0,64}}\Z", description="up to 64 printable characters")] = ""


@dataclass(frozen=True, slots=True)
class VenueEntry:
    """What all engines of a file have in common."""

    name: Annotated[str, msgspec.Meta(pattern=rf"^{_NAME}{{1,64}}\Z", description="1-64 printable characters")] = (
        "venue"
    )


@dataclass(frozen=True, slots=True)
class Cluster:
    """A venue as its file describes it, everything in the file's order."""

    name: str
    engines: tuple[EngineEntry, ...]
    instruments: tuple[Instrument, ...] = ()
    accounts: tuple[Account, ...] = ()

    def engine(self, engine: int) -> EngineEntry:
        """The engine of that id. Cost: O(engines). Raises: KeyError."""
        for entry in self.engines:
            if entry.id == engine:
                return entry
        raise KeyError(engine)

    def instruments_of(self, engine: int) -> tuple[Instrument, ...]:
        """The instruments whose home that engine is. Cost: O(instruments)."""
        return tuple(instrument for instrument in self.instruments if instrument.engine == engine)


def load(path: str | PathLike[str]) -> Cluster:
    """Read and check a file. Raises: ClusterError, also when there is none or it is not TOML."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")  # an editor may have put a mark before the first line
    except OSError as e:
        raise ClusterError(str(path), [e.strerror or str(e)]) from e
    except UnicodeDecodeError as e:
        raise ClusterError(str(path), [f"is not UTF-8 at byte {e.start}"]) from e
    return loads(text, source=str(path))


def loads(text: str, source: str = "cluster.toml") -> Cluster:
    """Read and check the text of a file; `source` names it in errors. Raises: ClusterError."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as e:  # a ValueError also for a number of more than 4,300 digits
        raise ClusterError(source, [f"is not TOML: {e}"]) from e
    faults: list[str] = []
    cluster = _cluster(Table(document, "", faults))
    _across(cluster, faults)
    if faults:
        raise ClusterError(source, faults)
    return cluster


def dumps(cluster: Cluster) -> str:
    """The file that `loads` reads as an equal cluster; nothing is left to a default."""
    out = ["[venue]", f"name = {quote(cluster.name)}"]
    for key, tables in (
        ("engine", cluster.engines),
        ("instrument", cluster.instruments),
        ("account", cluster.accounts),
    ):
        for one in tables:
            out += ["", f"[[{key}]]", *lines(one)]
    return "\n".join(out) + "\n"


def _cluster(root: Table) -> Cluster:
    venue = root.table("venue").read(VenueEntry)
    engines = tuple(_engine(table) for table in root.tables("engine"))
    instruments = tuple(read_table(table) for table in root.tables("instrument"))
    accounts = tuple(table.read(Account) for table in root.tables("account"))
    if not engines:
        root.fault("no [[engine]]")
    root.end()
    return Cluster(venue.name, engines, instruments, accounts)


def _engine(table: Table) -> EngineEntry:
    entry = table.read(EngineEntry)
    for key, wrong in (("grpc", wrong_address(entry.grpc)), ("feed", wrong_endpoint(entry.feed))):
        if wrong:
            table.fault(f"{key}: {wrong}")
    return entry


def _across(cluster: Cluster, faults: list[str]) -> None:
    """What no table shows by itself. Values that were at fault already (0, "") are passed over."""
    faults += repeats("engine", "id", [engine.id for engine in cluster.engines])
    faults += repeats("engine", "grpc", [_fixed(engine.grpc) for engine in cluster.engines])
    faults += repeats("engine", "feed", [_fixed(engine.feed) for engine in cluster.engines])
    faults += repeats("instrument", "id", [instrument.id for instrument in cluster.instruments])
    faults += repeats("instrument", "symbol", [instrument.symbol for instrument in cluster.instruments])
    faults += repeats("account", "id", [account.id for account in cluster.accounts])
    channels = {engine.id: engine.channels for engine in cluster.engines}
    for i, instrument in enumerate(cluster.instruments, 1):
        where = f"[[instrument]] {i} ({instrument.symbol})" if instrument.symbol else f"[[instrument]] {i}"
        if instrument.engine and instrument.engine not in channels:
            faults.append(f"{where}: engine = {instrument.engine} is not in the file")
        elif 0 < channels.get(instrument.engine, 0) < instrument.channel:
            faults.append(f"{where}: engine {instrument.engine} has no channel {instrument.channel}")


def _fixed(endpoint: str) -> str:
    """An endpoint that two engines cannot share: one with a port of its own."""
    return "" if endpoint.endswith(":0") else endpoint
