"""Reads a log's records again, slowly, beside the engine: damage below the last snapshot is met by no start, and is to
be told while a copy of what was there can still be found."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from engine.log.contract import LogDamaged, LogFailed
from engine.log.sqlite import SqliteLog

PAUSE_S: Final = 0.25  # at least, between two readings of a few records
SHARE: Final = 50  # and so many times as long as the last one took: a fiftieth of one core at most
REST_S: Final = 60.0  # after the last record

logger = logging.getLogger(__name__)


class Rereading:
    """`found`: the positions that were bad; each is told once."""

    def __init__(self, log: SqliteLog, *, pause_s: float = PAUSE_S, rest_s: float = REST_S) -> None:
        self.found: set[int] = set()
        self.passes = 0
        self._log = log
        self._pause_s = pause_s
        self._rest_s = rest_s

    async def run(self) -> None:
        """Ends when the log is closed; its thread may then be in the middle of a reading."""
        after = 0
        while True:
            began = time.monotonic()
            try:
                reached = await asyncio.to_thread(self._log.check, after)
            except LogDamaged as e:
                self._tell(e)
                reached = max(e.position, after + 1)
            except LogFailed:
                return
            pause_s = max(self._pause_s, SHARE * (time.monotonic() - began))
            if reached == after or reached >= self._log.position:
                self.passes += 1
                reached, pause_s = 0, self._rest_s
            after = reached
            await asyncio.sleep(pause_s)

    def _tell(self, damage: LogDamaged) -> None:
        if damage.position not in self.found:
            self.found.add(damage.position)
            logger.error(
                "%s; the engine goes on, and so does every start from a snapshot behind it. What it was, a backup has: "
                "python -m tools.log verify", damage,
            )  # fmt: skip
