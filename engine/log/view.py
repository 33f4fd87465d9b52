"""A log that another process has open, to be read beside it."""

import sqlite3
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from engine.log.contract import LogDamaged
from engine.log.rows import (
    AT_ONCE,
    READ,
    SNAPSHOTS,
    Row,
    check_row,
    header_of,
    keep_snapshot,
    read_only,
    sound_snapshots,
    trouble,
)


class SqliteLogView:
    """A log that another process has open, to read its records and keep snapshots of what they lead to.

    It takes no lock and holds up no append: records are read as of now, a few at a time, and snapshots have a database
    of their own. Raises, when opened: LogDamaged, LogFailed, OSError.
    """

    def __init__(self, directory: str | PathLike[str]) -> None:
        path = Path(directory)
        if not (path / "log.sqlite").exists():
            raise FileNotFoundError(f"no log in {path}")
        try:
            self._reader = read_only(path / "log.sqlite")
            self._snapshots = sqlite3.connect(path / "snapshots.sqlite", isolation_level=None, timeout=30.0)
            self._snapshots.execute("PRAGMA synchronous=FULL")
            self._snapshots.execute(SNAPSHOTS)
            self.incarnation, self.dropped, _ = header_of(self._reader)
        except sqlite3.Error as e:
            raise trouble(e, 1, f"{path} cannot be read") from e

    def read(self, after: int) -> Iterator[tuple[int, bytes]]:
        """As Log.read; ends where the log ends by then."""
        try:
            while rows := self._reader.execute(READ, (after, AT_ONCE)).fetchall():
                for row in map(Row._make, rows):
                    check_row(row, after + 1)
                    after = row.position
                    yield row.position, row.body
        except sqlite3.Error as e:
            raise trouble(e, after + 1, "the log cannot be read") from e

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
        for row in sound_snapshots(self._snapshots):
            yield row.position, row.body

    def save_snapshot(self, position: int, body: bytes) -> None:
        """As Log.save_snapshot."""
        row = self._reader.execute("SELECT link FROM record WHERE position = ?", (position,)).fetchone()
        if row is None:
            raise LogDamaged(position, "it is missing")
        keep_snapshot(self._snapshots, position, row[0], body)

    def close(self) -> None:
        self._reader.close()
        self._snapshots.close()
