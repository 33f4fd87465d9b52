"""Books rebuilt from a feed, order by order: they change by whole events only, and know when a delta does not fit.

A mirror trusts nobody. A delta that does not fit its book is the peer's fault and raises MirrorError; the mirror
is of no use after that until the next load(). No I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final, assert_never

from sortedcontainers import SortedList

from proto.columns import DELISTED, LIMIT
from proto.feed import (
    ADD,
    BUST,
    CANCEL,
    CLEAR,
    CORRECTION,
    DELETE,
    END,
    EXECUTE,
    OP_MASK,
    SELL,
    TIME_MAX,
    TOLD,
    TRADE,
    U64_MAX,
    Definition,
    Digest,
    Extra,
    Indication,
    Row,
    Statistics,
    Status,
    orders_hash,
)
from proto.snapshot import BookSnapshot, Snapshot

BUY_SIDE: Final = 0
SELL_SIDE: Final = 1
UNFELT: Final = (BUST, CORRECTION)  # ops that change no book: the statistics behind them do

UNREAD_MAX: Final = 1_024  # prices that may come and go before a ladder is put in order, whether or not it is read
TAPE_MAX: Final = 8_192  # trades that wait to be added up


class MirrorError(Exception):
    """A delta or a snapshot does not fit: what was received is not what the engine did."""


class MirrorLevel:
    """The orders of one side at one price: quantity by order id, in order of arrival."""

    __slots__ = ("price", "queue", "side")

    def __init__(self, side: int, price: int) -> None:
        self.side = side
        self.price = price
        self.queue: dict[int, int] = {}


class MirrorLadder:
    """One side's levels, by price.

    `levels` come and go without a look at their order, which is found out when somebody asks for it: at the best price
    levels are born and die with every few deltas, and a reader looks far less often. Until then a level that has lost
    its last order stays where it is, and serves again if its price does.

    Cost: O(1) to open or empty a level, and once, when next read, O(log levels) for each whose price has come or gone.
    """

    __slots__ = ("_prices", "_unread", "levels", "side")

    def __init__(self, side: int) -> None:
        self.side = side
        self.levels: dict[int, MirrorLevel] = {}
        self._prices: SortedList[int] = SortedList()  # as last read
        self._unread: dict[int, bool] = {}  # by price that may have come or gone since: whether it is in _prices

    def open(self, price: int) -> MirrorLevel:
        """A new level at `price`, where there is none; an order must follow."""
        level = self.levels[price] = MirrorLevel(self.side, price)
        self._unread[price] = False
        return level

    def emptied(self, level: MirrorLevel) -> None:
        """`level` has lost its last order."""
        unread = self._unread
        if level.price not in unread:
            unread[level.price] = True
            if len(unread) > UNREAD_MAX:
                self.prices()

    def prices(self) -> "SortedList[int]":
        """The prices of the levels that have orders, rising. To be read, not kept."""
        unread = self._unread
        if unread:
            born: list[int] = []
            for price, listed in unread.items():
                if self.levels[price].queue:
                    if not listed:
                        born.append(price)
                else:
                    del self.levels[price]
                    if listed:
                        self._prices.remove(price)
            self._prices.update(born)
            unread.clear()
        return self._prices


class MirrorBook:
    """One instrument, by order and by level.

    sequence    of the instrument's last delta applied
    last_…      of the last trade; 0 before the first
    indication  what an uncross would do; None: nothing, or the state knows no such thing
    symbol      as defined, also when the definition was withdrawn since; before, the instrument's number
    """

    __slots__ = (
        "_asks",
        "_bids",
        "_orders",
        "_statistics",
        "_tape",
        "definition",
        "indication",
        "instrument",
        "last_price",
        "last_quantity",
        "last_trade_id",
        "sequence",
        "status",
        "symbol",
    )

    def __init__(self, instrument: int) -> None:
        self.instrument = instrument
        self.symbol = str(instrument)
        self.definition: Definition | None = None
        self.status = Status(0, 0)
        self.indication: Indication | None = None
        self.sequence = 0
        self.last_price = 0
        self.last_quantity = 0
        self.last_trade_id = 0
        self._statistics: Statistics | None = None
        self._tape: list[tuple[int, int]] = []  # price and quantity of the trades that are not in them yet
        self._orders: dict[int, MirrorLevel] = {}  # where each order is
        self._bids = MirrorLadder(BUY_SIDE)
        self._asks = MirrorLadder(SELL_SIDE)

    @property
    def count(self) -> int:
        """Live orders."""
        return len(self._orders)

    @property
    def state(self) -> int:
        """Trading state; 0 is unknown."""
        return self.status.state

    @property
    def statistics(self) -> Statistics | None:
        """The session so far: as it was told last, and the trades since; None before either. O(trades since)."""
        if self._tape:
            self._add_up()
        return self._statistics

    def best(self, side: int) -> int | None:
        """The best price of a side, or None if it is empty. O(1), beside what MirrorLadder says of a reading."""
        prices = self._ladder(side).prices()
        if not prices:
            return None
        return prices[0] if side == SELL_SIDE else prices[-1]

    def front(self, side: int) -> Mapping[int, int]:
        """The orders at the best price of a side: quantity by order id, first come first. Not to be kept. O(1)."""
        best = self.best(side)
        return {} if best is None else self._ladder(side).levels[best].queue

    def levels(self, side: int, depth: int = 0) -> list[tuple[int, int, int]]:
        """(price, quantity, orders) of the `depth` best levels, or of all; best first. O(orders in them)."""
        levels = self._ladder(side).levels
        return [
            (price, sum(levels[price].queue.values()), len(levels[price].queue))
            for price in islice(self._prices(side), depth or None)
        ]

    def queues(self, side: int) -> Iterator[tuple[int, Iterable[tuple[int, int]]]]:
        """Each level's price and its (order id, quantity) in queue order; best first."""
        levels = self._ladder(side).levels
        for price in self._prices(side):
            yield price, levels[price].queue.items()

    def orders(self, side: int) -> Iterator[tuple[int, int, int]]:
        """(order id, price, quantity) in priority order: best price first, then queue order."""
        for price, queue in self.queues(side):
            for order_id, quantity in queue:
                yield order_id, price, quantity

    def digest(self, side: int, low: int = -LIMIT, high: int = LIMIT) -> Digest:
        """One side between two prices, both included, as a publisher says it. O(orders there)."""
        ladder = self._ladder(side)
        words: list[int] = []
        for price in ladder.prices().irange(low, high, reverse=side == BUY_SIDE):
            for order_id, quantity in ladder.levels[price].queue.items():
                words += (order_id, price, quantity)
        return Digest(self.instrument, self.sequence, side, low, high, orders_hash(words))

    def digests(self) -> tuple[Digest, Digest]:
        """All of it, bids and asks. O(orders)."""
        return self.digest(BUY_SIDE), self.digest(SELL_SIDE)

    def snapshot(self) -> BookSnapshot:
        """All of it. O(orders)."""
        return self.outline()._replace(bids=list(self.orders(BUY_SIDE)), asks=list(self.orders(SELL_SIDE)))

    def outline(self) -> BookSnapshot:
        """All but the orders."""
        return BookSnapshot(
            instrument=self.instrument,
            definition=self.definition,
            status=self.status,
            instrument_seq=self.sequence,
            last_price=self.last_price,
            last_quantity=self.last_quantity,
            last_trade_id=self.last_trade_id,
            next_trade_id=self.last_trade_id + 1,
            statistics=self.statistics,
            indication=self.indication,
            bids=[],
            asks=[],
        )

    def check(self) -> None:
        """Walk every invariant; AssertionError if one is broken. O(orders log orders)."""
        count = 0
        for side in (BUY_SIDE, SELL_SIDE):
            prices = list(self._prices(side))
            levels = self._ladder(side).levels
            assert prices == sorted(levels, reverse=side == BUY_SIDE), "the ladder is not the levels in order"
            for price, level in levels.items():
                assert level.queue, f"an empty level at {price}"
                assert (level.side, level.price) == (side, price), f"a level at {price} that belongs elsewhere"
                count += len(level.queue)
                for order_id, quantity in level.queue.items():
                    assert self._orders.get(order_id) is level, f"order {order_id} at {price}"
                    assert quantity > 0, f"order {order_id} of {quantity}"
        assert count == len(self._orders), "an order outside the levels, or in two"

    def _ladder(self, side: int) -> MirrorLadder:
        return self._asks if side == SELL_SIDE else self._bids

    def _prices(self, side: int) -> Iterator[int]:
        """Best first."""
        prices = self._ladder(side).prices()
        return iter(prices) if side == SELL_SIDE else reversed(prices)

    def _reduce(self, op: int, order_id: int, price: int, quantity: int, trade_id: int) -> None:
        """Cancel in part, modify in place, or execute. KeyError if the order is not there, MirrorError if too much."""
        level = self._orders[order_id]
        side = level.side
        limit = level.price
        if side != op >> 4 & 1:
            raise KeyError(order_id)
        before = level.queue[order_id]
        code = op & OP_MASK
        if code == EXECUTE:
            left = before - quantity
            if left < 0 or (price < limit if side else price > limit):
                raise MirrorError(f"{quantity} executed at {price} of order {order_id}: {before} at {limit}")
            self._traded(price, quantity, trade_id)
        elif code == CANCEL:
            left = before - quantity
            if left <= 0:
                raise MirrorError(f"{quantity} canceled of order {order_id}, which has {before}")
        else:
            left = quantity
        if left:
            level.queue[order_id] = left
            return
        del self._orders[order_id], level.queue[order_id]
        if not level.queue:
            self._ladder(side).emptied(level)

    def _traded(self, price: int, quantity: int, trade_id: int) -> None:
        if trade_id < self.last_trade_id:
            raise MirrorError(f"trade {trade_id} after trade {self.last_trade_id}")
        if trade_id > self.last_trade_id:  # the second side of an uncross has the same
            self._tape.append((price, quantity))
            if len(self._tape) == TAPE_MAX:
                self._add_up()
        self.last_price = price
        self.last_quantity = quantity
        self.last_trade_id = trade_id

    def _add_up(self) -> None:
        """Bring the statistics up to the last trade."""
        begun = self._statistics is not None and self._statistics.trades
        prices = [price for price, _ in self._tape]
        opened, high, low, _, volume, turnover, trades = self._statistics or (0,) * 7
        bounds = (high, low) if begun else prices[:1]
        self._statistics = Statistics(
            opened if begun else prices[0],
            max(*bounds, *prices),
            min(*bounds, *prices),
            prices[-1],
            min(volume + sum([quantity for _, quantity in self._tape]), U64_MAX),
            max(-TIME_MAX, min(turnover + sum([price * quantity for price, quantity in self._tape]), TIME_MAX)),
            min(trades + len(prices), U64_MAX),
        )
        self._tape.clear()

    def _told(self, extra: Extra) -> None:
        if isinstance(extra, Definition):
            self.definition = extra
            self.symbol = extra.symbol
        elif isinstance(extra, Status):
            self.status = extra
            self.indication = None
            if extra.reason == DELISTED:
                self.definition = None
        elif isinstance(extra, Statistics):
            self._statistics = extra
            self._tape.clear()
        elif isinstance(extra, Indication):
            self.indication = extra if any(extra) else None
        else:
            assert_never(extra)

    def _clear(self) -> None:
        self._orders.clear()
        self._bids = MirrorLadder(BUY_SIDE)
        self._asks = MirrorLadder(SELL_SIDE)

    def _load(self, book: BookSnapshot) -> None:
        self.definition = book.definition
        self.symbol = book.definition.symbol if book.definition is not None else str(book.instrument)
        self.status = book.status
        self._statistics = book.statistics
        self.indication = book.indication
        self.sequence = book.instrument_seq
        self.last_price = book.last_price
        self.last_quantity = book.last_quantity
        self.last_trade_id = book.last_trade_id
        self._load_side(BUY_SIDE, book.bids)
        self._load_side(SELL_SIDE, book.asks)

    def _load_side(self, side: int, orders: Sequence[tuple[int, int, int]]) -> None:
        ladder = self._ladder(side)
        for order_id, price, quantity in orders:
            level = ladder.levels.get(price)
            if level is None:
                level = ladder.open(price)
            level.queue[order_id] = quantity
            self._orders[order_id] = level


class _Aside:
    """An instrument whose deltas are recorded instead of applied, until a snapshot of it comes."""

    __slots__ = ("book", "recorded", "sequence")

    def __init__(self, sequence: int) -> None:
        self.sequence = sequence  # of the last delta recorded
        self.recorded: list[tuple[Row, Extra | None]] = []
        self.book: MirrorBook | None = None  # from a snapshot ahead of `sequence`


class Mirror:
    """The books of one stream.

    books       by instrument, in order of first appearance
    last_seq    of the last delta applied, which ended an event; 0 before the first
    """

    __slots__ = ("_aside", "_held", "_held_extras", "_live", "books", "last_seq")

    def __init__(self) -> None:
        self.books: dict[int, MirrorBook] = {}
        self.last_seq = 0
        self._live: dict[int, MirrorBook] = {}  # the books that deltas change: those not set aside
        self._aside: dict[int, _Aside] = {}
        self._held: list[Row] = []
        self._held_extras: list[Extra] = []

    @property
    def held(self) -> int:
        """Deltas received beyond last_seq, whose event has not ended."""
        return len(self._held)

    @property
    def next_seq(self) -> int:
        """The sequence of the next delta due."""
        return self.last_seq + len(self._held) + 1

    @property
    def aside(self) -> list[int]:
        """The instruments set aside, in that order."""
        return list(self._aside)

    @property
    def recorded(self) -> int:
        """Deltas recorded for the instruments set aside."""
        return sum([len(aside.recorded) for aside in self._aside.values()])

    def instrument_seq(self, instrument: int) -> int:
        """The sequence of the instrument's last delta received, applied or not. O(held)."""
        book = self._live.get(instrument)
        sequence = book.sequence if book is not None else 0
        if instrument in self._aside:
            sequence = self._aside[instrument].sequence
        return sequence + sum([row[1] == instrument for row in self._held])

    def digests(self, instrument: int) -> tuple[Digest, Digest]:
        """The digests of a book as the mirror has it; KeyError if there is no such book."""
        return self.books[instrument].digests()

    def apply(self, rows: list[Row], extras: Sequence[Extra] = (), instruments: Sequence[tuple[int, int]] = ()) -> None:
        """Take the deltas from next_seq on, as Frame.rows or a slice of it; apply those whose event has ended.

        The rest is held until its end comes. `extras` is the frame's; `instruments`, where given, says at which
        instrument sequence each instrument's first row stands, as Frame.rows_from does.
        Cost: O(1) a delta, O(log levels) at the birth and death of a level.
        Raises: MirrorError if a delta does not fit; load() is the only way on from there.
        """
        for instrument, sequence in instruments:
            book = self._live.get(instrument)
            if book is None or self._held or book.sequence + 1 != sequence:
                self._check_sequence(instrument, sequence)
        if self._held:
            rows, extras = self._joined(rows, extras)
        if rows and not rows[-1][0] & END:
            rows = self._hold(rows, extras)
        self._apply(rows, extras)
        self.last_seq += len(rows)

    def _apply(self, rows: list[Row], extras: Sequence[Extra]) -> None:
        live = self._live
        try:
            for op, instrument, order_id, price, quantity, trade_id in rows:
                try:
                    book = live[instrument]
                except KeyError:
                    if instrument in self._aside:
                        self._record((op, instrument, order_id, price, quantity, trade_id), extras)
                        continue
                    book = live[instrument] = self.books[instrument] = MirrorBook(instrument)
                book.sequence += 1
                code = op & OP_MASK
                if code == ADD:
                    orders = book._orders
                    if order_id in orders:
                        raise MirrorError(f"order {order_id} of instrument {instrument} is added twice")
                    ladder = book._asks if op & SELL else book._bids
                    level = ladder.levels.get(price)
                    if level is None:
                        level = ladder.open(price)
                    orders[order_id] = level
                    level.queue[order_id] = quantity
                elif code == DELETE:
                    level = book._orders.pop(order_id)
                    side = op >> 4 & 1
                    if level.side != side:
                        raise KeyError(order_id)
                    queue = level.queue
                    del queue[order_id]
                    if not queue:
                        (book._asks if side else book._bids).emptied(level)
                elif code <= EXECUTE:
                    book._reduce(op, order_id, price, quantity, trade_id)
                elif code == TRADE:
                    book._traded(price, quantity, trade_id)
                elif code == CLEAR:
                    book._clear()
                elif code in TOLD:
                    book._told(extras[order_id])
                else:
                    assert code in UNFELT, f"op {op} is not applied"
        except KeyError as e:
            raise MirrorError(f"order {order_id} of instrument {instrument} is not in the book on that side") from e

    def _check_sequence(self, instrument: int, sequence: int) -> None:
        last = self.instrument_seq(instrument)
        if sequence != last + 1:
            raise MirrorError(f"instrument {instrument} goes on at {sequence}, after {last}")

    def _joined(self, rows: list[Row], extras: Sequence[Extra]) -> tuple[list[Row], Sequence[Extra]]:
        """The held rows and these, whose indices into their extras move up behind the held ones'."""
        shift = len(self._held_extras)
        joined = self._held
        for op, instrument, order_id, price, quantity, trade_id in rows:
            nth = order_id + shift if op & OP_MASK in TOLD else order_id
            joined.append((op, instrument, nth, price, quantity, trade_id))
        extras = [*self._held_extras, *extras]
        self._held = []
        self._held_extras = []
        return joined, extras

    def _hold(self, rows: list[Row], extras: Sequence[Extra]) -> list[Row]:
        """Hold the rows behind the last end of an event; return those before."""
        whole = len(rows)
        while whole and not rows[whole - 1][0] & END:
            whole -= 1
        self._held = rows[whole:]
        self._held_extras = list(extras)
        return rows[:whole]

    def load(self, snapshot: Snapshot) -> None:
        """Begin anew from a snapshot, whole. O(orders)."""
        self.books = {}
        for content in snapshot.books:
            book = self.books[content.instrument] = MirrorBook(content.instrument)
            book._load(content)
        self._live = dict(self.books)
        self._aside = {}
        self._held = []
        self._held_extras = []
        self.last_seq = snapshot.last_seq

    def snapshot(
        self, engine: int, channel: int, incarnation: int, epoch: int, time_ns: int, instruments: Sequence[int] = ()
    ) -> Snapshot:
        """The books, or those named that exist, as of last_seq. O(orders). MirrorError if one is set aside."""
        chosen = [name for name in instruments if name in self.books] if instruments else list(self.books)
        for name in chosen:
            if name in self._aside:
                raise MirrorError(f"instrument {name} is set aside")
        books = [self.books[name].snapshot() for name in chosen]
        return Snapshot(engine, channel, incarnation, epoch, self.last_seq, time_ns, books)

    def set_aside(self, instrument: int) -> None:
        """Leave this book as it is, for reading, and record its deltas until splice(). Again: no effect."""
        book = self._live.pop(instrument, None)
        if book is not None:
            self._aside[instrument] = _Aside(book.sequence)

    def splice(self, content: BookSnapshot) -> bool:
        """Put a book that was set aside back, from a snapshot of it and the deltas recorded since.

        A snapshot ahead of the stream waits for it: the book stays set aside until then. False, and nothing
        changed, if the snapshot ends before the record begins. O(orders and deltas recorded).
        Raises: MirrorError if a recorded delta does not fit the snapshot.
        """
        aside = self._aside[content.instrument]
        skip = content.instrument_seq - (aside.sequence - len(aside.recorded))
        if skip < 0 or aside.book is not None:
            return False
        book = MirrorBook(content.instrument)
        book._load(content)
        if content.instrument_seq > aside.sequence:
            aside.book = book
            aside.recorded = []
            return True
        self._return(book)
        for row, extra in aside.recorded[skip:]:
            op, instrument, _, price, quantity, trade_id = row
            self._apply([row] if extra is None else [(op, instrument, 0, price, quantity, trade_id)],
                        [] if extra is None else [extra])  # fmt: skip
        return True

    def _record(self, row: Row, extras: Sequence[Extra]) -> None:
        aside = self._aside[row[1]]
        aside.sequence += 1
        if aside.book is None:
            aside.recorded.append((row, extras[row[2]] if row[0] & OP_MASK in TOLD else None))
        elif aside.book.sequence == aside.sequence:
            self._return(aside.book)

    def _return(self, book: MirrorBook) -> None:
        self.books[book.instrument] = self._live[book.instrument] = book
        del self._aside[book.instrument]

    def check(self) -> None:
        """Walk every invariant of every book; AssertionError if one is broken."""
        assert self.books.keys() == self._live.keys() | self._aside.keys()
        for instrument, book in self.books.items():
            assert book.instrument == instrument
            assert (instrument in self._live) != (instrument in self._aside)
            book.check()
        assert not any(row[0] & END for row in self._held), "an ended event is held"
