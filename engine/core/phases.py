"""The trading states of a market and what happens between them: auctions, and orders that follow the state."""

from __future__ import annotations

from engine.core.auction import crossing, indicate
from engine.core.market import Market
from engine.core.order import Order, whole_of
from engine.core.trading import Trading
from proto.columns import AUCTION_TRADE, EXPIRED, NO_REASON, TIF_DAY, TIF_MASK
from proto.feed import AUCTION, CLOSED, OPEN


class Phases:
    """Takes markets from one state to another."""

    __slots__ = ("_trading",)

    def __init__(self, trading: Trading) -> None:
        self._trading = trading

    def change(self, market: Market, state: int) -> None:
        """Uncross if that is due, then let orders follow the new state; the caller ends the event."""
        trading = self._trading
        before = market.state
        if state == OPEN or (before == AUCTION and state == CLOSED):
            self._uncross(market)
        trading.begin_state(market, state, NO_REASON)
        if before == OPEN:
            trading.pegs_leave(market)
        if state == CLOSED:
            for order in trading.live_on(market):
                if order.open and order.flags & TIF_MASK == TIF_DAY:
                    trading.drop(market, order, EXPIRED)

    def _uncross(self, market: Market) -> None:
        """Trade all that crosses at one price; again, should canceled OCO partners leave it crossed."""
        book = market.book
        while True:
            price, volume, _ = indicate(*crossing(book), market.reference)
            if not volume:
                return
            market.band_reference = price
            while True:
                bids, asks = book.bids.best, book.asks.best
                if bids is None or asks is None or bids.price < price or asks.price > price:
                    break
                bid, ask = bids.next, asks.next
                assert isinstance(bid, Order)
                assert isinstance(ask, Order)
                self._cross(market, bid, ask, price)

    def _cross(self, market: Market, bid: Order, ask: Order, price: int) -> None:
        """One trade of an uncross, of what both show."""
        trading = self._trading
        book = market.book
        quantity: int = min(bid.open, ask.open)
        trade_id = book.next_trade_id
        book.next_trade_id = trade_id + 1
        book.last_price = price
        book.last_quantity = quantity
        buyer, seller = whole_of(bid), whole_of(ask)
        for order in (buyer, seller):
            trading.execute(market, order, AUCTION_TRADE, price, quantity, trade_id)
        book.session.tape.append((
            buyer, seller, AUCTION_TRADE, price, quantity, buyer.open, buyer.filled, seller.open, seller.filled,
        ))  # fmt: skip
        book.session.trim()
        for order in (buyer, seller):
            trading.refill(market, order)
        for order in (buyer, seller):
            trading.died(market, order)
        for order in (buyer, seller):
            trading.unlink(market, order)
