"""All that an engine knows at one position of its log, as bytes: so that a restart need not begin at the first record.

    State     [version, engine, identity, epoch, venue, desk, markets, orders, accounts, histories, streams, rest]
    venue     [position, time_ns, orders entered, retained]
    desk      [kill switches, amended trades]
    market    its definition, its book as orders by index in priority order, its session, what waits beside the book
    orders    the account of each by index, a column for each of ORDER_COLUMNS; then, for those that have it, how they
              were entered, or what makes them more than plain
    account   [account, next report, recent, commands, places, answers, aside]
              command i is the order places[i], or the answer −1 − places[i]
    history   [account, last report, [[first report, reports, position, time_ns, ReportBatch], ...]]
    streams   [next sequence by channel, last sequence by instrument], within the epoch

`identity` is the log's (engine/log/records.py); `rest` is the version of the rules of the epoch, the channels in the
order in which they were opened, and who may trade. A state of this version and of the one before is
read, so that no log is lost that begins behind a state; the log, from which it can be made again, is the authority. To
carry a new field of an order, name it among the columns, or in _More; to carry a new thing, put it where it belongs
above; and raise VERSION. Whether all is carried is for Venue.digest to say: whoever writes a state compares
(engine/log/condense.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import msgspec

from engine.core.auction import Indication
from engine.core.book import Ladder
from engine.core.market import Market
from engine.core.order import Account, Answer, More, Node, Order
from engine.core.rules import RULES
from engine.core.venue import Venue
from engine.log.numbering import Numbering
from engine.log.records import Identity
from proto.columns import BUY, SELL, TIF_GTD, TIF_MASK, Terms, is_peg
from proto.instrument import Instrument

VERSION: Final = 5
EARLIER: Final = 4  # whose states are read, too: they have no identity, and nothing behind the streams

# In the order in which Order() takes them, then those it does not take.
ORDER_COLUMNS: Final = (
    "client_order_id", "order_id", "instrument", "flags", "price", "quantity", "session", "open", "filled",
)  # fmt: skip
NOBODY: Final = -1  # the index of no order


class StateError(ValueError):
    """These bytes are no state: damaged, or of another version."""


class AccountHistory(msgspec.Struct, array_like=True, gc=False):
    """The last reports of one account: each batch with its first number, its size, its position and its time."""

    account: int
    last_seq: int
    batches: list[tuple[int, int, int, int, bytes]]


class _Market(msgspec.Struct, array_like=True, gc=False):
    definition: Instrument
    next_trade_id: int
    last_price: int
    last_quantity: int
    bids: list[int]
    asks: list[int]
    state: int
    reason: int
    delisted: bool
    band_reference: int
    indication: tuple[int, int, int]
    summary: tuple[int, int, int, int, int, int, int] | None
    session: tuple[int, int, int, int, int, int, int, int]
    turnover: str  # it may be beyond 64 bits
    tape: list[tuple[int, int, int, int, int, int, int, int, int]]
    stops: list[int]
    pegs: list[int]
    conditionals: list[int]
    lapsed: list[int]
    specials: int = 0  # of the version before
    unsettled: bool = False


class _More(msgspec.Struct, array_like=True, gc=False):
    """As engine.order.More, with orders by index."""

    entered: tuple[int, int, int] | None
    terms: Terms | None
    special: bool  # of the version before; it follows from the rest
    where: int
    stp: int
    display: int
    tips: int
    minimum: int
    all_or_none: bool
    stop_price: int
    fired: bool
    offset: int
    cap: int
    tip: int
    whole: int
    partner: int


OTHER_ORDERS: Final = ("tip", "whole", "partner")
PLAIN_FIELDS: Final = tuple(name for name in _More.__struct_fields__ if name not in (*OTHER_ORDERS, "special"))


class _Desk(msgspec.Struct, array_like=True, gc=False):
    kills: list[tuple[int, int]]
    amended: list[tuple[tuple[int, int], tuple[int, int]]]


class _Account(msgspec.Struct, array_like=True, gc=False):
    account: int
    next_seq: int
    recent: list[int]
    commands: list[int]
    places: list[int]
    answers: list[Answer]
    aside: list[int] = []


class _State(msgspec.Struct, array_like=True, gc=False):
    version: int
    engine: int
    identity: Identity | bytes | None  # bytes: in the version before
    epoch: int
    venue: tuple[int, int, int, int]
    desk: _Desk
    markets: list[_Market]
    owners: list[int]  # index of the account of each order
    columns: list[list[int]]
    entered: dict[int, tuple[int, int, int]]
    mores: dict[int, _More]
    accounts: list[_Account]
    histories: list[AccountHistory]
    streams: tuple[dict[int, int], dict[int, int]]
    rest: tuple[int, list[int], dict[int, str]] = (1, [], {})


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(_State)


class EngineState:
    """A venue as it stood, the epoch it stood in, its accounts' reports, and how far its streams had come."""

    __slots__ = ("epoch", "histories", "identity", "numbering", "rules", "venue")

    def __init__(
        self,
        venue: Venue,
        epoch: int = 0,
        histories: list[AccountHistory] | None = None,
        numbering: Numbering | None = None,
        *,
        rules: int = RULES,
        identity: Identity | None = None,
    ) -> None:
        self.venue = venue
        self.epoch = epoch
        self.histories = histories or []
        self.numbering = numbering or Numbering()
        self.rules = rules  # of the epoch
        self.identity = identity  # the last one logged; None: none was, yet


def founded(identity: Identity) -> EngineState:
    """How an engine of that identity begins."""
    venue = Venue(identity.engine.id, identity.instruments, retained=identity.retained)
    venue.operations.let_trade(identity.accounts)
    return EngineState(venue, identity=identity)


class _Orders:
    """Every order that anything points to, each once, by index."""

    __slots__ = ("_accounts", "_index", "all", "owners")

    def __init__(self, venue: Venue) -> None:
        self._accounts = {id: nth for nth, id in enumerate(venue.accounts)}
        self._index: dict[int, int] = {}  # by identity: an iceberg and its first tip have one order id
        self.all: list[Order] = []
        self.owners: list[int] = []

    def place(self, order: Order | None) -> int:
        if order is None:
            return NOBODY
        place = self._index.setdefault(id(order), len(self.all))
        if place == len(self.all):
            self.all.append(order)
            self.owners.append(self._accounts[order.account.id])
        return place

    def places(self, orders: Iterable[Order]) -> list[int]:
        return list(map(self.place, orders))

    def mores(self) -> dict[int, _More]:
        """What makes orders more than plain; this may lead to further orders."""
        found: dict[int, _More] = {}
        for nth, order in enumerate(self.all):  # which grows meanwhile
            more = order.more
            if more is not None:
                fields: dict[str, Any] = {"special": False} | {name: getattr(more, name) for name in PLAIN_FIELDS}
                fields |= {name: self.place(getattr(more, name)) for name in OTHER_ORDERS}
                found[nth] = _More(**fields)
        return found


def dump(state: EngineState) -> bytes:
    """The state as bytes. Cost: 1 µs an order and a command, in one go: not for an engine that trades."""
    venue = state.venue
    orders = _Orders(venue)
    accounts = [_dump_account(account, orders) for account in venue.accounts.values()]
    markets = [_dump_market(market, orders) for market in venue.markets.values()]
    desk = _Desk(list(venue.kills.pairs), list(venue.operations.amended.items()))
    mores = orders.mores()
    return _encoder.encode(
        _State(
            VERSION,
            venue.engine,
            state.identity,
            state.epoch,
            (venue.position, venue.time_ns, venue.trading.orders_entered, venue.retained),
            desk,
            markets,
            orders.owners,
            [list(map(attrgetter(name), orders.all)) for name in ORDER_COLUMNS],
            {nth: order.past for nth, order in enumerate(orders.all) if isinstance(order.past, tuple)},
            mores,
            accounts,
            state.histories,
            (state.numbering.next_seqs, dict(state.numbering.instrument_seqs)),
            (state.rules, venue.listing.channels, venue.operations.allowed),
        )
    )


def _dump_market(market: Market, orders: _Orders) -> _Market:
    assert not market.summary_due, "a record is being applied"
    book = market.book
    session = book.session
    session.add_up()
    return _Market(
        market.instrument,
        book.next_trade_id,
        book.last_price,
        book.last_quantity,
        orders.places(book.orders(BUY)),
        orders.places(book.orders(SELL)),
        market.state,
        market.reason,
        market.delisted,
        market.band_reference,
        market.indication,
        market.summary,
        (
            session.first_trade_id, session.tape_id, session.open, session.high, session.low, session.last,
            session.volume, session.trades,
        ),
        str(session.turnover),
        [(orders.place(one), orders.place(other), *rest) for one, other, *rest in session.tape],
        orders.places(market.stops),
        orders.places(market.pegs),
        orders.places(market.conditionals),
        orders.places(market.lapsed),
        0,
        market.unsettled,
    )  # fmt: skip


def _load_market(market: Market, found: _Market, orders: list[Order]) -> None:
    book = market.book
    book.next_trade_id = found.next_trade_id
    book.last_price, book.last_quantity = found.last_price, found.last_quantity
    market.state, market.reason, market.band_reference = found.state, found.reason, found.band_reference
    market.delisted, market.unsettled = found.delisted, found.unsettled
    market.summary, market.indication = found.summary, Indication(*found.indication)
    market.lapsed = [orders[place] for place in found.lapsed]
    session = book.session
    session.tape = [
        (orders[one], orders[other], flag, price, quantity, one_open, one_filled, other_open, other_filled)
        for one, other, flag, price, quantity, one_open, one_filled, other_open, other_filled in found.tape
    ]
    session.begin(found.session[0])
    (
        session.first_trade_id, session.tape_id, session.open, session.high, session.low, session.last,
        session.volume, session.trades,
    ) = found.session  # fmt: skip
    session.turnover = int(found.turnover)
    session.added()
    _rest(book.bids, [orders[place] for place in found.bids])
    _rest(book.asks, [orders[place] for place in found.asks])
    for place in found.stops:
        market.stops.add(orders[place])
    for place in found.conditionals:
        market.conditionals.add(orders[place], book)
    for place in found.pegs:
        market.pegs.add(orders[place])


def _dump_account(account: Account, orders: _Orders) -> _Account:
    assert not account.reports, "a record is being applied"
    places: list[int] = []
    answers: list[Answer] = []
    for known in account.commands.values():
        if isinstance(known, Order):
            places.append(orders.place(known))
        else:
            answers.append(known)
            places.append(-len(answers))
    return _Account(
        account.id, account.next_seq, account.noted(), list(account.commands), places, answers, account.aside()
    )


def load(body: bytes) -> EngineState:
    """The state again. Cost: 1 µs an order. Raises: StateError."""
    try:
        version = body[1:2]  # the first element of an array of fewer than 16
        if version not in (bytes([EARLIER]), bytes([VERSION])):
            raise StateError(f"a state of version {version.hex() or 'none'}, and not of {EARLIER} or {VERSION}")
        found = _decoder.decode(body)
    except msgspec.MsgspecError as e:
        raise StateError(f"no state: {e}") from e
    try:
        identity = None if isinstance(found.identity, bytes) else found.identity
        return EngineState(
            _load(found), found.epoch, found.histories, _load_numbering(found), rules=found.rest[0], identity=identity
        )
    except (ValueError, IndexError, KeyError) as e:
        raise StateError(f"a state that contradicts itself: {e}") from e


def _load_numbering(found: _State) -> Numbering:
    numbering = Numbering()
    numbering.next_seqs.update(found.streams[0])
    numbering.instrument_seqs.update(found.streams[1])
    return numbering


def _load(found: _State) -> Venue:
    position, time_ns, entered, retained = found.venue
    _, channels, allowed = found.rest
    venue = Venue(found.engine, (), retained=retained)
    for channel in channels or sorted({content.definition.channel for content in found.markets}):
        venue.listing.open(channel)
    venue.operations.allowed = allowed
    venue.record.position, venue.record.time_ns = position, time_ns
    venue.trading.orders_entered = entered
    for holder in found.accounts:
        account = venue.accounts[holder.account] = Account(holder.account)
        account.next_seq = holder.next_seq
    orders = _load_orders(found, list(venue.accounts.values()))
    for holder, account in zip(found.accounts, venue.accounts.values(), strict=True):
        answers = holder.answers
        known: Iterable[Order | Answer] = (
            [orders[place] if place >= 0 else answers[-1 - place] for place in holder.places]
            if answers
            else map(orders.__getitem__, holder.places)
        )
        account.commands = dict(zip(holder.commands, known, strict=True))
        # The version before noted repeats, too, which may be forgotten by now.
        noted = [id for id in dict.fromkeys(holder.recent) if id in account.commands]
        account.restore(noted if found.version == EARLIER else holder.recent, holder.aside)
    for content in found.markets:
        _load_market(venue.listing.add(content.definition), content, orders)
    for order in orders:
        more = order.more
        if order.open and order.flags & TIF_MASK == TIF_GTD and more is not None and more.whole is None and more.terms:
            venue.trading.deadlines.add(order, more.terms.expires_ns)
    venue.operations.amended = dict(found.desk.amended)
    venue.kills.pairs = dict.fromkeys(found.desk.kills, True)
    venue.kills.heed()
    venue.settling.unsettled = {id: market for id, market in venue.markets.items() if market.unsettled}
    return venue


def _rest(ladder: Ladder, orders: list[Order]) -> None:
    """Put orders that are in priority order into an empty ladder: a fifth of what Book.rest costs, one by one."""
    queues = [(price, list(queue)) for price, queue in groupby(orders, attrgetter("price"))]
    for price, queue in reversed(queues):  # the best level last, as the ladder has it
        level = ladder.open(price, queue[0])
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
    for place, past in found.entered.items():
        orders[place].past = past
    for place, content in found.mores.items():
        orders[place].past = more = _load_more(content, orders)
        more.special = (
            more.whole is not None or more.partner is not None or more.display > 0 or is_peg(orders[place].flags)
        )
    return orders


def _load_more(found: _More, orders: list[Order]) -> More:
    more = More()
    for name in PLAIN_FIELDS:
        setattr(more, name, getattr(found, name))
    for name in OTHER_ORDERS:
        place = getattr(found, name)
        setattr(more, name, None if place == NOBODY else orders[place])
    return more
