"""Execution reports on their way to all who follow an account (those of the past: engine/log/kept.py).

A follower's cursor is the last number it was given of each home: what it has seen already is dropped, so that a
history sent again after a reconnect and live reports may overlap, and nothing reaches it twice. A hole is never jumped:
it cuts the follower off, and the cursor it comes back with closes it.

An outbox holds OUTBOX_MAX reports beyond what a history put there; a reader slower than that is cut off.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final

from engine.log.kept import KeptBatch, KeptReports, parts
from proto.columns import REPORT_WIDTH
from proto.orders import later_reports, wrap, write_reports

OUTBOX_MAX: Final = 65_536


class CutOff(Enum):
    """Why a reader gets no more; it may come back with its cursors."""

    SLOW = "reader too slow: come back with the cursors of what was read"
    GONE = "reports after the cursor are no longer held"
    GAP = "reports were missed on the way from their home engine: come back with the cursors"
    ANEW = "the cursor is ahead of its home engine, whose log was begun anew: come back without it"
    STOPPED = "the engine is stopping"


class CutOffError(Exception):
    """An outbox was closed; `why` says why, `detail` about what."""

    def __init__(self, why: CutOff, detail: str = "") -> None:
        super().__init__(f"{why.value}{f' ({detail})' if detail else ''}")
        self.why = why


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
        if self._finished:
            return
        self._messages.append(message)
        self._reports += reports
        if history:
            self._allowed += reports
        elif self._reports > self._allowed:
            self.cut(CutOff.SLOW)
            return
        self._wake()

    def cut(self, why: CutOff, detail: str = "") -> None:
        """Whoever takes next is told so; what is queued is dropped, since it can be had again."""
        if not self._broken.done():
            self._cut = self._cut or CutOffError(why, detail)
            self._finished = True
            self._messages = []
            self._broken.set_result(None)
            self._wake()

    async def broken(self) -> None:
        """Wait until it is cut, for a writer may be stuck with a reader that does not read. Raises: CutOffError."""
        await asyncio.shield(self._broken)
        assert self._cut is not None
        raise self._cut

    def finish(self, why: CutOff | None = None) -> None:
        """Nothing more is put in; whoever takes gets what is queued, and then nothing, or is told why."""
        if not self._finished:
            self._finished = True
            self._cut = None if why is None else CutOffError(why)
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
    With `oldest`, a cursor of 0 means the oldest report held, not the first there ever was; with `skip_lost`, so does
    any cursor whose reports are no longer held. `began` has where each home's reports begin: those after that number
    are given.
    """

    __slots__ = ("account", "began", "catching_up", "cursors", "oldest", "outbox", "skip_lost", "wrapped")

    def __init__(
        self,
        account: int,
        outbox: Outbox,
        cursors: dict[int, int],
        *,
        wrapped: bool = True,
        oldest: bool = False,
        skip_lost: bool = False,
    ) -> None:
        self.account = account
        self.outbox = outbox
        self.cursors = cursors
        self.began = cursors.copy()
        self.catching_up: set[int] = set()
        self.wrapped = wrapped
        self.oldest = oldest
        self.skip_lost = skip_lost

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
                    self.outbox.cut(CutOff.GAP, f"engine {home}: {cursor + 1} to {first_seq - 1}")
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
        if cursor + 1 < first_held and (self.skip_lost or (self.oldest and cursor == 0)):
            cursor = self.cursors[home] = self.began[home] = first_held - 1
        self.began.setdefault(home, cursor)
        if cursor > last_seq:
            self.outbox.cut(CutOff.ANEW, f"engine {home}: cursor {cursor}, last {last_seq}")
        elif cursor + 1 < first_held:
            self.outbox.cut(CutOff.GONE, f"engine {home}: {cursor + 1} asked, {first_held} held")
        elif cursor == last_seq:
            self.catching_up.discard(home)


class Hub:
    """Every account's followers at this engine, and the kept reports whose home it is."""

    def __init__(self, kept: KeptReports) -> None:
        self.home = kept.home
        self.kept = kept
        self._followers: dict[int, list[Follower]] = {}  # of all homes: this engine's own clients
        self._links: dict[int, list[Follower]] = {}  # of this home alone: other engines

    def release(self, account: int, first_seq: int, position: int, time_ns: int, rows: list[int]) -> None:
        """Hand reports of the own core to whoever follows the account; keep the numbered ones."""
        for seq, part in parts(first_seq, rows):
            count = len(part) // REPORT_WIDTH
            data = write_reports(self.home, account, seq, position, time_ns, part)
            if seq:
                self.kept.add(account, KeptBatch(seq, count, position, time_ns, [], data))
            for follower in self._followers.get(account, ()):
                follower.offer(self.home, seq, count, data)
            for follower in self._links.get(account, ()):
                follower.offer(self.home, seq, count, data)

    def follow(self, follower: Follower, *, link: bool = False) -> None:
        """Add a follower: first it gets the own home's reports after its cursor, then all that comes.

        Without a cursor for the own home it starts live. A cursor that cannot be served cuts it off. A link to another
        engine gets the own home's reports only: what came over one link must not leave by the next.
        """
        (self._links if link else self._followers).setdefault(follower.account, []).append(follower)
        first, last = self.kept.first_held(follower.account), self.kept.last_seq(follower.account)
        follower.stands(self.home, first, last)
        if follower.cursors[self.home] < last:
            self.send_again(follower, follower.cursors[self.home])

    def send_again(self, follower: Follower, after: int) -> None:
        """Give a follower the own home's reports after that number, as far as they are held."""
        follower.cursors[self.home] = max(after, self.kept.first_held(follower.account) - 1)
        for batch, data in self.kept.after(follower.account, after):
            follower.offer(self.home, batch.first_seq, batch.count, data, history=True)

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
