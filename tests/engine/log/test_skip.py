"""A record that cannot be applied stops the start, and there is one way past it, which is logged and always heeded."""

from pathlib import Path

import pytest

from engine.log import skip
from engine.log.condense import condense
from engine.log.memory import MemoryLog
from engine.log.records import Entered, Group, RecordError, Skipped, decode, encode
from engine.log.replay import Inapplicable, StartRefused, replay, restore
from engine.log.sqlite import SqliteLog
from proto.columns import NEW, Batch
from proto.orders import write_batch
from tests.engine.log.test_edits import Life, traded

UNREADABLE = b"\x94\x02\x01\x05\x91\x95\x01\x07\x00\xcd\x01\x2c\xc4\x00"  # a self-trade prevention of 300
ORDER = write_batch(Batch(7, 0, 0, [NEW], [99], [10], [0], [97], [1], [0]))
BAD = [
    UNREADABLE,
    encode(Group(1, 0, [Entered(7, 0, 0, ORDER)])),
    encode(Group(1, 9_000, [Entered(7, 0, 0, b"\xff")])),
]
IDS = ["not read back", "time falls", "no batch"]


@pytest.mark.parametrize("bad", BAD, ids=IDS)
def test_it_stops_the_start_until_somebody_answers_for_going_on_without_it(
    bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    disk, before = traded()
    disk.bodies.append(bad)
    at = len(disk.bodies)
    with pytest.raises(Inapplicable, match=f"record {at} cannot be applied .*: .* --record {at} --who NAME --why TEXT"):
        Life(disk)
    log = MemoryLog(disk)
    with pytest.raises(StartRefused, match=f"it is record {at} that cannot be applied, and not 3"):
        skip.skip(log, 3, "Ada", "no ticket", 3_000)
    with pytest.raises(RecordError):
        skip.skip(log, at, "Ada", "", 3_000)
    assert skip.skip(log, at, "Ada", "never answered", 3_000) == at + 1
    assert decode(disk.bodies[-1]) == Skipped(at, "Ada", "never answered", 3_000)
    with pytest.raises(StartRefused, match="every record can be applied"):
        skip.skip(log, at, "Ada", "again", 3_000)
    log.close()
    caplog.clear()
    life = Life(disk)
    assert life.replayed == before
    assert f"record {at} is passed over: never answered (Ada)" in caplog.text
    assert life.order(NEW, 77, 0, 90, 1).order_id  # and goes on
    after = life.end()
    log = MemoryLog(disk)
    assert condense(log) == len(disk.bodies)
    log.close()
    assert Life(disk).replayed == after


def test_an_epoch_is_not_passed_over() -> None:
    disk, _ = traded()
    disk.bodies.append(b"\x94\x01\x01\xa0\xff")
    log = MemoryLog(disk)
    with pytest.raises(StartRefused, match="opens an epoch"):
        skip.skip(log, len(disk.bodies), "Ada", "why", 1)


def test_the_command_says_what_it_did(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disk, _ = traded()
    log = SqliteLog(tmp_path, wal_bytes=0)
    log.append(0, [*disk.bodies, UNREADABLE])
    at = log.position
    log.close()
    asked = ["--data", str(tmp_path), "--who", "Ada", "--why", "never answered", "--record"]
    assert skip.main([*asked, "2"]) == 1
    assert capsys.readouterr().err == f"skip: it is record {at} that cannot be applied, and not 2\n"
    assert skip.main([*asked, str(at)]) == 0
    assert capsys.readouterr().out == f"record {at} counts as void from now on: record {at + 1} says so\n"
    assert skip.main(["--data", str(tmp_path / "none"), "--who", "A", "--why", "B", "--record", "1"]) == 3
    log = SqliteLog(tmp_path, wal_bytes=0)
    after, state = restore(log)
    for _ in replay(log, state, after, lambda position, time_ns, outcome: None):
        pass
    log.close()
