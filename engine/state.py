"""All that an engine knows at one position of its log, as bytes: so that a restart need not begin at the first record.

    State     [version, engine, instruments, epoch, venue, markets, orders, accounts, histories]
    venue     [position, time_ns, orders entered, retained]
    market    [instrument, next trade id, last price, last quantity, bids, asks]    orders by index, in priority order
    orders    a column for each of ORDER_COLUMNS, then by index what only some orders have (SPARSE_COLUMNS)
    account   [account, next report, recent, commands, places, answers]
              command i is the order places[i], or the answer −1 − places[i]
    history   [account, last report, [[first report, reports, position, time_ns, ReportBatch], ...]]

`instruments` is a hash of what the engine's instruments are: a state is of use only to an engine with the same ones. A
state of another version is not read; the log, from which it can be made again, is the authority. To carry a new field
of an order, name it among the columns; to carry a new thing, put it where it belongs above; and raise VERSION. Whether
all is carried is for Venue.digest to say: whoever writes a state compares (engine/condense.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import msgspec

from engine.book import Ladder
from engine.order import Account, Answer, Node, Order
from engine.types import BUY, SELL
from engine.venue import Venue
from proto.cluster import Instrument

VERSION: Final = 1

# In the order in which Order() takes them, then those it does not take.
ORDER_COLUMNS: Final = (
    "client_order_id", "order_id", "instrument", "flags", "price", "quantity", "session", "open", "filled",
)  # fmt: skip
SPARSE_COLUMNS: Final = ("entered",)  # tuples of integers, None for most orders


class StateError(ValueError):
    """These bytes are no state of this engine: damaged, of another version, or of other instruments."""


class History(msgspec.Struct, array_like=True, gc=False):
    """The last reports of one account: each batch with its first number, its size, its position and its time."""

    account: int
    last_seq: int
    batches: list[tuple[int, int, int, int, bytes]]


class _Market(msgspec.Struct, array_like=True, gc=False):
    instrument: int
    next_trade_id: int
    last_price: int
    last_quantity: int
    bids: list[int]
    asks: list[int]


class _Account(msgspec.Struct, array_like=True, gc=False):
    account: int
    next_seq: int
    recent: list[int]
    commands: list[int]
    places: list[int]
    answers: list[Answer]


class _State(msgspec.Struct, array_like=True, gc=False):
    version: int
    engine: int
    instruments: bytes
    epoch: int
    venue: tuple[int, int, int, int]
    markets: list[_Market]
    owners: list[int]  # index of the account of each order
    columns: list[list[int]]
    sparse: list[dict[int, tuple[int, ...]]]
    accounts: list[_Account]
    histories: list[History]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_State)


class State:
    """A venue as it stood, the epoch it stood in, and its accounts' reports."""

    __slots__ = ("epoch", "histories", "venue")

    def __init__(self, venue: Venue, epoch: int, histories: list[History]) -> None:
        self.venue = venue
        self.epoch = epoch
        self.histories = histories


def dump(state: State, instruments: Sequence[Instrument]) -> bytes:
    """The state as bytes. Cost: 1 µs an order and a command, in one go: not for an engine that trades."""
    venue = state.venue
    orders: list[Order] = []
    owners: list[int] = []
    index: dict[int, int] = {}  # by order id
    accounts = []
    for nth, account in enumerate(venue.accounts.values()):
        accounts.append(_dump_account(account, index, orders))
        owners += [nth] * (len(orders) - len(owners))
    markets = [
        _Market(
            id,
            market.book.next_trade_id,
            market.book.last_price,
            market.book.last_quantity,
            [index[order.order_id] for order in market.book.orders(BUY)],
            [index[order.order_id] for order in market.book.orders(SELL)],
        )
        for id, market in venue.markets.items()
    ]
    return _encoder.encode(
        _State(
            VERSION,
            venue.engine,
            fingerprint(instruments),
            state.epoch,
            (venue.position, venue.time_ns, venue.orders_entered, venue.retained),
            markets,
            owners,
            [list(map(attrgetter(name), orders)) for name in ORDER_COLUMNS],
            [_sparse(orders, name) for name in SPARSE_COLUMNS],
            accounts,
            state.histories,
        )
    )


def _dump_account(account: Account, index: dict[int, int], orders: list[Order]) -> _Account:
    assert not account.reports, "a record is being applied"
    places: list[int] = []
    answers: list[Answer] = []
    for known in account.commands.values():
        if isinstance(known, Order):
            place = index.setdefault(known.order_id, len(orders))
            if place == len(orders):
                orders.append(known)
        else:
            answers.append(known)
            place = -len(answers)
        places.append(place)
    return _Account(account.id, account.next_seq, list(account.recent), list(account.commands), places, answers)


def _sparse(orders: list[Order], name: str) -> dict[int, tuple[int, ...]]:
    values = map(attrgetter(name), orders)
    return {place: value for place, value in enumerate(values) if value is not None}


def load(body: bytes, engine: int, instruments: Sequence[Instrument]) -> State:
    """The state again. Cost: 1 µs an order. Raises: StateError."""
    try:
        if body[1:2] != bytes([VERSION]):  # the first element of an array of fewer than 16
            raise StateError("a state of another version")
        found = _decoder.decode(body)
    except msgspec.MsgspecError as e:
        raise StateError(f"no state: {e}") from e
    if (found.engine, found.instruments) != (engine, fingerprint(instruments)):
        raise StateError("a state of another engine, or of other instruments")
    try:
        return State(_load(found, instruments), found.epoch, found.histories)
    except (ValueError, IndexError, KeyError) as e:
        raise StateError(f"a state that contradicts itself: {e}") from e


def _load(found: _State, instruments: Sequence[Instrument]) -> Venue:
    position, time_ns, entered, retained = found.venue
    venue = Venue(found.engine, instruments, retained=retained)
    venue.position, venue.time_ns, venue.orders_entered = position, time_ns, entered
    for content in found.accounts:
        account = venue.accounts[content.account] = Account(content.account)
        account.next_seq = content.next_seq
        account.recent.extend(content.recent)
    orders = _load_orders(found, list(venue.accounts.values()))
    for content, account in zip(found.accounts, venue.accounts.values(), strict=True):
        answers = content.answers
        known: Iterable[Order | Answer] = (
            [orders[place] if place >= 0 else answers[-1 - place] for place in content.places]
            if answers
            else map(orders.__getitem__, content.places)
        )
        account.commands = dict(zip(content.commands, known, strict=True))
    for market in found.markets:
        book = venue.markets[market.instrument].book
        book.next_trade_id = market.next_trade_id
        book.last_price, book.last_quantity = market.last_price, market.last_quantity
        _rest(book.bids, [orders[place] for place in market.bids])
        _rest(book.asks, [orders[place] for place in market.asks])
    return venue


def _rest(ladder: Ladder, orders: list[Order]) -> None:
    """Put orders that are in priority order into an empty ladder: a fifth of what Book.rest costs, one by one."""
    queues = [(price, list(queue)) for price, queue in groupby(orders, attrgetter("price"))]
    for price, queue in reversed(queues):  # the best level last, as the ladder has it
        level = ladder.open(price)
        last: Node = level
        for order in queue:
            order.prev = last
            last.next = order
            last = order
        last.next = level
        level.prev = last


def _load_orders(found: _State, accounts: list[Account]) -> list[Order]:
    owners = map(accounts.__getitem__, found.owners)
    *entered, opens, filleds = found.columns
    orders = list(map(Order, owners, *entered))
    for order, open, filled in zip(orders, opens, filleds, strict=True):
        order.open = open
        order.filled = filled
    for name, values in zip(SPARSE_COLUMNS, found.sparse, strict=True):
        for place, value in values.items():
            setattr(orders[place], name, value)
    return orders


def fingerprint(instruments: Sequence[Instrument]) -> bytes:
    """What the instruments are, in 16 bytes."""
    return hashlib.blake2b(repr(sorted(instruments, key=_by_id)).encode(), digest_size=16).digest()


def _by_id(instrument: Instrument) -> int:
    return instrument.id
