"""An incoming order meets a book: price, then arrival, every trade at the resting order's price.

Reports and deltas are appended as flat rows (proto/columns.py) while it trades. This is the short way, for books in
which everything is plain; what the other orders need is in `plan` and `pit`.
Nothing here decides whether an order may come in, save what only a look at the
other side can tell: `would_trade` and `fillable` look, and change nothing.
"""

from __future__ import annotations

from engine.core.book import Book
from engine.core.order import Account, Order
from engine.core.tape import TRADES_MAX
from proto.columns import BUY, MAKER, NO_REASON, SELF_TRADE, SELL, STP_NONE, TRADED, Boxed
from proto.feed import EXECUTE
from proto.feed import SELL as SELL_BIT


def would_trade(book: Book, side: int, price: int) -> bool:
    """Whether an order of `side` at `price` meets a resting one."""
    if side == BUY:
        best = book.asks.best
        return best is not None and best.price <= price
    best = book.bids.best
    return best is not None and best.price >= price


def fillable(book: Book, side: int, price: int, quantity: int, account: Account, stp: int) -> bool:
    """Whether all of `quantity` would trade at `price` or better, self-trade prevention included.

    Cost: O(orders it would meet).
    """
    for level in book.bids if side else book.asks:
        if level.price < price if side else level.price > price:
            return False
        for maker in level:
            if maker.account is account and stp != STP_NONE:
                return False  # it would be canceled here
            quantity -= maker.open
            if quantity <= 0:
                return True
    return False


def trade(
    book: Book, taker: Order, price: int, stp: int, command: Boxed, touched: list[Account], deltas: list[int]
) -> int:
    """Trade `taker` against the other side, at `price` or better, until it is filled or meets nothing.

    `command` is the id of the command that set it going. Accounts that get their
    first report go to `touched`. Returns SELF_TRADE if prevention stopped it, else
    NO_REASON; what is left open is the caller's to rest or cancel.

    Cost: O(1) per trade, and O(log L) per level emptied, for L levels.
    """
    side = taker.side
    ladder = book.bids if side else book.asks
    reason = NO_REASON
    left: Boxed = taker.open
    level = ladder.best
    if level is None or (level.price < price if side else level.price > price):
        return NO_REASON
    instrument = book.instrument
    maker_bit = 0 if side else SELL_BIT
    maker_flags = MAKER if side else SELL | MAKER
    account = taker.account
    reports = account.reports
    tape = book.session.tape
    filled: Boxed = taker.filled
    trade_id = book.next_trade_id
    at: Boxed = 0
    quantity: Boxed = 0
    client_order_id: Boxed = taker.client_order_id
    order_id: Boxed = taker.order_id
    while True:
        maker = level.next
        assert isinstance(maker, Order)
        owner = maker.account
        if owner is account and stp != STP_NONE:
            reason = SELF_TRADE
            break
        at = level.price
        maker_left: Boxed = maker.open
        if maker_left > left:
            quantity = left
            book.reduce(maker, quantity)
            maker_left -= quantity
        else:
            quantity = maker_left
            book.remove(maker)
            maker.open = maker_left = 0
        maker_filled: Boxed = maker.filled + quantity
        maker.filled = maker_filled
        left -= quantity
        filled += quantity
        reports.extend((
            TRADED, command, client_order_id, order_id, instrument, side,
            at, quantity, left, filled, trade_id, NO_REASON,
        ))  # fmt: skip
        if not owner.reports:
            touched.append(owner)
        owner.reports.extend((
            TRADED, 0, maker.client_order_id, maker.order_id, instrument, maker_flags,
            at, quantity, maker_left, maker_filled, trade_id, NO_REASON,
        ))  # fmt: skip
        deltas.extend((EXECUTE | maker_bit, instrument, maker.order_id, at, quantity, trade_id))
        tape.append((taker, maker, MAKER, at, quantity, left, filled, maker_left, maker_filled))
        trade_id += 1
        if not left:
            break
        level = ladder.best
        if level is None or (level.price < price if side else level.price > price):
            break
    if filled != taker.filled:
        taker.open = left
        taker.filled = filled
        book.next_trade_id = trade_id
        book.last_price = at
        book.last_quantity = quantity
        if len(tape) >= TRADES_MAX:
            book.session.trim()
    return reason
