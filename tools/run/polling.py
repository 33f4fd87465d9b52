"""Asks every machine again and again, for the picture of a run and for what its judge has to know."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final, TypeVar

import grpc

from bus.access.asking import StreamStanding
from bus.reader.verify import differences
from bus.stream.mirror import MirrorError
from proto import marketdata_pb2
from proto.feed import STATE_NAMES, FeedError
from proto.instrument import Instrument
from proto.snapshot import Snapshot
from tools.flow.order_counts import Counted
from tools.run.evidence import Marked, MirrorMatch, Seen, counter
from tools.run.feeds import Feeds
from tools.run.live_view import Board, InstrumentRow, MachineRow
from tools.run.machines import Machines, Place

LOOK_S: Final = 0.4  # between two looks, and the longest wait for an answer to one
REST_S: Final = 15.0  # for every mirror to reach its owner's sequence, on a quiet machine
LEVEL_S: Final = 5.0  # to have two snapshots at one sequence, on a quiet machine
POLL_S: Final = 0.05
RATES_OVER: Final = 8  # looks
LIVE: Final = "live"

STATES: Final = {name: state for state, name in STATE_NAMES.items()}
VALID: Final = "valid"

Answer = TypeVar("Answer")


class Poller:
    """Fills the board, and keeps what every reader of a stream said of itself last."""

    def __init__(self, machines: Machines, board: Board, feeds: Callable[[], Feeds]) -> None:
        self._machines = machines
        self._feeds = feeds
        self._board = board
        self._seen: dict[tuple[str, int, int, int], Seen] = {}  # by place, life, engine, channel
        self.states: dict[tuple[str, int], list[int]] = {}  # by fabric node and instrument: trading states, in turn
        self._followed: tuple[Instrument, ...] = ()
        self._history: list[tuple[float, dict[int, int]]] = []  # time, answers by home
        for engine in machines.venue.engines:
            self.expect(engine.id)

    def expect(self, engine: int) -> None:
        """Show this engine's machine and its instruments from now on."""
        self._board.machines.append(MachineRow(engine))
        shown = len(self._board.instruments)
        self._board.instruments += [
            InstrumentRow(i.symbol, i.engine, i.tick_size, i.lot_size) for i in self._machines.venue.instruments[shown:]
        ]

    def follow_states(self, instruments: Sequence[Instrument]) -> None:
        """From now on, note at each look in which trading states every mirror has these."""
        self._followed = tuple(instruments)

    async def look(self, counted: Counted) -> None:
        """Ask every machine how it stands, all at once; who does not answer is shown as before."""
        fabrics = self._machines.serving_fabrics()
        await asyncio.gather(
            *(self._look_at(place) for place in self._machines.places()),
            self._look_at_books(),
            *(self._look_at_state(place, instrument) for place in fabrics for instrument in self._followed),
        )
        self._board.refusals = dict(counted.refusals)
        rates = self._rates(counted)
        for row in self._board.machines:
            engine, fabric = self._machines.engines.get(row.number), self._machines.fabrics.get(row.number)
            row.engine = engine.state if engine else "starts"
            row.fabric = fabric.state if fabric else "starts"
            row.orders_per_s = rates.get(row.number, 0.0)
            row.target = engine.asked.target if engine and engine.serving else ""
            row.epoch = engine.epochs[-1] if engine and engine.epochs else None
            seen = [seen for (name, *_), seen in self._seen.items() if name == f"fabric-{row.number}"]
            row.gaps = counter(seen, "gaps")
            row.by_range = counter(seen, "gaps_ranged")
            row.by_snapshot = counter(seen, "gaps_snapshotted")
            row.by_late = counter(seen, "gaps_late")
        for shown, instrument in zip(self._board.instruments, self._machines.venue.instruments, strict=True):
            executed = counted.executed.get(instrument.id)
            shown.volume = executed.buys.quantity if executed else 0

    def seen(self) -> list[Seen]:
        """Of every life that a fabric node led; those it did not survive end where they were last seen."""
        lives = {place.name: (place.life, place.down) for place in self._machines.fabrics.values()}
        return [
            replace(seen, gone=life < lives[name][0] or lives[name][1])
            for (name, life, _, _), seen in self._seen.items()
        ]

    async def rest(self) -> None:
        """Until every stream of every fabric node, and our own ear, have come to where their engines stood before, or
        time is up."""
        deadline = time.monotonic() + REST_S * self._machines.patience.factor
        while time.monotonic() < deadline:
            ends = await self.ends()
            level = [await self._is_level(place, ends) for place in self._machines.serving_fabrics()]
            if all(level) and all(self._feeds().hears(*stream, at) for stream, at in ends.items()):
                return
            await asyncio.sleep(POLL_S)

    async def ends(self) -> dict[tuple[int, int], tuple[int, int]]:
        """The epoch and the last sequence of every stream by now, as the engines that serve say."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for place in self._machines.serving_engines():
            for stream in await answer(place.asked.streams()) or []:
                found[stream.engine, stream.channel] = (stream.epoch, stream.next_seq - 1)
        return found

    async def owners(self) -> list[Snapshot]:
        """The books of every engine that serves, channel by channel, as it has them itself."""
        out: list[Snapshot] = []
        for place in self._machines.serving_engines():
            for channel in range(1, self._machines.venue.engine(place.id).channels + 1):
                snapshot = await answer(place.asked.snapshot(place.id, channel))
                if snapshot is not None:
                    out.append(snapshot)
        return out

    async def mirrors(self, owners: Sequence[Snapshot]) -> tuple[MirrorMatch, ...]:
        """Every machine's copy of every stream beside its owner's, both at one sequence: where one of them has gone on
        since (an order has expired, somebody trades), the other is brought there by the deltas that were heard."""
        fabrics = [place for place in self._machines.fabrics.values() if not place.down]
        mirrors = [await self._mirror(place, owner) for owner in owners for place in fabrics]
        heard = {owner.engine for owner in owners}
        silent = [place for place in self._machines.engines.values() if not place.down and place.id not in heard]
        mirrors += [
            MirrorMatch(place.name, place.id, 1, problem="gave no snapshot of its own books") for place in silent
        ]
        return tuple(mirrors)

    async def marks(self) -> tuple[Marked, ...]:
        """How each machine shows the books of engines that are down."""
        out: list[Marked] = []
        for engine in [place for place in self._machines.engines.values() if place.down]:
            symbols = [i.symbol for i in self._machines.venue.instruments_of(engine.id)]
            for place in self._machines.serving_fabrics():
                streams = await answer(place.asked.streams()) or []
                stream = next((s.state for s in streams if s.engine == engine.id), "unknown")
                books = [await answer(place.asked.book(symbol)) for symbol in symbols]
                states = tuple("unknown" if book is None else book_state(book) for book in books)
                out.append(Marked(place.name, engine.id, stream, states))
        return tuple(out)

    async def _mirror(self, place: Place, owner: Snapshot) -> MirrorMatch:
        where = (place.name, owner.engine, owner.channel, owner.epoch, owner.last_seq)
        if not place.serving:
            return MirrorMatch(*where, problem=f"is {place.state}")
        deadline = time.monotonic() + LEVEL_S * self._machines.patience.factor
        while True:
            try:
                copy = await place.asked.snapshot(owner.engine, owner.channel)
                both = await self._at_one_sequence(owner, copy)
                problem = "could not be brought to one sequence with its owner"
            except grpc.aio.AioRpcError as e:  # it may just not have heard from the engine for a moment
                both, problem = None, f"gave no snapshot: {e.code().name} {e.details() or ''}".rstrip()
            except (FeedError, MirrorError) as e:
                return MirrorMatch(*where, problem=f"gave no sound snapshot: {e}")
            if both is not None:
                mine, its = both
                where = (place.name, owner.engine, owner.channel, owner.epoch, mine.last_seq)
                return MirrorMatch(*where, len(mine.books), resting(mine), differences(mine, its))
            if time.monotonic() > deadline:
                return MirrorMatch(*where, problem=problem)
            await asyncio.sleep(LOOK_S)
            again = await answer(self._machines.engines[owner.engine].asked.snapshot(owner.engine, owner.channel))
            owner = again or owner

    async def _at_one_sequence(self, owner: Snapshot, copy: Snapshot) -> tuple[Snapshot, Snapshot] | None:
        """Both, the earlier one brought forward; None if that cannot be. Raises: MirrorError."""
        if owner.epoch != copy.epoch or owner.last_seq == copy.last_seq:
            return owner, copy
        stream, sequence = (owner.engine, owner.channel), max(owner.last_seq, copy.last_seq)
        deadline = time.monotonic() + LOOK_S * self._machines.patience.factor
        while not self._feeds().hears(*stream, (owner.epoch, sequence)):
            if time.monotonic() > deadline:
                return None
            await asyncio.sleep(POLL_S)
        watch = self._feeds().watches[stream]
        both = [each if each.last_seq == sequence else watch.carried(each, sequence) for each in (owner, copy)]
        return (both[0], both[1]) if both[0] and both[1] else None

    async def _is_level(self, place: Place, ends: dict[tuple[int, int], tuple[int, int]]) -> bool:
        streams = await answer(place.asked.streams()) or []
        self._note(place, streams)
        mine = {(s.engine, s.channel): (s.epoch, s.next_seq - 1) for s in streams if s.state == LIVE}
        return all(mine.get(stream, (0, 0)) >= end for stream, end in ends.items())

    async def _look_at(self, place: Place) -> None:
        if place.serving:
            streams = await answer(place.asked.streams(LOOK_S))
            if streams is not None:
                self._note(place, streams)

    def _note(self, place: Place, streams: Sequence[StreamStanding]) -> None:
        row = next(row for row in self._board.machines if row.number == place.id)
        if place.name.startswith("engine"):
            row.next_seq = max((stream.next_seq for stream in streams), default=None)
            return
        row.streams = len(streams)
        row.in_step = sum(stream.state == LIVE for stream in streams)
        for stream in streams:
            key = (place.name, place.life, stream.engine, stream.channel)
            self._seen[key] = Seen(place.name, stream.engine, stream.counters)

    async def _look_at_books(self) -> None:
        """As the first fabric node that serves shows them: any may be asked for any."""
        for place in self._machines.serving_fabrics()[:1]:
            for shown in self._board.instruments:
                book = await answer(place.asked.book(shown.symbol, 1, LOOK_S))
                if book is not None:
                    shown.state = book_state(book)
                    shown.bid = (book.bids[0].price, book.bids[0].quantity) if book.bids else None
                    shown.ask = (book.asks[0].price, book.asks[0].quantity) if book.asks else None
                    shown.last = book.last_price if book.last_trade_id else None

    async def _look_at_state(self, place: Place, instrument: Instrument) -> None:
        book = await answer(place.asked.book(instrument.symbol, 1, LOOK_S))
        if book is None or book_state(book) != VALID:
            return
        states = self.states.setdefault((place.name, instrument.id), [])
        if states[-1:] != [STATES[book.trading_state]]:
            states.append(STATES[book.trading_state])

    def _rates(self, counted: Counted) -> dict[int, float]:
        """Answers a second of each home engine, over the last few looks."""
        history = self._history
        history.append((time.monotonic(), dict(counted.by_home)))
        del history[:-RATES_OVER]
        (since, before), (now, after) = history[0], history[-1]
        return {home: (count - before.get(home, 0)) / max(now - since, 1e-9) for home, count in after.items()}


def book_state(book: marketdata_pb2.Book) -> str:
    """A book's state in the words that people read: valid, doubtful, stale, unknown."""
    return marketdata_pb2.BookState.Name(book.state).removeprefix("BOOK_").lower()


def resting(snapshot: Snapshot) -> int:
    """How many orders rest in all its books."""
    return sum(len(book.bids) + len(book.asks) for book in snapshot.books)


async def answer(call: Awaitable[Answer]) -> Answer | None:
    """The answer of a machine; None if it gave none."""
    try:
        return await call
    except (grpc.aio.AioRpcError, FeedError):
        return None
