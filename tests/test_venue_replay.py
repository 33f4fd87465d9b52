"""A log in which every rule is in use, replayed: the same reports, deltas and digest, as often as one likes."""

from collections.abc import Sequence
from random import Random

import pytest

from engine.commands import Delist, OperatorCommand
from engine.commit import replay
from engine.gateway import write_batch
from engine.log import MemoryLog
from engine.records import Commands, Disconnected, Entered, Epoch, Part, encode, part_of
from engine.types import Batch, Outcome, delta_rows, report_rows
from engine.venue import Venue
from proto import feed
from tests.flows import DELIST, ENGINE, FATES, INSTRUMENTS, KINDS, MEANINGS, MORE, TERMS, Player, Step
from tests.oracle import Oracle

SEED = 20260104
Heard = list[tuple[int, int, Outcome]]  # position, time, what came of it

# What a log with every rule in it must have caused (proto ReportKind, Reason; feed ops).
KINDS_SAID = {*range(1, 7), *range(8, 12)}
REASONS_SAID = {*range(20, 39), *range(40, 50)}
OPS_SAID = {
    feed.ADD, feed.MODIFY, feed.DELETE, feed.EXECUTE, feed.TRADE, feed.DEFINITION, feed.STATUS, feed.STATISTICS,
    feed.INDICATION, feed.BUST, feed.CORRECTION,
}  # fmt: skip


class Recorder:
    """A door that logs each record before the venue applies it; an oracle says what there is to speak of."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.venue = Venue(ENGINE, INSTRUMENTS)
        self.heard: Heard = []
        self._oracle = Oracle(ENGINE, INSTRUMENTS)
        self.log.append(0, [encode(Epoch(0, "first"))])

    def apply(self, time_ns: int, batches: Sequence[Batch]) -> None:
        parts = [Entered(batch.account, batch.session, batch.stp, write_batch(batch)) for batch in batches]
        self._log(time_ns, parts, self.venue.apply(self.log.position + 1, time_ns, batches))
        self._oracle.apply(time_ns, batches)

    def disconnect(self, time_ns: int, account: int, session: int) -> None:
        outcome = self.venue.disconnect(self.log.position + 1, time_ns, account, session)
        self._log(time_ns, [Disconnected(account, session)], outcome)
        self._oracle.disconnect(time_ns, account, session)

    def tick(self, time_ns: int) -> None:
        self._log(time_ns, [], self.venue.tick(self.log.position + 1, time_ns))
        self._oracle.tick(time_ns)

    def operate(self, time_ns: int, command: OperatorCommand) -> None:
        self._log(time_ns, [part_of(command)], self.venue.operate(self.log.position + 1, time_ns, command))
        self._oracle.operate(time_ns, command)

    def live(self, account: int) -> list[tuple[int, int, int]]:
        return self._oracle.names(account)

    def _log(self, time_ns: int, parts: Sequence[Part], outcome: Outcome) -> None:
        self.log.append(self.log.position, [encode(Commands(1, time_ns, list(parts)))])
        self.heard.append((self.log.position, time_ns, outcome))


@pytest.fixture(scope="module")
def recorded() -> Recorder:
    rng = Random(SEED)
    recorder = Recorder()
    player = Player(1, recorder)
    for home in (1, 2, 3, 4) * 6:
        player.home = home
        player.play([step for step in (_step(rng) for _ in range(300)) if step.op != DELIST])
    for instrument in INSTRUMENTS:
        recorder.operate(player.time, Delist(instrument.id))
    return recorder


def _step(rng: Random) -> Step:
    fate, meaning = rng.choice(FATES), rng.choice(MEANINGS)
    return Step(*fate, meaning[0], rng.choice(KINDS), *meaning[1:], *rng.choice(TERMS), *rng.choice(MORE))


def _replayed(recorder: Recorder, venue: Venue, after: int = 0, epoch: int = 0) -> Heard:
    heard: Heard = []
    for _ in replay(recorder.log, venue, after, epoch, lambda *told: heard.append(told)):
        pass
    return heard


def test_every_rule_is_in_use(recorded: Recorder) -> None:
    rows = [row for _, _, outcome in recorded.heard for told in outcome.reports for row in report_rows(told.rows)]
    deltas = [row for _, _, outcome in recorded.heard for told in outcome.deltas for row in delta_rows(told.rows)]
    refused = {outcome.refused for _, _, outcome in recorded.heard}
    assert KINDS_SAID - {row.kind for row in rows} == set()
    assert REASONS_SAID - {row.reason for row in rows} - refused == set()
    assert OPS_SAID - {row.op & feed.OP_MASK for row in deltas} == set()


def test_a_replay_gives_the_same_events_and_the_same_digest_twice(recorded: Recorder) -> None:
    for _ in range(2):
        venue = Venue(ENGINE, INSTRUMENTS)
        assert _replayed(recorded, venue) == recorded.heard
        assert venue.digest() == recorded.venue.digest()
        venue.check()
