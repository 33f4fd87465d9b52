"""The command log on a disk, by SQLite, in the data directory of one engine:

    lock              held by the process that has the log open, with its pid
    log.sqlite        the records, one row each, with a CRC32 and a link of the hash chain; -wal and -shm belong to it
    snapshots.sqlite  the last snapshots: a database of their own, since writing a large one must not hold up an append
    mark              the last acknowledged position and its link, written after each append and never synced

SQLite cuts a torn tail (an append that was never acknowledged), but what is damaged in its write-ahead log it cuts
silently too, acknowledged or not. The mark finds that out: a log that ends before its mark is damaged. So does the
chain for a record that was changed, taken out or put in.
"""

import errno
import fcntl
import hashlib
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from threading import Lock, RLock
from typing import Final, NamedTuple

from engine.log.contract import (
    BODY_MAX,
    SNAPSHOTS_KEPT,
    LogBusy,
    LogConflict,
    LogDamaged,
    LogFailed,
    LogFull,
    LogLocked,
    LogPaused,
    OutcomeUnknown,
)

SNAPSHOT_MAX: Final = 900_000_000  # bytes: SQLite takes no larger value than 10^9
WAL_BYTES: Final = 8 << 20

_AT_ONCE: Final = 64  # records
_MARK: Final = struct.Struct("<IQ16sI")  # incarnation, position, link, CRC32 of those
_FORMAT: Final = 1


def first_link(incarnation: int) -> bytes:
    """The link of the hash chain that stands before the first record."""
    return hashlib.blake2b(incarnation.to_bytes(4, "little"), digest_size=16).digest()


def next_link(link: bytes, position: int, body: bytes) -> bytes:
    """The link of a record, which stands for it and all before it. Cost: 1 µs, and 1 µs a KiB."""
    chain = hashlib.blake2b(link, digest_size=16)
    chain.update(position.to_bytes(8, "little"))
    chain.update(body)
    return chain.digest()


class SqliteLog:
    """The log in a data directory, by SQLite: WAL mode, synchronous=FULL, one transaction an append.

    Checkpoints are off the commit path: call `checkpoint` from another thread whenever `checkpoint_due`.
    Opening reads and checks all records after the last snapshot: about 0.2 s for 100 MB.
    Raises, when opened: LogLocked, LogDamaged, and OSError when the directory cannot be written.

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
                _check_row(row, after + 1)
                after = row.position
                yield row.position, row.body

    def save_snapshot(self, position: int, body: bytes) -> None:
        assert 0 < position <= self.position
        assert len(body) <= SNAPSHOT_MAX
        link = self._link_at(position)
        with self._snapshotting:
            _keep_snapshot(self._snapshots, position, link, body)

    def load_snapshot(self) -> tuple[int, bytes] | None:
        snapshot = self._sound_snapshot()
        return None if snapshot is None else (snapshot.position, snapshot.body)

    def drop_through(self, position: int) -> int:
        """A few at a time, so that appends go on between."""
        with self._snapshotting:
            snapshot = self._newest_sound()
        last = min(position, snapshot.position) if snapshot is not None else 0
        while self._dropped < last:
            through = min(last, self._dropped + _AT_ONCE)
            link = self._link_at(through)
            with self._writing:
                self._drop(through, link)
        return self._dropped

    @property
    def covered(self) -> int:
        """The position that all snapshots that are kept cover, 0 while there are not so many: what is logged up to
        there is not missed if one of them is damaged. Reads them."""
        with self._snapshotting:
            sound = [snapshot.position for snapshot in _sound(self._snapshots)]
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
            for connection in self._open:
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
            self._db = self._connect("log.sqlite", "WAL")
            self._reader = self._connect("log.sqlite", "WAL")
            self._checkpointer = self._connect("log.sqlite", "WAL")
            self._snapshots = self._connect("snapshots.sqlite", "DELETE")
            self._create()
            self._load()
            self._grow_wal()
        except sqlite3.Error as e:
            raise LogDamaged(self.position + 1, str(e)) from e

    def _connect(self, name: str, journal: str) -> sqlite3.Connection:
        # Serialized by this class, so that any thread may call; autocommit, so that BEGIN and COMMIT are ours.
        connection = sqlite3.connect(
            self._directory / name, isolation_level=None, check_same_thread=False, cached_statements=16
        )
        self._open.append(connection)
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")
        return connection

    def _create(self) -> None:
        self._snapshots.execute(_SNAPSHOTS)
        if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            return
        if os.fstat(self._mark_fd).st_size:
            raise LogDamaged(1, "there is a mark of a log, and no log")
        incarnation = int.from_bytes(os.urandom(4), "little") or 1
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("CREATE TABLE log (format INTEGER, incarnation INTEGER, dropped INTEGER, dropped_link BLOB)")
        self._db.execute("CREATE TABLE record (position INTEGER PRIMARY KEY, crc INTEGER, link BLOB, body BLOB)")
        self._db.execute("INSERT INTO log VALUES (?, ?, 0, ?)", (_FORMAT, incarnation, first_link(incarnation)))
        self._db.execute("COMMIT")
        _sync_directory(self._directory)
        _sync_directory(self._directory.parent)

    def _grow_wal(self) -> None:
        """Write as much to the write-ahead log at once as it is to hold, and take it out again."""
        if not self._wal_bytes:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("CREATE TABLE filler (bytes BLOB)")
            self._db.execute("INSERT INTO filler VALUES (zeroblob(?))", (self._wal_bytes,))
            self._db.execute("DROP TABLE filler")
            self._db.execute("COMMIT")
        except sqlite3.Error as e:
            if getattr(e, "sqlite_errorcode", 0) != sqlite3.SQLITE_FULL:
                raise
            _roll_back(self._db)  # A slower log is better than none.
        self._move_wal()

    def _load(self) -> None:
        """Check what the log says of itself, then the chain from the last snapshot on, then the mark."""
        rows = self._db.execute("SELECT format, incarnation, dropped, dropped_link FROM log").fetchall()
        if len(rows) != 1 or rows[0][0] != _FORMAT:
            raise LogDamaged(1, "not a log of this format")
        _, self.incarnation, self._dropped, self._dropped_link = rows[0]
        self.position, self._link = self._dropped, self._dropped_link
        snapshot = self._sound_snapshot()
        if snapshot is not None:
            self._check_snapshot(snapshot)
            self.position, self._link = snapshot.position, snapshot.link
        while found := self._read_rows(self.position):
            for row in found:
                _check_row(row, self.position + 1)
                if row.link != next_link(self._link, row.position, row.body):
                    raise LogDamaged(row.position, "it does not continue the record before")
                self.position, self._link = row.position, row.link
        self._check_mark()

    def _check_snapshot(self, snapshot: "_Row") -> None:
        row = self._db.execute("SELECT link FROM record WHERE position = ?", (snapshot.position,)).fetchone()
        if row is None and snapshot.position > self._dropped:
            raise LogDamaged(snapshot.position, "the record of the snapshot is missing")
        if (self._dropped_link if row is None else row[0]) != snapshot.link:
            raise LogDamaged(snapshot.position, "the snapshot is of another log")

    def _check_mark(self) -> None:
        mark = _read_mark(self._mark_fd, self.incarnation)
        if mark is None or mark[0] < self._dropped:
            return
        position, link = mark
        if position > self.position:
            raise LogDamaged(self.position + 1, f"records up to {position} were acknowledged and are not there")
        if link != self._link_at(position):
            raise LogDamaged(position, "another record was acknowledged")

    def _write_mark(self) -> None:
        fields = _MARK.pack(self.incarnation, self.position, self._link, 0)[:-4]
        try:
            os.pwrite(self._mark_fd, fields + zlib.crc32(fields).to_bytes(4, "little"), 0)
        except OSError as e:  # The append stands; there will not be another before the mark is right.
            self._failure = f"mark not written: {e}"
            self._paused = LogFull if e.errno in (errno.ENOSPC, errno.EDQUOT) else None

    def _rows(self, bodies: Sequence[bytes]) -> list["_Row"]:
        rows: list[_Row] = []
        link = self._link
        for position, body in enumerate(bodies, self.position + 1):
            link = next_link(link, position, body)
            rows.append(_Row(position, _crc(position, body), link, body))
        return rows

    def _commit(self, rows: list["_Row"]) -> None:
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
            self._paused = _PAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        _roll_back(self._db)
        return self._refusal()

    def _refusal(self) -> LogFailed:
        return (self._paused or LogFailed)(self._failure)

    def _read_rows(self, after: int) -> list["_Row"]:
        with self._reading:
            if not self._open:
                raise LogFailed("the log is closed")
            try:
                rows = self._reader.execute(_READ, (after, _AT_ONCE)).fetchall()
            except sqlite3.Error as e:
                raise LogDamaged(after + 1, str(e)) from e
        return [_Row._make(row) for row in rows]

    def _link_at(self, position: int) -> bytes:
        if position == self._dropped:
            return self._dropped_link
        with self._reading:
            row = self._reader.execute("SELECT link FROM record WHERE position = ?", (position,)).fetchone()
        if row is None:
            raise LogDamaged(position, "it is missing")
        link: bytes = row[0]
        return link

    def _sound_snapshot(self) -> "_Row | None":
        with self._snapshotting:
            snapshot = self._newest_sound()
        if self._dropped and (snapshot is None or snapshot.position < self._dropped):
            raise LogDamaged(self._dropped, "no sound snapshot covers the records that were dropped")
        return snapshot

    def _newest_sound(self) -> "_Row | None":
        return _newest_sound(self._snapshots)


class SqliteLogView:
    """A log that another process has open, to read its records and keep snapshots of what they lead to.

    It takes no lock and holds up no append: records are read as of now, a few at a time, and snapshots have a database
    of their own. Raises, when opened: LogDamaged, OSError.
    """

    def __init__(self, directory: str | PathLike[str]) -> None:
        path = Path(directory)
        if not (path / "log.sqlite").exists():
            raise FileNotFoundError(f"no log in {path}")
        try:
            self._reader = sqlite3.connect(f"file:{path / 'log.sqlite'}?mode=ro", uri=True, isolation_level=None)
            self._snapshots = sqlite3.connect(path / "snapshots.sqlite", isolation_level=None, timeout=30.0)
            self._snapshots.execute("PRAGMA synchronous=FULL")
            self._snapshots.execute(_SNAPSHOTS)
            self.incarnation, self.dropped = self._reader.execute("SELECT incarnation, dropped FROM log").fetchone()
        except sqlite3.Error as e:
            raise LogDamaged(1, str(e)) from e

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        """As Log.read; ends where the log ends by then."""
        try:
            while rows := self._reader.execute(_READ, (after, _AT_ONCE)).fetchall():
                for row in map(_Row._make, rows):
                    _check_row(row, after + 1)
                    after = row.position
                    yield row.position, row.body
        except sqlite3.Error as e:
            raise LogDamaged(after + 1, str(e)) from e

    def body(self, position: int) -> bytes | None:
        """One record; None: it is not there. Raises: LogDamaged."""
        for found, body in self.read(position - 1) if self.dropped < position else ():
            return body if found == position else None
        return None

    def load_snapshot(self) -> tuple[int, bytes] | None:
        """As Log.load_snapshot, but that it may be of another log: only the log's owner compares."""
        return next(self.snapshots(), None)

    def snapshots(self) -> Iterator[tuple[int, bytes]]:
        """All sound ones, the newest first."""
        for row in _sound(self._snapshots):
            yield row.position, row.body

    def save_snapshot(self, position: int, body: bytes) -> None:
        """As Log.save_snapshot."""
        row = self._reader.execute("SELECT link FROM record WHERE position = ?", (position,)).fetchone()
        if row is None:
            raise LogDamaged(position, "it is missing")
        _keep_snapshot(self._snapshots, position, row[0], body)

    def close(self) -> None:
        self._reader.close()
        self._snapshots.close()


_PAUSES: Final[dict[int, type[LogPaused]]] = {sqlite3.SQLITE_FULL: LogFull, sqlite3.SQLITE_BUSY: LogBusy}
_SNAPSHOTS: Final = (
    "CREATE TABLE IF NOT EXISTS snapshot (position INTEGER PRIMARY KEY, crc INTEGER, link BLOB, body BLOB)"
)
_READ: Final = "SELECT position, crc, link, body FROM record WHERE position > ? ORDER BY position LIMIT ?"


def _newest_sound(snapshots: sqlite3.Connection) -> "_Row | None":
    return next(_sound(snapshots), None)


def _sound(snapshots: sqlite3.Connection) -> Iterator["_Row"]:
    """The newest first."""
    try:
        positions = snapshots.execute("SELECT position FROM snapshot ORDER BY position DESC").fetchall()
        for (position,) in positions:
            row = _Row._make(
                snapshots.execute(
                    "SELECT position, crc, link, body FROM snapshot WHERE position = ?", (position,)
                ).fetchone()
            )
            if row.sound() and row.crc == zlib.crc32(row.body, zlib.crc32(row.link)):
                yield row
    except sqlite3.DatabaseError:
        return


def _keep_snapshot(snapshots: sqlite3.Connection, position: int, link: bytes, body: bytes) -> None:
    try:
        snapshots.execute("BEGIN IMMEDIATE")
        snapshots.execute(
            "INSERT OR REPLACE INTO snapshot VALUES (?, ?, ?, ?)",
            (position, zlib.crc32(body, zlib.crc32(link)), link, body),
        )
        snapshots.execute(
            "DELETE FROM snapshot WHERE position NOT IN (SELECT position FROM snapshot ORDER BY position DESC LIMIT ?)",
            (SNAPSHOTS_KEPT,),
        )
        snapshots.execute("COMMIT")
    except sqlite3.Error as e:
        _roll_back(snapshots)
        raise LogFailed(f"snapshot at {position} not saved: {e}") from e


class _Row(NamedTuple):
    position: int
    crc: int
    link: bytes
    body: bytes

    def sound(self) -> bool:
        """The types are right: SQLite stores what damage it is given."""
        return isinstance(self.crc, int) and isinstance(self.link, bytes) and isinstance(self.body, bytes)


def _wal_need(body: bytes) -> int:
    """About what an append of it writes: whole pages, and a page of the tree."""
    return (len(body) // 4096 + 2) * 4120


def _crc(position: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(position.to_bytes(8, "little")))


def _check_row(row: _Row, due: int) -> None:
    if row.position != due:
        raise LogDamaged(due, f"it is missing, {row.position} is there")
    if not row.sound() or row.crc != _crc(row.position, row.body):
        raise LogDamaged(row.position, "its CRC does not agree")


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            return  # The transaction is lost with the connection; the failure has been noted already.


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


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _read_mark(fd: int, incarnation: int) -> tuple[int, bytes] | None:
    """The mark's position and link; none if it is torn or of another log."""
    mark = os.pread(fd, _MARK.size, 0)
    if len(mark) != _MARK.size:
        return None
    of, position, link, crc = _MARK.unpack(mark)
    return (position, link) if of == incarnation and crc == zlib.crc32(mark[:-4]) else None
