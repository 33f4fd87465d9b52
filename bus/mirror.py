"""Books rebuilt from a feed, order by order: they change by whole events only, and know when a delta does not fit.

A mirror trusts nobody. A delta that does not fit its book is the peer's fault and raises MirrorError; the mirror
is of no use after that until the next load(). No I/O, no clock.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from sortedcontainers import SortedList

from proto import feed
from proto.feed import (
    ADD,
    CANCEL,
    CLEAR,
    DEFINITION,
    DELETE,
    END,
    MODIFY,
    OP_MASK,
    SELL,
    TRADE,
    U64_MAX,
    BookSnapshot,
    Definition,
    Digest,
    Extra,
    Row,
    Snapshot,
    Statistics,
    Status,
)

BUY_SIDE: Final = 0
SELL_SIDE: Final = 1

Order = tuple[int, int, int, int]  # side, order id, price, quantity
Level = dict[int, Order]  # a queue: its orders by id, in order of arrival


def _reference_hash(order: Order) -> int:
    return feed.reference_order_hash(*order)


# Modulo 2^64: sums are masked when they are read.
_hash: Final[Callable[[Order], int]] = hash if feed.NATIVE_HASH else _reference_hash


class MirrorError(Exception):
    """A delta or a snapshot does not fit: what was received is not what the engine did."""


class MirrorBook:
    """One instrument, by order and by level.

    sequence    of the instrument's last delta applied
    last_…      of the last trade; 0 before the first
    """

    __slots__ = (
        "_ask_levels",
        "_ask_prices",
        "_bid_levels",
        "_bid_prices",
        "_hash_sum",
        "_orders",
        "definition",
        "instrument",
        "last_price",
        "last_quantity",
        "last_trade_id",
        "sequence",
        "statistics",
        "status",
    )

    def __init__(self, instrument: int) -> None:
        self.instrument = instrument
        self.definition: Definition | None = None
        self.status = Status(0, 0)
        self.statistics: Statistics | None = None
        self.sequence = 0
        self.last_price = 0
        self.last_quantity = 0
        self.last_trade_id = 0
        self._orders: dict[int, Order] = {}
        self._bid_levels: dict[int, Level] = {}
        self._ask_levels: dict[int, Level] = {}
        # Ascending; touched only at the birth and the death of a level.
        self._bid_prices: SortedList[int] = SortedList()
        self._ask_prices: SortedList[int] = SortedList()
        self._hash_sum = 0

    @property
    def count(self) -> int:
        """Live orders."""
        return len(self._orders)

    @property
    def hash(self) -> int:
        """Sum of the order hashes, modulo 2^64."""
        return self._hash_sum & U64_MAX

    @property
    def state(self) -> int:
        """Trading state; 0 is unknown."""
        return self.status.state

    def best(self, side: int) -> int | None:
        """The best price of a side, or None if it is empty. O(1)."""
        if side == SELL_SIDE:
            return self._ask_prices[0] if self._ask_levels else None
        return self._bid_prices[-1] if self._bid_levels else None

    def levels(self, side: int, depth: int = 0) -> list[tuple[int, int, int]]:
        """(price, quantity, orders) of the `depth` best levels, or of all; best first. O(orders in them)."""
        levels = self._levels(side)
        return [
            (price, sum([order[3] for order in levels[price].values()]), len(levels[price]))
            for price in islice(self._prices(side), depth or None)
        ]

    def queues(self, side: int) -> Iterator[tuple[int, Iterator[tuple[int, int]]]]:
        """Each level's price and its (order id, quantity) in queue order; best first."""
        levels = self._levels(side)
        for price in self._prices(side):
            yield price, ((order_id, order[3]) for order_id, order in levels[price].items())

    def orders(self, side: int) -> Iterator[tuple[int, int, int]]:
        """(order id, price, quantity) in priority order: best price first, then queue order."""
        for price, queue in self.queues(side):
            for order_id, quantity in queue:
                yield order_id, price, quantity

    def digest(self) -> Digest:
        """The book as one line, at `sequence`. O(1,000)."""
        top = feed.top_crc(self.queues(BUY_SIDE), self.queues(SELL_SIDE))
        return Digest(self.instrument, self.sequence, self.hash, top)

    def snapshot(self) -> BookSnapshot:
        """All of it. O(orders)."""
        return BookSnapshot(
            self.instrument,
            self.definition,
            self.status,
            self.sequence,
            self.last_price,
            self.last_quantity,
            self.last_trade_id,
            self.last_trade_id + 1,
            self.statistics,
            list(self.orders(BUY_SIDE)),
            list(self.orders(SELL_SIDE)),
        )

    def check(self) -> None:
        """Walk every invariant; AssertionError if one is broken. O(orders log orders)."""
        seen = 0
        for side in (BUY_SIDE, SELL_SIDE):
            levels = self._levels(side)
            prices = list(self._prices(side))
            assert prices == sorted(levels, reverse=side == BUY_SIDE), "the ladder is not the levels in order"
            for price, level in levels.items():
                assert level, f"an empty level at {price}"
                for order_id, order in level.items():
                    assert order[:3] == (side, order_id, price), order
                    assert order[3] > 0, order
                    assert self._orders.get(order_id) is order, f"order {order_id} is not one but two"
                seen += len(level)
        assert seen == len(self._orders), "an order outside the levels"
        assert self.hash == sum(_hash(order) for order in self._orders.values()) & U64_MAX, "the hash has drifted"

    def _levels(self, side: int) -> dict[int, Level]:
        return self._ask_levels if side == SELL_SIDE else self._bid_levels

    def _prices(self, side: int) -> Iterator[int]:
        return iter(self._ask_prices) if side == SELL_SIDE else reversed(self._bid_prices)

    def _birth(self, side: int, price: int, order: Order) -> None:
        self._levels(side)[price] = {order[1]: order}
        (self._ask_prices if side == SELL_SIDE else self._bid_prices).add(price)

    def _death(self, side: int, price: int) -> None:
        del self._levels(side)[price]
        (self._ask_prices if side == SELL_SIDE else self._bid_prices).remove(price)

    def _resize(self, order_id: int, side: int, quantity: int) -> None:
        """Give a live order a new quantity, in place; 0 takes it out. KeyError if it is not on that side."""
        order = self._orders[order_id]
        price = order[2]
        level = self._levels(side)[price]
        if level[order_id] is not order:
            raise KeyError(order_id)
        self._hash_sum -= _hash(order)
        if quantity:
            level[order_id] = self._orders[order_id] = changed = (side, order_id, price, quantity)
            self._hash_sum += _hash(changed)
            return
        del self._orders[order_id], level[order_id]
        if not level:
            self._death(side, price)

    def _rest(self, op: int, order_id: int, quantity: int, price: int, trade_id: int) -> None:
        """The less frequent half of the operations on orders. KeyError or MirrorError if one does not fit."""
        code = op & OP_MASK
        if code == TRADE:
            self._traded(price, quantity, trade_id)
            return
        side = SELL_SIDE if op & SELL else BUY_SIDE
        left = self._orders[order_id][3]
        if code == MODIFY:
            self._resize(order_id, side, quantity)
        elif code == CANCEL:
            if quantity >= left:
                raise MirrorError(f"{quantity} canceled of order {order_id}, which has {left}")
            self._resize(order_id, side, left - quantity)
        else:
            limit = self._orders[order_id][2]
            if quantity > left or (price < limit if side == SELL_SIDE else price > limit):
                raise MirrorError(f"{quantity} executed at {price} of order {order_id}: {left} at {limit}")
            self._resize(order_id, side, left - quantity)
            self._traded(price, quantity, trade_id)

    def _traded(self, price: int, quantity: int, trade_id: int) -> None:
        if trade_id < self.last_trade_id:
            raise MirrorError(f"trade {trade_id} after trade {self.last_trade_id}")
        self.last_price = price
        self.last_quantity = quantity
        self.last_trade_id = trade_id

    def _told(self, extra: Extra) -> None:
        if isinstance(extra, Definition):
            self.definition = extra
        elif isinstance(extra, Status):
            self.status = extra
        else:
            self.statistics = extra

    def _clear(self) -> None:
        self._orders.clear()
        self._bid_levels.clear()
        self._ask_levels.clear()
        self._bid_prices.clear()
        self._ask_prices.clear()
        self._hash_sum = 0

    def _load(self, book: BookSnapshot) -> None:
        self.definition = book.definition
        self.status = book.status
        self.statistics = book.statistics
        self.sequence = book.instrument_seq
        self.last_price = book.last_price
        self.last_quantity = book.last_quantity
        self.last_trade_id = book.last_trade_id
        self._load_side(BUY_SIDE, book.bids)
        self._load_side(SELL_SIDE, book.asks)

    def _load_side(self, side: int, orders: Sequence[tuple[int, int, int]]) -> None:
        levels = self._levels(side)
        for order_id, price, quantity in orders:
            order = (side, order_id, price, quantity)
            self._orders[order_id] = order
            levels.setdefault(price, {})[order_id] = order
            self._hash_sum += _hash(order)
        (self._ask_prices if side == SELL_SIDE else self._bid_prices).update(levels)


class Mirror:
    """The books of one stream.

    books       by instrument, in order of first appearance
    last_seq    of the last delta applied, which ended an event; 0 before the first
    held        deltas received beyond it, whose event has not ended
    """

    __slots__ = ("_held", "_held_extras", "books", "last_seq")

    def __init__(self) -> None:
        self.books: dict[int, MirrorBook] = {}
        self.last_seq = 0
        self._held: list[Row] = []
        self._held_extras: list[Extra] = []

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def next_seq(self) -> int:
        """The sequence of the next delta due."""
        return self.last_seq + len(self._held) + 1

    def apply(
        self, rows: list[Row], extras: Sequence[Extra] = (), instruments: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Take the deltas from next_seq on, as Frame.rows or a slice of it; apply those whose event has ended.

        The rest is held until its end comes. `extras` is the frame's; `instruments`, where given, says at which
        instrument sequence each instrument's first row stands, as Frame.rows_from does.
        Cost: O(1) a delta, O(log levels) at the birth and death of a level.
        Raises: MirrorError if a delta does not fit; load() is the only way on from there.
        """
        if instruments:
            self._check_sequences(instruments)
        if self._held:
            shift = len(self._held_extras)
            extras = [*self._held_extras, *extras]
            rows = self._held + [_shifted(row, shift) if row[0] & OP_MASK >= DEFINITION else row for row in rows]
            self._held = []
            self._held_extras = []
        if rows and not rows[-1][0] & END:
            whole = len(rows)
            while whole and not rows[whole - 1][0] & END:
                whole -= 1
            self._held = rows[whole:]
            self._held_extras = list(extras)
            rows = rows[:whole]
        self._apply(rows, extras)
        self.last_seq += len(rows)

    def _apply(self, rows: list[Row], extras: Sequence[Extra]) -> None:
        books = self.books
        try:
            for op, instrument, order_id, price, quantity, trade_id in rows:
                try:
                    book = books[instrument]
                except KeyError:
                    book = books[instrument] = MirrorBook(instrument)
                book.sequence += 1
                code = op & OP_MASK
                if code == ADD:
                    side = SELL_SIDE if op & SELL else BUY_SIDE
                    order = (side, order_id, price, quantity)
                    orders = book._orders
                    if order_id in orders:
                        raise MirrorError(f"order {order_id} of instrument {instrument} is added twice")
                    orders[order_id] = order
                    book._hash_sum += _hash(order)
                    level = (book._ask_levels if side else book._bid_levels).get(price)
                    if level is None:
                        book._birth(side, price, order)
                    else:
                        level[order_id] = order
                elif code == DELETE:
                    order = book._orders.pop(order_id)
                    price = order[2]
                    side = SELL_SIDE if op & SELL else BUY_SIDE
                    level = (book._ask_levels if side else book._bid_levels)[price]
                    del level[order_id]
                    book._hash_sum -= _hash(order)
                    if not level:
                        book._death(side, price)
                elif code <= TRADE:
                    book._rest(op, order_id, quantity, price, trade_id)
                elif code == CLEAR:
                    book._clear()
                else:
                    book._told(extras[order_id])
        except KeyError as e:
            raise MirrorError(f"order {order_id} of instrument {instrument} is not in the book on that side") from e

    def _check_sequences(self, instruments: Sequence[tuple[int, int]]) -> None:
        for instrument, sequence in instruments:
            if sequence != self.instrument_seq(instrument) + 1:
                raise MirrorError(
                    f"instrument {instrument} goes on at {sequence}, after {self.instrument_seq(instrument)}"
                )

    def instrument_seq(self, instrument: int) -> int:
        """The sequence of the instrument's last delta received, held ones included. O(held)."""
        book = self.books.get(instrument)
        applied = book.sequence if book is not None else 0
        return applied + sum([row[1] == instrument for row in self._held])

    def digest(self, instrument: int) -> Digest:
        """The digest of a book, as the mirror has it; KeyError if there is no such book."""
        return self.books[instrument].digest()

    def load(self, snapshot: Snapshot) -> None:
        """Begin anew from a snapshot, whole. O(orders)."""
        books: dict[int, MirrorBook] = {}
        for content in snapshot.books:
            book = books[content.instrument] = MirrorBook(content.instrument)
            book._load(content)
        self.books = books
        self.last_seq = snapshot.last_seq
        self._held = []
        self._held_extras = []

    def snapshot(
        self, engine: int, channel: int, incarnation: int, epoch: int, time_ns: int, instruments: Sequence[int] = ()
    ) -> Snapshot:
        """The books, or those named, as of last_seq. O(orders)."""
        chosen = [name for name in instruments if name in self.books] if instruments else list(self.books)
        books = [self.books[name].snapshot() for name in chosen]
        return Snapshot(engine, channel, incarnation, epoch, self.last_seq, time_ns, books)

    def check(self) -> None:
        """Walk every invariant of every book; AssertionError if one is broken."""
        for instrument, book in self.books.items():
            assert book.instrument == instrument
            book.check()
        assert not any(row[0] & END for row in self._held), "an ended event is held"


def _shifted(row: Row, shift: int) -> Row:
    op, instrument, nth, price, quantity, trade_id = row
    return op, instrument, nth + shift, price, quantity, trade_id
