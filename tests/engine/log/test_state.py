"""A state leads back to the venue it was made of: same books, accounts and reports, the same answers from there on."""

import random
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engine.core.commands import Delist
from engine.core.rules import RULES
from engine.core.venue import Venue
from engine.log import records
from engine.log.condense import condense
from engine.log.contract import LogDamaged
from engine.log.kept import KeptReports
from engine.log.memory import Disk as MemoryDisk
from engine.log.memory import MemoryLog
from engine.log.numbering import Numbering
from engine.log.replay import replay
from engine.log.sqlite import SqliteLog
from engine.log.state import AccountHistory, EngineState, StateError, dump, load
from engine.log.view import SqliteLogView
from engine.node import Engine
from proto.columns import BUY, SELL, Batch, Outcome
from proto.instrument import Instrument
from proto.orders import write_batch
from tests.engine.log.test_replay import Recorder, record
from tests.engine.log.test_replay import _step as any_step
from tests.engine.log.test_replay import _steps as some_steps
from tests.engines import cluster_of, identity_of
from tests.flows import ENGINE, Player
from tests.flows import INSTRUMENTS as FLOW_INSTRUMENTS

CLUSTER = cluster_of(1)
INSTRUMENTS: Sequence[Instrument] = CLUSTER.instruments_of(1)
IDENTITY = identity_of(INSTRUMENTS)


def bodies(seed: int, count: int, previous: int = 0, after: int = 0) -> list[bytes]:
    """Records of a random flow in an epoch of its own: repeats, refusals, sessions that end, all that is remembered."""
    rng = random.Random(seed)
    epoch = after + 1
    found = [records.encode(records.Epoch(previous, "test", 0, RULES, None if previous else IDENTITY))]
    for position in range(after + 2, after + 1 + count):
        time_ns = 1_000 * position
        if rng.random() < 0.03:
            part: records.Part = records.Disconnected(rng.choice((7, 8)), rng.choice((1, 2)))
            found.append(records.encode(records.Group(epoch, time_ns, [part])))
            continue
        parts: list[records.Part] = []
        for _ in range(rng.randint(1, 3)):
            size = rng.randint(1, 6)
            ids = [rng.randint(1, 60 * (after + count) // 20) for _ in range(size)]
            batch = Batch(
                rng.choice((7, 8, 9)), rng.choice((0, 1, 2)), 1, [rng.choice((1, 1, 1, 1, 2, 3, 4)) for _ in ids], ids,
                [rng.choice([i.id for i in INSTRUMENTS]) for _ in ids], [rng.choice((0, 1)) for _ in ids],
                [rng.randint(95, 105) for _ in ids], [rng.randint(1, 20) for _ in ids],
                [rng.randint(1, 60 * (after + count) // 20) for _ in ids],
            )  # fmt: skip
            parts.append(records.Entered(batch.account, batch.session, batch.stp, write_batch(batch)))
        found.append(records.encode(records.Group(epoch, time_ns, parts)))
    return found


class Told:
    """An engine's memory after a log, and what it said on the way."""

    def __init__(self, state: EngineState | None = None) -> None:
        self.venue = Venue(1, INSTRUMENTS, retained=50) if state is None else state.venue
        self.epoch = 0 if state is None else state.epoch
        self.kept = KeptReports(1)
        for history in [] if state is None else state.histories:
            self.kept.restore(history.account, history.last_seq, history.batches)
        self.said: list[tuple[int, int, Outcome]] = []

    def hear(self, log: MemoryLog, after: int) -> None:
        state = EngineState(self.venue, self.epoch)
        for _ in replay(log, state, after, self._remember):
            self.epoch = state.epoch

    def state(self) -> EngineState:
        return EngineState(
            self.venue, self.epoch, [AccountHistory(*history) for history in self.kept.histories()], Numbering()
        )

    def _remember(self, position: int, time_ns: int, outcome: Outcome) -> None:
        self.said.append((position, time_ns, outcome))
        self.kept.remember(position, time_ns, outcome)


@pytest.mark.parametrize("seed", range(12))
def test_a_snapshot_and_the_rest_of_the_log_lead_where_the_whole_log_leads(seed: int) -> None:
    log = MemoryLog(MemoryDisk())
    log.append(0, bodies(seed, 150))
    whole, first = Told(), Told()
    first.hear(log, 0)
    body = dump(first.state())
    second = Told(load(body))
    second.venue.check()
    assert second.venue.digest() == first.venue.digest()
    assert second.venue.sessions() == first.venue.sessions()
    assert dump(second.state()) == body
    log.append(150, bodies(seed + 100, 150, 1, 150))
    second.hear(log, 150)
    whole.hear(log, 0)
    assert (whole.epoch, second.epoch) == (151, 151)
    assert second.venue.digest() == whole.venue.digest()
    assert second.said == whole.said[len(first.said) :] != []
    assert list(second.kept.histories()) == list(whole.kept.histories())
    assert any(list(book.orders(BUY)) + list(book.orders(SELL)) for book in whole.venue.books.values())
    second.venue.check()


def test_an_empty_venue_has_a_state() -> None:
    state = load(dump(Told().state()))
    assert state.venue.digest() == Told().venue.digest()
    assert (state.epoch, state.histories) == (0, [])


def test_a_state_of_another_version_or_a_damaged_one_is_refused() -> None:
    body = dump(Told().state())
    with pytest.raises(StateError, match="version 02"):
        load(body[:1] + b"\x02" + body[2:])
    for garbage in (b"", body[:1], body[:2], body[:-1], body + b"\x00"):
        with pytest.raises(StateError):
            load(garbage)


# What the version before wrote: after a trade, a repeat, a cancel, an instrument added, an account killed.
EARLIER_STATE = bytes.fromhex(
    "9e0401c410bc011bf420f860198155eea6a5bff5ad019406cd03ee04cd2000949192090090904092dc00148fa269640aa673796d626f6ca3"
    "453141a6656e67696e6501a76368616e6e656c01a97469636b5f73697a65a4302e3031a86c6f745f73697a65a131a970726963655f6d696e"
    "01a970726963655f6d6178ce000186a0ac7175616e746974795f6d617800ac6e6f74696f6e616c5f6d617800a6636f6c6c617200a462616e"
    "6400aa616c6c6f636174696f6ea46669666fb161756374696f6e5f7265666572656e636500a57374617465a46f70656e0263039101910302"
    "00c20093000000c0980101636363630301a332393791990201026303000302039090909000dc00148fa269640ca673796d626f6ca44e4f56"
    "41a6656e67696e6501a76368616e6e656c01a97469636b5f73697a65a4302e3035a86c6f745f73697a65a23130a970726963655f6d696efb"
    "a970726963655f6d6178cd01f4ac7175616e746974795f6d617809ac6e6f74696f6e616c5f6d61785aa6636f6c6c617203a462616e6404aa"
    "616c6c6f636174696f6ea870726f2d72617461b161756374696f6e5f7265666572656e636507a57374617465a87072652d6f70656e010000"
    "90900100c20793000000c0980101000000000000a130909090909000940000000199940102030194cf0001000000000001cf000100000000"
    "0002cf0001000000000003cf0001000000000004940a0a0a0a9400000101945f636369940505030694000000009400020006940003030080"
    "809296070795010203010494010203049400010200909608029101910191039092930706909308019092810108820a050c02"
)


def test_a_state_of_the_version_before_is_read_and_what_it_does_not_say_is_as_it_was_then() -> None:
    state = load(EARLIER_STATE)
    venue = state.venue
    assert (state.epoch, state.rules, state.identity) == (1, 1, None)
    assert (venue.engine, venue.position, venue.time_ns, venue.retained) == (1, 6, 1_006, 8_192)
    assert [market.instrument.symbol for market in venue.markets.values()] == ["E1A", "NOVA"]
    assert [(order.order_id & 15, order.price, order.open) for order in venue.open_orders(7)] == [(2, 99, 2)]
    assert (list(venue.kills.pairs), venue.operations.allowed) == ([(9, 0)], {})
    assert [account.noted() for account in venue.accounts.values()] == [[1, 2, 3, 4], [1]]  # the repeat is none of them
    assert (state.numbering.next_seqs, dict(state.numbering.instrument_seqs)) == ({1: 8}, {10: 5, 12: 2})
    venue.check()
    assert load(dump(state)).venue.digest() == venue.digest()


# On disk


def written(path: Path, *parts: list[bytes]) -> None:
    log = SqliteLog(path)
    for part in parts:
        log.append(log.position, part)
    log.close()


def restarted(path: Path) -> tuple[Engine, list[int]]:
    """An engine after its replay, and the positions it read; its log is closed."""
    log = SqliteLog(path)
    read: list[int] = []
    reading = log.read

    def noted(after: int) -> Iterator[tuple[int, bytes]]:
        for position, body in reading(after):
            read.append(position)
            yield position, body

    log.read = noted  # type: ignore[method-assign]
    engine = Engine(CLUSTER, 1, log, where=lambda engine: None)
    for _ in engine.replay():
        pass
    log.close()
    return engine, read


def contents(engine: Engine) -> tuple[str, list[object], int]:
    return engine.venue.digest(), list(engine.kept.histories()), engine._state.epoch


def condensed(path: Path) -> int:
    view = SqliteLogView(path)
    try:
        return condense(view)
    finally:
        view.close()


def test_a_restart_reads_only_what_was_logged_after_the_snapshot(tmp_path: Path) -> None:
    written(tmp_path, bodies(1, 100))
    assert condensed(tmp_path) == 100
    written(tmp_path, bodies(2, 100, 1, 100))
    engine, read = restarted(tmp_path)
    assert read == [*range(101, 201), *range(101, 201)]  # looked ahead, for what is to be passed over
    assert condensed(tmp_path) == 200  # from the one before
    again, read = restarted(tmp_path)
    assert read == []
    (tmp_path / "snapshots.sqlite").unlink()
    whole, read = restarted(tmp_path)
    assert read == [1, *range(1, 201), *range(1, 201)]
    assert contents(engine) == contents(again) == contents(whole)


def test_a_damaged_snapshot_gives_way_to_an_older_one_and_then_to_the_whole_log(tmp_path: Path) -> None:
    written(tmp_path, bodies(1, 50))
    condensed(tmp_path)
    written(tmp_path, bodies(2, 50, 1, 50))
    condensed(tmp_path)
    expected = contents(restarted(tmp_path)[0])
    for damaged, first in ((100, 51), (50, 1)):
        database = sqlite3.connect(tmp_path / "snapshots.sqlite")
        (body,) = database.execute("SELECT body FROM snapshot WHERE position = ?", (damaged,)).fetchone()
        body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
        database.execute("UPDATE snapshot SET body = ? WHERE position = ?", (body, damaged))
        database.commit()
        database.close()
        engine, read = restarted(tmp_path)
        assert (read[0], contents(engine)) == (first, expected)


def test_a_view_of_a_log_reads_on_while_it_is_written(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    log.append(0, bodies(1, 10))
    view = SqliteLogView(tmp_path)
    assert [position for position, _ in view.read(0)] == list(range(1, 11))
    log.append(10, bodies(2, 5, 1, 10))
    log.checkpoint()
    assert list(view.read(10)) == list(log.read(10))
    assert condense(view) == 15
    assert log.load_snapshot() == view.load_snapshot()
    with pytest.raises(LogDamaged):
        view.save_snapshot(16, b"")
    view.close()
    log.close()
    with pytest.raises(FileNotFoundError):
        SqliteLogView(tmp_path / "nowhere")


def test_a_state_carries_all_that_any_rule_leaves_behind() -> None:
    """A log in which every rule is in use, with a state taken and loaded again every few records."""
    rng = random.Random(20260105)
    recorder = Recorder()
    player = Player(1, recorder)
    for home in (1, 2, 3, 4) * 4:
        player.home = home
        player.play(some_steps(rng, 150))
    recorder.operate(player.time, Delist(3))
    player.play([any_step(rng) for _ in range(100)])
    logged = list(recorder.log.read(0))
    state = EngineState(Venue(ENGINE, FLOW_INSTRUMENTS))
    heard: list[tuple[int, int, Outcome]] = []
    seen: dict[str, int] = {}
    done = 0
    while done < len(logged):
        step = rng.choice((1, 3, 10, 30))
        some = Stretch(logged[done : done + step])
        for _ in replay(some, state, done, lambda *told: heard.append(told)):
            pass
        done += step
        body = dump(state)
        again = load(body)
        assert again.venue.digest() == state.venue.digest(), done
        assert dump(again) == body
        again.venue.check()
        assert inner(again.venue) == inner(state.venue)
        note(seen, again.venue)
        state = again
    assert heard == recorder.heard
    assert state.venue.digest() == recorder.venue.digest()
    expected = {"kills", "amended", "expiries", "stops", "pegs", "conditionals", "tip", "partner", "terms", "entered",
                "fired", "delisted", "added"}  # fmt: skip
    assert expected - {name for name, count in seen.items() if count} == set()


@pytest.mark.parametrize("tenths", [1, 3, 5, 7, 9])
def test_from_a_state_in_the_middle_of_a_log_with_every_rule_in_use_the_rest_comes_out_the_same(tenths: int) -> None:
    recorder = record()
    logged = list(recorder.log.read(0))
    cut = len(logged) * tenths // 10
    first = Venue(ENGINE, FLOW_INSTRUMENTS)
    heard: list[tuple[int, int, Outcome]] = []
    before = EngineState(first)
    for _ in replay(Stretch(logged[:cut]), before, 0, lambda *told: heard.append(told)):
        pass
    state = load(dump(before))
    assert state.venue is not first
    for _ in replay(Stretch(logged[cut:]), state, cut, lambda *told: heard.append(told)):
        pass
    assert heard == recorder.heard
    assert state.venue.digest() == recorder.venue.digest()
    state.venue.check()


def inner(venue: Venue) -> list[object]:
    """What a venue keeps beside its contents, so as not to look at them each time."""
    names = ("killed", "guarded", "shared", "plain_min", "plain_max", "summary_due")
    markets = [[getattr(market, name) for name in names] for market in venue.markets.values()]
    return [venue.channels, markets]


def note(seen: dict[str, int], venue: Venue) -> None:
    """Count what there was to carry."""
    found = {
        "kills": len(venue.kills.pairs), "amended": len(venue.operations.amended),
        "expiries": bool(venue.next_due_ns),
        "added": len(venue.markets) - len(FLOW_INSTRUMENTS),
    }  # fmt: skip
    for market in venue.markets.values():
        for name in ("stops", "pegs", "conditionals"):
            found[name] = found.get(name, 0) + len(getattr(market, name))
        found["delisted"] = found.get("delisted", 0) + market.delisted
    for account in venue.accounts.values():
        for order in account.live():
            for name in ("tip", "partner", "terms", "entered", "fired"):
                found[name] = found.get(name, 0) + bool(order.more is not None and getattr(order.more, name))
    for name, count in found.items():
        seen[name] = seen.get(name, 0) + count


class Stretch:
    """Some records of a log."""

    def __init__(self, some: list[tuple[int, bytes]]) -> None:
        self._some = some

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        return iter(self._some)
