"""Reports that wait for whoever reads them, and the holes in them."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from engine.client.report import ReportsLostError
from proto.orders_pb2 import ReportBatch

UNREAD_MAX: Final = 262_144  # reports kept for who reads; of more, the oldest are lost, which reading says


class ReportQueue:
    """Batches in the order they came. What is lost on the way stands where it would have come, and is raised there.

    Whoever does not read holds nobody up: beyond UNREAD_MAX reports the oldest are dropped, and told as lost.
    """

    def __init__(self) -> None:
        self._unread: deque[ReportBatch | ReportsLostError] = deque()
        self._count = 0
        self._lost: dict[int, tuple[int, int]] = {}  # before the first unread, by home
        self._overflowed = False
        self._news = asyncio.Event()

    def put(self, batch: ReportBatch) -> None:
        self._unread.append(batch)
        self._count += len(batch.kind)
        while self._count > UNREAD_MAX:
            self._drop()
        self._news.set()

    def put_lost(self, home: int, first: int, last: int) -> None:
        """Reports of these numbers did not come, and will not."""
        self._unread.append(ReportsLostError({home: (first, last)}, "they are no longer held"))
        self._news.set()

    def take(self) -> ReportBatch | None:
        """The next batch, or None if there is none yet. Raises: ReportsLostError, once for each hole."""
        if self._overflowed:
            lost, self._lost, self._overflowed = self._lost, {}, False
            raise ReportsLostError(lost, f"more than {UNREAD_MAX:,} reports were not read")
        if not self._unread:
            return None
        told = self._unread.popleft()
        if isinstance(told, ReportsLostError):
            raise told
        self._count -= len(told.kind)
        return told

    async def wait(self) -> None:
        """Until there is something new."""
        self._news.clear()
        await self._news.wait()

    def wake(self) -> None:
        self._news.set()

    def _drop(self) -> None:
        oldest = self._unread.popleft()
        if isinstance(oldest, ReportsLostError):
            spans = oldest.lost
        else:
            self._overflowed = True
            self._count -= len(oldest.kind)
            first = oldest.first_seq
            spans = {oldest.home: (first, first + len(oldest.kind) - 1)} if first else {}
        for home, (first, last) in spans.items():
            self._lost[home] = (self._lost.get(home, (first, last))[0], last)
