"""An instrument as the venue trades it: its book, what waits beside the book, its state, and its session so far."""

from __future__ import annotations

from collections.abc import Iterator

from engine.core.auction import NO_INDICATION, Indication
from engine.core.book import Book, Ladder
from engine.core.order import CONDITIONAL, IN_BOOK, INCOMING, LAPSED, PEG, STOP, Order, needs, whole_of
from engine.core.waiting import NEVER, Conditionals, Pegs, Stops, anchor, firm, peg_price
from proto.columns import BUY, SELL, Boxed, is_peg
from proto.feed import AUCTION, OPEN, PRE_OPEN
from proto.instrument import PRO_RATA, STATES, Instrument


class Market:
    """One instrument.

    What is special about it is asked where it can matter, by comparing with integers that are kept up to date:

    plain_min, plain_max   a plain order between them meets no rule but the book's; empty if some other rule holds
    add_bid_max, …         a plain bid that comes at `add_bid_max` or lower, and one that goes or shrinks at
                           `cut_bid_max` or lower, but for `anchor_bid`, lets nothing happen that could not before;
                           asks alike, upwards
    stops.above, below     the last trades that fire a stop
    stirred                something happened in this event that another order may have waited for
    unsettled              it paused while it settled, and goes on with the next record
    guarded                whether an order may have to meet more than the price limits
    shared                 whether trades need more than price and arrival: pro-rata, or a band

    stops, conditionals, pegs   what waits beside the book; every live peg is there, asleep or not
    lapsed                 conditional orders whose minimum was met, on their way into the book
    deltas, extras         deltas of the market's channel, and what they point into
    """

    __slots__ = (
        "add_ask_min",
        "add_bid_max",
        "anchor_ask",
        "anchor_bid",
        "band_reference",
        "book",
        "conditionals",
        "cut_ask_min",
        "cut_bid_max",
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
        "shared",
        "state",
        "stirred",
        "stops",
        "summary",
        "summary_due",
        "unsettled",
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
        self.stops = Stops()
        self.conditionals = Conditionals()
        self.pegs = Pegs()
        self.lapsed: list[Order] = []
        self.stirred = False
        self.unsettled = False
        self.guarded = False
        self.shared = False
        self.plain_min: Boxed = 0
        self.plain_max: Boxed = 0
        self.add_bid_max: Boxed = 0
        self.add_ask_min: Boxed = 0
        self.anchor_bid: Boxed = 0
        self.anchor_ask: Boxed = 0
        self.cut_bid_max: Boxed = 0
        self.cut_ask_min: Boxed = 0
        self.define(instrument)

    def define(self, instrument: Instrument) -> None:
        """Trade it under these limits and rules from now on."""
        self.instrument = instrument
        self.price_min = instrument.price_min
        self.price_max = instrument.price_max
        self.pro_rata = instrument.allocation == PRO_RATA
        self.mind()

    def mind(self) -> None:
        """See again which rules hold: its state, its definition or a kill switch has changed."""
        instrument = self.instrument
        self.guarded = (
            self.state != OPEN
            or self.killed
            or self.delisted
            or instrument.quantity_max > 0
            or instrument.notional_max > 0
        )
        self.shared = self.pro_rata or instrument.band > 0
        self.plain_min = 1 if self.guarded else self.price_min
        self.plain_max = 0 if self.guarded else self.price_max
        self.conditionals.stir()
        self.pegs.known = False
        self.heed()

    def heed(self) -> None:
        """See again how far the book may change without anybody having to look: what waits has changed."""
        if self.state != OPEN or self.unsettled:  # nothing is calm
            self.add_bid_max = self.cut_bid_max = -NEVER
            self.add_ask_min = self.cut_ask_min = NEVER
            return
        bid: Boxed = self.conditionals.lowest_sell - 1
        ask: Boxed = self.conditionals.highest_buy + 1
        self.cut_bid_max, self.cut_ask_min = bid, ask
        self.anchor_bid, self.anchor_ask = -NEVER, NEVER
        pegs = self.pegs
        if pegs.orders and not pegs.known:
            bid, ask = -NEVER, NEVER
            self.cut_bid_max, self.cut_ask_min = bid, ask
        elif pegs.orders:
            bid, ask = min(bid, pegs.bids[1]), max(ask, pegs.offers[0])
            if pegs.bid is not None:
                self.anchor_bid = anchor(self.book.bids, pegs.bid, pegs.bids[0])
            if pegs.offer is not None:
                self.anchor_ask = anchor(self.book.asks, pegs.offer, pegs.offers[1])
        self.add_bid_max = bid if bid < self.plain_max else self.plain_max
        self.add_ask_min = ask if ask > self.plain_min else self.plain_min

    def look_at_pegs(self) -> None:
        """See where the references of pegged orders are."""
        self.pegs.look(self.book, self.price_min, self.price_max)

    def peg_price(self, flags: int, offset: int, cap: int) -> int | None:
        """Where a peg belongs now, or None if it has to sleep."""
        self.look_at_pegs()
        return peg_price(flags, offset, cap, self.pegs.bid, self.pegs.offer, self.price_min, self.price_max)

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

    def contents(self) -> Iterator[tuple[object, ...]]:
        """All that decides what it does next, as plain values."""
        book, session = self.book, self.book.session
        yield (
            *self.instrument.values, self.state, self.reason, self.delisted, self.band_reference,
            tuple(self.indication), self.summary,
            book.next_trade_id, book.last_price, book.last_quantity, session.contents(),
        )  # fmt: skip
        if self.unsettled:
            yield ("unsettled",)
        yield tuple([
            [order.order_id for order in waiting]
            for waiting in (self.stops, self.pegs, self.conditionals, self.lapsed)
        ])  # fmt: skip
        for side in (BUY, SELL):
            for order in book.orders(side):
                yield (order.order_id, order.price, order.open)

    def check(self) -> None:
        """Walk every invariant. Cost: O(orders). Raises: AssertionError for the first that is broken."""
        self.book.check(crossed=self.state != OPEN)
        for side in (BUY, SELL):
            for shown in self.book.orders(side):
                order = whole_of(shown)
                self._check_order(order, IN_BOOK)
                more = order.more
                if shown is not order:
                    assert more is not None
                    assert more.tip is shown, "a tip of nothing"
                    assert shown.open <= order.open, "more is shown than there is"
                    assert shown.price == order.price, "a tip stands at another price"
                    assert shown.more is not None
                    assert shown.more.special, "nobody would hear of a tip"
                else:
                    assert more is None or not more.display, "an iceberg shows all of itself"
                    assert more is None or more.special or not more.partner, "nobody would hear of one of a pair"
                    assert more is None or more.special or not is_peg(order.flags), "nobody would hear of a peg"
        for order in self.stops:
            self._check_order(order, STOP)
        for order in self.lapsed:
            self._check_order(order, LAPSED)
        for order in self.pegs:
            assert order.more is not None
            assert order.more.where == PEG or (order.more.where == IN_BOOK and self.state == OPEN), "a misplaced peg"
            self._check_order(order, order.more.where)
        for order in self.conditionals:
            self._check_order(order, CONDITIONAL)
            assert needs(order) > 0, "a conditional order without a condition"
            assert order.filled == 0, "a conditional order was filled in part and still waits"
        for waiting in (self.stops, self.conditionals, self.pegs):
            owners = [order.account.id for order in waiting]
            assert waiting.of_account == {id: owners.count(id) for id in owners}, "those who wait are counted wrong"
        self.stops.check()
        self.conditionals.check(self.book)
        if self.state == OPEN and not self.unsettled:
            self._check_settled()

    def _check_settled(self) -> None:
        """Whether what is kept up to date is so, and nothing is left to do."""
        assert not self.lapsed, "the market did not settle"
        last = self.book.last_price
        assert not self.book.last_quantity or self.stops.below < last < self.stops.above, "a breached stop sleeps"
        bid, offer = firm(self.book.bids), firm(self.book.asks)
        pegs = self.pegs
        for order in pegs:
            more = order.more
            assert more is not None
            stands = order.price if more.where == IN_BOOK else None
            belongs = peg_price(order.flags, more.offset, more.cap, bid, offer, self.price_min, self.price_max)
            assert not pegs.known or stands == belongs, "a peg stands where it does not belong"
        assert self.add_bid_max < self.conditionals.lowest_sell
        assert self.add_ask_min > self.conditionals.highest_buy
        if pegs.orders and pegs.known:
            assert self.add_bid_max <= pegs.bids[1], "a better bid would not be noticed"
            assert self.add_ask_min >= pegs.offers[0], "a better offer would not be noticed"
            for price, ladder in ((self.anchor_bid, self.book.bids), (self.anchor_ask, self.book.asks)):
                if abs(price) != NEVER:
                    assert any(not is_peg(order.flags) for order in ladder.levels[price]), "an anchor without hold"

    def _check_order(self, order: Order, where: int) -> None:
        assert order.open + order.filled == order.quantity, "quantity is not conserved"
        assert order.open > 0, "a dead order was left behind"
        assert order.instrument == self.instrument.id
        more = order.more
        if more is None:
            return
        assert more.where == where or (more.where == INCOMING and not more.special), "it is somewhere else than it says"
        partner = more.partner
        assert partner is None or (partner.open > 0 and partner.more is not None and partner.more.partner is order)
