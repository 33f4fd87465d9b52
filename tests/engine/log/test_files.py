"""Damage, disks and rights, when a log is opened: each is told as what it is, and nothing is lost by a start."""

import asyncio
import errno
import os
import random
import shutil
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.log import sqlite as module
from engine.log.carve import Pages, frames, lost_frame
from engine.log.contract import LogBusy, LogDamaged, LogError, LogFailed, LogFull
from engine.log.rereading import Rereading
from engine.log.rows import read_only
from engine.log.sqlite import SqliteLog
from tests.patience import patience


def body_of(position: int) -> bytes:
    return random.Random(position).randbytes(1 + position * 997 % 6_000)


def filled(directory: Path, count: int, snapshot: int = 0) -> None:
    """A log in its database, cleanly closed."""
    log = SqliteLog(directory, wal_bytes=0)
    for position in range(1, count + 1):
        log.append(position - 1, [body_of(position)])
    if snapshot:
        log.save_snapshot(snapshot, b"state at %d" % snapshot)
    log.close()


def crashed(directory: Path, count: int, to: Path, moved: int = 0) -> None:
    """A log with `count` records, as a crash leaves it: the first `moved` in the database, the rest in its -wal."""
    log = SqliteLog(directory, wal_bytes=0)
    for position in range(1, count + 1):
        log.append(position - 1, [body_of(position)])
        if position == moved:
            log.checkpoint()
    shutil.copytree(directory, to)
    log.close()


def readable(directory: Path) -> set[int]:
    """The positions of the records that can be read, one by one, as they were written; nothing is changed by it."""
    found: set[int] = set()
    connection = read_only(directory / "log.sqlite")
    for position in range(1, 400):
        try:
            row = connection.execute("SELECT body FROM record WHERE position = ?", (position,)).fetchone()
        except sqlite3.DatabaseError:
            continue
        if row and row[0] == body_of(position):
            found.add(position)
    connection.close()
    return found


def flip(path: Path, at: int, bit: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ bit]))


def start(directory: Path, append: bool = True) -> str:
    """What an engine does with its log at first; what it says of it, "" if it starts."""
    try:
        log = SqliteLog(directory, wal_bytes=1 << 20)
    except LogError as e:
        return str(e)
    if append:
        for _ in range(3):
            log.append(log.position, [body_of(log.position + 1)])
        log.checkpoint()
    log.close()
    return ""


# One flipped bit


def test_wherever_a_bit_is_flipped_what_was_readable_stays_readable(tmp_path: Path) -> None:
    seed = 7
    print("seed", seed)
    rng = random.Random(seed)
    filled(tmp_path / "whole", 120, snapshot=100)
    log = SqliteLog(tmp_path / "whole", wal_bytes=0)
    log.drop_through(20)  # so that there are free pages
    log.close()
    size = (tmp_path / "whole" / "log.sqlite").stat().st_size
    connection = sqlite3.connect(tmp_path / "whole" / "log.sqlite")
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    connection.close()
    assert free > 5
    header = [(at, 1 << bit) for at in range(24, 100, 4) for bit in (0, 5)]
    trunk = int.from_bytes((tmp_path / "whole" / "log.sqlite").read_bytes()[32:36], "big") - 1
    in_trunk = [(trunk * 4096 + at, 1 << rng.randrange(8)) for at in range(0, 8 + 4 * free)]
    anywhere = [(rng.randrange(size), 1 << rng.randrange(8)) for _ in range(100)]
    heads = [
        (page * 4096 + at, 1 << rng.randrange(8)) for page in range(size // 4096) for at in rng.sample(range(8), 1)
    ]
    started = 0
    for at, bit in header + in_trunk + anywhere + heads:
        damaged = tmp_path / "damaged"
        shutil.copytree(tmp_path / "whole", damaged)
        flip(damaged / "log.sqlite", at, bit)
        before = readable(damaged)
        said = start(damaged)
        started += not said
        assert readable(damaged) >= before, (at, bit, said)
        shutil.rmtree(damaged)
    assert started > 20  # in a record below the snapshot, a free page, or where it does not matter


def test_a_damaged_list_of_free_pages_is_found_before_one_is_used(tmp_path: Path) -> None:
    filled(tmp_path, 120, snapshot=100)
    log = SqliteLog(tmp_path, wal_bytes=0)
    log.drop_through(20)
    log.close()
    trunk = int.from_bytes((tmp_path / "log.sqlite").read_bytes()[32:36], "big") - 1
    whole = (tmp_path / "log.sqlite").read_bytes()
    flip(tmp_path / "log.sqlite", trunk * 4096 + 8 + 3, 64)
    with pytest.raises(LogDamaged, match="damaged at position"):
        SqliteLog(tmp_path)
    flip(tmp_path / "log.sqlite", trunk * 4096 + 8 + 3, 64)
    assert (tmp_path / "log.sqlite").read_bytes() == whole


# The write-ahead log


def test_a_start_leaves_a_damaged_write_ahead_log_as_it_is(tmp_path: Path) -> None:
    crashed(tmp_path / "log", 40, tmp_path / "crashed", moved=10)
    wal = tmp_path / "crashed" / "log.sqlite-wal"
    flip(wal, wal.stat().st_size // 2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "crashed").iterdir() if "shm" not in path.name}
    for _ in range(2):
        with pytest.raises(LogDamaged, match="records up to 40 were acknowledged and are not there"):
            SqliteLog(tmp_path / "crashed")
        after = {path.name: path.read_bytes() for path in (tmp_path / "crashed").iterdir() if "shm" not in path.name}
        assert after | {"lock": b""} == before | {"lock": b""}


@pytest.mark.parametrize("mark", [b"", b"no mark at all, but as long as one is!!"])
def test_without_a_mark_damage_before_sound_frames_is_found_by_the_frames(tmp_path: Path, mark: bytes) -> None:
    crashed(tmp_path / "log", 40, tmp_path / "crashed")
    (tmp_path / "crashed" / "mark").write_bytes(mark)
    wal = tmp_path / "crashed" / "log.sqlite-wal"
    flip(wal, wal.stat().st_size // 2)
    with pytest.raises(LogDamaged, match="of its write-ahead log is damaged"):
        SqliteLog(tmp_path / "crashed")


def test_a_missing_mark_is_told_and_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled(tmp_path, 9)
    whole = (tmp_path / "mark").read_bytes()
    for mark, told in ((b"", "is missing"), (whole[:-1], "is damaged"), (b"\1" + whole[1:], "is damaged")):
        (tmp_path / "mark").write_bytes(mark)
        caplog.clear()
        assert start(tmp_path, append=False) == ""
        assert [told in record.getMessage() for record in caplog.records] == [True]
        assert (tmp_path / "mark").read_bytes() == whole
    caplog.clear()
    assert start(tmp_path, append=False) == ""
    assert caplog.records == []


def test_frames_are_told_as_sound_or_not_and_a_torn_tail_from_lost_ones(tmp_path: Path) -> None:
    crashed(tmp_path / "log", 30, tmp_path / "crashed")
    wal = (tmp_path / "crashed" / "log.sqlite-wal").read_bytes()
    found = frames(wal)
    assert len(found) > 60
    assert all(frame.sound for frame in found)
    assert lost_frame(found) is None
    step = 24 + 4096
    for index in (0, 7, len(found) - 1):
        for at in (0, 4, 9, 20, 30, 4_000):  # its page, its commit flag, a salt, its checksum, its image
            damaged = bytearray(wal)
            damaged[32 + index * step + at] ^= 4
            again = frames(bytes(damaged))
            sound = [i for i, frame in enumerate(again) if frame.sound]
            assert sound == [i for i in range(len(found)) if i != index], (index, at)
            assert lost_frame(again) == (None if index == len(found) - 1 else index)
    assert lost_frame(frames(wal[:-step])) is None
    header = bytearray(wal)
    header[17] ^= 1  # a salt of the file's
    assert sum(not frame.sound for frame in frames(bytes(header))) <= 1


# Snapshots


def damage_snapshots(path: Path, how: int) -> None:
    if how == -1:
        path.write_bytes(b"no database at all" * 300)
    elif how == -2:
        path.write_bytes(b"")
    elif how >= 0:
        flip(path, how)
    else:
        with path.open("r+b") as file:
            file.truncate(-how)


@pytest.mark.parametrize(
    "how", [-1, -2, -10, -100, -1000, -4096, -5000, -8192, -9000, 20, 30, 44, 105, 4096, 4100, 5000]
)
def test_no_damage_of_the_snapshots_is_damage_of_the_log(
    tmp_path: Path, how: int, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, 30)
    log = SqliteLog(tmp_path, wal_bytes=0)
    log.save_snapshot(10, bytes(9_000))
    log.save_snapshot(20, bytes(9_000))
    log.close()
    damage_snapshots(tmp_path / "snapshots.sqlite", how)
    log = SqliteLog(tmp_path, wal_bytes=0)
    assert log.position == 30
    assert log.load_snapshot() in (None, (10, bytes(9_000)), (20, bytes(9_000)))
    log.save_snapshot(30, b"state")
    assert log.load_snapshot() == (30, b"state")
    log.close()
    aside = sorted(path.name for path in tmp_path.glob("*.aside-*"))
    told = [record.getMessage() for record in caplog.records]
    assert len(aside) == len(told)
    assert all(aside[0] in line and "snapshots.sqlite is" in line for line in told)
    caplog.clear()
    assert start(tmp_path) == ""
    assert caplog.records == []


def test_what_is_sound_in_damaged_snapshots_is_kept(tmp_path: Path) -> None:
    filled(tmp_path, 30)
    log = SqliteLog(tmp_path, wal_bytes=0)
    log.save_snapshot(10, b"ten")
    log.save_snapshot(20, bytes(900_000))
    log.drop_through(20)
    log.close()
    connection = sqlite3.connect(tmp_path / "snapshots.sqlite", isolation_level=None)
    connection.execute("CREATE TABLE other (x)")
    connection.executemany("INSERT INTO other VALUES (?)", [("x" * 4_000,)] * 9)
    connection.execute("DROP TABLE other")
    connection.close()
    content = (tmp_path / "snapshots.sqlite").read_bytes()
    trunk = int.from_bytes(content[32:36], "big") - 1
    flip(tmp_path / "snapshots.sqlite", trunk * 4096 + 11)
    log = SqliteLog(tmp_path, wal_bytes=0)
    assert log.load_snapshot() == (20, bytes(900_000))
    log.close()
    assert (tmp_path / "snapshots.sqlite.aside-1").exists()


def test_snapshots_of_another_log_are_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        filled(tmp_path / name, 9, snapshot=8 if name == "b" else 0)
    shutil.copy(tmp_path / "b" / "snapshots.sqlite", tmp_path / "a" / "snapshots.sqlite")
    log = SqliteLog(tmp_path / "a", wal_bytes=0)
    assert (log.position, log.load_snapshot()) == (9, None)
    log.close()
    assert "is of another log; it is set aside as" in caplog.text


def test_a_snapshot_whose_number_was_damaged_does_not_accuse_the_log(tmp_path: Path) -> None:
    filled(tmp_path, 9, snapshot=8)
    with sqlite3.connect(tmp_path / "snapshots.sqlite") as snapshots:
        snapshots.execute("UPDATE snapshot SET position = 8 + 1024")
    snapshots.close()
    log = SqliteLog(tmp_path, wal_bytes=0)
    assert (log.position, log.load_snapshot()) == (9, None)
    log.close()


# What is no damage


def failing(code: int, text: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (sqlite3.SQLITE_CANTOPEN, "unable to open database file", LogFailed),
        (sqlite3.SQLITE_READONLY, "attempt to write a readonly database", LogFailed),
        (sqlite3.SQLITE_IOERR_READ, "disk I/O error", LogFailed),
        (sqlite3.SQLITE_FULL, "database or disk is full", LogFull),
        (sqlite3.SQLITE_BUSY, "database is locked", LogBusy),
        (sqlite3.SQLITE_CORRUPT, "database disk image is malformed", LogDamaged),
        (sqlite3.SQLITE_NOTADB, "file is not a database", LogDamaged),
    ],
)
def test_a_start_tells_damage_from_disks_rooms_and_rights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, text: str, kind: type[LogError]
) -> None:
    filled(tmp_path, 9)

    def fail(path: Path) -> sqlite3.Connection:
        raise failing(code, text)

    monkeypatch.setattr(module, "read_only", fail)
    with pytest.raises(kind, match=text) as raised:
        SqliteLog(tmp_path)
    assert type(raised.value) is kind
    assert ("damaged" in str(raised.value)) == (kind is LogDamaged)


def test_an_error_on_a_disk_without_room_is_told_as_want_of_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 9)

    def fail(path: Path) -> sqlite3.Connection:
        raise failing(sqlite3.SQLITE_IOERR_WRITE, "disk I/O error")  # as for the -shm

    monkeypatch.setattr(module, "read_only", fail)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=1, f_frsize=4_096))
    with pytest.raises(LogFull, match="no space left on its disk"):
        SqliteLog(tmp_path)


def test_no_room_for_the_write_ahead_log_makes_it_slower_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 9)

    def full(fd: int, content: bytes, at: int) -> int:
        if len(content) > 1000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(fd, content, at)

    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", full)
    log = SqliteLog(tmp_path, wal_bytes=1 << 20)
    assert log.append(9, [b"ten"]) == 10
    assert (tmp_path / "log.sqlite-wal").stat().st_size < 1 << 20
    log.close()


def test_the_write_ahead_log_is_made_as_large_as_it_is_to_be_without_touching_the_database(tmp_path: Path) -> None:
    filled(tmp_path, 9)
    log = SqliteLog(tmp_path, wal_bytes=1 << 20)
    assert (tmp_path / "log.sqlite-wal").stat().st_size == 1 << 20
    for position in range(10, 60):
        log.append(position - 1, [body_of(position)])
    assert (tmp_path / "log.sqlite-wal").stat().st_size == 1 << 20
    shutil.copytree(tmp_path, tmp_path / "crashed")  # frames, and zeros behind them
    log.close()
    again = SqliteLog(tmp_path / "crashed", wal_bytes=0)
    assert [position for position, _ in again.read(0)] == list(range(1, 60))
    again.close()
    connection = sqlite3.connect(tmp_path / "log.sqlite")
    assert connection.execute("PRAGMA freelist_count").fetchone() == (0,)
    connection.close()


# Checked now and then


def test_records_are_checked_a_few_at_a_time_and_a_bad_one_is_told(tmp_path: Path) -> None:
    filled(tmp_path, 150, snapshot=140)
    log = SqliteLog(tmp_path, wal_bytes=0)
    seen, after = [], -1
    while after != (after := log.check(max(after, 0))):
        seen.append(after)
    assert seen == [64, 128, 150]
    log.close()
    with sqlite3.connect(tmp_path / "log.sqlite") as database:
        database.execute("UPDATE record SET link = zeroblob(16) WHERE position = 100")
    database.close()
    log = SqliteLog(tmp_path, wal_bytes=0)  # it is below the snapshot
    assert log.check(0) == 64
    with pytest.raises(LogDamaged) as damaged:
        log.check(64)
    assert damaged.value.position == 100
    log.close()


def test_all_records_are_checked_in_turn_and_what_is_bad_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, 250, snapshot=240)
    with sqlite3.connect(tmp_path / "log.sqlite") as database:
        database.execute("UPDATE record SET body = x'00' WHERE position = 30")
        database.execute("DELETE FROM record WHERE position BETWEEN 100 AND 101")
        database.execute("UPDATE record SET link = zeroblob(16) WHERE position = 200")
    database.close()
    log = SqliteLog(tmp_path, wal_bytes=0)
    checker = Rereading(log, pause_s=0.0, rest_s=0.0)

    async def passes() -> None:
        running = asyncio.ensure_future(checker.run())
        async with asyncio.timeout(patience(30)):
            while checker.passes < 3:
                await asyncio.sleep(0.001)
        log.close()
        await running

    asyncio.run(passes())
    # Of what follows a bad link nothing is known but that it does not continue it.
    assert checker.found == {30, 100, 101, 200, 201}
    assert len(caplog.records) == 5


def test_records_that_are_dropped_while_they_are_read_again_are_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, 150, snapshot=140)
    log = SqliteLog(tmp_path, wal_bytes=0)
    for name in ("_link_at", "_read_rows"):
        plain, done = getattr(SqliteLog, name), log.check(0)
        to = min(done + 10, 140)

        def dropping(self: SqliteLog, position: int, plain: Any = plain, through: int = to) -> Any:
            monkeypatch.undo()
            self.drop_through(through)
            return plain(self, position)

        monkeypatch.setattr(SqliteLog, name, dropping)
        assert log.check(done) == to
    assert log.check(100) == 150
    log.close()


def test_snapshots_of_a_log_that_was_removed_are_not_those_of_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    filled(tmp_path, 5, snapshot=5)
    for name in ("log.sqlite", "mark"):
        (tmp_path / name).unlink()
    for _ in range(2):
        log = SqliteLog(tmp_path, wal_bytes=0)
        assert (log.position, log.load_snapshot()) == (0, None)
        log.close()
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.endswith("snapshots.sqlite.aside-1, and begun anew with 0 of its snapshots")
    assert (tmp_path / "snapshots.sqlite.aside-1").exists()


# Page by page


def test_records_are_found_page_by_page_in_database_and_write_ahead_log(tmp_path: Path) -> None:
    crashed(tmp_path / "log", 80, tmp_path / "crashed", moved=50)
    database = (tmp_path / "crashed" / "log.sqlite").read_bytes()
    wal = (tmp_path / "crashed" / "log.sqlite-wal").read_bytes()
    rows = {row.position: row.body for row in Pages(database, wal).records()}
    assert rows == {position: body_of(position) for position in range(1, 81)}
    assert {row.position for row in Pages(database, b"").records()} == set(range(1, 51))
    assert list(Pages(b"", b"").records()) == []


def test_whatever_the_bytes_page_by_page_raises_nothing(tmp_path: Path) -> None:
    seed = 3
    print("seed", seed)
    rng = random.Random(seed)
    crashed(tmp_path / "log", 30, tmp_path / "crashed", moved=15)
    files: list[bytes] = [(tmp_path / "crashed" / name).read_bytes() for name in ("log.sqlite", "log.sqlite-wal")]
    total = 0
    for _ in range(60):
        database, wal = (spoiled(rng, content) for content in files)
        rows = list(Pages(database, wal).records())
        assert all(row.body == body_of(row.position) for row in rows)
        total += len({row.position for row in rows})
    assert total > 60 * 15


def spoiled(rng: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randrange(20)):
        at = rng.randrange(len(changed))
        garbage = rng.randbytes(min(rng.choice((1, 4, 400)), len(changed) - at))
        changed[at : at + len(garbage)] = garbage
    return bytes(changed[: rng.randrange(len(changed) // 2, len(changed) + 1)])
