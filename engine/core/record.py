"""The log record that is being applied: its place and time, and who has been told something so far."""

from __future__ import annotations

from engine.core.order import Account, Order
from proto.columns import REPORT_WIDTH, AccountReports, Boxed


class Record:
    """`position` and `time_ns` are those of the last record begun; `touched` the accounts with reports of it, in order
    of their first, and `repeated` those that hear something again."""

    __slots__ = ("position", "repeated", "time_ns", "touched")

    def __init__(self) -> None:
        self.position = 0
        self.time_ns = 0
        self.touched: list[Account] = []
        self.repeated: list[Account] = []

    def begin(self, position: int, time_ns: int) -> None:
        assert position > self.position, "a log record was applied twice"
        assert time_ns >= self.time_ns, "logged time fell"
        self.position = position
        self.time_ns = time_ns

    def touch(self, account: Account) -> list[int]:
        """The account's reports, to which one will be added."""
        if not account.reports:
            self.touched.append(account)
        return account.reports

    def report(self, kind: int, command: Boxed, order: Order, flags: int, reason: int) -> None:
        """Tell an order's account how it stands."""
        self.touch(order.account).extend((
            kind, command, order.client_order_id, order.order_id, order.instrument, order.side | flags,
            order.price, order.quantity, order.open, order.filled, 0, reason,
        ))  # fmt: skip

    def end(self) -> list[AccountReports]:
        """Hand over what the record has told."""
        reports = []
        for account in self.touched:
            rows = account.reports
            if rows:
                reports.append(AccountReports(account.id, account.next_seq, rows))
                assert len(rows) % REPORT_WIDTH == 0, "a report of another width"
                account.next_seq += len(rows) // REPORT_WIDTH
                account.reports = []
        self.touched.clear()
        for account in self.repeated:
            reports.append(AccountReports(account.id, 0, account.repeats))
            account.repeats = []
        self.repeated.clear()
        return reports
