"""What the log caused goes out: reports to whoever follows their account, deltas to the feed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from engine.entry.reports import Hub
from proto.columns import ChannelDeltas, Outcome


class Publish(Protocol):
    """Where deltas go; engine/publish/source.py has the real one. `idle`: nothing follows at once."""

    def __call__(self, time_ns: int, deltas: list[ChannelDeltas], *, idle: bool) -> None: ...


class Release:
    """Called with each record's position, time and outcome, once the core has applied it.

    `waiting` counts the commands that are on their way into the log: while there are some, deltas may wait for theirs.
    """

    def __init__(self, hub: Hub, publish: Publish | None, waiting: Callable[[], int]) -> None:
        self._hub = hub
        self._publish = publish
        self._waiting = waiting

    def __call__(self, position: int, time_ns: int, outcome: Outcome) -> None:
        for reports in outcome.reports:
            self._hub.release(reports.account, reports.first_seq, position, time_ns, reports.rows)
        if self._publish is not None and outcome.deltas:
            self._publish(time_ns, outcome.deltas, idle=not self._waiting())
