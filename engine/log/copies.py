"""Copies of a data directory, of an engine that runs or not: consistent at one position, checked from end to end."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.log.contract import LogDamaged, LogError
from engine.log.mark import Mark, read_mark, write_mark
from engine.log.rows import (
    AT_ONCE,
    READ,
    SNAPSHOTS,
    Row,
    check_link,
    check_row,
    header_of,
    read_only,
    sound_snapshots,
    structure_fault,
    trouble,
)
from engine.log.sqlite import holds_log, sync_directory

_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Copy:
    """What a copy holds: the records `dropped` + 1 to `position`, and snapshots at those positions."""

    incarnation: int
    dropped: int
    position: int
    snapshots: tuple[int, ...]


def copy(source: Path, to: Path) -> Copy:
    """Make `to` a data directory that holds what the one at `source` does at this moment; an engine may have it open.

    `to` must be absent or empty, and is there only once all of it is written, checked and synced. The records are read
    in one go: appends go on beside, but the write-ahead log of the source grows meanwhile.
    Cost: reading and writing the whole log, and 5 µs a record. Raises: LogDamaged if the source is not sound from its
    first record to its last; LogError; OSError.
    """
    if not holds_log(source):
        raise LogError(f"there is no log in {source}")
    with made_whole(to) as part:
        for left in reversed(range(_TRIES)):
            try:
                return _copy(source, part)
            except _Outrun as e:  # records were dropped between the one file and the other
                if not left:
                    raise LogDamaged(e.dropped, "no sound snapshot covers the records that were dropped") from e
    raise AssertionError


@contextmanager
def made_whole(to: Path) -> Iterator[Path]:
    """A directory to write in that becomes `to` (absent or empty) at the end, and vanishes if anything is raised."""
    if to.exists() and any(to.iterdir()):
        raise LogError(f"{to} is not empty")
    to.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{to.name}.", dir=to.parent))
    try:
        yield part
        for path in part.iterdir():
            _sync(path)
        sync_directory(part)
        part.chmod(0o755)
        part.rename(to)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    sync_directory(to.parent)


class _Outrun(Exception):
    def __init__(self, dropped: int) -> None:
        self.dropped = dropped


def _copy(source: Path, part: Path) -> Copy:
    acknowledged = mark_of(source)
    try:
        _copy_database(source / "log.sqlite", part / "log.sqlite")
        reader = read_only(part / "log.sqlite")
        try:
            fault = structure_fault(reader)
            if fault:
                raise LogDamaged(1, fault)
            incarnation, dropped, link = header_of(reader)
            last = dropped
            for row in chain(reader, dropped, link):
                last, link = row.position, row.link
            snapshots = _copy_snapshots(source, part, reader)
        finally:
            reader.close()
    except sqlite3.Error as e:
        raise trouble(e, 1, f"{source} cannot be copied") from e
    if acknowledged is not None and acknowledged.position > last:
        raise LogDamaged(last + 1, f"records up to {acknowledged.position} were acknowledged and are not there")
    if dropped and not any(position >= dropped for position in snapshots):
        raise _Outrun(dropped)
    fd = os.open(part / "mark", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if last:
            write_mark(fd, incarnation, last, link)
    finally:
        os.close(fd)
    return Copy(incarnation, dropped, last, snapshots)


def chain(reader: sqlite3.Connection, after: int, link: bytes) -> Iterator[Row]:
    """The records behind `after`, each checked, and that it continues the one before. Raises: LogDamaged, LogError."""
    while True:
        try:
            rows = [Row._make(row) for row in reader.execute(READ, (after, AT_ONCE))]
        except sqlite3.Error as e:
            raise trouble(e, after + 1, "the log cannot be read") from e
        if not rows:
            return
        for row in rows:
            check_row(row, after + 1)
            check_link(row, link)
            after, link = row.position, row.link
            yield row


def mark_of(directory: Path) -> Mark | None:
    """The mark of a log, whichever log's it is; None: there is none to believe."""
    try:
        fd = os.open(directory / "mark", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        incarnation = int.from_bytes(os.pread(fd, 4, 0), "little")
        mark = read_mark(fd, incarnation)
    finally:
        os.close(fd)
    return mark if isinstance(mark, Mark) else None


def _copy_database(source: Path, to: Path) -> None:
    to.unlink(missing_ok=True)
    with read_only(source) as reader, sqlite3.connect(to, isolation_level=None) as writer:
        reader.backup(writer)
    reader.close()
    writer.close()


def _copy_snapshots(source: Path, part: Path, reader: sqlite3.Connection) -> tuple[int, ...]:
    """Those that are sound and that the copied records lead to."""
    (part / "snapshots.sqlite").unlink(missing_ok=True)
    kept: list[int] = []
    with sqlite3.connect(part / "snapshots.sqlite", isolation_level=None) as writer:
        writer.execute(SNAPSHOTS)
        if (source / "snapshots.sqlite").exists():
            snapshots = read_only(source / "snapshots.sqlite")
            for row in sound_snapshots(snapshots):
                if fits(reader, row):
                    writer.execute("INSERT INTO snapshot VALUES (?, ?, ?, ?)", row)
                    kept.append(row.position)
            snapshots.close()
    writer.close()
    return tuple(sorted(kept))


def fits(reader: sqlite3.Connection, snapshot: Row) -> bool:
    """Whether the log's record at that position, or the last one dropped, has the snapshot's link."""
    _, dropped, dropped_link = header_of(reader)
    if snapshot.position == dropped:
        return snapshot.link == dropped_link
    row = reader.execute("SELECT link FROM record WHERE position = ?", (snapshot.position,)).fetchone()
    return row is not None and bool(row[0] == snapshot.link)


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
