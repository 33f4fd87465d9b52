"""A record's row, a snapshot's row, and what an error of SQLite means: for all that reads or writes a log's files."""

import hashlib
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from engine.log.contract import SNAPSHOTS_KEPT, LogBusy, LogDamaged, LogError, LogFailed, LogFull, LogPaused

FORMAT: Final = 1
AT_ONCE: Final = 64  # records
SNAPSHOTS: Final = (
    "CREATE TABLE IF NOT EXISTS snapshot (position INTEGER PRIMARY KEY, crc INTEGER, link BLOB, body BLOB)"
)
LOG: Final = "CREATE TABLE log (format INTEGER, incarnation INTEGER, dropped INTEGER, dropped_link BLOB)"
RECORD: Final = "CREATE TABLE record (position INTEGER PRIMARY KEY, crc INTEGER, link BLOB, body BLOB)"
READ: Final = "SELECT position, crc, link, body FROM record WHERE position > ? ORDER BY position LIMIT ?"

PAUSES: Final[dict[int, type[LogPaused]]] = {sqlite3.SQLITE_FULL: LogFull, sqlite3.SQLITE_BUSY: LogBusy}
_DAMAGE: Final = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_MISMATCH)


class Row(NamedTuple):
    position: int
    crc: int
    link: bytes
    body: bytes

    def sound(self) -> bool:
        """The types are right: SQLite stores what damage it is given."""
        return isinstance(self.crc, int) and isinstance(self.link, bytes) and isinstance(self.body, bytes)


def first_link(incarnation: int) -> bytes:
    """The link of the hash chain that stands before the first record."""
    return hashlib.blake2b(incarnation.to_bytes(4, "little"), digest_size=16).digest()


def next_link(link: bytes, position: int, body: bytes) -> bytes:
    """The link of a record, which stands for it and all before it. Cost: 1 µs, and 1 µs a KiB."""
    chain = hashlib.blake2b(link, digest_size=16)
    chain.update(position.to_bytes(8, "little"))
    chain.update(body)
    return chain.digest()


def crc_of(position: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(position.to_bytes(8, "little")))


def check_row(row: Row, due: int) -> None:
    """Raises: LogDamaged unless it is the record `due`, as it was written."""
    if row.position != due:
        raise LogDamaged(due, f"it is missing, {row.position} is there")
    if not row.sound() or row.crc != crc_of(row.position, row.body):
        raise LogDamaged(row.position, "its CRC does not agree")


def check_link(row: Row, before: bytes) -> None:
    """Raises: LogDamaged unless it continues the record whose link is `before`."""
    if row.link != next_link(before, row.position, row.body):
        raise LogDamaged(row.position, "it does not continue the record before")


def header_of(connection: sqlite3.Connection) -> tuple[int, int, bytes]:
    """What a log says of itself: its incarnation, and the last record that was dropped, with its link."""
    rows = connection.execute("SELECT format, incarnation, dropped, dropped_link FROM log").fetchall()
    if len(rows) == 1 and rows[0][0] == FORMAT:
        _, incarnation, dropped, link = rows[0]
        numbers = isinstance(incarnation, int) and isinstance(dropped, int)
        if numbers and 0 < incarnation < 1 << 32 and dropped >= 0 and isinstance(link, bytes):
            return incarnation, dropped, link
    raise LogDamaged(1, "not a log of this format")


def structure_fault(connection: sqlite3.Connection) -> str:
    """What is wrong with how a database is built: a page that is used twice, lost or cannot be read; "" if nothing.

    Of a record's bytes it says nothing. Cost: it reads the whole file, a second a GB once it is in memory.
    """
    (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    return "" if found == "ok" else " ".join(str(found).split())


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, and not the disk, its room, the rights to it, or another process."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _DAMAGE


def trouble(error: sqlite3.Error, position: int, what: str) -> LogError:
    """What an error of SQLite means that met a log at or behind that position."""
    if is_damage(error):
        return LogDamaged(position, str(error))
    kind = PAUSES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, LogFailed)
    return kind(f"{what}: {error}")


def roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            return  # The transaction is lost with the connection; the failure has been noted already.


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that changes nothing, and whose closing moves and deletes no write-ahead log."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, cached_statements=16)


def sound_snapshots(snapshots: sqlite3.Connection) -> Iterator[Row]:
    """Those that are as they were written, the newest first; what cannot be read is passed over."""
    try:
        positions = snapshots.execute("SELECT position FROM snapshot ORDER BY position DESC").fetchall()
    except sqlite3.DatabaseError:
        return
    for (position,) in positions:
        try:
            found = snapshots.execute(
                "SELECT position, crc, link, body FROM snapshot WHERE position = ?", (position,)
            ).fetchone()
        except sqlite3.DatabaseError:
            continue
        row = Row._make(found) if found else None
        if row is not None and row.sound() and row.crc == zlib.crc32(row.body, zlib.crc32(row.link)):
            yield row


def keep_snapshot(snapshots: sqlite3.Connection, position: int, link: bytes, body: bytes) -> None:
    """Raises: LogFailed."""
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
        roll_back(snapshots)
        raise LogFailed(f"snapshot at {position} not saved: {e}") from e
