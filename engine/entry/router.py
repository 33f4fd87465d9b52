"""One way in for every command: through the door, then to the home engine of its instrument.

A batch for this engine alone, by far the most common, is logged as the bytes it came in. Any other is cut by home;
within one home the order of a batch is kept. A mass cancel of all instruments goes to every engine, and each answers.
An instrument that nobody has goes to the own core, which refuses it by the rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from engine.entry.door import Throttle, answers, let_in
from engine.entry.reference import Reference
from engine.log.commit import Committer, Submission
from engine.log.records import RecordError
from proto.columns import LOG_FAILED, MALFORMED, MASS_CANCEL, REFUSED, UNAVAILABLE, Batch, select
from proto.orders import write_batch


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


class Router:
    """Where the commands of one engine's clients go.

    `entered` is told the account and the session of each batch that is logged here, where its session's end matters.
    """

    def __init__(self, reference: Reference, committer: Committer, entered: Callable[[int, int], None]) -> None:
        self.engine = reference.engine
        self.committer = committer
        self.carriers: dict[int, Carrier] = {}  # by engine, in the order of their ids
        self._reference = reference
        self._tell_entered = entered

    def take(
        self,
        account: int,
        session: int,
        stp: int,
        commands: bytes,
        origin: Origin,
        throttle: Throttle | None = None,
        now: float = 0.0,
    ) -> None:
        """Let a serialized CommandBatch in and send it on; refuse what `throttle`, at `now` seconds, does not allow.

        Raises: GarbledError, before anything has happened.
        """
        batch, commands = self._let_in(account, session, stp, commands, origin, throttle, now)
        if not batch.op:
            return
        if self._reference.all_here(batch.instrument) and MASS_CANCEL not in batch.op:
            self._enter(batch, commands, origin)
            return
        for home, rows in self._rows_by_home(batch).items():
            part = batch if all(rows) else select(batch, rows)
            bytes_of_part = commands if part is batch else write_batch(part)
            if home == self.engine:
                self._enter(part, bytes_of_part, origin)
            else:
                self._forward(home, part, bytes_of_part, origin)

    def take_own(self, account: int, session: int, stp: int, commands: bytes, origin: Origin) -> None:
        """Like `take`, but it goes no further than this engine: a command is forwarded once."""
        batch, commands = self._let_in(account, session, stp, commands, origin)
        if batch.op:
            self._enter(batch, commands, origin)

    def _let_in(
        self,
        account: int,
        session: int,
        stp: int,
        commands: bytes,
        origin: Origin,
        throttle: Throttle | None = None,
        now: float = 0.0,
    ) -> tuple[Batch, bytes]:
        known = self._reference.may_trade(account)
        batch, commands, refused = let_in(account, session, stp, commands, throttle, now, known=known)
        if refused:
            origin.tell(self.engine, refused)
        return batch, commands

    def _rows_by_home(self, batch: Batch) -> dict[int, list[bool]]:
        """For every home concerned, which rows go there."""
        everywhere = [
            op == MASS_CANCEL and not instrument for op, instrument in zip(batch.op, batch.instrument, strict=True)
        ]
        homes = [self._reference.home(instrument) for instrument in batch.instrument]
        concerned = [self.engine, *self.carriers] if any(everywhere) else list(dict.fromkeys(homes))
        return {
            home: [all_of or home == one for all_of, one in zip(everywhere, homes, strict=True)] for home in concerned
        }

    def _enter(self, batch: Batch, commands: bytes, origin: Origin) -> None:
        try:
            submission = Submission.enter(batch, commands, partial(self._entered, batch, origin))
        except RecordError:  # what the log could not be read back with: no one else is to suffer for it
            origin.tell(self.engine, answers(batch, REFUSED, MALFORMED))
            return
        if batch.session:
            self._tell_entered(batch.account, batch.session)
        origin.begun()
        self.committer.submit(submission)

    def _entered(self, batch: Batch, origin: Origin, position: int, refused: int) -> None:
        if not position:
            origin.tell(self.engine, answers(batch, REFUSED, LOG_FAILED))
        origin.ended()

    def _forward(self, home: int, batch: Batch, commands: bytes, origin: Origin) -> None:
        carrier = self.carriers.get(home)
        if carrier is None or not carrier.send(batch, commands, origin):
            origin.tell(home, answers(batch, REFUSED, UNAVAILABLE))
