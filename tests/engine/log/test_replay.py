"""A log in which every rule is in use, replayed: the same reports, deltas and digest, as often as one likes."""

from collections import Counter
from collections.abc import Sequence
from functools import cache
from random import Random

import pytest

from engine.core.commands import AddInstrument, BustTrade, CorrectTrade, Delist, Kill, OperatorCommand, Roll, SetState
from engine.core.rules import RULES
from engine.core.venue import Venue
from engine.log.memory import MemoryLog
from engine.log.records import Disconnected, Entered, Epoch, Group, Part, encode
from engine.log.replay import replay, restore
from proto import feed
from proto.columns import (
    ACCEPTED,
    ALL_OR_NONE,
    CANCEL,
    CANCELED,
    CAPPED,
    FLAG_SELL,
    MASS_CANCEL,
    MASS_CANCELED,
    MEANING_MASK,
    MEANING_SHIFT,
    POST_ONLY,
    REPLACE,
    REPLACED,
    REQUEUE,
    TIF_MASK,
    TIF_SHIFT,
    TYPE_MASK,
    TYPE_SHIFT,
    Batch,
    Outcome,
    ReportRow,
    Terms,
    delta_rows,
    report_rows,
)
from proto.instrument import FIFO, PRO_RATA, STATES
from proto.orders import write_batch
from tests.engines import identity_of
from tests.flows import DELIST, ENGINE, FATES, INSTRUMENTS, KILL, KINDS, MEANINGS, MORE, TERMS, Player, Step
from tests.oracle import Oracle

SEED = 5
Heard = list[tuple[int, int, Outcome]]  # position, time, what came of it

# What a log with every rule in it must have caused (proto ReportKind, Reason; feed ops).
KINDS_SAID = {*range(1, 7), *range(8, 12)}
REASONS_SAID = {*range(20, 39), *range(40, 50)}
OPS_SAID = {
    feed.ADD, feed.MODIFY, feed.DELETE, feed.EXECUTE, feed.TRADE, feed.DEFINITION, feed.STATUS, feed.STATISTICS,
    feed.INDICATION, feed.BUST, feed.CORRECTION,
}  # fmt: skip
TYPES = ("limit", "market", "stop", "stop-limit", "iceberg", "peg-bid", "peg-offer", "peg-mid")
FORCES = ("gtc", "day", "gtd", "ioc", "fok")
MODES = ("newest", "none", "oldest", "both", "decrement")
MEANINGS_OF_REPLACE = ("total", "open", "reduce-by")
# What a log with every rule in it must have let in, each at least once; refusals do not count.
IN_USE = {
    "cancel", "mass-cancel", "mass-cancel one", "disconnect", "tick", "post-only", "all-or-none", "capped", "minimum",
    "oco", "requeue", "add", "delist", "bust", "correct", "roll", "kill", "lift", "stop price anew",
    *(f"new {kind}" for kind in TYPES), *FORCES, *(f"stp {mode}" for mode in MODES),
    *(f"replace {meaning}" for meaning in MEANINGS_OF_REPLACE), *(f"state {state}" for state in STATES),
    *(f"{side} {allocation}" for side in ("buy", "sell") for allocation in (FIFO, PRO_RATA)),
}  # fmt: skip
DONE = (ACCEPTED, REPLACED, CANCELED, MASS_CANCELED)


class Recorder:
    """A door that logs each record before the venue applies it; an oracle says what there is to speak of."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.venue = Venue(ENGINE, INSTRUMENTS)
        self.heard: Heard = []
        self.used: Counter[str] = Counter()
        self._oracle = Oracle(ENGINE, INSTRUMENTS)
        self.log.append(0, [encode(Epoch(0, "first", 0, RULES, identity_of(INSTRUMENTS)))])

    def apply(self, time_ns: int, batches: Sequence[Batch]) -> None:
        parts = [Entered(batch.account, batch.session, batch.stp, write_batch(batch)) for batch in batches]
        outcome = self.venue.apply(self.log.position + 1, time_ns, batches)
        self._log(time_ns, parts, outcome)
        for told in outcome.reports:
            done = {row.command: row for row in report_rows(told.rows) if row.kind in DONE and row.command}
            for batch in batches:
                if batch.account == told.account:
                    self._note(batch, done)
        self._oracle.apply(time_ns, batches)

    def disconnect(self, time_ns: int, account: int, session: int) -> None:
        outcome = self.venue.disconnect(self.log.position + 1, time_ns, account, session)
        self._log(time_ns, [Disconnected(account, session)], outcome)
        self.used["disconnect"] += bool(outcome.reports)
        self._oracle.disconnect(time_ns, account, session)

    def tick(self, time_ns: int) -> None:
        outcome = self.venue.tick(self.log.position + 1, time_ns)
        self._log(time_ns, [], outcome)
        self.used["tick"] += bool(outcome.reports)
        self._oracle.tick(time_ns)

    def operate(self, time_ns: int, command: OperatorCommand) -> None:
        outcome = self.venue.operate(self.log.position + 1, time_ns, command)
        self._log(time_ns, [command], outcome)
        if not outcome.refused:
            self.used[_named(command)] += 1
        self._oracle.operate(time_ns, command)

    def live(self, account: int) -> list[tuple[int, int, int]]:
        return self._oracle.names(account)

    def _note(self, batch: Batch, done: dict[int, ReportRow]) -> None:
        """Count the rules that this batch's commands used, as far as they were let in."""
        for i, command in enumerate(batch.client_order_id):
            if command in done:
                row = done[command]
                self.used.update(_rules(batch, i))
                if row.kind in (ACCEPTED, REPLACED):
                    market = self.venue.markets[row.instrument].instrument
                    self.used[f"{'sell' if row.flags & FLAG_SELL else 'buy'} {market.allocation}"] += 1

    def _log(self, time_ns: int, parts: Sequence[Part], outcome: Outcome) -> None:
        self.log.append(self.log.position, [encode(Group(1, time_ns, list(parts)))])
        self.heard.append((self.log.position, time_ns, outcome))


def _rules(batch: Batch, i: int) -> list[str]:
    """The rules that row i of a batch is about."""
    flags, terms = batch.flags[i], batch.terms[i] if batch.terms else Terms()
    if batch.op[i] == CANCEL:
        return ["cancel"]
    if batch.op[i] == MASS_CANCEL:
        return ["mass-cancel one" if batch.instrument[i] else "mass-cancel"]
    if batch.op[i] == REPLACE:
        meaning = MEANINGS_OF_REPLACE[(flags & MEANING_MASK) >> MEANING_SHIFT]
        named = {"requeue": flags & REQUEUE, "stop price anew": terms.stop_price}
        return [f"replace {meaning}", *(name for name, there in named.items() if there)]
    named = {
        "post-only": flags & POST_ONLY, "all-or-none": flags & ALL_OR_NONE, "capped": flags & CAPPED,
        "minimum": terms.minimum, "oco": terms.oco,
    }  # fmt: skip
    kind, force = TYPES[(flags & TYPE_MASK) >> TYPE_SHIFT], FORCES[(flags & TIF_MASK) >> TIF_SHIFT]
    return [f"new {kind}", force, f"stp {MODES[batch.stp]}", *(name for name, there in named.items() if there)]


def _named(command: OperatorCommand) -> str:
    if isinstance(command, SetState):
        return f"state {STATES[command.state - 1]}"
    if isinstance(command, Kill):
        return "kill" if command.on else "lift"
    names: dict[type[OperatorCommand], str] = {
        AddInstrument: "add",
        Delist: "delist",
        BustTrade: "bust",
        CorrectTrade: "correct",
        Roll: "roll",
    }
    return names[type(command)]


@cache
def record() -> Recorder:
    """A log in which every rule is in use, and what came of it."""
    rng = Random(SEED)
    recorder = Recorder()
    player = Player(1, recorder)
    for home in (1, 2, 3, 4) * 6:
        player.home = home
        player.play(_steps(rng, 300))
    for instrument in INSTRUMENTS:
        recorder.operate(player.time, Delist(instrument.id))
    return recorder


@pytest.fixture(scope="module")
def recorded() -> Recorder:
    return record()


def _steps(rng: Random, count: int) -> list[Step]:
    """Steps for a long log: without what ends a market for good, and with little that ends it for long."""
    steps = (_step(rng) for _ in range(count))
    return [step for step in steps if step.op != DELIST and (step.op != KILL or rng.random() < 0.25)]


def _step(rng: Random) -> Step:
    fate, meaning = rng.choice(FATES), rng.choice(MEANINGS)
    return Step(*fate, meaning[0], rng.choice(KINDS), *meaning[1:], *rng.choice(TERMS), *rng.choice(MORE))  # type: ignore[arg-type]


def _replayed(recorder: Recorder) -> tuple[Heard, Venue]:
    heard: Heard = []
    after, state = restore(recorder.log)
    for _ in replay(recorder.log, state, after, lambda *told: heard.append(told)):
        pass
    return heard, state.venue


def test_every_rule_is_in_use(recorded: Recorder) -> None:
    rows = [row for _, _, outcome in recorded.heard for told in outcome.reports for row in report_rows(told.rows)]
    deltas = [row for _, _, outcome in recorded.heard for told in outcome.deltas for row in delta_rows(told.rows)]
    refused = {outcome.refused for _, _, outcome in recorded.heard}
    assert KINDS_SAID - {row.kind for row in rows} == set()
    assert REASONS_SAID - {row.reason for row in rows} - refused == set()
    assert OPS_SAID - {row.op & feed.OP_MASK for row in deltas} == set()
    assert IN_USE - {rule for rule, count in recorded.used.items() if count} == set()


def test_a_replay_gives_the_same_events_and_the_same_digest_twice(recorded: Recorder) -> None:
    for _ in range(2):
        heard, venue = _replayed(recorded)
        assert heard == recorded.heard
        assert venue.digest() == recorded.venue.digest()
        venue.check()
