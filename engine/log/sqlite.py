"""The command log on a disk, by SQLite, in the data directory of one engine:

    lock              held by the process that has the log open, with its pid
    log.sqlite        the records, one row each, with a CRC32 and a link of the hash chain; -wal and -shm belong to it
    snapshots.sqlite  the last snapshots: a database of their own, since writing a large one must not hold up an append
    mark              the last acknowledged position and its link, written after each append and never synced

SQLite cuts a torn tail (an append that was never acknowledged), but what is damaged in its write-ahead log it cuts
silently too, acknowledged or not. The mark finds that out: a log that ends before its mark is damaged. So does the
chain for a record that was changed, taken out or put in.

Snapshots and mark can be made again: one that is damaged or missing is told, set aside, and begun anew.
"""

import errno
import fcntl
import itertools
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from os import PathLike
from pathlib import Path
from threading import Lock, RLock
from typing import Final

from engine.log.carve import frames, lost_frame, page_bytes
from engine.log.contract import (
    BODY_MAX,
    SNAPSHOTS_KEPT,
    LogConflict,
    LogDamaged,
    LogError,
    LogFailed,
    LogFull,
    LogLocked,
    LogPaused,
    OutcomeUnknown,
)
from engine.log.mark import NoMark, read_mark, write_mark
from engine.log.rows import (
    AT_ONCE,
    FORMAT,
    LOG,
    PAUSES,
    READ,
    RECORD,
    SNAPSHOTS,
    Row,
    check_link,
    check_row,
    crc_of,
    first_link,
    header_of,
    is_damage,
    keep_snapshot,
    next_link,
    read_only,
    roll_back,
    sound_snapshots,
    structure_fault,
    trouble,
)

SNAPSHOT_MAX: Final = 900_000_000  # bytes: SQLite takes no larger value than 10^9
WAL_BYTES: Final = 8 << 20
_ROOM: Final = 64 << 10  # bytes: what SQLite's shared memory needs at the least

logger = logging.getLogger(__name__)


class SqliteLog:
    """The log in a data directory, by SQLite: WAL mode, synchronous=FULL, one transaction an append.

    Checkpoints are off the commit path: call `checkpoint` from another thread whenever `checkpoint_due`.
    Opening checks how the whole file is built (0.1 s for 100 MB) and reads and checks all records after the last
    snapshot (0.2 s for 100 MB more); before that nothing is written to it, so that what can be read stays so.
    Raises, when opened: LogLocked; LogDamaged; LogFailed or OSError when the disk is at fault, its room, or the rights.

    `wal_bytes` is how large the write-ahead log is made when the log is opened. A sync that need not note a new file
    size takes half as long (measured: 114 µs instead of 243), and as long as the file is used again from the start
    before it is full, no sync ever has to. 0 for a log that is only read.
    """

    def __init__(self, directory: str | PathLike[str], *, wal_bytes: int = WAL_BYTES) -> None:
        self._directory = Path(directory)
        self._wal_bytes = wal_bytes
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock_fd = _take_lock(self._directory)
        self._open: list[sqlite3.Connection] = []
        self._mark_fd = -1
        self._failure: str | None = None
        self._paused: type[LogPaused] | None = None  # what kind of failure it is, if `resume` may end it
        self._since_checkpoint = 0
        # Taken in this order, where one is taken within another.
        self._checkpointing = Lock()
        self._writing = RLock()
        self._reading = Lock()
        self._snapshotting = Lock()
        self.incarnation = 0
        self.position = 0
        self._link = b""
        self._dropped = 0
        self._dropped_link = b""
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    @property
    def checkpoint_due(self) -> bool:
        """Half of the write-ahead log has been written since the last checkpoint. Cost: 50 ns."""
        return self._since_checkpoint >= max(self._wal_bytes, WAL_BYTES) // 2

    def append(self, expected: int, bodies: Sequence[bytes]) -> int:
        assert bodies
        assert all(len(body) <= BODY_MAX for body in bodies)
        with self._writing:
            if self._failure is not None:
                raise self._refusal()
            if expected != self.position:
                raise LogConflict(expected, self.position)
            rows = self._rows(bodies)
            self._commit(rows)
            self.position = rows[-1].position
            self._link = rows[-1].link
            self._since_checkpoint += sum(_wal_need(body) for body in bodies)
            self._write_mark()
            return self.position

    def resume(self) -> None:
        with self._writing:
            if self._failure is None:
                return
            if self._paused is None:
                raise self._refusal()
            try:
                row = self._db.execute("SELECT position, link FROM record ORDER BY position DESC LIMIT 1").fetchone()
            except sqlite3.Error as e:
                raise self._fail(e, "the log cannot be read") from e
            position, link = row or (self._dropped, self._dropped_link)
            if (position, link) != (self.position, self._link):
                self._paused = None
                raise LogConflict(self.position, position)
            self._failure = self._paused = None
            self._write_mark()
            if self._failure is not None:
                raise self._refusal()

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        """Records are read a few at a time: a slow reader holds up no checkpoint."""
        if after < self._dropped:
            raise LogDamaged(after + 1, f"records up to {self._dropped} were dropped")
        while rows := self._read_rows(after):
            for row in rows:
                check_row(row, after + 1)
                after = row.position
                yield row.position, row.body

    def check(self, after: int) -> int:
        """Read the next records behind `after`, a few, and check each and that it continues the one before.

        Gives the last position that was checked; `after` itself: there are no more. Cost: 5 µs a record, and 1.5 µs a
        KiB. Raises: LogDamaged, LogFailed.
        """
        after = max(after, self._dropped)
        try:
            link = self._link_at(after) if after else first_link(self.incarnation)
            for row in self._read_rows(after):
                check_row(row, after + 1)
                check_link(row, link)
                after, link = row.position, row.link
        except LogDamaged:
            with self._writing:  # no drop is under way
                if self._dropped <= after:
                    raise
                after = self._dropped  # it was dropped meanwhile
        return after

    def save_snapshot(self, position: int, body: bytes) -> None:
        assert 0 < position <= self.position
        assert len(body) <= SNAPSHOT_MAX
        link = self._link_at(position)
        with self._snapshotting:
            keep_snapshot(self._snapshots, position, link, body)

    def load_snapshot(self) -> tuple[int, bytes] | None:
        with self._snapshotting:
            snapshot = next(sound_snapshots(self._snapshots), None)
        if self._dropped and (snapshot is None or snapshot.position < self._dropped):
            raise LogDamaged(self._dropped, "no sound snapshot covers the records that were dropped")
        return None if snapshot is None else (snapshot.position, snapshot.body)

    def drop_through(self, position: int) -> int:
        """A few at a time, so that appends go on between."""
        with self._snapshotting:
            snapshot = next(sound_snapshots(self._snapshots), None)
        last = min(position, snapshot.position) if snapshot is not None else 0
        while self._dropped < last:
            through = min(last, self._dropped + AT_ONCE)
            link = self._link_at(through)
            with self._writing:
                self._drop(through, link)
        return self._dropped

    @property
    def covered(self) -> int:
        """The position that all snapshots that are kept cover, 0 while there are not so many: what is logged up to
        there is not missed if one of them is damaged. Reads them."""
        with self._snapshotting:
            sound = [snapshot.position for snapshot in sound_snapshots(self._snapshots)]
        return min(sound) if len(sound) >= SNAPSHOTS_KEPT else 0

    def checkpoint(self) -> None:
        """Move the write-ahead log to its place in the database, so that its file is used from the start again.

        Most of it is moved beside the appends; they wait only for the little that came in meanwhile.
        Raises: LogFailed; appends are refused from then on, too.
        """
        with self._checkpointing:
            self._move_wal()
            with self._writing:
                self._move_wal()

    def close(self) -> None:
        """Waits for an append that is under way."""
        with self._checkpointing, self._writing, self._reading, self._snapshotting:
            self._failure, self._paused = self._failure or "the log is closed", None
            for connection in self._open:  # the reader first: the last one to close clears the write-ahead log away
                connection.close()
            self._open.clear()
            for fd in (self._mark_fd, self._lock_fd):
                if fd >= 0:
                    os.close(fd)
            self._mark_fd = self._lock_fd = -1

    def _drop(self, through: int, link: bytes) -> None:
        if self._failure is not None:
            raise self._refusal()
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("UPDATE log SET dropped = ?, dropped_link = ?", (through, link))
            self._db.execute("DELETE FROM record WHERE position <= ?", (through,))
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            raise self._fail(e, f"records up to {through} not dropped") from e
        self._dropped, self._dropped_link = through, link

    def _move_wal(self) -> None:
        if not self._open:
            raise LogFailed("the log is closed")
        try:
            self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as e:
            with self._writing:
                raise self._fail(e, "checkpoint failed") from e
        self._since_checkpoint = 0

    def _begin(self) -> None:
        self._mark_fd = os.open(self._directory / "mark", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            begun = self._is_begun()
            self._snapshots = self._open_snapshots()
            if begun:
                self._load()
            elif self._snapshots.execute("SELECT count(*) FROM snapshot").fetchone() != (0,):
                self._snapshots = self._set_aside(self._snapshots, "is of another log", lambda row: False)
            self._db = self._connect("log.sqlite", "WAL")
            self._checkpointer = self._connect("log.sqlite", "WAL")
            if not begun:
                self._create()
            self._grow_wal()
            self._move_wal()
        except sqlite3.Error as e:
            if not is_damage(e) and _is_full(self._directory):  # whatever it was that there was no room for
                raise LogFull(f"{self._directory} cannot be opened: no space left on its disk ({e})") from e
            raise trouble(e, self.position + 1, f"{self._directory} cannot be opened") from e
        if self.position:
            self._write_mark()
            if self._failure is not None:
                raise self._refusal()

    def _is_begun(self) -> bool:
        """Whether there is a log; then it is opened to be read, and nothing else before it was found sound.

        A connection that could write would cut a damaged write-ahead log, and throw it away when it is closed.
        """
        database, wal = (_size(self._directory / name) for name in ("log.sqlite", "log.sqlite-wal"))
        if wal and not database:
            raise LogDamaged(1, "log.sqlite is empty or missing, and its write-ahead log is not")
        if database:
            self._open_reader()
            if self._reader.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
                return True
            self._open.remove(self._reader)  # it was only just being made
            self._reader.close()
        if os.fstat(self._mark_fd).st_size:
            raise LogDamaged(1, "there is a mark of a log, and no log")
        return False

    def _open_reader(self) -> None:
        self._reader = read_only(self._directory / "log.sqlite")
        self._open.insert(0, self._reader)

    def _connect(self, name: str, journal: str) -> sqlite3.Connection:
        # Serialized by this class, so that any thread may call; autocommit, so that BEGIN and COMMIT are ours.
        connection = sqlite3.connect(
            self._directory / name, isolation_level=None, check_same_thread=False, cached_statements=16
        )
        try:
            connection.execute(f"PRAGMA journal_mode={journal}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA wal_autocheckpoint=0")
        except sqlite3.Error:
            connection.close()
            raise
        self._open.append(connection)
        return connection

    def _open_snapshots(self) -> sqlite3.Connection:
        """Snapshots only make a start short: what cannot be read of them is made again."""
        snapshots = None
        try:
            snapshots = self._connect("snapshots.sqlite", "DELETE")
            snapshots.execute(SNAPSHOTS)
            fault = structure_fault(snapshots)
            snapshots.execute("SELECT position, crc, link, body FROM snapshot LIMIT 0")
        except sqlite3.DatabaseError as e:
            if not is_damage(e):
                raise
            fault = str(e)
        return self._set_aside(snapshots, f"is damaged: {fault}") if fault or snapshots is None else snapshots

    def _set_aside(
        self, snapshots: sqlite3.Connection | None, why: str, fits: Callable[[Row], bool] = lambda row: True
    ) -> sqlite3.Connection:
        """Begin their file anew, with those that are sound and fit; the old one is kept under another name."""
        path = self._directory / "snapshots.sqlite"
        aside = next(
            name for n in itertools.count(1) if not (name := path.with_name(f"{path.name}.aside-{n}")).exists()
        )
        if snapshots is not None:
            self._open.remove(snapshots)
            snapshots.close()
        path.rename(aside)
        path.with_name(f"{path.name}-journal").unlink(missing_ok=True)
        snapshots = self._connect(path.name, "DELETE")
        snapshots.execute(SNAPSHOTS)
        old = read_only(aside)
        kept = 0
        for row in reversed(list(sound_snapshots(old))):
            if fits(row):
                keep_snapshot(snapshots, row.position, row.link, row.body)
                kept += 1
        old.close()
        logger.warning("%s %s; it is set aside as %s, and begun anew with %d of its snapshots", path, why, aside, kept)
        return snapshots

    def _create(self) -> None:
        incarnation = int.from_bytes(os.urandom(4), "little") or 1
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute(LOG)
        self._db.execute(RECORD)
        self._db.execute("INSERT INTO log VALUES (?, ?, 0, ?)", (FORMAT, incarnation, first_link(incarnation)))
        self._db.execute("COMMIT")
        self._open_reader()
        self.incarnation, self._dropped, self._dropped_link = header_of(self._reader)
        self._link = self._dropped_link
        sync_directory(self._directory)
        sync_directory(self._directory.parent)

    def _grow_wal(self) -> None:
        """Fill the write-ahead log's file with zeros up to what it is to hold: to SQLite they are no frames.

        Nothing goes through the database: its free pages are not used, and no new ones come to be.
        """
        path = self._directory / "log.sqlite-wal"
        size = _size(path)
        if size >= self._wal_bytes:
            return
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.pwrite(fd, bytes(self._wal_bytes - size), size)
            os.fsync(fd)
        except OSError as e:
            if e.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            os.ftruncate(fd, size)  # A slower log is better than none.
        finally:
            os.close(fd)

    def _load(self) -> None:
        """Check how the file is built, then the chain from the last snapshot on, then the mark."""
        self.incarnation, self._dropped, self._dropped_link = header_of(self._reader)
        self.position, self._link = self._dropped, self._dropped_link
        fault = structure_fault(self._reader)
        if fault:
            raise LogDamaged(self._first_unreadable(), fault)
        self._check_first()
        fitting, strange, beyond = self._snapshots_that_fit()
        if fitting is not None:
            self.position, self._link = fitting.position, fitting.link
        elif self._dropped:
            raise LogDamaged(self._dropped, "no sound snapshot covers the records that were dropped")
        while found := self._read_rows(self.position):
            for row in found:
                check_row(row, self.position + 1)
                check_link(row, self._link)
                self.position, self._link = row.position, row.link
        mark = self._check_mark()
        if beyond and mark != self.position:
            raise LogDamaged(max(beyond), "the record of the snapshot is missing")
        if strange or beyond:
            fits = lambda row: self._fits(row) is True  # noqa: E731
            self._snapshots = self._set_aside(self._snapshots, "is of another log", fits)

    def _first_unreadable(self) -> int:
        after = self._dropped
        try:
            while found := self._read_rows(after):
                for row in found:
                    check_row(row, after + 1)
                    after = row.position
        except LogError:
            pass
        return after + 1

    def _check_first(self) -> None:
        """The incarnation is in no record's CRC; the first link stands for it."""
        for row in self._read_rows(0)[:1] if not self._dropped else ():
            check_row(row, 1)
            check_link(row, first_link(self.incarnation))

    def _snapshots_that_fit(self) -> tuple[Row | None, int, list[int]]:
        """The newest that this log's records lead to; how many are of another log; where those beyond its end are."""
        newest, strange, beyond = None, 0, []
        for row in sound_snapshots(self._snapshots):
            fits = self._fits(row)
            if fits is None and row.position > self._dropped:
                beyond.append(row.position)
            elif fits is False:
                strange += 1
            elif fits and newest is None:
                newest = row._replace(body=b"")
        return newest, strange, beyond

    def _fits(self, snapshot: Row) -> bool | None:
        """Whether its link is that of the record it was taken at; None: that record is not here."""
        if snapshot.position == self._dropped:
            return snapshot.link == self._dropped_link
        row = self._reader.execute("SELECT link FROM record WHERE position = ?", (snapshot.position,)).fetchone()
        return None if row is None else bool(row[0] == snapshot.link)

    def _check_mark(self) -> int | None:
        """The position that the mark says, if there is one to believe."""
        mark = read_mark(self._mark_fd, self.incarnation)
        if isinstance(mark, NoMark):
            self._check_wal()
            if self.position:
                logger.warning(
                    "%s %s: if the newest records had been lost, that would not have been noticed; it is made anew",
                    self._directory / "mark", mark.value,
                )  # fmt: skip
            return None
        if mark.position > self.position:
            raise LogDamaged(self.position + 1, f"records up to {mark.position} were acknowledged and are not there")
        if mark.position >= self._dropped and mark.link != self._link_at(mark.position):
            raise LogDamaged(mark.position, "another record was acknowledged")
        return mark.position

    def _check_wal(self) -> None:
        """Without a mark only the write-ahead log itself can tell that SQLite has cut what was durable."""
        path = self._directory / "log.sqlite-wal"
        if _size(path):
            with (self._directory / "log.sqlite").open("rb") as database:
                size = page_bytes(database.read(100))
            lost = lost_frame(frames(path.read_bytes(), size))
            if lost is not None:
                raise LogDamaged(self.position + 1, f"frame {lost + 1} of its write-ahead log is damaged")

    def _write_mark(self) -> None:
        try:
            write_mark(self._mark_fd, self.incarnation, self.position, self._link)
        except OSError as e:  # The append stands; there will not be another before the mark is right.
            self._failure = f"mark not written: {e}"
            self._paused = LogFull if e.errno in (errno.ENOSPC, errno.EDQUOT) else None

    def _rows(self, bodies: Sequence[bytes]) -> list[Row]:
        rows: list[Row] = []
        link = self._link
        for position, body in enumerate(bodies, self.position + 1):
            link = next_link(link, position, body)
            rows.append(Row(position, crc_of(position, body), link, body))
        return rows

    def _commit(self, rows: list[Row]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT INTO record VALUES (?, ?, ?, ?)", rows)
        except sqlite3.Error as e:
            raise self._fail(e, "append failed") from e
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            # Without room the commit frame, the last to be written, is not whole. Any other error may have come after.
            failure = self._fail(e, "commit failed")
            if isinstance(failure, LogFull):
                raise failure from e
            raise OutcomeUnknown(self.position, str(e)) from e

    def _fail(self, error: sqlite3.Error, what: str) -> LogFailed:
        if self._failure is None or self._paused is not None:  # what is for good stays so
            self._failure = f"{what}: {error}"
            self._paused = PAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        roll_back(self._db)
        return self._refusal()

    def _refusal(self) -> LogFailed:
        return (self._paused or LogFailed)(self._failure)

    def _read_rows(self, after: int) -> list[Row]:
        with self._reading:
            if not self._open:
                raise LogFailed("the log is closed")
            try:
                rows = self._reader.execute(READ, (after, AT_ONCE)).fetchall()
            except sqlite3.Error as e:
                raise trouble(e, after + 1, "the log cannot be read") from e
        return [Row._make(row) for row in rows]

    def _link_at(self, position: int) -> bytes:
        if position == self._dropped:
            return self._dropped_link
        with self._reading:
            if not self._open:
                raise LogFailed("the log is closed")
            try:
                row = self._reader.execute("SELECT link FROM record WHERE position = ?", (position,)).fetchone()
            except sqlite3.Error as e:
                raise trouble(e, position, "the log cannot be read") from e
        if row is None:
            raise LogDamaged(position, "it is missing")
        link: bytes = row[0]
        return link


def _wal_need(body: bytes) -> int:
    """About what an append of it writes: whole pages, and a page of the tree."""
    return (len(body) // 4096 + 2) * 4120


def holds_log(directory: Path) -> bool:
    """Whether there is a log in the directory, or what is left of one."""
    return any(_size(directory / name) for name in ("log.sqlite", "log.sqlite-wal", "mark"))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _is_full(directory: Path) -> bool:
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize < _ROOM


def _take_lock(directory: Path) -> int:
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 20).strip()
        os.close(fd)
        raise LogLocked(str(directory), int(holder) if holder.isdigit() else 0) from None
    except BaseException:
        os.close(fd)
        raise
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
