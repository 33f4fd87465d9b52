"""What every program does with its command line: examples first in the help, and one line for wrong usage."""

import argparse
import os
import re
from typing import Any, ClassVar, Final, NoReturn

USAGE: Final = 2  # exit code
AT: Final = "LOBMESH_AT"
PORT_MAX: Final = 65_535
TCP: Final = "tcp://"
_ADDRESS: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[^][\s/:]{1,255}):([0-9]{1,5})")


def default_address() -> str:
    """The HOST:PORT that LOBMESH_AT in the environment names, or nothing; it is to be checked as if it was typed."""
    return os.environ.get(AT, "").strip()


def address(text: str) -> str:
    """HOST:PORT, or [::1]:PORT, as it is; port 0 where the system is to choose. For argparse, as what follows."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    if int(found[1]) > PORT_MAX:
        raise argparse.ArgumentTypeError(f"{text!r}: no port is above {PORT_MAX:,}")
    return text


def endpoint(text: str) -> str:
    """tcp://HOST:PORT, as it is."""
    scheme, host_port = text[: len(TCP)], text[len(TCP) :]
    if scheme != TCP or not _ADDRESS.fullmatch(host_port):
        raise argparse.ArgumentTypeError(f"{text!r} is not tcp://HOST:PORT")
    address(host_port)
    return text


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
