"""Execution reports on their way: kept for who comes back, handed to all who follow an account.

A report has a number, per (home engine, account), that the home's core gave it. A follower's cursor is the last number
it was given of each home: what it has seen already is dropped, so that a history sent again after a reconnect and live
reports may overlap, and nothing reaches it twice. A hole is never jumped: it cuts the follower off, and the cursor it
comes back with closes it.

    bound of a history   HISTORY_MAX reports an account; the oldest batch goes first
    bound of an outbox   OUTBOX_MAX reports beyond what a history put there; a reader slower than that is cut off
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from enum import Enum
from typing import Final

from engine.entry.door import later_reports, wrap, write_reports
from proto.columns import REPORT_WIDTH

HISTORY_MAX: Final = 65_536
OUTBOX_MAX: Final = 65_536
REPORTS_MAX: Final = 8_192  # reports a message: at 50 to 80 bytes each, well below the 4 MiB that a gRPC client takes


class Cut(Enum):
    """Why a reader gets no more; it may come back with its cursors."""

    SLOW = "reader too slow: come back with the cursors of what was read"
    GONE = "reports after the cursor are no longer held"
    GAP = "reports were missed on the way from their home engine: come back with the cursors"
    ANEW = "the cursor is ahead of its home engine, whose log was begun anew: come back without it"
    STOPPED = "the engine is stopping"


class CutOffError(Exception):
    """An outbox was closed; `cut` says why, `detail` about what."""

    def __init__(self, cut: Cut, detail: str = "") -> None:
        super().__init__(f"{cut.value}{f' ({detail})' if detail else ''}")
        self.cut = cut


class Outbox:
    """Messages that wait to be written to one stream, in order."""

    __slots__ = ("_allowed", "_broken", "_cut", "_finished", "_messages", "_reports", "_waiting")

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._reports = 0
        self._allowed = OUTBOX_MAX
        self._cut: CutOffError | None = None
        self._finished = False
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting: asyncio.Future[None] | None = None

    def put(self, message: bytes, reports: int = 0, *, history: bool = False) -> None:
        """Queue a message that carries so many reports; too many cut the reader off."""
        if self._cut is not None:
            return
        self._messages.append(message)
        self._reports += reports
        if history:
            self._allowed += reports
        elif self._reports > self._allowed:
            self.cut(Cut.SLOW)
            return
        self._wake()

    def cut(self, cut: Cut, detail: str = "") -> None:
        """Whoever takes next is told so; what is queued is dropped, since it can be had again."""
        if self._cut is None:
            self._cut = CutOffError(cut, detail)
            self._messages = []
            self._wake()
            if not self._broken.done():
                self._broken.set_result(None)

    async def broken(self) -> None:
        """Wait until it is cut, for a writer may be stuck with a reader that does not read. Raises: CutOffError."""
        await asyncio.shield(self._broken)
        assert self._cut is not None
        raise self._cut

    def finish(self) -> None:
        """Nothing more will be put in; what is queued can still be taken."""
        self._finished = True
        self._wake()

    async def take(self) -> list[bytes]:
        """All that is queued, waiting for the first; nothing once it is finished. One taker at a time.

        Raises: CutOffError.
        """
        while not self._messages:
            if self._cut is not None:
                raise self._cut
            if self._finished:
                return []
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        messages = self._messages
        self._messages = []
        self._reports = 0
        self._allowed = OUTBOX_MAX
        return messages

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Follower:
    """One reader of one account's reports from all homes, in its outbox.

    `cursors` has, by home, the number of the last report it was given; a home not in it starts with whatever comes.
    Reports without a number (repeats, refusals by the door) pass as they come. `catching_up` has the homes that were
    asked to send what follows the cursor: until that comes, later reports are dropped, for it holds them too.
    With `oldest`, a cursor of 0 means the oldest report held, not the first there ever was. `began` has where each
    home's reports begin: those after that number are given.
    """

    __slots__ = ("account", "began", "catching_up", "cursors", "oldest", "outbox", "wrapped")

    def __init__(
        self,
        account: int,
        outbox: Outbox,
        cursors: dict[int, int],
        *,
        wrapped: bool = True,
        oldest: bool = False,
    ) -> None:
        self.account = account
        self.outbox = outbox
        self.cursors = cursors
        self.began = cursors.copy()
        self.catching_up: set[int] = set()
        self.wrapped = wrapped
        self.oldest = oldest

    def offer(self, home: int, first_seq: int, count: int, data: bytes, *, history: bool = False) -> None:
        """Take a ReportBatch, or the part of it that is new."""
        if first_seq:
            cursor = self.cursors.get(home)
            last = first_seq + count - 1
            if cursor is not None:
                if last <= cursor:
                    return
                if first_seq > cursor + 1:
                    if home in self.catching_up:
                        return
                    self.outbox.cut(Cut.GAP, f"engine {home}: {cursor + 1} to {first_seq - 1}")
                    return
                if first_seq <= cursor:
                    data = later_reports(data, cursor)
            else:
                self.began[home] = first_seq - 1
            self.cursors[home] = last
            self.catching_up.discard(home)
        self.outbox.put(wrap(data) if self.wrapped else data, count, history=history)

    def stands(self, home: int, first_held: int, last_seq: int) -> None:
        """Learn where the account's numbers stand at a home, before anything is sent again.

        A cursor that cannot be continued cuts the reader off.
        """
        cursor = self.cursors.setdefault(home, last_seq)
        if cursor == 0 and self.oldest:
            cursor = self.cursors[home] = first_held - 1
        self.began.setdefault(home, cursor)
        if cursor > last_seq:
            self.outbox.cut(Cut.ANEW, f"engine {home}: cursor {cursor}, last {last_seq}")
        elif cursor + 1 < first_held:
            self.outbox.cut(Cut.GONE, f"engine {home}: {cursor + 1} asked, {first_held} held")
        elif cursor == last_seq:
            self.catching_up.discard(home)


class _Kept:
    """A batch of reports in a history; encoded when it is first needed."""

    __slots__ = ("count", "data", "first_seq", "position", "rows", "time_ns")

    def __init__(self, first_seq: int, count: int, position: int, time_ns: int, rows: list[int], data: bytes) -> None:
        self.first_seq = first_seq
        self.count = count
        self.position = position
        self.time_ns = time_ns
        self.rows = rows
        self.data = data


class History:
    """The last reports of one account at its home engine."""

    __slots__ = ("_held", "_kept", "last_seq")

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque()
        self._held = 0
        self.last_seq = 0

    @property
    def first_held(self) -> int:
        """The number of the oldest report still here, or of the next one if there is none."""
        return self._kept[0].first_seq if self._kept else self.last_seq + 1

    def add(self, kept: _Kept) -> None:
        assert kept.first_seq == self.last_seq + 1, "the core skipped a report number"
        self._kept.append(kept)
        self._held += kept.count
        self.last_seq += kept.count
        while self._held - self._kept[0].count >= HISTORY_MAX:
            self._held -= self._kept.popleft().count

    def after(self, seq: int) -> Iterator[_Kept]:
        """Batches with reports after that number. Cost: O(batches held)."""
        for kept in self._kept:
            if kept.first_seq + kept.count - 1 > seq:
                yield kept


class Hub:
    """Every account's followers at this engine, and the histories of the reports whose home it is."""

    def __init__(self, home: int) -> None:
        self.home = home
        self._histories: dict[int, History] = {}
        self._followers: dict[int, list[Follower]] = {}  # of all homes: this engine's own clients
        self._links: dict[int, list[Follower]] = {}  # of this home alone: other engines

    def release(self, account: int, first_seq: int, position: int, time_ns: int, rows: list[int]) -> None:
        """Hand reports of the own core to whoever follows the account; keep the numbered ones."""
        for seq, part in _parts(first_seq, rows):
            count = len(part) // REPORT_WIDTH
            data = write_reports(self.home, account, seq, position, time_ns, part)
            if seq:
                self._history(account).add(_Kept(seq, count, position, time_ns, [], data))
            for follower in self._followers.get(account, ()):
                follower.offer(self.home, seq, count, data)
            for follower in self._links.get(account, ()):
                follower.offer(self.home, seq, count, data)

    def remember(self, account: int, first_seq: int, position: int, time_ns: int, rows: list[int]) -> None:
        """Keep numbered reports, as a replay makes them, that nobody can follow yet."""
        if first_seq:
            for seq, part in _parts(first_seq, rows):
                self._history(account).add(_Kept(seq, len(part) // REPORT_WIDTH, position, time_ns, part, b""))

    def histories(self) -> Iterator[tuple[int, int, list[tuple[int, int, int, int, bytes]]]]:
        """Account, number of its last report, and its batches: first number, reports, position, time, ReportBatch."""
        for account, history in self._histories.items():
            kept = [
                (kept.first_seq, kept.count, kept.position, kept.time_ns, self._encoded(account, kept))
                for kept in history.after(0)
            ]
            yield account, history.last_seq, kept

    def restore(self, account: int, last_seq: int, batches: list[tuple[int, int, int, int, bytes]]) -> None:
        """Have the history of an account that histories() gave."""
        history = self._histories[account] = History()
        history.last_seq = batches[0][0] - 1 if batches else last_seq
        for first_seq, count, position, time_ns, data in batches:
            history.add(_Kept(first_seq, count, position, time_ns, [], data))

    def last_seq(self, account: int) -> int:
        """The number of the account's last report at this home."""
        history = self._histories.get(account)
        return history.last_seq if history is not None else 0

    def first_held(self, account: int) -> int:
        """The oldest number that can still be served."""
        history = self._histories.get(account)
        return history.first_held if history is not None else 1

    def follow(self, follower: Follower, *, link: bool = False) -> None:
        """Add a follower: first it gets the own home's reports after its cursor, then all that comes.

        Without a cursor for the own home it starts live. A cursor that cannot be served cuts it off. A link to another
        engine gets the own home's reports only: what came over one link must not leave by the next.
        """
        (self._links if link else self._followers).setdefault(follower.account, []).append(follower)
        first, last = self.first_held(follower.account), self.last_seq(follower.account)
        follower.stands(self.home, first, last)
        if follower.cursors[self.home] < last:
            self.send_again(follower, follower.cursors[self.home])

    def send_again(self, follower: Follower, after: int) -> None:
        """Give a follower the own home's reports after that number, as far as they are held."""
        follower.cursors[self.home] = max(after, self.first_held(follower.account) - 1)
        for kept in self._history(follower.account).after(after):
            follower.offer(self.home, kept.first_seq, kept.count, self._encoded(follower.account, kept), history=True)

    def unfollow(self, follower: Follower) -> None:
        """Twice is once."""
        for among in (self._followers, self._links):
            followers = among.get(follower.account, [])
            if follower in followers:
                followers.remove(follower)
                if not followers:
                    del among[follower.account]

    def followers(self, account: int) -> list[Follower]:
        """The clients here that follow the account at all homes, in the order they came."""
        return list(self._followers.get(account, ()))

    def _history(self, account: int) -> History:
        history = self._histories.get(account)
        if history is None:
            history = self._histories[account] = History()
        return history

    def _encoded(self, account: int, kept: _Kept) -> bytes:
        if not kept.data:
            kept.data = write_reports(self.home, account, kept.first_seq, kept.position, kept.time_ns, kept.rows)
            kept.rows = []
        return kept.data


def _parts(first_seq: int, rows: list[int]) -> Iterator[tuple[int, list[int]]]:
    """Rows in parts that fit a message, each with the number of its first report."""
    width = REPORTS_MAX * REPORT_WIDTH
    if len(rows) <= width:
        yield first_seq, rows
        return
    for start in range(0, len(rows), width):
        yield first_seq and first_seq + start // REPORT_WIDTH, rows[start : start + width]
