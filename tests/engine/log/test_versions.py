"""Another version of the rules, or of the state's encoding: an old log comes to the state that was acknowledged, or the
start is refused and says what to do."""

from dataclasses import replace

import msgspec
import pytest

from engine.core.rules import RULES
from engine.log.condense import condense
from engine.log.memory import Disk, MemoryLog
from engine.log.records import Epoch, decode, encode
from engine.log.replay import StartRefused
from proto.columns import ACCEPTED, NEW
from tests.engine.log.test_edits import CLUSTER, E1B, Life, traded
from tests.engine.log.test_state import EARLIER_STATE

WAY = r"have the version that wrote them make a snapshot .* .its `condense`., and start this version again"


def be(program: pytest.MonkeyPatch, rules: int) -> None:
    """Be a program with that version of the rules."""
    for module in ("engine.log.replay", "engine.node"):
        program.setattr(f"{module}.RULES", rules)


def condensed(disk: Disk) -> int:
    log = MemoryLog(disk)
    try:
        return condense(log)
    finally:
        log.close()


def test_a_log_of_other_rules_is_not_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, before = traded()
    count = len(disk.bodies)
    be(monkeypatch, RULES + 1)
    with pytest.raises(StartRefused, match=rf"version {RULES} of the rules, .* version {RULES + 1}: {WAY}"):
        Life(disk)
    with pytest.raises(StartRefused, match=WAY):
        condensed(disk)
    assert len(disk.bodies) == count
    be(monkeypatch, RULES)
    assert Life(disk).replayed == before


def test_a_snapshot_at_the_change_covers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, before = traded()
    condensed(disk)
    be(monkeypatch, RULES + 1)
    life = Life(disk)
    assert life.replayed == before
    assert life.order(NEW, 50, 0, 90, 1).kind == ACCEPTED
    after = life.end()
    assert Life(disk).end() == after  # from the old snapshot, under the new rules
    assert condensed(disk) == len(disk.bodies)
    assert Life(disk).replayed == after


def test_what_is_logged_behind_the_snapshot_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    disk, _ = traded()
    condensed(disk)
    life = Life(disk)
    assert life.order(NEW, 50, 0, 90, 1).kind == ACCEPTED
    life.end()
    be(monkeypatch, RULES + 1)
    with pytest.raises(StartRefused, match=WAY):
        Life(disk)


def test_a_log_that_begins_behind_a_snapshot_takes_one_more_instrument_and_the_version_before() -> None:
    disk = Disk()
    disk.snapshots[6], disk.dropped = EARLIER_STATE, 6
    instruments = (CLUSTER.instruments[0], replace(E1B, id=13, symbol="IRON"), *CLUSTER.instruments[2:])
    life = Life(disk, replace(CLUSTER, instruments=instruments))
    assert [market.instrument.symbol for market in life.engine.venue.markets.values()] == ["E1A", "NOVA", "IRON"]
    assert life.order(NEW, 50, 0, 90, 1).kind == ACCEPTED
    after = life.end()
    assert Life(disk, replace(CLUSTER, instruments=instruments)).replayed == after


def test_a_state_that_is_too_old_is_refused_where_the_log_does_not_reach_back() -> None:
    disk, _ = traded()
    disk.snapshots[3], disk.dropped = EARLIER_STATE[:1] + b"\x03" + EARLIER_STATE[2:], 3
    del disk.bodies[:3]
    with pytest.raises(StartRefused, match=rf"snapshot at position 3 cannot be read: a state of version 03.*: {WAY}"):
        Life(disk)


def earlier(disk: Disk, retained: int, rules: int) -> None:
    """Make the log of `traded` one of before there were identities and versions."""
    first = decode(disk.bodies[0])
    assert isinstance(first, Epoch)
    assert first.identity is not None
    identity = msgspec.structs.replace(first.identity, retained=retained)
    disk.bodies[0] = encode(msgspec.structs.replace(first, rules=rules, identity=identity))


@pytest.mark.skipif(RULES != 3, reason="only version 3 is so like those before")
@pytest.mark.parametrize(
    ("rules", "retained", "alike"), [(1, 5, True), (1, 4, False), (2, 4, True), (2, 5, True), (3, 4, True)]
)
def test_records_of_earlier_rules_are_replayed_where_they_come_to_the_same(
    rules: int, retained: int, alike: bool
) -> None:
    disk, _ = traded()  # five commands of one account
    earlier(disk, retained, rules)
    log = MemoryLog(disk)
    if alike:
        assert condense(log) == len(disk.bodies)
    else:
        with pytest.raises(StartRefused, match=WAY):
            condense(log)
    log.close()
