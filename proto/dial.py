"""What every program does with its command line: examples first in the help, and one line for wrong usage."""

import argparse
import os
from typing import Any, ClassVar, Final, NoReturn

USAGE: Final = 2  # exit code
AT: Final = "LOBMESH_AT"


def default_address() -> str:
    """The HOST:PORT that LOBMESH_AT in the environment names, or nothing; it is to be checked as if it was typed."""
    return os.environ.get(AT, "").strip()


class Parser(argparse.ArgumentParser):
    """Begins its help with `examples`, where there are some, and complains in one line. Exits 2 for wrong usage.

    `renamed` is what a program calls itself and what it was called (`lobmesh tail`): its help says the latter, its
    complaints begin with its own name.
    """

    renamed: ClassVar[tuple[str, str]] = ("", "")

    def __init__(self, *args: Any, examples: str = "", **options: Any) -> None:
        super().__init__(*args, **options)
        own_name, name = self.renamed
        own = self.prog.replace(name, own_name)
        self._name = own.removeprefix("python -m ").removeprefix("tools.").removesuffix(".py")
        self.prog = self.prog.replace(own_name, name)
        self._examples = examples

    def format_help(self) -> str:
        return (self._examples + super().format_help()).replace(*self.renamed)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self._name}: {message}\n")
