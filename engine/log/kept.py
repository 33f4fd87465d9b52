"""An engine's execution reports, kept by account for whoever asks again: a client that comes back, a snapshot.

A report has a number, per (home engine, account), that the home's core gave it. HISTORY_MAX reports are kept of an
account; the oldest batch goes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from proto.columns import REPORT_WIDTH, Outcome
from proto.orders import write_reports

HISTORY_MAX: Final = 65_536
REPORTS_MAX: Final = 8_192  # reports a message: at 50 to 80 bytes each, well below the 4 MiB that a gRPC client takes


class KeptBatch:
    """Reports of one account that one log record caused. What a replay makes is encoded when it is first needed."""

    __slots__ = ("count", "data", "first_seq", "position", "rows", "time_ns")

    def __init__(self, first_seq: int, count: int, position: int, time_ns: int, rows: list[int], data: bytes) -> None:
        self.first_seq = first_seq
        self.count = count
        self.position = position
        self.time_ns = time_ns
        self.rows = rows
        self.data = data


class _Kept:
    """The last reports of one account."""

    __slots__ = ("_held", "kept", "last_seq")

    def __init__(self, last_seq: int = 0) -> None:
        self.kept: deque[KeptBatch] = deque()
        self.last_seq = last_seq
        self._held = 0

    def add(self, batch: KeptBatch) -> None:
        assert batch.first_seq == self.last_seq + 1, "the core skipped a report number"
        self.kept.append(batch)
        self.last_seq += batch.count
        self._held += batch.count
        while self._held - self.kept[0].count >= HISTORY_MAX:
            self._held -= self.kept.popleft().count


class KeptReports:
    """Every account's last reports at their home."""

    def __init__(self, home: int) -> None:
        self.home = home
        self.remembered = 0  # reports of a replay: about as many as commands
        self._accounts: dict[int, _Kept] = {}

    def add(self, account: int, batch: KeptBatch) -> None:
        """Keep a batch; its number follows on the last one."""
        self._account(account).add(batch)

    def remember(self, position: int, time_ns: int, outcome: Outcome) -> None:
        """Keep what a replay makes again, but for what has no number: that was said before."""
        for reports in outcome.reports:
            assert len(reports.rows) % REPORT_WIDTH == 0, "a report of another width"
            self.remembered += len(reports.rows) // REPORT_WIDTH
            for seq, part in parts(reports.first_seq, reports.rows) if reports.first_seq else ():
                self.add(reports.account, KeptBatch(seq, len(part) // REPORT_WIDTH, position, time_ns, part, b""))

    def after(self, account: int, seq: int) -> Iterator[tuple[KeptBatch, bytes]]:
        """Batches with reports after that number, each with its ReportBatch. Cost: O(batches held)."""
        held = self._accounts.get(account)
        for batch in () if held is None else held.kept:
            if batch.first_seq + batch.count - 1 > seq:
                yield batch, self._encoded(account, batch)

    def last_seq(self, account: int) -> int:
        """The number of the account's last report."""
        held = self._accounts.get(account)
        return held.last_seq if held is not None else 0

    def first_held(self, account: int) -> int:
        """The oldest number that can still be had, or the next one if there is none."""
        held = self._accounts.get(account)
        return held.kept[0].first_seq if held is not None and held.kept else self.last_seq(account) + 1

    def histories(self) -> Iterator[tuple[int, int, list[tuple[int, int, int, int, bytes]]]]:
        """Account, number of its last report, and its batches: first number, reports, position, time, ReportBatch."""
        for account, held in self._accounts.items():
            batches = [
                (batch.first_seq, batch.count, batch.position, batch.time_ns, self._encoded(account, batch))
                for batch in held.kept
            ]
            yield account, held.last_seq, batches

    def restore(self, account: int, last_seq: int, batches: list[tuple[int, int, int, int, bytes]]) -> None:
        """Have the history of an account that histories() gave."""
        held = self._accounts[account] = _Kept(batches[0][0] - 1 if batches else last_seq)
        for first_seq, count, position, time_ns, data in batches:
            held.add(KeptBatch(first_seq, count, position, time_ns, [], data))

    def _account(self, account: int) -> _Kept:
        held = self._accounts.get(account)
        if held is None:
            held = self._accounts[account] = _Kept()
        return held

    def _encoded(self, account: int, batch: KeptBatch) -> bytes:
        if not batch.data:
            batch.data = write_reports(self.home, account, batch.first_seq, batch.position, batch.time_ns, batch.rows)
            batch.rows = []
        return batch.data


def parts(first_seq: int, rows: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Rows in parts that fit a message, each with the number of its first report (0: they have none)."""
    width = REPORTS_MAX * REPORT_WIDTH
    if len(rows) <= width:
        yield first_seq, rows
        return
    for start in range(0, len(rows), width):
        yield first_seq and first_seq + start // REPORT_WIDTH, rows[start : start + width]
