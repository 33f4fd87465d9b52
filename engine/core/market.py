"""An instrument as the venue trades it: its book, what waits beside the book, its state, and its session so far."""

from __future__ import annotations

from collections.abc import Iterator

from engine.core.auction import NO_INDICATION, Indication
from engine.core.book import Book, Ladder
from engine.core.order import CONDITIONAL, IN_BOOK, LAPSED, PEG, STOP, Order, needs, whole_of
from proto.columns import BUY, SELL, Boxed
from proto.feed import AUCTION, OPEN, PRE_OPEN
from proto.instrument import PRO_RATA, STATES, Instrument


class Market:
    """One instrument.

    `special` says that a command may have to do more than meet the book: the market is not open, or something on it
    or in its definition asks for it. `guarded` says that an order may have to meet more than the price limits. Where
    neither holds, a command takes the short way through the venue; a plain order's price is then within `plain_min`
    and `plain_max`, which are empty otherwise: one look tells.

    stops, pegs, conditionals   live ones, by order id, first come first; every live peg is here, asleep or not
    lapsed                      conditional orders whose minimum was met, on their way into the book
    specials                    live orders that make the market special
    deltas, extras              deltas of the market's channel, and what they point into
    """

    __slots__ = (
        "band_reference",
        "book",
        "conditionals",
        "delisted",
        "deltas",
        "extras",
        "guarded",
        "indication",
        "instrument",
        "killed",
        "lapsed",
        "pegs",
        "plain_max",
        "plain_min",
        "price_max",
        "price_min",
        "pro_rata",
        "reason",
        "special",
        "specials",
        "state",
        "stops",
        "summary",
        "summary_due",
    )

    def __init__(self, instrument: Instrument, deltas: list[int], extras: list[list[int | str]]) -> None:
        self.book = Book(instrument.id)
        self.deltas = deltas
        self.extras = extras
        self.price_min = self.price_max = 0
        self.pro_rata = False
        self.state = STATES.index(instrument.state) + 1
        self.reason = 0
        self.delisted = False
        self.killed = False
        self.band_reference = instrument.auction_reference
        self.summary: tuple[int, int, int, int, int, int, int] | None = None  # the last one on the feed
        self.summary_due = False  # the event ends with STATISTICS
        self.indication: Indication = NO_INDICATION
        self.stops: dict[int, Order] = {}
        self.pegs: dict[int, Order] = {}
        self.conditionals: dict[int, Order] = {}
        self.lapsed: list[Order] = []
        self.specials = 0
        self.special = False
        self.guarded = False
        self.plain_min: Boxed = 0
        self.plain_max: Boxed = 0
        self.define(instrument)

    def define(self, instrument: Instrument) -> None:
        """Trade it under these limits and rules from now on."""
        self.instrument = instrument
        self.price_min = instrument.price_min
        self.price_max = instrument.price_max
        self.pro_rata = instrument.allocation == PRO_RATA
        self.mind()

    def mind(self) -> None:
        """See again whether this market is special: something changed that bears on it."""
        instrument = self.instrument
        self.special = (
            self.state != OPEN
            or self.specials > 0
            or self.pro_rata
            or instrument.band > 0
            or self.killed
            or self.delisted
        )
        self.guarded = self.special or instrument.quantity_max > 0 or instrument.notional_max > 0
        self.plain_min = 1 if self.guarded else self.price_min
        self.plain_max = 0 if self.guarded else self.price_max

    @property
    def open(self) -> bool:
        return self.state == OPEN

    @property
    def gathering(self) -> bool:
        """Whether orders only rest, for an uncross to come."""
        return self.state in (PRE_OPEN, AUCTION)

    @property
    def reference(self) -> int:
        """The price an auction should be near."""
        return self.book.last_price if self.book.last_quantity else self.instrument.auction_reference

    def side(self, side: int) -> Ladder:
        return self.book.bids if side == BUY else self.book.asks

    def crossing(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """The bids and the asks that the other side reaches: each level's price and all that is open there, hidden
        included; best first. Cost: O(orders on them)."""
        bid, ask = self.book.bids.best, self.book.asks.best
        bids: list[tuple[int, int]] = []
        asks: list[tuple[int, int]] = []
        if bid is None or ask is None or bid.price < ask.price:
            return bids, asks
        for level in self.book.bids:
            if level.price < ask.price:
                break
            bids.append((level.price, sum([whole_of(order).open for order in level])))
        for level in self.book.asks:
            if level.price > bid.price:
                break
            asks.append((level.price, sum([whole_of(order).open for order in level])))
        return bids, asks

    def contents(self) -> Iterator[tuple[object, ...]]:
        """All that decides what it does next, as plain values."""
        book, session = self.book, self.book.session
        yield (
            *self.instrument.values, self.state, self.reason, self.delisted, self.band_reference,
            tuple(self.indication), self.summary,
            book.next_trade_id, book.last_price, book.last_quantity, session.contents(),
        )  # fmt: skip
        yield (list(self.stops), list(self.pegs), list(self.conditionals), [order.order_id for order in self.lapsed])
        for side in (BUY, SELL):
            for order in book.orders(side):
                yield (order.order_id, order.price, order.open)

    def check(self) -> None:
        """Walk every invariant. Cost: O(orders). Raises: AssertionError for the first that is broken."""
        self.book.check(crossed=self.state != OPEN)
        specials = 0
        for side in (BUY, SELL):
            for shown in self.book.orders(side):
                order = whole_of(shown)
                specials += self._check_order(order, IN_BOOK)
                more = order.more
                if shown is not order:
                    assert more is not None
                    assert more.tip is shown, "a tip of nothing"
                    assert shown.open <= order.open, "more is shown than there is"
                    assert shown.price == order.price, "a tip stands at another price"
                else:
                    assert more is None or not more.display, "an iceberg shows all of itself"
        for waiting, where in ((self.stops, STOP), (self.conditionals, CONDITIONAL)):
            for order_id, order in waiting.items():
                assert order.order_id == order_id
                specials += self._check_order(order, where)
        for order in self.lapsed:
            specials += self._check_order(order, LAPSED)
        for order in self.pegs.values():
            assert order.more is not None
            assert order.more.where == PEG or (order.more.where == IN_BOOK and self.state == OPEN), "a misplaced peg"
            if order.more.where == PEG:
                specials += self._check_order(order, PEG)
        for order in self.conditionals.values():
            assert needs(order) > 0, "a conditional order without a condition"
            assert order.filled == 0, "a conditional order was filled in part and still waits"
        assert specials == self.specials, "special orders are counted wrong"
        assert self.special or not (self.stops or self.pegs or self.conditionals or self.lapsed)
        assert self.state != OPEN or not self.lapsed, "the market did not settle"

    def _check_order(self, order: Order, where: int) -> int:
        """1 if it makes the market special."""
        assert order.open + order.filled == order.quantity, "quantity is not conserved"
        assert order.open > 0, "a dead order was left behind"
        assert order.instrument == self.instrument.id
        more = order.more
        if more is None:
            return 0
        assert more.where == where or not more.special, "an order is somewhere else than it says"
        partner = more.partner
        assert partner is None or (partner.open > 0 and partner.more is not None and partner.more.partner is order)
        return 1 if more.special else 0
