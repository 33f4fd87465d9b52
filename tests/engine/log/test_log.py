"""The command log keeps what it acknowledged, whatever happens to the process, and says so when a disk does not.

The contract is tested on both implementations; the rest on the one that has a disk.
"""

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.log.contract import (
    Log,
    LogBusy,
    LogConflict,
    LogDamaged,
    LogError,
    LogFailed,
    LogFull,
    LogLocked,
    OutcomeUnknown,
)
from engine.log.memory import Disk, Fault, MemoryLog
from engine.log.sqlite import WAL_BYTES, SqliteLog
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[3]
Opener = Callable[[], Log]


@pytest.fixture(params=["memory", "sqlite"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same log again and again; what is still open at the end is closed."""
    disk = Disk(incarnation=77)
    opened: list[Log] = []

    def open_log() -> Log:
        log: Log = MemoryLog(disk) if request.param == "memory" else SqliteLog(tmp_path, wal_bytes=0)
        opened.append(log)
        return log

    yield open_log
    for log in opened:
        log.close()


def records(log: Log, after: int = 0) -> list[tuple[int, bytes]]:
    return list(log.read(after))


def fill(log: Log, count: int) -> None:
    for position in range(log.position + 1, log.position + count + 1):
        log.append(position - 1, [body_of(position)])


def body_of(position: int) -> bytes:
    """A body that tells its position and has a length of its own, some of them longer than a page."""
    return random.Random(position).randbytes(1 + position * 997 % 9000)


# The contract


def test_a_new_log_is_empty(opener: Opener) -> None:
    log = opener()
    assert (log.position, records(log), log.load_snapshot()) == (0, [], None)
    assert 0 < log.incarnation < 2**32


def test_what_was_appended_is_read_in_order_also_after_opening_again(opener: Opener) -> None:
    log = opener()
    assert log.append(0, [b"one"]) == 1
    assert log.append(1, [b"two", b"", b"four"]) == 4
    expected = [(1, b"one"), (2, b"two"), (3, b""), (4, b"four")]
    assert records(log) == expected
    incarnation = log.incarnation
    log.close()
    again = opener()
    assert (again.position, again.incarnation, records(again)) == (4, incarnation, expected)
    assert again.append(4, [b"five"]) == 5


def test_a_read_begins_after_its_position_and_more_records_than_are_read_at_once_come_whole(opener: Opener) -> None:
    log = opener()
    log.append(0, [b"%d" % i for i in range(1, 301)])
    assert records(log, after=100) == [(i, b"%d" % i) for i in range(101, 301)]
    assert records(log, after=300) == []


def test_a_read_goes_on_to_what_was_appended_meanwhile(opener: Opener) -> None:
    log = opener()
    log.append(0, [b"one"])
    reading = log.read(0)
    assert next(reading) == (1, b"one")
    log.append(1, [b"two"])
    assert list(reading) == [(2, b"two")]


@pytest.mark.parametrize("expected", [0, 2, 99])
def test_an_append_at_another_position_is_refused_and_changes_nothing(opener: Opener, expected: int) -> None:
    log = opener()
    log.append(0, [b"one"])
    with pytest.raises(LogConflict) as refused:
        log.append(expected, [b"other"])
    assert (refused.value.expected, refused.value.position) == (expected, 1)
    assert records(log) == [(1, b"one")]
    assert log.append(1, [b"two"]) == 2


def test_a_second_opener_is_refused_until_the_first_closes(opener: Opener) -> None:
    log = opener()
    with pytest.raises(LogLocked):
        opener()
    log.append(0, [b"one"])
    log.close()
    log.close()
    assert opener().position == 1


def test_a_closed_log_takes_and_gives_nothing(opener: Opener) -> None:
    log = opener()
    log.append(0, [b"one"])
    log.close()
    with pytest.raises(LogFailed, match="closed"):
        log.append(1, [b"two"])
    with pytest.raises(LogFailed, match="closed"):
        records(log)


def test_the_newest_snapshot_is_loaded_also_after_opening_again(opener: Opener) -> None:
    log = opener()
    fill(log, 9)
    for position in (3, 5, 8):
        log.save_snapshot(position, b"state at %d" % position)
    assert log.load_snapshot() == (8, b"state at 8")
    log.close()
    again = opener()
    assert (again.position, again.load_snapshot()) == (9, (8, b"state at 8"))
    again.save_snapshot(8, b"again")
    assert again.load_snapshot() == (8, b"again")


def test_only_what_a_snapshot_covers_is_dropped(opener: Opener) -> None:
    log = opener()
    fill(log, 200)
    assert log.drop_through(100) == 0
    log.save_snapshot(150, b"state at 150")
    assert log.drop_through(100) == 100
    assert log.drop_through(50) == 100
    assert log.drop_through(190) == 150
    with pytest.raises(LogDamaged) as damaged:
        records(log, after=149)
    assert damaged.value.position == 150
    assert records(log, after=150) == [(i, body_of(i)) for i in range(151, 201)]
    log.close()
    again = opener()
    assert (again.position, again.load_snapshot()) == (200, (150, b"state at 150"))
    assert records(again, after=150) == [(i, body_of(i)) for i in range(151, 201)]


def test_a_log_whose_records_were_all_dropped_goes_on_from_its_position(opener: Opener) -> None:
    log = opener()
    fill(log, 3)
    log.save_snapshot(3, b"state")
    assert log.drop_through(3) == 3
    log.close()
    again = opener()
    assert (again.position, records(again, after=3)) == (3, [])
    with pytest.raises(LogDamaged) as damaged:
        records(again, after=1)
    assert damaged.value.position == 2
    assert again.append(3, [b"four"]) == 4
    again.close()
    assert records(opener(), after=3) == [(4, b"four")]


@pytest.mark.parametrize("seed", range(3))
def test_both_logs_answer_alike(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    disk = Disk()
    pair: list[Log] = [MemoryLog(disk), SqliteLog(tmp_path, wal_bytes=0)]

    def both(act: Callable[[Log], object]) -> None:
        first, second = (outcome(act, log) for log in pair)
        assert first == second

    for _ in range(150):
        position = pair[0].position
        somewhere = rng.randint(0, position + 1)
        bodies = [rng.randbytes(rng.choice((0, 10, 5000))) for _ in range(rng.randint(1, 4))]
        act = rng.choice("aaaaaxrsldo")
        if act == "a":
            both(lambda log, p=position, b=bodies: log.append(p, b))  # type: ignore[misc]
        elif act == "x":
            both(lambda log, p=somewhere, b=bodies: log.append(p, b))  # type: ignore[misc]
        elif act == "r":
            both(lambda log, p=somewhere: list(log.read(p)))  # type: ignore[misc]
        elif act == "s" and disk.dropped < position:
            at = rng.randint(disk.dropped + 1, position)
            both(lambda log, p=at, b=bodies[0]: log.save_snapshot(p, b))  # type: ignore[misc]
        elif act == "l":
            both(lambda log: log.load_snapshot())
        elif act == "d":
            both(lambda log, p=somewhere: log.drop_through(p))  # type: ignore[misc]
        elif act == "o":
            for log in pair:
                log.close()
            pair = [MemoryLog(disk), SqliteLog(tmp_path, wal_bytes=0)]
        both(lambda log: log.position)
    for log in pair:
        log.close()


def outcome(act: Callable[[Log], object], log: Log) -> object:
    try:
        return act(log)
    except LogError as e:
        return type(e), getattr(e, "position", None)


# Faults in memory


@pytest.mark.parametrize(
    ("fault", "error", "durable"),
    [
        (Fault.BEFORE, LogFailed, False),
        (Fault.FULL, LogFull, False),
        (Fault.BUSY, LogBusy, False),
        (Fault.AFTER, OutcomeUnknown, True),
        (Fault.LOST, OutcomeUnknown, False),
    ],
)
def test_a_fault_in_memory_strikes_once_and_ends_all_appends(
    fault: Fault, error: type[LogFailed | OutcomeUnknown], durable: bool
) -> None:
    disk = Disk()
    disk.faults.extend([None, fault])
    log = MemoryLog(disk)
    log.append(0, [b"one"])
    with pytest.raises(error):
        log.append(1, [b"two"])
    assert (log.position, records(log)) == (1, [(1, b"one")])
    with pytest.raises(LogFailed):
        log.append(1, [b"two"])
    disk.crash()
    again = MemoryLog(disk)
    assert records(again) == [(1, b"one"), (2, b"two")][: 1 + durable]
    assert again.append(again.position, [b"more"]) == 2 + durable


def test_a_slow_disk_is_asked_before_an_append_takes_effect() -> None:
    disk = Disk()
    log = MemoryLog(disk)
    seen: list[tuple[int, Sequence[bytes]]] = []
    disk.before_append = lambda bodies: seen.append((len(disk.bodies), bodies))
    log.append(0, [b"one"])
    log.append(1, [b"two", b"three"])
    assert seen == [(0, [b"one"]), (1, [b"two", b"three"])]


# The disk


def filled(directory: Path, count: int) -> None:
    """A log with `count` records in its database, cleanly closed."""
    log = SqliteLog(directory, wal_bytes=0)
    fill(log, count)
    log.close()


def torn(directory: Path, count: int, to: Path) -> None:
    """A copy of a log with `count` records in its write-ahead log, as a crash leaves it."""
    log = SqliteLog(directory, wal_bytes=0)
    fill(log, count)
    shutil.copytree(directory, to)
    log.close()


def positions(directory: Path) -> list[int]:
    """The positions in a log that must be sound: each body is what it was."""
    log = SqliteLog(directory, wal_bytes=0)
    found = records(log)
    log.close()
    assert found == [(position, body_of(position)) for position, _ in found]
    return [position for position, _ in found]


def tamper(directory: Path, *statements: str, database: str = "log.sqlite") -> None:
    connection = sqlite3.connect(directory / database)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.processes
def test_the_refusal_of_a_second_opener_names_the_process(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(LogLocked, match=f"in use by process {child.pid}$") as refused:
            SqliteLog(tmp_path)
        child.kill()
    assert refused.value.pid == child.pid


@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE record SET body = x'00' WHERE position = 5"],
        ["UPDATE record SET body = 'text' WHERE position = 5"],
        ["UPDATE record SET crc = crc + 1 WHERE position = 5"],
        ["UPDATE record SET crc = NULL WHERE position = 5"],
        ["UPDATE record SET link = x'00' WHERE position = 5"],
        ["DELETE FROM record WHERE position = 5"],
    ],
)
def test_damage_before_valid_records_stops_the_opening_and_names_the_position(
    tmp_path: Path, statements: list[str]
) -> None:
    filled(tmp_path, 9)
    tamper(tmp_path, *statements)
    with pytest.raises(LogDamaged) as damaged:
        SqliteLog(tmp_path)
    assert damaged.value.position == 5


def test_a_record_of_another_log_with_a_good_crc_breaks_the_chain(tmp_path: Path) -> None:
    filled(tmp_path / "a", 9)
    filled(tmp_path / "b", 9)
    tamper(
        tmp_path / "a",
        f"ATTACH '{tmp_path / 'b' / 'log.sqlite'}' AS other",
        "REPLACE INTO record SELECT * FROM other.record WHERE position = 5",
    )
    with pytest.raises(LogDamaged, match="does not continue") as damaged:
        SqliteLog(tmp_path / "a")
    assert damaged.value.position == 5


def test_a_page_that_was_overwritten_is_found(tmp_path: Path) -> None:
    filled(tmp_path, 50)
    database = tmp_path / "log.sqlite"
    content = bytearray(database.read_bytes())
    rng = random.Random(4)
    for page in range(3, len(content) // 4096):
        at = page * 4096 + rng.randrange(4096)
        content[at] ^= 1 << rng.randrange(8)
    database.write_bytes(content)
    with pytest.raises(LogDamaged):
        SqliteLog(tmp_path)


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_in_the_write_ahead_log_never_costs_an_acknowledged_record_silently(
    tmp_path: Path, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    torn(tmp_path / "log", 20, to=tmp_path / "crashed")
    wal = tmp_path / "crashed" / "log.sqlite-wal"
    content = bytearray(wal.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    wal.write_bytes(content)
    try:
        found = positions(tmp_path / "crashed")
    except LogDamaged:
        return
    assert found == list(range(1, 21))  # the bit was in a page that was written anew later


def test_a_write_ahead_log_that_was_removed_is_missed(tmp_path: Path) -> None:
    torn(tmp_path / "log", 20, to=tmp_path / "crashed")
    (tmp_path / "crashed" / "log.sqlite-wal").unlink()
    with pytest.raises(LogDamaged):
        SqliteLog(tmp_path / "crashed")


def test_a_database_that_was_removed_is_missed(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    (tmp_path / "log.sqlite").unlink()
    with pytest.raises(LogDamaged, match="there is a mark of a log, and no log"):
        SqliteLog(tmp_path)


def test_a_torn_append_that_was_never_acknowledged_is_cut(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path / "log", wal_bytes=0)
    fill(log, 9)
    shutil.copy(tmp_path / "log" / "mark", tmp_path / "mark")
    before = (tmp_path / "log" / "log.sqlite-wal").stat().st_size
    log.append(9, [body_of(10), body_of(11)])
    after = (tmp_path / "log" / "log.sqlite-wal").stat().st_size
    rng = random.Random(9)
    cuts = [before, before + 1, *(rng.randrange(before, after) for _ in range(5)), after - 1, after]
    for cut in cuts:
        crashed = tmp_path / f"cut at {cut}"
        shutil.copytree(tmp_path / "log", crashed, dirs_exist_ok=True)
        shutil.copy(tmp_path / "mark", crashed / "mark")
        os.truncate(crashed / "log.sqlite-wal", cut)
        # All of the append or nothing of it; what is whole may stay though it was never acknowledged.
        assert positions(crashed) == list(range(1, 12 if cut == after else 10))
    log.close()


def test_a_torn_mark_is_no_damage(tmp_path: Path) -> None:
    filled(tmp_path, 9)
    os.truncate(tmp_path / "mark", 10)
    assert positions(tmp_path) == list(range(1, 10))


def test_a_damaged_snapshot_gives_way_to_the_one_before(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, wal_bytes=0)
    fill(log, 9)
    log.save_snapshot(3, b"state at 3")
    log.save_snapshot(8, b"state at 8")
    log.close()
    tamper(tmp_path, "UPDATE snapshot SET body = x'00' WHERE position = 8", database="snapshots.sqlite")
    log = SqliteLog(tmp_path, wal_bytes=0)
    assert (log.load_snapshot(), log.drop_through(9)) == ((3, b"state at 3"), 3)
    log.close()
    tamper(tmp_path, "UPDATE snapshot SET crc = 0", database="snapshots.sqlite")
    with pytest.raises(LogDamaged, match="no sound snapshot"):
        SqliteLog(tmp_path)


def test_a_full_disk_ends_appends_before_they_are_acknowledged_and_reads_go_on(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, wal_bytes=0)
    fill(log, 9)
    log.save_snapshot(9, b"state")
    log._db.execute("PRAGMA max_page_count = 1")  # no more than there are already
    with pytest.raises(LogFull):
        for _ in range(9):
            log.append(log.position, [bytes(9000)])
    last = log.position
    assert not log._db.in_transaction
    with pytest.raises(LogFull):
        log.append(last, [b"small"])
    with pytest.raises(LogFull):
        log.drop_through(last)
    assert [position for position, _ in records(log)] == list(range(1, last + 1))
    log.resume()  # it ends where it did; whether there is room, the next append tells
    with pytest.raises(LogFull):
        log.append(last, [bytes(9000)])
    log._db.execute("PRAGMA max_page_count = 1000000")
    with pytest.raises(LogFull):
        log.append(last, [b"small"])
    log.resume()
    assert log.append(last, [b"small"]) == last + 1
    log.close()
    again = SqliteLog(tmp_path, wal_bytes=0)
    assert records(again, last) == [(last + 1, b"small")]
    again.close()


def test_a_log_that_another_process_holds_goes_on_afterwards_from_the_same_position(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, wal_bytes=0)
    fill(log, 9)
    log._db.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(tmp_path / "log.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    for _ in range(2):
        with pytest.raises(LogBusy):
            log.append(9, [body_of(10)])
        log.resume()
    other.execute("ROLLBACK")
    assert log.append(9, [body_of(10)]) == 10
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogBusy):
        log.append(10, [body_of(11)])
    other.execute("INSERT INTO record VALUES (11, 0, x'', x'')")  # it was there to write
    other.execute("COMMIT")
    other.close()
    with pytest.raises(LogConflict):
        log.resume()
    with pytest.raises(LogFailed):
        log.resume()
    log.close()


def test_a_failure_that_may_pass_does_not_hide_one_that_does_not(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, wal_bytes=0)
    fill(log, 9)
    log._db = FailingCommit(log._db, durable=False)  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknown):
        log.append(9, [body_of(10)])
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL
    log._fail(full, "checkpoint failed")
    with pytest.raises(LogFailed, match="disk I/O error"):
        log.resume()
    log.close()


class FailingCommit:
    """A connection whose next COMMIT fails: before or after it has become durable."""

    def __init__(self, connection: sqlite3.Connection, durable: bool, code: int = sqlite3.SQLITE_IOERR_FSYNC) -> None:
        self._connection = connection
        self._durable = durable
        self._code = code

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: Any) -> Any:
        if sql != "COMMIT":
            return self._connection.execute(sql, *parameters)
        if self._durable:
            self._connection.execute(sql)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = self._code
        raise error


@pytest.mark.parametrize("durable", [False, True])
def test_after_a_failed_sync_the_outcome_is_unknown_and_nothing_is_tried_again(tmp_path: Path, durable: bool) -> None:
    log = SqliteLog(tmp_path, wal_bytes=0)
    fill(log, 9)
    log._db = FailingCommit(log._db, durable)  # type: ignore[assignment]
    with pytest.raises(OutcomeUnknown) as unknown:
        log.append(9, [body_of(10)])
    assert unknown.value.expected == 9
    assert log.position == 9
    with pytest.raises(LogFailed, match="disk I/O error"):
        log.append(9, [body_of(10)])
    assert records(log)[:9] == [(i, body_of(i)) for i in range(1, 10)]
    log.close()
    assert positions(tmp_path) == list(range(1, 11 if durable else 10))


def test_a_commit_without_room_is_known_not_to_be_durable(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, wal_bytes=0)
    fill(log, 9)
    log._db = FailingCommit(log._db, False, sqlite3.SQLITE_FULL)  # type: ignore[assignment]
    with pytest.raises(LogFull):
        log.append(9, [body_of(10)])
    assert not log._db.in_transaction
    log.close()
    assert positions(tmp_path) == list(range(1, 10))


@pytest.mark.processes
def test_a_write_that_fails_never_takes_an_acknowledged_record_with_it(tmp_path: Path) -> None:
    """A real one: the child's files may not grow beyond a limit."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED_CHILD, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=patience(30),
    )
    assert done.stderr == ""
    *acknowledged, first, second = done.stdout.split()
    assert (first, second) == ("OutcomeUnknown", "LogFailed")
    assert len(acknowledged) > 3
    assert positions(tmp_path)[: len(acknowledged)] == [int(position) for position in acknowledged]


def test_checkpoints_beside_appends_keep_the_write_ahead_log_small(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, wal_bytes=1 << 20)
    grown = (tmp_path / "log.sqlite-wal").stat().st_size
    stop = threading.Event()

    made = 0

    def checkpoints() -> None:
        nonlocal made
        while not stop.wait(0.01):
            log.checkpoint()
            made += 1

    thread = threading.Thread(target=checkpoints)
    thread.start()
    for position in range(1, 701):
        log.append(position - 1, [body_of(position)])
        if position % 100 == 0:  # however the threads are scheduled, there is one for each hundred
            before, deadline = made, time.monotonic() + patience(10)
            while made == before:
                assert time.monotonic() < deadline, "no checkpoint"
                time.sleep(0.001)
    stop.set()
    thread.join()
    assert not log.checkpoint_due
    assert (tmp_path / "log.sqlite-wal").stat().st_size < grown + (1 << 20)
    log.close()
    assert positions(tmp_path) == list(range(1, 701))


def test_no_append_makes_a_checkpoint(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, wal_bytes=0)
    before = (tmp_path / "log.sqlite").stat().st_size
    for position in range(10):
        log.append(position, [bytes(1_000_000)])
    assert (tmp_path / "log.sqlite").stat().st_size == before
    log.checkpoint()
    assert (tmp_path / "log.sqlite").stat().st_size > 10_000_000
    log.close()


def test_a_checkpoint_is_due_when_half_of_the_write_ahead_log_is_written(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path, wal_bytes=0)
    log.append(0, [bytes(WAL_BYTES // 2 - 100_000)])
    assert not log.checkpoint_due
    log.append(1, [bytes(100_000)])
    assert log.checkpoint_due
    log.checkpoint()
    assert not log.checkpoint_due
    log.close()


BODY_OF = """
import random, sys
from engine.log.contract import LogError
from engine.log.sqlite import SqliteLog
def body_of(position):
    return random.Random(position).randbytes(1 + position * 997 % 9000)
"""

CHILD = f"""{BODY_OF}
import threading
import time
log = SqliteLog(sys.argv[1], wal_bytes=65536)
print(log.position, flush=True)
def checkpoints():
    while True:
        log.checkpoint()
threading.Thread(target=checkpoints, daemon=True).start()
sys.stdin.readline()
while True:
    first = log.position + 1
    log.append(first - 1, [body_of(p) for p in range(first, first + first % 3 + 1)])
    print(log.position, flush=True)
"""

LIMITED_CHILD = f"""{BODY_OF}
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = SqliteLog(sys.argv[1], wal_bytes=0)
log.append(0, [body_of(1)])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
print(1)
for _ in range(2):
    try:
        while True:
            print(log.append(log.position, [body_of(log.position + 1)]))
    except LogError as e:
        print(type(e).__name__)
assert [p for p, _ in log.read(0)] == list(range(1, log.position + 1))
log.close()
"""


@pytest.mark.processes
def test_a_killed_process_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    seed = 20
    print("seed", seed)
    rng = random.Random(seed)
    last = 0
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdin is not None
            assert child.stdout is not None
            found = int(child.stdout.readline())
            assert last <= found <= last + 3  # what was being appended may be there, whole
            child.stdin.write("go\n")
            child.stdin.flush()
            for _ in range(rng.randint(1, 60)):
                last = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            acknowledged = [int(line) for line in child.stdout]  # until the pipe ends
            last = max([last, *acknowledged])
        found = len(positions(tmp_path))
        assert last <= found <= last + 3
        last = found
    assert last > 50


def test_what_all_kept_snapshots_cover_is_known_only_when_there_are_as_many_as_are_kept(tmp_path: Path) -> None:
    log = SqliteLog(tmp_path)
    fill(log, 9)
    assert log.covered == 0
    log.save_snapshot(3, b"state at 3")
    assert log.covered == 0
    log.save_snapshot(5, b"state at 5")
    assert log.covered == 3
    log.save_snapshot(8, b"state at 8")
    assert log.covered == 5
    log.close()
    with sqlite3.connect(tmp_path / "snapshots.sqlite") as snapshots:
        snapshots.execute("UPDATE snapshot SET body = ? WHERE position = 5", (b"state at 6",))
    snapshots.close()
    log = SqliteLog(tmp_path)
    assert log.covered == 0  # one of them is damaged
    log.close()
