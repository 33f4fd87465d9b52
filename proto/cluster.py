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
file is told at once, in one `ClusterError`.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from os import PathLike
from pathlib import Path
from typing import Final, cast

ENGINE_MAX: Final = 999
CHANNEL_MAX: Final = 99
INSTRUMENT_MAX: Final = 2**32 - 1
ACCOUNT_MAX: Final = 2**64 - 1
PRICE_MAX: Final = 2**40 - 1  # ticks, either way

QUANTITY_MAX: Final = 2**40 - 1  # lots
NOTIONAL_MAX: Final = 2**62 - 1  # ticks times lots

FIFO: Final = "fifo"
PRO_RATA: Final = "pro-rata"
STATES: Final = ("pre-open", "open", "halted", "auction", "closed")  # numbered from 1 on the feed

DEFAULT_GRPC: Final = "127.0.0.1:0"
DEFAULT_FEED: Final = "tcp://127.0.0.1:0"

_SYMBOL: Final = re.compile(r"[A-Z0-9._-]{1,16}")
SIZE: Final = re.compile(r"[0-9]{1,12}(\.[0-9]{1,12})?")  # of a tick or a lot: what the feed can say
_ALLOCATION: Final = re.compile(f"{FIFO}|{PRO_RATA}")
_STATE: Final = re.compile("|".join(STATES))
_ENDPOINT: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


class ClusterError(ValueError):
    """The file cannot be used; `faults` has one line for each thing that is wrong with it."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        super().__init__("\n".join(f"{source}: {fault}" for fault in faults))
        self.source = source
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Instrument:
    """What is traded, where, in which units, within which limits (both prices included) and by which rules.

    Of what is behind price_max, 0 means that there is none; engine/RULES.md says what each is for.
    """

    id: int
    symbol: str
    engine: int
    channel: int
    tick_size: Decimal
    lot_size: Decimal
    price_min: int
    price_max: int
    quantity_max: int = 0
    notional_max: int = 0
    collar: int = 0
    band: int = 0
    allocation: str = FIFO
    auction_reference: int = 0
    state: str = "open"


@dataclass(frozen=True, slots=True)
class EngineEntry:
    """An engine and the endpoints it binds; a port of 0 is picked by the system."""

    id: int
    grpc: str = DEFAULT_GRPC
    feed: str = DEFAULT_FEED
    channels: int = 1


@dataclass(frozen=True, slots=True)
class Account:
    """Someone who may trade."""

    id: int
    name: str = ""


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
        text = Path(path).read_bytes().decode("utf-8")
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
    cluster = _cluster(_Table(document, "", faults))
    _across(cluster, faults)
    if faults:
        raise ClusterError(source, faults)
    return cluster


def dumps(cluster: Cluster) -> str:
    """The file that `loads` reads as an equal cluster; nothing is left to a default."""
    lines = ["[venue]", f"name = {_quote(cluster.name)}"]
    for engine in cluster.engines:
        lines += ["", "[[engine]]", f"id = {engine.id}", f"grpc = {_quote(engine.grpc)}"]
        lines += [f"feed = {_quote(engine.feed)}", f"channels = {engine.channels}"]
    for instrument in cluster.instruments:
        lines += ["", "[[instrument]]", f"id = {instrument.id}", f"symbol = {_quote(instrument.symbol)}"]
        lines += [f"engine = {instrument.engine}", f"channel = {instrument.channel}"]
        lines += [f'tick_size = "{instrument.tick_size:f}"', f'lot_size = "{instrument.lot_size:f}"']
        lines += [f"price_min = {instrument.price_min}", f"price_max = {instrument.price_max}"]
        lines += [f"quantity_max = {instrument.quantity_max}", f"notional_max = {instrument.notional_max}"]
        lines += [f"collar = {instrument.collar}", f"band = {instrument.band}"]
        lines += [f"allocation = {_quote(instrument.allocation)}"]
        lines += [f"auction_reference = {instrument.auction_reference}", f"state = {_quote(instrument.state)}"]
    for account in cluster.accounts:
        lines += ["", "[[account]]", f"id = {account.id}", f"name = {_quote(account.name)}"]
    return "\n".join(lines) + "\n"


class _Table:
    """One table of the file: hands out checked values, notes what is wrong, and goes on with a stand-in."""

    __slots__ = ("_faults", "_read", "_values", "where")

    def __init__(self, values: object, where: str, faults: list[str]) -> None:
        self._values: dict[str, object] = {}
        self._faults = faults
        self._read: list[str] = []
        self.where = where
        if isinstance(values, dict):
            self._values = values
        else:
            self.fault("is not a table")

    def fault(self, what: str) -> None:
        self._faults.append(f"{self.where}: {what}" if self.where else what)

    def whole(self, key: str, least: int, most: int, default: int | None = None, stand_in: int = 0) -> int:
        value = self._value(key, default)
        if value is None:
            return stand_in
        if type(value) is not int:
            self.fault(f"{key} = {_shown(value)} is not a whole number")
            return stand_in
        if not least <= value <= most:
            self.fault(f"{key} = {_shown(value)} is not within {least} .. {most}")
            return stand_in
        return value

    def text(self, key: str, pattern: re.Pattern[str], meaning: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if value is None:
            return ""
        if not isinstance(value, str) or not pattern.fullmatch(value):
            self.fault(f"{key} = {_shown(value)} is not {meaning}")
            return ""
        return value

    def size(self, key: str) -> Decimal:
        text = self.text(key, SIZE, 'a decimal number as text, such as "0.01"')
        size = Decimal(text or "1")
        if size <= 0:
            self.fault(f"{key} = {_shown(text)} is not above zero")
        return size

    def endpoint(self, key: str, scheme: str, default: str) -> str:
        pattern = re.compile(re.escape(scheme) + _ENDPOINT.pattern)
        endpoint = self.text(key, pattern, f"of the form {scheme}host:port", default)
        if endpoint and int(endpoint.rpartition(":")[2]) > 65535:
            self.fault(f"{key} = {_shown(endpoint)} has no such port")
        return endpoint

    def table(self, key: str) -> "_Table":
        self._read.append(key)
        return _Table(self._values.get(key, {}), f"[{key}]", self._faults)

    def tables(self, key: str) -> list["_Table"]:
        self._read.append(key)
        values = self._values.get(key, [])
        if not isinstance(values, list):
            self.fault(f"{key} is not a list of tables: write [[{key}]]")
            return []
        return [_Table(value, _place(key, i, value), self._faults) for i, value in enumerate(values, 1)]

    def end(self) -> None:
        """Every key has been asked for: what is left over is a mistake, most likely in its spelling."""
        for key in self._values:
            if key not in self._read:
                self.fault(f"unknown key {_shown(key)}")

    def _value(self, key: str, default: object) -> object:
        self._read.append(key)
        if key not in self._values and default is None:
            self.fault(f"{key} is missing")
        return self._values.get(key, default)


def _cluster(root: _Table) -> Cluster:
    venue = root.table("venue")
    name = venue.text("name", re.compile(r"[^\x00-\x1f\x7f]{1,64}"), "1-64 printable characters", "venue")
    venue.end()
    engines = tuple(_engine(table) for table in root.tables("engine"))
    instruments = tuple(_instrument(table) for table in root.tables("instrument"))
    accounts = tuple(_account(table) for table in root.tables("account"))
    if not engines:
        root.fault("no [[engine]]")
    root.end()
    return Cluster(name, engines, instruments, accounts)


def _engine(table: _Table) -> EngineEntry:
    entry = EngineEntry(
        id=table.whole("id", 1, ENGINE_MAX),
        grpc=table.endpoint("grpc", "", DEFAULT_GRPC),
        feed=table.endpoint("feed", "tcp://", DEFAULT_FEED),
        channels=table.whole("channels", 1, CHANNEL_MAX, 1),
    )
    table.end()
    return entry


def _instrument(table: _Table) -> Instrument:
    instrument = Instrument(
        id=table.whole("id", 1, INSTRUMENT_MAX),
        symbol=table.text("symbol", _SYMBOL, "1-16 of A-Z 0-9 . - _"),
        engine=table.whole("engine", 1, ENGINE_MAX),
        channel=table.whole("channel", 1, CHANNEL_MAX, 1),
        tick_size=table.size("tick_size"),
        lot_size=table.size("lot_size"),
        price_min=table.whole("price_min", -PRICE_MAX, PRICE_MAX, stand_in=-PRICE_MAX),
        price_max=table.whole("price_max", -PRICE_MAX, PRICE_MAX, stand_in=PRICE_MAX),
        quantity_max=table.whole("quantity_max", 0, QUANTITY_MAX, 0),
        notional_max=table.whole("notional_max", 0, NOTIONAL_MAX, 0),
        collar=table.whole("collar", 0, PRICE_MAX, 0),
        band=table.whole("band", 0, PRICE_MAX, 0),
        allocation=table.text("allocation", _ALLOCATION, "fifo or pro-rata", FIFO),
        auction_reference=table.whole("auction_reference", -PRICE_MAX, PRICE_MAX, 0),
        state=table.text("state", _STATE, "one of " + ", ".join(STATES), "open"),
    )
    if instrument.price_min > instrument.price_max:
        table.fault(f"price_min = {instrument.price_min} is above price_max = {instrument.price_max}")
    elif not instrument.price_min <= instrument.auction_reference <= instrument.price_max:
        if instrument.auction_reference:
            table.fault(f"auction_reference = {instrument.auction_reference} is not within the price limits")
        elif instrument.band:
            table.fault(f"band = {instrument.band} needs an auction_reference: the first trade would halt trading")
    table.end()
    return instrument


def _account(table: _Table) -> Account:
    name = re.compile(r"[^\x00-\x1f\x7f]{0,64}")
    account = Account(
        id=table.whole("id", 1, ACCOUNT_MAX),
        name=table.text("name", name, "up to 64 printable characters", ""),
    )
    table.end()
    return account


def _across(cluster: Cluster, faults: list[str]) -> None:
    """What no table shows by itself. Values that were at fault already (0, "") are passed over."""
    _unique(faults, "engine", "id", [engine.id for engine in cluster.engines])
    _unique(faults, "engine", "grpc", [_fixed(engine.grpc) for engine in cluster.engines])
    _unique(faults, "engine", "feed", [_fixed(engine.feed) for engine in cluster.engines])
    _unique(faults, "instrument", "id", [instrument.id for instrument in cluster.instruments])
    _unique(faults, "instrument", "symbol", [instrument.symbol for instrument in cluster.instruments])
    _unique(faults, "account", "id", [account.id for account in cluster.accounts])
    channels = {engine.id: engine.channels for engine in cluster.engines}
    for i, instrument in enumerate(cluster.instruments, 1):
        where = f"[[instrument]] {i} ({instrument.symbol})" if instrument.symbol else f"[[instrument]] {i}"
        if instrument.engine and instrument.engine not in channels:
            faults.append(f"{where}: engine = {instrument.engine} is not in the file")
        elif 0 < channels.get(instrument.engine, 0) < instrument.channel:
            faults.append(f"{where}: engine {instrument.engine} has no channel {instrument.channel}")


def _unique(faults: list[str], table: str, key: str, values: Sequence[int | str]) -> None:
    first: dict[int | str, int] = {}
    for i, value in enumerate(values, 1):
        if value and first.setdefault(value, i) != i:
            faults.append(f"[[{table}]] {i}: {key} = {_shown(value)} belongs to [[{table}]] {first[value]}")


def _fixed(endpoint: str) -> str:
    """An endpoint that two engines cannot share: one with a port of its own."""
    return "" if endpoint.endswith(":0") else endpoint


def _place(key: str, i: int, value: object) -> str:
    """Where a table stands, with its symbol when it has a proper one: easier to find in a long file."""
    symbol = cast(dict[str, object], value).get("symbol") if isinstance(value, dict) else None
    named = isinstance(symbol, str) and _SYMBOL.fullmatch(symbol)
    return f"[[{key}]] {i} ({symbol})" if named else f"[[{key}]] {i}"


def _shown(value: object) -> str:
    if isinstance(value, str):
        text = _quote(value)
    elif type(value) is int:
        text = f"{value:#x}" if abs(value) > ACCOUNT_MAX else str(value)
    else:
        text = type(value).__name__ if isinstance(value, dict | list) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _quote(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda m: f"\\u{ord(m[0]):04x}", escaped) + '"'
