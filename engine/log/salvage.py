"""What is left of a damaged log: a look at each of its files, and a new log of all that can be read.

What SQLite does not read any more is looked for page by page (engine/log/carve.py). A log has no holes: the new one
goes on for as long as records follow each other, from its first record or from a snapshot behind the damage, whichever
leads further. What is sound and stands apart is kept beside it, in a file of JSON lines.
"""

from __future__ import annotations

import base64
import fcntl
import json
import mmap
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from engine.log.carve import Bytes, Pages, frames, lost_frame, page_bytes
from engine.log.contract import LogDamaged, LogError, LogFailed
from engine.log.copies import chain, fits, made_whole, mark_of
from engine.log.mark import write_mark
from engine.log.rows import (
    FORMAT,
    LOG,
    RECORD,
    SNAPSHOTS,
    Row,
    first_link,
    header_of,
    next_link,
    read_only,
    sound_snapshots,
    structure_fault,
)
from engine.log.sqlite import holds_log

_DATABASE: Final = "log.sqlite"
_APART: Final = "apart.jsonl"


@dataclass(frozen=True, slots=True)
class Condition:
    """What one file is found to be: `sound` or not, and in words.

    position   of the first record that is bad or missing; 0: none is known
    count      of what is sound in it: records, frames, snapshots
    """

    file: str
    sound: bool
    found: str
    position: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class Saved:
    """The new log has the records `first` to `last`; `apart` more are sound; `missing` were acknowledged."""

    first: int
    last: int
    apart: int
    missing: int
    snapshots: int


def verify(data: Path) -> list[Condition]:
    """Look at each file of a log, whether an engine has it open or not; nothing is changed.

    Cost: reading all of it, and 5 µs a record. Raises: LogError if there is none; OSError.
    """
    if not holds_log(data):
        raise LogError(f"there is no log in {data}")
    runs = is_open(data)
    mark = mark_of(data)
    with _mapped(data / _DATABASE) as database, _mapped(data / f"{_DATABASE}-wal") as wal:
        looks = [_look_at_records(data, runs)]
        if wal and not runs:  # of one that runs, frames come and go
            looks.append(_look_at_wal(wal, page_bytes(database)))
    looks.append(_look_at_snapshots(data))
    last = _last(data)
    if mark is None:
        looks.append(Condition("mark", False, "is missing or damaged: the end of the log cannot be checked"))
    elif mark.position > last and not runs:
        lost = f"records up to {mark.position:,} were acknowledged, and the log ends at {last:,}"
        looks.append(Condition("mark", False, lost, last + 1))
    else:
        looks.append(Condition("mark", True, f"record {mark.position:,} was acknowledged"))
    return looks


def salvage(data: Path, to: Path) -> Saved:
    """Make `to` (absent or empty) a data directory with all that can be read of the log at `data`, which stays as is.

    Raises: LogError if nothing says what log it was, or an engine has it open; OSError.
    """
    if not holds_log(data):
        raise LogError(f"there is no log in {data}")
    if is_open(data):
        raise LogError(f"{data} is in use: stop its engine first, or make a backup")
    try:
        with made_whole(to) as part:
            gathered = part / "gathered.sqlite"
            with closing(sqlite3.connect(gathered, isolation_level=None)) as found:
                _gather(data, found)
                incarnation, bases, snapshots = _bases(data, found)
                base = max(bases, key=lambda base: (_reach(found, *base), -base[0]))
                saved = _write(part, found, incarnation, base, snapshots)
            gathered.unlink()
    except sqlite3.Error as e:  # of what is written: whatever is wrong with the log's own files is no surprise here
        raise LogFailed(f"{to} cannot be written: {e}") from e
    mark = mark_of(data)
    return replace(saved, missing=max(mark.position - saved.last, 0) if mark is not None else 0)


def is_open(data: Path) -> bool:
    """Whether a process has the log open."""
    try:
        fd = os.open(data / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _look_at_records(data: Path, runs: bool) -> Condition:
    """By the tree and the chain; where those end, what else there is, page by page."""
    last = first = 0
    try:
        with closing(read_only(data / _DATABASE)) as reader:
            incarnation, first, link = header_of(reader)
            last = first
            if not first:
                link = first_link(incarnation)
            for row in chain(reader, first, link):
                last = row.position
            fault = structure_fault(reader)
        said = f"records {first + 1:,} to {last:,} are sound" if last > first else "there are no records"
        return Condition(_DATABASE, not fault, f"{said}; {fault}" if fault else said, count=last - first)
    except (LogError, sqlite3.Error) as e:
        position = e.position if isinstance(e, LogDamaged) else last + 1
        said = f"{e}; the records before are sound"
    if runs:
        return Condition(_DATABASE, False, said, position, last - first)
    with _mapped(data / _DATABASE) as database, _mapped(data / f"{_DATABASE}-wal") as wal:
        behind = {row.position for row in Pages(database, wal).records() if row.position > last}
    if behind:
        said += f", and of those from there to {max(behind):,} {len(behind):,} can be read"
    return Condition(_DATABASE, False, said, position, last - first + len(behind))


def _look_at_wal(wal: Bytes, size: int) -> Condition:
    found = frames(wal, size)
    lost, count = lost_frame(found), sum(frame.sound for frame in found)
    said = f"{count:,} frames are sound"
    if lost is not None:
        behind = sum(frame.sound for frame in found[lost:])
        said = f"frame {lost + 1:,} is damaged, and {behind:,} frames behind it are sound"
    return Condition(f"{_DATABASE}-wal", lost is None, said, count=count)


def _look_at_snapshots(data: Path) -> Condition:
    path = data / "snapshots.sqlite"
    if not path.exists():
        return Condition(path.name, True, "there are none")
    try:
        with closing(read_only(path)) as snapshots:
            fault = structure_fault(snapshots)
            (count,) = snapshots.execute("SELECT count(*) FROM snapshot").fetchone()
            sound = sorted(row.position for row in sound_snapshots(snapshots))
    except sqlite3.Error as e:
        return Condition(path.name, False, str(e))
    said = f"{len(sound)} of {count} snapshots are sound, at {', '.join(f'{p:,}' for p in sound) or 'no record'}"
    said = f"{said}; {fault}" if fault else said if count else "there are none"
    return Condition(path.name, not fault and len(sound) == count, said, count=len(sound))


def _last(data: Path) -> int:
    """The last record that SQLite has."""
    try:
        with closing(read_only(data / _DATABASE)) as reader:
            _, dropped, _ = header_of(reader)
            (last,) = reader.execute("SELECT max(position) FROM record").fetchone()
            return int(last or dropped)
    except (LogError, sqlite3.Error):
        return 0


def _gather(data: Path, found: sqlite3.Connection) -> None:
    """Every record that can be read, of each position each that there was."""
    found.execute(
        "CREATE TABLE record (position INTEGER, link BLOB, crc INTEGER, body BLOB, PRIMARY KEY (position, link))"
    )
    found.execute("PRAGMA synchronous=OFF")
    with _mapped(data / _DATABASE) as database, _mapped(data / f"{_DATABASE}-wal") as wal:
        rows = Pages(database, wal).records()
        found.execute("BEGIN")
        found.executemany(
            "INSERT OR IGNORE INTO record VALUES (?, ?, ?, ?)",
            ((row.position, row.link, row.crc, row.body) for row in rows if row.position < 1 << 63),
        )
        found.execute("COMMIT")


def _bases(data: Path, found: sqlite3.Connection) -> tuple[int, list[tuple[int, bytes]], list[Row]]:
    """The incarnation, what the new log could begin behind, and the snapshots that are sound."""
    snapshots: list[Row] = []
    if (data / "snapshots.sqlite").exists():
        with closing(read_only(data / "snapshots.sqlite")) as kept:
            snapshots = list(sound_snapshots(kept))
    bases = [(row.position, row.link) for row in snapshots]
    try:
        with closing(read_only(data / _DATABASE)) as reader:
            incarnation, dropped, link = header_of(reader)
            return incarnation, [(dropped, link), *bases], snapshots
    except (LogError, sqlite3.Error):
        incarnation = _incarnation_of_mark(data)
    if incarnation:
        link = first_link(incarnation)
        if _reach(found, 0, link):
            return incarnation, [(0, link), *bases], snapshots
        if bases:
            return incarnation, bases, snapshots
    raise LogError(f"neither log.sqlite nor mark in {data} says which log it was")


def _incarnation_of_mark(data: Path) -> int:
    return int.from_bytes((data / "mark").read_bytes()[:4], "little") if mark_of(data) is not None else 0


def _follow(found: sqlite3.Connection, position: int, link: bytes) -> Iterator[Row]:
    """Records that follow each other from there. Of two that do, the one that is itself followed is right."""
    while True:
        follow = _candidates(found, position, link)
        if not follow:
            return
        row = next((row for row in follow if len(follow) > 1 and _candidates(found, row.position, row.link)), follow[0])
        yield row
        position, link = row.position, row.link


def _candidates(found: sqlite3.Connection, position: int, link: bytes) -> list[Row]:
    rows = found.execute("SELECT position, crc, link, body FROM record WHERE position = ?", (position + 1,))
    return [row for row in map(Row._make, rows) if row.link == next_link(link, row.position, row.body)]


def _reach(found: sqlite3.Connection, position: int, link: bytes) -> int:
    for row in _follow(found, position, link):
        position = row.position
    return position


def _write(
    to: Path, found: sqlite3.Connection, incarnation: int, base: tuple[int, bytes], snapshots: list[Row]
) -> Saved:
    dropped, link = base
    with closing(sqlite3.connect(to / _DATABASE, isolation_level=None)) as log:
        log.execute("PRAGMA journal_mode=WAL")
        log.execute("BEGIN IMMEDIATE")
        log.execute(LOG)
        log.execute(RECORD)
        log.execute("INSERT INTO log VALUES (?, ?, ?, ?)", (FORMAT, incarnation, dropped, link))
        last = dropped
        for row in _follow(found, dropped, link):
            log.execute("INSERT INTO record VALUES (?, ?, ?, ?)", row)
            last, link = row.position, row.link
        log.execute("COMMIT")
        kept = 0
        with closing(sqlite3.connect(to / "snapshots.sqlite", isolation_level=None)) as copies:
            copies.execute(SNAPSHOTS)
            for row in snapshots:
                if fits(log, row):
                    copies.execute("INSERT INTO snapshot VALUES (?, ?, ?, ?)", row)
                    kept += 1
    fd = os.open(to / "mark", os.O_RDWR | os.O_CREAT, 0o644)
    if last:
        write_mark(fd, incarnation, last, link)
    os.close(fd)
    apart = 0
    with (to / _APART).open("w", encoding="ascii") as lines:
        for position, link, _, body in found.execute(
            "SELECT position, link, crc, body FROM record WHERE position > ? OR position <= ? ORDER BY position",
            (last, dropped),
        ):
            said = {"position": position, "link": link.hex(), "body": base64.b64encode(body).decode("ascii")}
            lines.write(json.dumps(said) + "\n")
            apart += 1
    if not apart:
        (to / _APART).unlink()
    return Saved(dropped + 1, last, apart, 0, kept)


@contextmanager
def _mapped(path: Path) -> Iterator[Bytes]:
    """A file's bytes, none if it is absent or empty."""
    if not path.exists() or not path.stat().st_size:
        yield b""
        return
    with path.open("rb") as file:
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))  # closed when nobody looks any more
