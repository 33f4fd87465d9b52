"""How a listening ends: its exit codes, and what keeps it from going on."""

from typing import Final

from proto.program import NOT_WRITTEN

FINE_EXIT: Final = 0
DIFFERS_EXIT: Final = 1
USAGE_EXIT: Final = 2
CONNECT_EXIT: Final = 3
GAP_EXIT: Final = 4
WRITE_EXIT: Final = NOT_WRITTEN


class CannotGoOn(Exception):
    """The text says why, in a line; `code` is the exit code."""

    code = USAGE_EXIT


class CannotOpen(CannotGoOn):
    """A file that was named cannot be opened."""


class CannotConnect(CannotGoOn):
    """Nobody there, or nothing to read."""

    code = CONNECT_EXIT


class CannotWrite(CannotGoOn):
    """What was to be recorded could not be written."""

    code = WRITE_EXIT
