"""A log is looked at, copied while it is written, brought back, and saved from damage, by `python -m tools.log`."""

import base64
import json
import random
import resource
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest

from engine.log.sqlite import SqliteLog
from tools import log as tool


def body_of(position: int) -> bytes:
    return random.Random(position).randbytes(1 + position * 997 % 6_000)


def begun(directory: Path, count: int, *snapshots: int) -> SqliteLog:
    log = SqliteLog(directory, wal_bytes=0)
    for position in range(log.position + 1, count + 1):
        log.append(position - 1, [body_of(position)])
        if position in snapshots:
            log.save_snapshot(position, b"state at %d" % position)
    return log


def whole(directory: Path, first: int, last: int) -> None:
    """It starts, and has just those records."""
    log = SqliteLog(directory, wal_bytes=0)
    assert list(log.read(first - 1)) == [(position, body_of(position)) for position in range(first, last + 1)]
    log.close()


class Said:
    """What the tool prints, and its exit code."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *words: object) -> None:
        self.code = tool.main([str(word) for word in words])
        out, self.err = capsys.readouterr()
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]


def test_a_backup_of_a_log_that_is_being_written_is_consistent_and_can_be_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = begun(tmp_path / "data", 200, 50, 150)
    stop, moving = threading.Event(), threading.Event()

    def write() -> None:
        while not stop.is_set():
            log.append(log.position, [body_of(log.position + 1)])
            if log.position % 50 == 0:
                log.checkpoint()
            moving.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert moving.wait(10)
    made = Said(capsys, "backup", tmp_path / "data", tmp_path / "kept" / "monday")
    moving.clear()
    assert moving.wait(10)  # appends go on
    stop.set()
    writer.join()
    assert (made.code, made.err, made.rows[0]["snapshots"]) == (0, "", 2)
    last = made.rows[0]["last"]
    assert 200 < last < log.position
    log.save_snapshot(last + 1, b"later than the backup")
    log.close()

    back = Said(capsys, "restore", tmp_path / "kept" / "monday", tmp_path / "new")
    assert (back.code, back.rows) == (0, made.rows)
    whole(tmp_path / "new", 1, last)
    looks = Said(capsys, "verify", tmp_path / "new")
    assert (looks.code, [row["sound"] for row in looks.rows]) == (0, [True] * len(looks.rows))
    log = begun(tmp_path / "new", last + 5)  # it goes on
    log.close()


def test_a_backup_of_a_log_that_forgets_has_a_snapshot_that_covers_what_is_forgotten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = begun(tmp_path / "data", 100, 40, 80)
    log.drop_through(40)
    made = Said(capsys, "backup", tmp_path / "data", tmp_path / "copy")
    assert (made.code, made.rows) == (0, [{"first": 41, "last": 100, "snapshots": 2}])
    log.close()
    whole(tmp_path / "copy", 41, 100)


def test_a_backup_has_no_snapshot_of_what_it_does_not_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path / "data", 50, 30).close()
    begun(tmp_path / "other", 90, 40, 80).close()
    shutil.copy(tmp_path / "other" / "snapshots.sqlite", tmp_path / "data" / "snapshots.sqlite")
    made = Said(capsys, "backup", tmp_path / "data", tmp_path / "copy")
    assert (made.code, made.rows) == (0, [{"first": 1, "last": 50, "snapshots": 0}])


def test_what_cannot_be_done_is_one_line_and_leaves_nothing_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = begun(tmp_path / "data", 9)
    (tmp_path / "garbled").mkdir()
    (tmp_path / "garbled" / "log.sqlite").write_bytes(b"no database" * 1_000)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for words, why in (
        (("backup", tmp_path / "none", tmp_path / "to"), "there is no log in"),
        (("restore", tmp_path / "full", tmp_path / "to"), "there is no log in"),
        (("backup", tmp_path / "data", tmp_path / "full"), "is not empty"),
        (("restore", tmp_path / "data", tmp_path / "full"), "is not empty"),
        (("salvage", tmp_path / "data", tmp_path / "to"), "is in use"),
        (("verify", tmp_path / "none"), "there is no log in"),
        (("salvage", tmp_path / "garbled", tmp_path / "to"), "says which log it was"),
        (("backup", tmp_path / "data", "/proc/none/x"), "No such file"),
    ):
        said = Said(capsys, *words)
        assert (said.code, said.rows, said.err.count("\n")) == (3, [], 1), words
        assert said.err.startswith("log: ")
        assert why in said.err
    log.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "full", "garbled"]
    with pytest.raises(SystemExit) as left:
        tool.main(["verify"])
    assert left.value.code == 2


@pytest.mark.parametrize("verb", ["salvage", "backup"])
def test_a_disk_without_room_for_the_copy_is_one_line_and_leaves_nothing_behind(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path / "data", 100).close()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        said = Said(capsys, verb, tmp_path / "data", tmp_path / "made")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (said.code, said.rows, len(said.err.splitlines())) == (3, [], 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    whole(tmp_path / "data", 1, 100)


@pytest.mark.parametrize("damage", ["body = x'00'", "link = zeroblob(16)", "crc = crc + 1"])
def test_of_a_damaged_log_no_backup_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: str) -> None:
    begun(tmp_path / "data", 90, 80).close()
    with sqlite3.connect(tmp_path / "data" / "log.sqlite") as database:
        database.execute(f"UPDATE record SET {damage} WHERE position = 33")  # below the snapshot: the engine starts
    database.close()
    said = Said(capsys, "backup", tmp_path / "data", tmp_path / "copy")
    assert (said.code, "damaged at position 33" in said.err) == (1, True)
    assert not (tmp_path / "copy").exists()


def test_verify_looks_at_a_log_that_runs_and_names_the_first_bad_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = begun(tmp_path / "data", 90, 80)
    said = Said(capsys, "verify", tmp_path / "data")
    assert said.code == 0
    assert said.rows == [
        {"file": "log.sqlite", "sound": True, "found": "records 1 to 90 are sound", "position": 0, "count": 90},
        {
            "file": "snapshots.sqlite",
            "sound": True,
            "found": "1 of 1 snapshots are sound, at 80",
            "position": 0,
            "count": 1,
        },
        {"file": "mark", "sound": True, "found": "record 90 was acknowledged", "position": 0, "count": 0},
    ]
    log.close()
    with sqlite3.connect(tmp_path / "data" / "log.sqlite") as database:
        database.execute("UPDATE record SET body = x'00' WHERE position = 33")
    database.close()
    (tmp_path / "data" / "mark").unlink()
    said = Said(capsys, "verify", tmp_path / "data")
    assert (said.code, [row["sound"] for row in said.rows]) == (1, [False, True, False])
    assert (said.rows[0]["position"], said.rows[0]["count"]) == (33, 89)
    assert "of those from there to 90 57 can be read" in said.rows[0]["found"]


def test_what_is_sound_behind_a_damaged_frame_of_the_write_ahead_log_is_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = begun(tmp_path / "log", 120)
    shutil.copytree(tmp_path / "log", tmp_path / "data")
    log.close()
    wal = bytearray((tmp_path / "data" / "log.sqlite-wal").read_bytes())
    middle = 32 + (len(wal) // 4120 // 2) * 4120 + 2_000
    wal[middle] ^= 1
    (tmp_path / "data" / "log.sqlite-wal").write_bytes(wal)
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    looks = Said(capsys, "verify", tmp_path / "data")
    assert looks.code == 1
    bad = {row["file"]: row for row in looks.rows if not row["sound"]}
    assert bad.keys() == {"log.sqlite-wal", "mark"}
    cut = bad["mark"]["position"]  # SQLite has what is before
    assert 30 < cut < 90

    saved = Said(capsys, "salvage", tmp_path / "data", tmp_path / "saved")
    after = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir() if path.name in before}
    assert {n: b for n, b in after.items() if "shm" not in n} == {n: b for n, b in before.items() if "shm" not in n}
    (told,) = saved.rows
    apart = (
        [json.loads(line) for line in (tmp_path / "saved" / "apart.jsonl").read_text().splitlines()]
        if (told["apart"])
        else []
    )
    assert len(apart) == told["apart"]
    for row in apart:
        assert base64.b64decode(row["body"]) == body_of(row["position"])
    # One frame holds parts of one record, or of a few: all others are there.
    assert told["last"] >= cut - 1
    assert told["last"] + told["apart"] >= 118
    assert saved.code == (1 if told["missing"] else 0)
    whole(tmp_path / "saved", 1, told["last"])


def test_a_snapshot_behind_the_damage_lets_the_log_begin_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun(tmp_path / "data", 120, 60, 100).close()
    with sqlite3.connect(tmp_path / "data" / "log.sqlite") as database:
        database.execute("DELETE FROM record WHERE position = 33")
        database.execute("UPDATE record SET body = x'00' WHERE position = 70")
    database.close()
    said = Said(capsys, "salvage", tmp_path / "data", tmp_path / "saved")
    (told,) = said.rows
    assert told["missing"] == 0
    assert (told["first"], told["last"], told["snapshots"]) == (101, 120, 1)
    assert told["apart"] == 98
    whole(tmp_path / "saved", 101, 120)


@pytest.mark.parametrize("page", [1, 2, 3, 4])
def test_whichever_page_of_the_tree_is_lost_the_records_on_the_others_are_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], page: int
) -> None:
    begun(tmp_path / "data", 150).close()
    content = bytearray((tmp_path / "data" / "log.sqlite").read_bytes())
    content[(page - 1) * 4096 : page * 4096] = random.Random(page).randbytes(4096)
    (tmp_path / "data" / "log.sqlite").write_bytes(content)
    assert Said(capsys, "verify", tmp_path / "data").code == 1
    said = Said(capsys, "salvage", tmp_path / "data", tmp_path / "saved")
    (told,) = said.rows
    assert told["last"] + told["apart"] >= 140
    assert told["last"] + told["missing"] == 150
    whole(tmp_path / "saved", 1, told["last"])
