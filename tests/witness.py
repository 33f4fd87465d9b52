"""What must hold after every record, whoever is right, and without knowing the rules of any type of order.

Never crossed while open; no trade through a better price that is shown; every trade has two sides of one price and
quantity, which the feed tells, too; what is filled is what was traded; what is open and filled is the total; an
all-or-none order is filled whole or not at all; no more of an iceberg is shown than it displays.
"""

from proto import feed
from proto.columns import (
    ACCEPTED,
    AUCTION_TRADE,
    BUSTED,
    CORRECTED,
    FLAG_SELL,
    MAKER,
    MASS_CANCELED,
    REFUSED,
    TRADED,
    ReportRow,
)
from proto.feed import OP_MASK
from tests.oracle import OPEN, Oracle, Said


class Witness:
    """Listens to everything that is said; the oracle tells it only who is live and what is open."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._books: dict[int, dict[int, tuple[int, int, int]]] = {}  # (side, price, quantity) by public id
        self._filled: dict[int, int] = {}

    def hear(self, heard: Said) -> None:
        for rows in heard.reports.values():
            for _, row in rows:
                self._report(row)
        self._trades(heard)
        for deltas in heard.deltas.values():
            for delta in deltas:
                if int(delta[0]) & OP_MASK <= feed.TRADE:
                    self._delta(*map(int, delta))
        for id, market in self._oracle.markets.items():
            book = self._books.get(id, {}).values()
            bids, asks = [p for side, p, _ in book if side == 0], [p for side, p, _ in book if side]
            assert market.state != OPEN or not bids or not asks or max(bids) < min(asks), "crossed while open"
        for order in self._oracle.live():
            assert not (order.all_or_none and order.filled), "an all-or-none order was partly filled"
            shown = self._books.get(order.instrument, {}).get(order.public_id)
            assert shown is None or not order.display or shown[2] <= order.display, "hidden quantity is shown"

    def _report(self, row: ReportRow) -> None:
        if row.kind in (REFUSED, MASS_CANCELED, BUSTED, CORRECTED):
            return
        before = 0 if row.kind == ACCEPTED else self._filled[row.order_id]
        assert row.filled == before + (row.quantity if row.kind == TRADED else 0), "filled is what was traded"
        self._filled[row.order_id] = row.filled
        if row.kind != TRADED and row.open:
            assert row.open + row.filled == row.quantity, "a lot is open, filled or nowhere"

    def _trades(self, heard: Said) -> None:
        trades: dict[tuple[int, int], list[tuple[int, int, int, int]]] = {}
        for rows in heard.reports.values():
            for _, row in rows:
                if row.kind == TRADED:
                    role = row.flags & (MAKER | AUCTION_TRADE)
                    party = role, row.flags & FLAG_SELL, row.price, row.quantity
                    trades.setdefault((row.instrument, row.trade_id), []).append(party)
        for one, other in (sorted(parties) for parties in trades.values()):
            assert (one[0], other[0]) in ((0, MAKER), (AUCTION_TRADE, AUCTION_TRADE)), "not a taker and a maker"
            assert one[1] != other[1], "two of one side trade"
            assert one[2:] == other[2:], "two sides of one trade differ"
        on_feed: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for deltas in heard.deltas.values():
            for op, instrument, *rest in deltas:
                if int(op) & OP_MASK in (feed.EXECUTE, feed.TRADE):
                    _, price, quantity, trade_id = map(int, rest)
                    on_feed.setdefault((int(instrument), trade_id), set()).add((price, quantity))
        reported = {key: {party[2:] for party in parties} for key, parties in trades.items()}
        assert on_feed == reported, "the feed tells other trades"

    def _delta(self, op: int, instrument: int, id: int, price: int, quantity: int, trade_id: int) -> None:
        code, side = op & OP_MASK, 1 if op & feed.SELL else 0
        book = self._books.setdefault(instrument, {})
        if code == feed.ADD:
            assert id not in book, "added twice"
            book[id] = side, price, quantity
        elif code == feed.DELETE:
            del book[id]
        elif code == feed.MODIFY:
            book[id] = *book[id][:2], quantity
        elif code == feed.EXECUTE:
            _, limit, shown = book[id]
            assert quantity <= shown, "more traded than was shown"
            assert price <= limit if side == 0 else price >= limit, "traded beyond an order's limit"
            self._no_better(instrument, side, limit)
            book[id] = side, limit, shown - quantity
            if quantity == shown:
                del book[id]
        elif code == feed.TRADE:
            self._no_better(instrument, 1 - side, price)

    def _no_better(self, instrument: int, side: int, limit: int) -> None:
        for other, price, _ in self._books[instrument].values():
            assert other != side or (price <= limit if side == 0 else price >= limit), "traded through a better price"
