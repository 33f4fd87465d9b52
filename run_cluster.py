"""Start a cluster, let traders or recorded flow loose on it, and judge what became of it: see tools/run/command.py."""

from __future__ import annotations

from proto import program

TYPE_CHECKING = False  # as in proto/program.py
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """As tools/run/command.py says; that is loaded only now, so that an interrupt meanwhile is nobody's traceback."""
    from tools.run import command

    return command.main(argv)


if __name__ == "__main__":
    program.run("tools.run.command", "run_cluster")
