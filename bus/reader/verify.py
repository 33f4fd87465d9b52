"""Whether our books are another machine's: its snapshot, brought forward by our own deltas, beside what we have.

The other machine's snapshot stands at some sequence; by the time it is here, our book has gone on. `Recent` keeps the
last deltas, so the snapshot can be carried to exactly the sequence where our book stands now, and compared there.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Final

import grpc

from bus.access.asking import Machine
from bus.reader.events import Comparison
from bus.stream.actions import Action, Applied, MissingSpan, State
from bus.stream.feed_client import FeedClient
from bus.stream.mirror import Mirror, MirrorError
from proto.feed import FeedError
from proto.snapshot import BookSnapshot, Snapshot

RECENT_MAX: Final = 100_000  # deltas kept, about
AGAIN_S: Final = 0.1  # between two requests for a snapshot
LOOK_S: Final = 0.02  # between two looks at our own books


class Recent:
    """The last deltas of one stream, whole events, without a hole."""

    def __init__(self, deltas_max: int = RECENT_MAX) -> None:
        self._applied: deque[Applied] = deque()
        self._count = 0
        self._max = deltas_max

    def applied(self, applied: Applied) -> None:
        """Take in what the reader applied next."""
        if self._applied and (self._applied[-1].epoch, self._applied[-1].last + 1) != (applied.epoch, applied.first):
            self.forget()
        self._applied.append(applied)
        self._count += len(applied.rows)
        while self._count > self._max:
            self._count -= len(self._applied.popleft().rows)

    def forget(self) -> None:
        """A span was not seen: what came before it leads nowhere."""
        self._applied.clear()
        self._count = 0

    def reaches(self, epoch: int, sequence: int) -> bool:
        """Whether every delta after that one is here."""
        if not self._applied:
            return False
        first = self._applied[0]
        return first.epoch == epoch and first.first <= sequence + 1

    def carry(self, snapshot: Snapshot) -> Mirror:
        """The books of a whole stream after all deltas that are here. Raises: MirrorError when one does not fit."""
        mirror = Mirror()
        mirror.load(snapshot)
        for applied in self._applied:
            if applied.last > snapshot.last_seq:
                mirror.apply(applied.rows[max(0, snapshot.last_seq + 1 - applied.first) :], applied.extras)
        return mirror


def second_opinion(client: FeedClient, recent: Recent, snapshot: Snapshot) -> tuple[int, tuple[str, ...]] | None:
    """How many deltas the snapshot was carried, and where our books differ from it; None: they cannot be compared.

    The snapshot is of the whole stream, and not of our own making.
    Cost: O(orders + deltas carried).
    """
    epoch, sequence = client.position
    carried = sequence - snapshot.last_seq
    if snapshot.epoch != epoch or carried < 0 or (carried and not recent.reaches(epoch, snapshot.last_seq)):
        return None
    stream = (client.engine, client.channel)
    try:
        theirs = recent.carry(snapshot).snapshot(*stream, snapshot.incarnation, epoch, 0)
        mine = client.mirror.snapshot(*stream, client.incarnation, epoch, 0)
    except MirrorError as e:
        return carried, (str(e),)
    return carried, differences(theirs, mine)


class Verifier:
    """Compares the books of readers with those of other machines. Keeps their last deltas from its making on."""

    def __init__(self) -> None:
        self._recent: dict[FeedClient, Recent] = {}

    def heard(self, client: FeedClient, action: Action) -> None:
        """What a reader did."""
        if isinstance(action, Applied):
            self._recent.setdefault(client, Recent()).applied(action)
        elif isinstance(action, MissingSpan):
            self._recent.setdefault(client, Recent()).forget()

    async def compare(self, client: FeedClient, machine: Machine, name: str, timeout_s: float) -> Comparison:
        """Our books beside one machine's, which is called `name`.

        A comparison wants our books whole and at that sequence, or beyond it with every delta between: so it waits for
        a repair, and asks again where a snapshot of our own or a new epoch came between, until time is up.
        """
        deadline = time.monotonic() + timeout_s
        why = "no snapshot"
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                snapshot = await machine.snapshot(client.engine, client.channel, (), left_s)
            except grpc.aio.AioRpcError as e:
                why = f"{e.code().name}: {e.details()}".rstrip(": ")
                await asyncio.sleep(AGAIN_S)  # it doubts its own book, perhaps; if it is down, another will be asked
                continue
            except FeedError as e:
                why = str(e)
                await asyncio.sleep(AGAIN_S)
                continue
            opinion, why = await self._opinion(client, snapshot, deadline)
            if opinion is not None:
                carried, differing = opinion
                orders = sum(len(book.bids) + len(book.asks) for book in snapshot.books)
                stream = (client.engine, client.channel, name, *client.position)
                return Comparison(*stream, carried, len(snapshot.books), orders, differing)
        return Comparison(client.engine, client.channel, name, problem=why)

    async def _opinion(
        self, client: FeedClient, snapshot: Snapshot, deadline: float
    ) -> tuple[tuple[int, tuple[str, ...]] | None, str]:
        """The comparison, once our books are whole and reach the snapshot's; or nothing, and why."""
        recent = self._recent.setdefault(client, Recent())
        while True:
            if client.epoch > snapshot.epoch:
                return None, "the epoch changed meanwhile"
            behind = client.position < (snapshot.epoch, snapshot.last_seq)
            if not behind and client.state is State.LIVE and not client.doubted:
                opinion = second_opinion(client, recent, snapshot)
                return opinion, "" if opinion else "not every delta since was seen"
            if time.monotonic() > deadline:
                return None, f"the stream is {client.state.value}" + (", behind it" if behind else "")
            await asyncio.sleep(LOOK_S)


def differences(owner: Snapshot, mirror: Snapshot) -> tuple[str, ...]:
    """Where a mirror is not its owner's book: epoch, sequence, definition, state, last trade, every order in its place.

    Both must stand at one sequence. Cost: O(orders).
    """
    out = [
        f"{name} {getattr(mirror, name):,} instead of {getattr(owner, name):,}"
        for name in ("incarnation", "epoch", "last_seq")
        if getattr(mirror, name) != getattr(owner, name)
    ]
    owned = {book.instrument: book for book in owner.books}
    mirrored = {book.instrument: book for book in mirror.books}
    for instrument in sorted(owned.keys() | mirrored.keys()):
        mine, its = owned.get(instrument), mirrored.get(instrument)
        if mine is None or its is None:
            out.append(f"instrument {instrument} only {'in the mirror' if mine is None else 'at its owner'}")
        elif mine != its:
            out += _book_differences(mine, its)
    return tuple(out)


def _book_differences(owner: BookSnapshot, mirror: BookSnapshot) -> list[str]:
    symbol = owner.definition.symbol if owner.definition else str(owner.instrument)
    out: list[str] = []
    for name in BookSnapshot._fields:
        mine, its = getattr(owner, name), getattr(mirror, name)
        if mine == its:
            continue
        if name in ("bids", "asks"):
            pairs = enumerate(zip(mine, its, strict=False), 1)
            place = next((i for i, (a, b) in pairs if a != b), min(len(mine), len(its)) + 1)
            out.append(f"{symbol} {name}: {len(its):,} orders, {len(mine):,} at its owner; they differ from #{place}")
        else:
            out.append(f"{symbol} {name}: {its!r} instead of {mine!r}")
    return out
