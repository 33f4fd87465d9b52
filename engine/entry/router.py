"""One way in for every command: through the door, then to the home engine of its instrument.

A batch for this engine alone, by far the most common, is logged as the bytes it came in. Any other is cut by home;
within one home the order of a batch is kept. A mass cancel of all instruments goes to every engine, and each answers.
An instrument that nobody has goes to the own core, which refuses it by the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from engine.entry.door import answers, check, refusals
from engine.log.commit import Committer, Submission
from proto.columns import LOG_FAILED, MASS_CANCEL, NO_REASON, REFUSED, THROTTLED, UNAVAILABLE, Batch, select
from proto.orders import read_batch, write_batch

THROTTLE_BURST_S: Final = 1.0  # a session may spend so many seconds' worth of commands at once


class Origin(Protocol):
    """Whoever sent a command: a session, a call, or a link from another engine."""

    def tell(self, home: int, rows: list[int]) -> None:
        """Take report rows without a number, in the name of that home."""

    def begun(self) -> None:
        """A batch of its commands went on its way; `ended` follows when it is answered, refused or given up."""

    def ended(self) -> None: ...


class Carrier(Protocol):
    """The way to another engine."""

    def send(self, batch: Batch, commands: bytes, origin: Origin) -> bool:
        """Take a batch along and see to its answer, or say that it cannot be sent."""


class Entry:
    """The door of one engine, and the crossroads behind it."""

    def __init__(self, engine: int, committer: Committer, homes: dict[int, int]) -> None:
        self.engine = engine
        self.committer = committer
        self.carriers: dict[int, Carrier] = {}  # by engine, in the order of their ids
        self._homes: dict[int, int] = {}
        self._foreign: set[int] = set()
        self.learn(homes)

    def learn(self, homes: dict[int, int]) -> None:
        """Instruments by id, and their home engines: those it knew, and any that joined."""
        self._homes.update(homes)
        self._foreign = {instrument for instrument, home in self._homes.items() if home != self.engine}

    def home(self, instrument: int) -> int:
        """The home engine of an instrument; this one for an instrument that nobody has."""
        return self._homes.get(instrument, self.engine)

    def take(
        self,
        account: int,
        session: int,
        stp: int,
        commands: bytes,
        origin: Origin,
        bucket: Bucket | None = None,
        now: float = 0.0,
    ) -> None:
        """Let a serialized CommandBatch in and send it on; refuse what `bucket`, at `now` seconds, does not allow.

        Raises: GarbledError, before anything has happened.
        """
        batch, commands = self._checked(read_batch(account, session, stp, commands), commands, origin)
        if bucket is not None:
            allowed = bucket.take(len(batch), now)
            if allowed < len(batch):
                origin.tell(self.engine, refusals(batch, bucket.reasons(allowed, len(batch))))
                batch = select(batch, [1] * allowed + [0] * (len(batch) - allowed))
                commands = write_batch(batch)
        self._route(batch, commands, origin)

    def take_own(self, account: int, session: int, stp: int, commands: bytes, origin: Origin) -> None:
        """Like `take`, but it goes no further than this engine: a command is forwarded once."""
        batch, commands = self._checked(read_batch(account, session, stp, commands), commands, origin)
        if batch.op:
            self._enter(batch, commands, origin)

    def _checked(self, batch: Batch, commands: bytes, origin: Origin) -> tuple[Batch, bytes]:
        reasons = check(batch)
        if not reasons:
            return batch, commands
        origin.tell(self.engine, refusals(batch, reasons))
        batch = select(batch, [not reason for reason in reasons])
        return batch, write_batch(batch)

    def _route(self, batch: Batch, commands: bytes, origin: Origin) -> None:
        if not batch.op:
            return
        if self._foreign.isdisjoint(batch.instrument) and MASS_CANCEL not in batch.op:
            self._enter(batch, commands, origin)
            return
        for home, rows in self._rows_by_home(batch).items():
            part = batch if all(rows) else select(batch, rows)
            bytes_of_part = commands if part is batch else write_batch(part)
            if home == self.engine:
                self._enter(part, bytes_of_part, origin)
            else:
                self._forward(home, part, bytes_of_part, origin)

    def _rows_by_home(self, batch: Batch) -> dict[int, list[bool]]:
        """For every home concerned, which rows go there."""
        everywhere = [
            op == MASS_CANCEL and not instrument for op, instrument in zip(batch.op, batch.instrument, strict=True)
        ]
        homes = [self.home(instrument) for instrument in batch.instrument]
        concerned = [self.engine, *self.carriers] if any(everywhere) else list(dict.fromkeys(homes))
        return {
            home: [all_of or home == one for all_of, one in zip(everywhere, homes, strict=True)] for home in concerned
        }

    def _enter(self, batch: Batch, commands: bytes, origin: Origin) -> None:
        origin.begun()
        self.committer.submit(Submission(batch, commands, _Entered(self.engine, batch, origin).done))

    def _forward(self, home: int, batch: Batch, commands: bytes, origin: Origin) -> None:
        carrier = self.carriers.get(home)
        if carrier is None or not carrier.send(batch, commands, origin):
            origin.tell(home, answers(batch, REFUSED, UNAVAILABLE))


class _Entered:
    """A batch in the own log's hands."""

    __slots__ = ("_batch", "_engine", "_origin")

    def __init__(self, engine: int, batch: Batch, origin: Origin) -> None:
        self._engine = engine
        self._batch = batch
        self._origin = origin

    def done(self, released: bool) -> None:
        if not released:
            self._origin.tell(self._engine, answers(self._batch, REFUSED, LOG_FAILED))
        self._origin.ended()


class Bucket:
    """A throttle: `rate` commands a second, and a burst of one second's worth."""

    __slots__ = ("_level", "_rate", "_then")

    def __init__(self, rate: int, now: float) -> None:
        assert rate > 0
        self._rate = rate
        self._level = rate * THROTTLE_BURST_S
        self._then = now

    def take(self, count: int, now: float) -> int:
        """How many of so many commands may pass now."""
        self._level = min(self._rate * THROTTLE_BURST_S, self._level + (now - self._then) * self._rate)
        self._then = now
        allowed = min(count, int(self._level))
        self._level -= allowed
        return allowed

    @staticmethod
    def reasons(allowed: int, count: int) -> Sequence[int]:
        """The reason of each of `count` commands, the first `allowed` of which may pass."""
        return [NO_REASON] * allowed + [THROTTLED] * (count - allowed)
