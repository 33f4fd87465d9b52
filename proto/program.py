"""How a program begins and ends: with an exit code, and never with a traceback for what is nobody's bug.

Ctrl-C                        130, also while the program is still being loaded
nobody reads its output       141, or its own exit code if it had done its work
its output cannot be written  74, and one line that says why
"""

from __future__ import annotations

import errno
import importlib
import os
import sys

# Nothing else is loaded here: an interrupt before `outcome` runs would be a traceback.
TYPE_CHECKING = False  # typing's own
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, NoReturn

INTERRUPTED: Final = 130
NO_READER: Final = 141
NOT_WRITTEN: Final = 74
_UNWRITTEN: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def run(module: str, name: str = "") -> NoReturn:
    """Load a module with a `main() -> int`, run that, and end the process with what it gives.

    `name` is what the program is called, if that is not what its module's name begins with.
    """
    sys.exit(outcome(lambda: importlib.import_module(module).main(), name or module.partition(".")[0]))


def outcome(main: Callable[[], int], name: str) -> int:
    """The exit code of a program that `main` loads and runs, after what it said is written."""
    # Read by the gRPC library when it is loaded: it would write lines of its own, in a form of its own, before ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    code: int | None = None
    try:
        importlib.import_module("proto.logs").bound()
        if sys.stdout is None:  # closed by whoever started it
            sys.stdout = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        try:
            code = main()
        except SystemExit as e:  # wrong usage, or --help
            code = e.code if isinstance(e.code, int) else 0
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _write_no_more()
        return NO_READER if code is None else code
    except OSError as e:
        if e.errno not in _UNWRITTEN:
            raise
        _write_no_more()
        print(f"{name}: what it says cannot be written: {e.strerror}", file=sys.stderr)
        return code or NOT_WRITTEN
    return code


def _write_no_more() -> None:
    """Have nothing complain at exit about what waits for stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
