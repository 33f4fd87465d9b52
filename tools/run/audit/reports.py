"""The audit of drop copies: what became of every order, lot for lot, and whether a report was taken back."""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proto.columns import (
    ACCEPTED,
    AUCTION_TRADE,
    CANCELED,
    FLAG_SELL,
    MAKER,
    REPLACED,
    RESTATED,
    TRADED,
    TRIGGERED,
    ReportRow,
)
from tools.flow.acknowledged import ReportSpan, report_hash
from tools.run.audit.breaches import KEPT, LIFE, POSITIONS, Breaches

_MASK: Final = (1 << 64) - 1


@dataclass(slots=True)
class Life:
    """An order as its reports tell it. `price` is its last, `since_ns` the venue's time of its last report."""

    account: int
    client_order_id: int
    order_id: int
    instrument: int
    sell: int
    price: int
    total: int
    open: int
    filled: int
    since_ns: int
    ended: bool = False
    opens: list[tuple[int, int]] = field(default_factory=list)  # what was open since when, where that is asked for


class Side(NamedTuple):
    """One party's report of a trade; `open` is what was left of its order."""

    order_id: int
    sell: int
    role: int  # MAKER, AUCTION_TRADE or 0
    price: int
    quantity: int
    open: int
    time_ns: int


class ReportAudit:
    """The drop copies of all accounts: `take` each (home, account) from its first retained report on, in order.

    `acknowledged` is what those received who traded; `by_size` names the instruments of which it shall be remembered
    what was open when.

    Cost: O(1) a report; an order and a trade are remembered each.
    """

    def __init__(
        self, acknowledged: Mapping[tuple[int, int], Sequence[ReportSpan]] | None = None, by_size: Iterable[int] = ()
    ) -> None:
        self.breaches = Breaches()
        self.reports = 0
        self.orders: dict[int, Life] = {}
        self.trades: dict[tuple[int, int], list[Side]] = {}
        self.whole = True  # every report from the first on was there
        self._acknowledged = acknowledged or {}
        self._sums: dict[tuple[int, int], dict[int, list[int]]] = {}  # by first report of a span: how many, and the sum
        self._begins: dict[tuple[int, int], int] = {}
        self._by_size = frozenset(by_size)
        self._positions: dict[int, int] = {}
        self._ids: dict[tuple[int, int, int], int] = {}  # order by home, account and client order id
        self._due: dict[tuple[int, int], int] = {}

    def take(self, home: int, account: int, first_seq: int, time_ns: int, rows: Sequence[ReportRow]) -> None:
        due = self._due.get((home, account), 1)
        if first_seq != due:
            if (home, account) in self._due:
                self.breaches.add(
                    KEPT, f"account {account}: reports {due:,} to {first_seq - 1:,} of engine-{home} are gone"
                )
            self.whole = False
        self._begins.setdefault((home, account), first_seq)
        self._due[home, account] = first_seq + len(rows)
        if (home, account) in self._acknowledged:
            self._compare(home, account, first_seq, rows)
        for row in rows:
            self.reports += 1
            if row.kind in (ACCEPTED, TRADED, CANCELED, REPLACED, TRIGGERED, RESTATED):
                self._order(home, account, time_ns, row)

    def _compare(self, home: int, account: int, first_seq: int, rows: Sequence[ReportRow]) -> None:
        """Add these up as they were added up when they were received."""
        spans = self._acknowledged[home, account]
        sums = self._sums.setdefault((home, account), {})
        at = bisect_right(spans, first_seq, key=lambda span: span.first) - 1
        for seq, row in enumerate(rows, first_seq):
            while at + 1 < len(spans) and spans[at + 1].first <= seq:
                at += 1
            if at >= 0 and spans[at].first <= seq <= spans[at].last:
                added = sums.setdefault(spans[at].first, [0, 0])
                added[0] += 1
                added[1] += report_hash(seq, row)

    def kept(self, homes: Iterable[int]) -> tuple[int, Breaches]:
        """How many reports that were received are in the drop copies of these homes as they were; and which are not.

        Those older than what an engine keeps are passed over.
        """
        out = Breaches()
        found = 0
        of = frozenset(homes)
        for (home, account), spans in self._acknowledged.items():
            if home not in of:
                continue
            begins, due = self._begins.get((home, account), 1), self._due.get((home, account), 1)
            for span in spans:
                count, total = self._sums.get((home, account), {}).get(span.first, (0, 0))
                where = f"account {account} at engine-{home}"
                if span.first < begins:
                    continue
                if span.last >= due:
                    text = f"{where} had received reports to {span.last:,}; its drop copy ends at {due - 1:,}"
                    out.add(KEPT, text)
                elif total & _MASK != span.sum:
                    out.add(KEPT, f"{where}: reports {span.first:,} to {span.last:,} are not as they were received")
                else:
                    found += count
        return found, out

    def net(self) -> Breaches:
        """Whether all that was bought was sold. Call it once every account's drop copy has been taken."""
        out = Breaches()
        if self.whole:
            for instrument, position in self._positions.items():
                if position:
                    text = f"instrument {instrument}: {abs(position):,} more {'bought' if position > 0 else 'sold'}"
                    out.add(POSITIONS, text)
        return out

    def _order(self, home: int, account: int, time_ns: int, row: ReportRow) -> None:
        life = self.orders.get(row.order_id)
        name = f"account {account}, order {row.client_order_id:,}"
        if row.kind == ACCEPTED:
            earlier = self._ids.setdefault((home, account, row.client_order_id), row.order_id)
            if life is not None or earlier != row.order_id:
                self.breaches.add(LIFE, f"{name} was accepted twice")
            if (row.open, row.filled) != (row.quantity, 0):
                self.breaches.add(LIFE, f"{name} of {row.quantity:,} entered with {row.open:,} open")
            life = self.orders[row.order_id] = Life(
                account, row.client_order_id, row.order_id, row.instrument, row.flags & FLAG_SELL, row.price,
                row.quantity, row.quantity, 0, time_ns,
            )  # fmt: skip
            self._note(life)
            return
        if life is None:
            if self.whole:
                self.breaches.add(LIFE, f"{name} is told of and was never accepted")
            life = self.orders[row.order_id] = self._adopted(account, row, time_ns)
        elif life.ended:
            self.breaches.add(LIFE, f"{name} had come to its end, and then {_IN_WORDS[row.kind]}")
        if row.kind == TRADED:
            life.open -= row.quantity
            life.filled += row.quantity
            self._traded(row, time_ns)
        elif row.kind == CANCELED:
            life.total, life.open = life.total - life.open, 0
        else:
            if row.kind in (REPLACED, RESTATED):
                life.open += row.quantity - life.total
                life.total = row.quantity
            if row.kind == REPLACED:
                life.price = row.price
        if (life.open, life.filled) != (row.open, row.filled) or life.open < 0 or life.open + life.filled != life.total:
            text = f"{name}: {row.open:,} open and {row.filled:,} filled are told"
            self.breaches.add(LIFE, f"{text}, {life.open:,} and {life.filled:,} by what was told before")
            life.open, life.filled, life.total = row.open, row.filled, row.open + row.filled
        life.since_ns = time_ns
        life.ended = not row.open
        self._note(life)

    def _note(self, life: Life) -> None:
        if life.instrument in self._by_size:
            life.opens.append((life.since_ns, life.open))

    def _adopted(self, account: int, row: ReportRow, time_ns: int) -> Life:
        """An order whose first reports are no longer kept."""
        open, filled = row.open, row.filled
        if row.kind == TRADED:
            open, filled = open + row.quantity, filled - row.quantity
        total = open + filled
        if row.kind in (CANCELED, REPLACED, RESTATED):
            total = row.quantity
            open = total - filled
        return Life(
            account, row.client_order_id, row.order_id, row.instrument, row.flags & FLAG_SELL, row.price,
            total, open, filled, time_ns,
        )  # fmt: skip

    def _traded(self, row: ReportRow, time_ns: int) -> None:
        sell = row.flags & FLAG_SELL
        signed = -row.quantity if sell else row.quantity
        self._positions[row.instrument] = self._positions.get(row.instrument, 0) + signed
        side = Side(row.order_id, sell, row.flags & (MAKER | AUCTION_TRADE), row.price, row.quantity, row.open, time_ns)
        self.trades.setdefault((row.instrument, row.trade_id), []).append(side)


_IN_WORDS: Final = {
    TRADED: "traded", CANCELED: "was canceled", REPLACED: "was replaced", TRIGGERED: "fired", RESTATED: "was restated",
}  # fmt: skip
