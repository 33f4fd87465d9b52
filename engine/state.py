"""All that an engine knows at one position of its log, as bytes: so that a restart need not begin at the first record.

    State     [version, engine, instruments, epoch, venue, markets, orders, accounts, histories]
    venue     [position, time_ns, orders entered, retained]
    market    [instrument, next trade id, last price, last quantity, bids, asks,    orders by index, in priority order
               state, reason, band reference, summary, session, tape]               trades with their orders by index
    orders    a column for each of ORDER_COLUMNS, then by index what only some orders have (SPARSE_COLUMNS)
    account   [account, next report, recent, commands, places, answers]
              command i is the order places[i], or the answer −1 − places[i]
    history   [account, last report, [[first report, reports, position, time_ns, ReportBatch], ...]]

`instruments` is a hash of what the engine's instruments are: a state is of use only to an engine with the same ones. A
state of another version is not read; the log, from which it can be made again, is the authority. To carry a new field
of an order, name it among the columns; to carry a new thing, put it where it belongs above; and raise VERSION. Whether
all is carried is for Venue.digest to say: whoever writes a state compares (engine/condense.py).

Not carried, and refused by `dump`: orders that are more than plain ones (stops, icebergs, pegs, conditions, links) or
expire at a time, kill switches, instruments added or delisted while it ran, a market that gathers for an auction,
and a turnover beyond 64 bits. As long as there are any, the next start replays from the last snapshot made before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Final

import msgspec

from engine.book import Ladder
from engine.market import Market
from engine.order import Account, Answer, Node, Order
from engine.types import BUY, SELL
from engine.venue import Venue
from proto.cluster import Instrument

VERSION: Final = 2

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
    state: int
    reason: int
    band_reference: int
    summary: tuple[int, int, int, int, int, int, int] | None
    session: tuple[int, int, int, int, int, int, int, int, int]
    tape: list[tuple[int, int, int, int, int, int, int, int, int]]


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
    """The state as bytes. Cost: 1 µs an order and a command, in one go: not for an engine that trades.

    Raises: StateError for what is not carried.
    """
    venue = state.venue
    if venue.kills or venue.amended or venue.next_expiry_ns:
        raise StateError("kill switches, amended instruments and orders that expire are not carried")
    orders: list[Order] = []
    owners: list[int] = []
    index: dict[int, int] = {}  # by order id
    accounts = []
    for nth, account in enumerate(venue.accounts.values()):
        accounts.append(_dump_account(account, index, orders))
        owners += [nth] * (len(orders) - len(owners))
    places = {id: nth for nth, id in enumerate(venue.accounts)}
    for market in venue.markets.values():
        for one, other, *_ in market.book.session.tape:
            for order in (one, other):
                if index.setdefault(order.order_id, len(orders)) == len(orders):  # its account has forgotten it
                    orders.append(order)
                    owners.append(places[order.account.id])
    if any(order.more is not None for order in orders):
        raise StateError("orders that are more than plain ones are not carried")
    markets = [_dump_market(id, market, index) for id, market in venue.markets.items()]
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


def _dump_market(id: int, market: Market, index: dict[int, int]) -> _Market:
    book = market.book
    session = book.session
    session.add_up()
    if abs(session.turnover) >> 63:
        raise StateError("a turnover beyond 64 bits is not carried")
    if market.delisted or market.killed or market.gathering:
        raise StateError("a market that is stopped or gathers for an auction is not carried")
    return _Market(
        id,
        book.next_trade_id,
        book.last_price,
        book.last_quantity,
        [index[order.order_id] for order in book.orders(BUY)],
        [index[order.order_id] for order in book.orders(SELL)],
        market.state,
        market.reason,
        market.band_reference,
        market.summary,
        (
            session.first_trade_id, session.tape_id, session.open, session.high, session.low, session.last,
            session.volume, session.turnover, session.trades,
        ),
        [(index[one.order_id], index[other.order_id], *rest) for one, other, *rest in session.tape],
    )  # fmt: skip


def _load_market(market: Market, found: _Market, orders: list[Order]) -> None:
    book = market.book
    book.next_trade_id = found.next_trade_id
    book.last_price, book.last_quantity = found.last_price, found.last_quantity
    market.state, market.reason, market.band_reference = found.state, found.reason, found.band_reference
    market.summary = found.summary
    session = book.session
    session.tape = [
        (orders[one], orders[other], flag, price, quantity, one_open, one_filled, other_open, other_filled)
        for one, other, flag, price, quantity, one_open, one_filled, other_open, other_filled in found.tape
    ]
    session.begin(found.session[0])
    (
        session.first_trade_id, session.tape_id, session.open, session.high, session.low, session.last,
        session.volume, session.turnover, session.trades,
    ) = found.session  # fmt: skip
    session.added()
    _rest(book.bids, [orders[place] for place in found.bids])
    _rest(book.asks, [orders[place] for place in found.asks])
    market.mind()


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
        _load_market(venue.markets[market.instrument], market, orders)
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
            assert name == "entered"
            orders[place].past = (value[0], value[1], value[2])
    return orders


def fingerprint(instruments: Sequence[Instrument]) -> bytes:
    """What the instruments are, in 16 bytes."""
    return hashlib.blake2b(repr(sorted(instruments, key=_by_id)).encode(), digest_size=16).digest()


def _by_id(instrument: Instrument) -> int:
    return instrument.id
