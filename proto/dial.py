"""What every program does with its command line: examples first in the help, and one line for wrong usage."""

import argparse
import os
from typing import Any, Final, NoReturn

USAGE: Final = 2  # exit code
AT: Final = "LOBMESH_AT"


def default_address() -> str:
    """The HOST:PORT that LOBMESH_AT in the environment names, or nothing; it is to be checked as if it was typed."""
    return os.environ.get(AT, "").strip()


class Parser(argparse.ArgumentParser):
    """Begins its help with `examples`, where there are some, and complains in one line. Exits 2 for wrong usage."""

    def __init__(self, *args: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        self._examples = examples

    def format_help(self) -> str:
        return self._examples + super().format_help()

    def error(self, message: str) -> NoReturn:
        name = self.prog.removeprefix("python -m ").removeprefix("tools.").removesuffix(".py")
        self.exit(USAGE, f"{name}: {message}\n")
