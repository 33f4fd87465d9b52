"""Commands on their way: checked and encoded before anything is noted of them, then waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from engine.client.report import BadCommandError, ClientError, Report
from proto.columns import BAD_CLIENT_ORDER_ID, BATCH_TOO_LARGE, MALFORMED, Batch, Commands
from proto.orders import BATCH_MAX, read_batch, unwrap, wrap, write_batch


class Sent:
    """Commands on their way. Await it: it ends when each is answered, and gives the answers if they were asked for.

    `left` counts those not answered; `answers` has the report that answered each command, by its id.
    """

    __slots__ = ("_done", "answers", "begun", "ids", "left", "marks", "message")

    def __init__(self, commands: Commands, message: bytes, *, answers: bool, marks: tuple[int, ...] = ()) -> None:
        self.ids = commands.client_order_id[:]
        self.message = message
        self.left = len(marks or self.ids)
        self.answers: dict[int, Report] | None = {} if answers else None
        self.begun = False  # to be written: from here on it may have an effect
        self.marks = marks  # homes whose answer is due, if every home has to answer
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.left:
            self._done.set_result(None)

    @property
    def done(self) -> bool:
        return self._done.done()

    def __await__(self) -> Generator[Any, None, list[Report]]:
        yield from asyncio.shield(self._done).__await__()
        if self.answers is None:
            return []
        return [self.answers[id] for id in self.marks or self.ids]

    def batch(self) -> Batch:
        """What was sent, as columns again: whoever made it may have gone on writing."""
        return read_batch(0, 0, 0, unwrap(self.message) or b"")

    def is_due(self, home: int) -> bool:
        return self.answers is not None and home in self.marks and home not in self.answers

    def answered(self) -> None:
        self.left -= 1
        if not self.left and not self._done.done():
            self._done.set_result(None)

    def fail(self, error: ClientError) -> None:
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # whoever does not await it has the session to tell


def encoded(commands: Commands, account: int) -> bytes:
    """The message of a batch that can be sent, in the account's name. Raises: BadCommandError."""
    count = len(commands)
    if count > BATCH_MAX:
        raise BadCommandError(BATCH_TOO_LARGE, f"a batch of {count} commands, {BATCH_MAX} at most")
    columns = (
        commands.client_order_id, commands.instrument, commands.flags, commands.price, commands.quantity,
        commands.target, commands.terms or commands.op,
    )  # fmt: skip
    if any(len(column) != count for column in columns):
        raise BadCommandError(MALFORMED, "columns of different lengths")
    if len(set(commands.client_order_id)) != count:
        raise BadCommandError(BAD_CLIENT_ORDER_ID, "an id that is given twice")
    commands.account = account
    try:
        return wrap(write_batch(commands))
    except (ValueError, TypeError, OverflowError) as e:
        raise BadCommandError(MALFORMED, f"a value that its column cannot hold: {e}") from e
