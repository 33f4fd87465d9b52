"""A publisher, a bad network and readers under one seeded clock: right or marked, and in step when the faults end.

The real Sequencer, FrameRing, Mirror and FeedClient run; only time, the line and the recovery calls are made up.
After every input every book that calls itself valid is compared with the publisher's at that sequence.
"""

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

from bus.stream.actions import (
    Action,
    Alarm,
    Applied,
    AskRange,
    AskSnapshot,
    ClientLimits,
    Lagged,
    MissingSpan,
    Standing,
    State,
    StateChanged,
)
from bus.stream.feed_client import FeedClient
from bus.stream.lines import Lines
from bus.stream.mirror import Mirror, MirrorBook
from bus.stream.sequencer import FrameRing, Sequencer
from proto import feed
from proto.feed import ADD, CANCEL, CLEAR, DELETE, END, EXECUTE, MODIFY, SELL, TRADE, Digest, Row
from proto.snapshot import Snapshot, decode_snapshot, encode_snapshot
from tests.seeds import tried
from tools.chaos.plan import numbered

MS = 1_000_000
INSTRUMENTS = (1, 2, 3, 4)
AGE_MAX_MS = 4_000  # of a valid book: three heartbeats, and the lag that is let pass
LAG_MS = 60  # where the reader is slow
QUIET_MS = 30_000  # long enough for every retry after the faults end


@dataclass(frozen=True)
class Faults:
    """Probabilities; delays in milliseconds at most."""

    drop: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    damage: float = 0.0
    truncate: float = 0.0
    replay: float = 0.0  # an old frame comes once more, however old
    fail: float = 0.0  # of a recovery call
    hang: float = 0.0  # no answer at all
    stale: float = 0.0  # a snapshot of earlier
    restart: float = 0.0  # of the publisher, a millisecond: a higher epoch
    relapse: float = 0.0  # the same, under the same epoch: a protocol error
    restore: float = 0.0  # of the publisher and its books as they were a while ago, under the same epoch
    unheard: bool = False  # what a publisher sends that went back is lost until it is beyond what was heard
    renumber: float = 0.0  # the line gives frames the sequences from 1 on again, for up to 300 milliseconds
    burst: float = 0.0  # silence of the line for a while
    slow: int = 0  # milliseconds that the reader takes for a frame, while more of them wait
    lines: int = 1  # each with these faults


class World:
    def __init__(self, seed: int, faults: Faults) -> None:
        self.rng = random.Random(seed)
        self.faults = faults
        self.now = 0
        self.queue: list[tuple[int, int, Callable[[], None]]] = []
        self.scheduled = 0
        self.epoch = 0
        self.run = 0
        self.epochs: dict[int, int] = {}  # by run
        self.next_order = 1
        self.next_trade = dict.fromkeys(INSTRUMENTS, 1)
        self.truth = Mirror()
        self.stood: dict[tuple[int, int], dict[int, int]] = {}  # by run and sequence: each instrument's own
        # The book of each (run, instrument, instrument sequence).
        self.seen: dict[tuple[int, int, int], tuple[Digest, Digest]] = {}
        self.earlier: list[Snapshot] = []
        self.muted_until = 0
        self.beat_at = 0
        self.turn = 0
        self.kept: tuple[Snapshot, dict[int, int], int] | None = None  # books, instrument sequences, last frame's crc
        self.alarms: list[str] = []
        self.unheard_below = 0
        self.renumbered_until = 0
        self.renumbered_from = 0  # the first sequence that is 1
        self.begin(fresh=True)
        self.ring = FrameRing()
        limits = ClientLimits(lag_ns=LAG_MS * MS) if faults.slow else ClientLimits()
        self.client = FeedClient(1, 1, random.Random(seed + 1), self.ring, limits)
        if faults.lines > 1:
            self.client.lines = Lines(faults.lines)
        self.sent: list[bytes] = []  # to be replayed
        self.connection = 0  # frames of an earlier one are not read any more
        self.read_at = 0  # when the reader has read all that waits
        self.corrupted: list[int] = []  # instruments changed behind the client's back
        self.compared: dict[int, tuple[int, int, MirrorBook]] = {}  # by instrument: what was found right last
        self.due = 1  # the next delta to be delivered, or said to be missing
        self.due_epoch = 0
        self.take(self.client.start(0))

    # The publisher

    def begin(self, *, fresh: bool = False, relapse: bool = False) -> None:
        """A new epoch, or the sequences of this one from 1 again, with the books as they are."""
        self.epoch += not relapse
        self.run += 1
        self.epochs[self.run] = self.epoch
        self.sequencer = Sequencer(1, 1, 99, self.epoch, fresh)
        self.truth.last_seq = 0
        for book in self.truth.books.values():
            book.sequence = 0
        self.kept = None
        self.note(self.truth.books)

    def keep(self) -> None:
        if not self.sequencer.pending:
            self.kept = (self.snapshot(), dict(self.sequencer._instrument_seqs), self.sequencer._follows)

    def restore(self) -> None:
        """All as it was kept: the next frame follows the last one of then, and is another than followed it."""
        if self.kept is None:
            return
        books, sequences, follows = self.kept
        self.run += 1
        self.epochs[self.run] = self.epoch
        self.truth = Mirror()
        self.truth.load(books)
        self.sequencer = Sequencer(1, 1, 99, self.epoch, fresh=False)
        self.sequencer.next_seq = self.sequencer._framed_seq = books.last_seq + 1
        self.sequencer._instrument_seqs = dict(sequences)
        self.sequencer._follows = follows
        self.note(self.truth.books)

    def note(self, instruments: Iterable[int]) -> None:
        self.stood[self.run, self.sequencer.next_seq - 1] = {
            name: book.sequence for name, book in self.truth.books.items()
        }
        for instrument in instruments:
            book = self.truth.books[instrument]
            self.seen[self.run, instrument, book.sequence] = book.digests()

    def trade_a_little(self) -> None:
        rng = self.rng
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            rows = [row for _ in range(rng.choice((1, 1, 1, 2, 3, 90))) for row in self.delta()]
            op, *rest = rows[-1]
            rows[-1] = (op | END, *rest)  # type: ignore[assignment]
            self.sequencer.append(self.now, [value for row in rows for value in row])
            touched = list(dict.fromkeys(row[1] for row in rows))
            self.note(touched)
        self.send(self.sequencer.take(self.now, flush=rng.random() < 0.7))
        if self.faults.restore and rng.random() < 0.1:
            self.keep()
        if rng.random() < 0.2:
            self.earlier = [*self.earlier[-5:], self.snapshot()]

    def delta(self) -> list[Row]:
        """One delta that fits, applied to the truth as the event it will be part of."""
        rng = self.rng
        instrument = rng.choice(INSTRUMENTS)
        book = self.truth.books.get(instrument)
        orders = [(side, *order) for side in (0, 1) for order in book.orders(side)] if book is not None else []
        kind = rng.random()
        row: Row
        if len(orders) < 3 or (kind < 0.45 and len(orders) < 30):
            side = rng.randrange(2)
            price = rng.randrange(90, 100) + 10 * side
            row = (ADD | (SELL if side else 0), instrument, self.next_order, price, rng.randrange(1, 50), 0)
            self.next_order += 1
        elif kind > 0.995:
            row = (CLEAR, instrument, 0, 0, 0, 0)
        elif kind > 0.95:
            row = (TRADE, instrument, 0, 100, 5, self.trade(instrument))
        else:
            side, order_id, price, quantity = rng.choice(orders)
            bit = SELL if side else 0
            if kind < 0.6 or quantity == 1:
                row = (DELETE | bit, instrument, order_id, 0, 0, 0)
            elif kind < 0.7:
                row = (CANCEL | bit, instrument, order_id, 0, rng.randrange(1, quantity), 0)
            elif kind < 0.8:
                row = (MODIFY | bit, instrument, order_id, 0, rng.randrange(1, 50), 0)
            else:
                executed = rng.randrange(1, quantity + 1)
                row = (EXECUTE | bit, instrument, order_id, price, executed, self.trade(instrument))
        op, *rest = row
        self.truth.apply([(op | END, *rest)])  # type: ignore[list-item]
        return [row]

    def trade(self, instrument: int) -> int:
        self.next_trade[instrument] += 1
        return self.next_trade[instrument] - 1

    def snapshot(self, instruments: tuple[int, ...] = ()) -> Snapshot:
        return self.truth.snapshot(1, 1, 99, self.epoch, self.now, instruments)

    def heartbeat(self) -> None:
        names = list(self.truth.books)
        self.turn += 1
        digests = self.truth.digests(names[self.turn % len(names)]) if names else ()
        self.send(self.sequencer.heartbeat(self.now, digests))

    # The line

    def send(self, frames: list[bytes]) -> None:
        rng, faults = self.rng, self.faults
        for frame, line in [(frame, line) for frame in frames for line in range(faults.lines)]:
            self.beat_at = self.now + 250 * MS
            if feed.decode_header(frame).first_seq < self.unheard_below:
                continue
            self.unheard_below = 0
            if self.now < self.muted_until or rng.random() < faults.drop:
                continue
            if self.now < self.renumbered_until:
                sequence = feed.decode_header(frame).first_seq
                self.renumbered_from = self.renumbered_from or sequence
                frame = numbered(frame, max(1, sequence - self.renumbered_from + 1))
            if rng.random() < faults.damage:
                at = rng.randrange(len(frame))
                frame = frame[:at] + bytes([frame[at] ^ (1 << rng.randrange(8))]) + frame[at + 1 :]
            delay = rng.randrange(2 * MS)
            if rng.random() < faults.reorder:
                delay += rng.randrange(20 * MS)
            if faults.truncate and rng.random() < faults.truncate:
                frame = frame[: rng.randrange(len(frame))]
            if faults.replay:
                self.sent.append(frame)
                if rng.random() < faults.replay:
                    self.deliver(rng.choice(self.sent), line, rng.randrange(5 * MS))
            # What is not reordered comes in the order it was sent.
            delay = MS + delay if delay >= 2 * MS else MS
            if faults.slow:
                self.read_at = max(self.read_at, self.now) + faults.slow * MS
                delay = max(delay, self.read_at - self.now)
            self.deliver(frame, line, delay)
            if rng.random() < faults.duplicate:
                self.deliver(frame, line, rng.randrange(50 * MS))

    def deliver(self, frame: bytes, line: int, delay: int) -> None:
        connection = self.connection
        self.at(delay, lambda: self.hear(frame, line, connection))

    def hear(self, frame: bytes, line: int, connection: int) -> None:
        if connection == self.connection:
            self.take(self.client.frame(frame, self.now, line))

    def connect_anew(self) -> None:
        """Whatever waits in the line is lost, and a while of what is sent."""
        self.connection += 1
        self.read_at = self.now
        self.at(self.rng.randrange(10 * MS), lambda: self.take(self.client.rejoin(self.now)))

    # The recovery calls

    def answer(self, asked: AskRange | AskSnapshot) -> None:
        rng, faults = self.rng, self.faults
        delay = rng.randrange(5 * MS)
        if rng.random() < faults.hang:
            return
        if rng.random() < faults.fail:
            self.at(delay, lambda: self.take(self.client.failed(asked.ask, "unavailable", self.now)))
        elif isinstance(asked, AskRange):
            self.at(delay, lambda: self.answer_range(asked))
        else:
            content = self.snapshot((asked.instrument,) if asked.instrument else ())
            if not asked.home and not asked.instrument and self.earlier and rng.random() < faults.stale:
                content = rng.choice(self.earlier)
            if rng.random() < faults.reorder:
                delay += rng.randrange(300 * MS)
            body = encode_snapshot(content)
            self.at(delay, lambda: self.take(self.client.snapshot_reply(asked.ask, decode_snapshot(body), self.now)))

    def answer_range(self, asked: AskRange) -> None:
        found = self.sequencer.ring.find(asked.epoch, asked.first, asked.last)
        frames = found.frames
        if len(frames) > 1 and self.rng.random() < 0.3:
            frames = frames[: self.rng.randrange(1, len(frames))]
        self.take(self.client.range_reply(asked.ask, found.status, found.epoch, frames, self.now))

    # The reader

    def take(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, AskRange | AskSnapshot):
                self.answer(action)
            elif isinstance(action, Alarm):
                self.alarms.append(action.text)
            elif isinstance(action, Lagged):
                self.connect_anew()
            elif isinstance(action, StateChanged) and action.after is State.JOINING:
                if action.before is not State.LAGGED:
                    self.due = 1
            elif isinstance(action, Applied | MissingSpan):
                if action.epoch != self.due_epoch:
                    self.due, self.due_epoch = 1, action.epoch
                assert action.first == self.due
                self.due = action.last + 1
                if isinstance(action, Applied):
                    assert action.rows[-1][0] & END
                    assert action.last - action.first + 1 == len(action.rows)
        self.check()

    def check(self) -> None:
        client = self.client
        counters = client.counters
        assert counters.received + counters.repaired + counters.covered == client.next_seq - 1
        client._held.check(client.next_seq if client._joined else 1)
        runs = [run for run, epoch in self.epochs.items() if epoch == client.epoch]
        for instrument, book in client.mirror.books.items():
            if client.standing(instrument) is not Standing.VALID or instrument in self.corrupted:
                continue
            assert client.age_ns(self.now) <= AGE_MAX_MS * MS
            found = (client.epoch, book.sequence, book)  # a book changes with its sequence; it is compared once
            if self.compared.get(instrument) != found:
                self.compared[instrument] = found
                digest = book.digests()
                assert any(self.seen.get((run, instrument, book.sequence)) == digest for run in runs), (
                    f"instrument {instrument} at {book.sequence} of epoch {client.epoch} is wrong and called valid"
                )
            if client.state is State.LIVE:
                at = client.mirror.last_seq
                assert any(self.stood.get((run, at), {}).get(instrument, 0) == book.sequence for run in runs), (
                    f"instrument {instrument} at {book.sequence} is not how it stood at {at}, and called valid"
                )

    # Time

    def at(self, delay: int, what: Callable[[], None]) -> None:
        self.scheduled += 1
        heapq.heappush(self.queue, (self.now + delay, self.scheduled, what))

    def advance(self, step_ns: int) -> None:
        """Let what is due happen, timers included, for a while."""
        until = self.now + step_ns
        while True:
            due = self.queue[0][0] if self.queue else until + 1
            deadline = self.client.deadline_ns
            if deadline is not None and deadline < due and deadline <= until:
                self.now = max(self.now, deadline)
                self.take(self.client.tick(self.now))
            elif due <= until:
                self.now, _, what = heapq.heappop(self.queue)
                what()
            else:
                self.now = until
                return

    def publish(self, steps: int, mishaps: bool = True) -> None:
        """`steps` milliseconds of trading, with the faults on."""
        rng, faults = self.rng, self.faults
        for _ in range(steps):
            if rng.random() < 0.6:
                self.trade_a_little()
            elif self.now >= self.beat_at:
                self.heartbeat()
            if mishaps and rng.random() < faults.restart:
                self.begin()
            if mishaps and rng.random() < faults.relapse:
                self.begin(relapse=True)
                self.unheard_below = self.client.next_seq if faults.unheard else 0
            if mishaps and faults.restore and rng.random() < faults.restore:
                self.restore()
                self.unheard_below = self.client.next_seq if faults.unheard else 0
            if mishaps and rng.random() < faults.renumber:
                self.renumbered_until, self.renumbered_from = self.now + rng.randrange(300 * MS), 0
            if mishaps and rng.random() < faults.burst:
                self.muted_until = self.now + rng.randrange(1500 * MS)
                self.advance(rng.randrange(1500 * MS))
            self.advance(rng.choice((MS, MS, MS, 10 * MS)))

    def settle(self) -> None:
        """The faults end; heartbeats go on until nothing moves any more."""
        self.faults = Faults(relapse=self.faults.relapse)
        self.muted_until = self.renumbered_until = self.unheard_below = 0
        self.earlier = []
        for _ in range(QUIET_MS // 250):
            self.heartbeat()
            self.advance(250 * MS)
            if self.in_step():
                return

    def in_step(self) -> bool:
        return self.client.state is State.LIVE and self.client.next_seq == self.sequencer.next_seq

    def contents(self, mirror: Mirror) -> list[tuple[int, int, list[tuple[int, int, int]], list[tuple[int, int, int]]]]:
        return [
            (instrument, book.sequence, list(book.orders(0)), list(book.orders(1)))
            for instrument, book in sorted(mirror.books.items())
        ]


KINDS = {
    "nothing": Faults(),
    "drop": Faults(drop=0.1),
    "duplicate": Faults(duplicate=0.3),
    "reorder": Faults(reorder=0.3),
    "damage": Faults(damage=0.1),
    "truncate": Faults(truncate=0.1),
    "replay": Faults(replay=0.2, restart=0.01),
    "burst": Faults(burst=0.02),
    "failing recovery": Faults(drop=0.1, fail=0.5, hang=0.3),
    "stale snapshots": Faults(drop=0.1, restart=0.01, stale=0.8),
    "restart": Faults(restart=0.02),
    "relapse": Faults(relapse=0.01),
    "relapse and loss": Faults(relapse=0.01, drop=0.1, reorder=0.1),
    "relapse and bursts": Faults(relapse=0.03, burst=0.05),
    "relapse unheard": Faults(relapse=0.03, unheard=True),
    "restored": Faults(restore=0.02),
    "restored and loss": Faults(restore=0.02, drop=0.1, reorder=0.1),
    "restored and bursts": Faults(restore=0.03, burst=0.05),
    "restored unheard": Faults(restore=0.05, unheard=True),
    "numbered anew": Faults(renumber=0.01),
    "numbered anew and loss": Faults(renumber=0.01, drop=0.1, reorder=0.1),
    "numbered anew and bursts": Faults(renumber=0.03, burst=0.05),
    "slow reader": Faults(slow=10),
    "two lines": Faults(drop=0.1, reorder=0.1, lines=2),
    "all": Faults(drop=0.1, duplicate=0.1, reorder=0.1, damage=0.02, truncate=0.02, replay=0.05, burst=0.01,
                  fail=0.2, hang=0.1, stale=0.3, restart=0.01, slow=4, lines=2),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "seed"), [(kind, seed) for kind in KINDS for seed in tried(kind)])
def test_books_are_right_or_marked_and_all_is_in_step_when_the_faults_end(kind: str, seed: int) -> None:
    world = World(seed, KINDS[kind])
    world.publish(120)
    world.settle()
    assert world.in_step(), (world.client.state, world.client.next_seq, world.sequencer.next_seq)
    assert world.contents(world.client.mirror) == world.contents(world.truth)
    assert all(world.client.standing(name) is Standing.VALID for name in world.truth.books)
    the_ledger_adds_up(world)
    if not (KINDS[kind].relapse or KINDS[kind].restore or KINDS[kind].renumber):
        assert world.alarms == []


def the_ledger_adds_up(world: World) -> None:
    ledger = world.client.ledger
    counters = ledger.counters
    assert ledger.open == []
    assert counters.gaps == len(ledger.closed)
    assert (
        counters.missed
        == sum(gap.last - gap.first + 1 for gap in ledger.closed)
        == (counters.missed_late + counters.missed_ranged + counters.missed_snapshotted + counters.missed_abandoned)
    )
    assert counters.gaps == (
        counters.gaps_late + counters.gaps_ranged + counters.gaps_snapshotted + counters.gaps_abandoned
    )
    for gap in ledger.closed:
        assert gap.missing == 0
        assert gap.closed_ns >= gap.opened_ns
    epoch = [gap for gap in ledger.closed if gap.epoch == world.client.epoch]
    if not KINDS["relapse"].relapse or counters.regressions == 0:
        assert counters.repaired == sum(gap.ranged for gap in epoch)
        assert counters.covered >= sum(gap.snapshotted for gap in epoch)


@pytest.mark.parametrize("seed", range(4))
def test_a_reader_too_slow_for_the_stream_knows_it_and_never_shows_an_old_book_as_valid(seed: int) -> None:
    world = World(seed, Faults(slow=10))
    world.publish(120)
    counters = world.client.counters
    assert counters.lags > 1
    assert [gap.cause for gap in world.client.ledger.closed] == ["lag"] * len(world.client.ledger.closed)
    world.settle()
    assert world.in_step()


@pytest.mark.parametrize("seed", tried("lost tail"))
def test_a_lost_tail_or_silence_is_noticed_within_three_heartbeats(seed: int) -> None:
    world = World(seed, Faults())
    world.publish(60)
    world.settle()
    world.faults = Faults(drop=1.0)
    world.trade_a_little()
    world.send(world.sequencer.take(world.now, flush=True))
    assert world.client.next_seq < world.sequencer.next_seq
    if seed % 2:  # the tail is lost, and heartbeats come
        world.faults = Faults()
        for _ in range(3):
            world.advance(250 * MS)
            world.heartbeat()
        world.advance(10 * MS)
        assert world.client.counters.gaps == 1
        assert world.in_step()
    else:  # nothing comes any more
        world.advance(750 * MS)
        assert {world.client.standing(name) for name in world.truth.books} == {Standing.STALE}


def test_two_lines_repair_most_of_each_others_losses_without_asking_anybody() -> None:
    asked = {1: 0, 2: 0}
    for lines in asked:
        for seed in range(4):
            world = World(seed, Faults(drop=0.1, lines=lines))
            world.publish(150)
            world.settle()
            asked[lines] += world.client.counters.gaps_ranged
            assert world.client.lines is None or min(world.client.lines.first) > 0
    assert asked[1] > 10
    assert asked[2] < asked[1] / 3


@pytest.mark.parametrize("seed", tried("one percent"))
def test_at_one_percent_loss_books_are_valid_nineteen_twentieths_of_the_time(seed: int) -> None:
    world = World(seed, Faults(drop=0.01))
    world.publish(50)
    valid = sampled = 0
    while sampled < 300 * len(INSTRUMENTS) or not world.client.counters.gaps:
        world.publish(1)
        sampled += len(INSTRUMENTS)
        valid += sum(world.client.standing(name) is Standing.VALID for name in INSTRUMENTS)
    assert valid >= 0.95 * sampled, f"{valid} of {sampled}"


@pytest.mark.parametrize("seed", tried("changed in memory"))
def test_a_book_changed_in_memory_is_found_when_its_digest_comes_round_and_mended_alone(seed: int) -> None:
    world = World(seed, Faults())
    world.publish(60)
    world.settle()
    client, rng = world.client, world.rng
    instrument = rng.choice([name for name in INSTRUMENTS if world.truth.books[name].count])
    book = client.mirror.books[instrument]
    side = rng.choice([side for side in (0, 1) if book.levels(side)])
    order_id, _, quantity = rng.choice(list(book.orders(side)))
    flipped = quantity ^ (1 << rng.randrange(7, 20))
    wrong: Row = (MODIFY | END | (SELL if side else 0), instrument, order_id, 0, flipped, 0)
    world.corrupted.append(instrument)
    client.mirror.apply([wrong])
    book.sequence -= 1
    client.mirror.last_seq -= 1
    for _ in range(len(INSTRUMENTS)):  # one digest a heartbeat: at most one round
        world.heartbeat()
        world.advance(250 * MS)
        if client.counters.digests_differing:
            break
    assert client.counters.digests_differing == 1
    assert (client.counters.instrument_repairs, client.counters.resnapshots) == (1, 0)
    assert world.contents(client.mirror) == world.contents(world.truth)
    assert client.standing(instrument) is Standing.VALID


def test_a_publisher_restored_to_an_earlier_state_is_found_out_by_its_chain_where_all_between_was_lost() -> None:
    found = 0
    for seed in range(100):
        world = World(seed, KINDS["restored unheard"])
        world.publish(120)
        found += sum("follows another frame" in text for text in world.alarms)
    assert found > 3
