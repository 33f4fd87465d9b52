"""Start a cluster, let traders or recorded flow loose on it, and judge what became of it: see tools/run/command.py."""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code of tools/run/command.py; 130 if it is interrupted before that is loaded, or while it ends."""
    try:
        from tools.run import command

        return command.main(argv)
    except KeyboardInterrupt:
        print("run_cluster: interrupted, no verdict", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
