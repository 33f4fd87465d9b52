"""What every program does with its command line: addresses and numbers checked in one way, examples first in the help,
and one line for wrong usage.

    HOST:PORT         an IPv6 host in brackets: [::1]:4001
    where to serve    port 0 has the system choose; 0.0.0.0 and [::] are all addresses of this machine
    where another is  neither
"""

import argparse
import os
import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Final, NoReturn

USAGE: Final = 2  # exit code
AT: Final = "LOBMESH_AT"
PORT_MAX: Final = 65_535
SAID_MAX: Final = 64  # characters
TCP: Final = "tcp://"
BEARER: Final = "Bearer "  # before a token in the metadata `authorization`
TOKEN_MIN: Final = 16  # characters
TOKEN_FILE_MAX: Final = 4_096  # characters that are read of it
_ADDRESS: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[^][\s/:]{1,255}):([0-9]{1,5})")
_ANY_HOST: Final = ("*", "0")  # which ZeroMQ and the system's resolver take for all addresses of this machine
_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


def default_address() -> str:
    """The HOST:PORT that LOBMESH_AT in the environment names, or nothing; it is to be checked as if it was typed."""
    return os.environ.get(AT, "").strip()


def wrong_address(text: str, *, somebody: bool = False) -> str:
    """What is wrong with a HOST:PORT, in words; nothing if it is one. `somebody`: it is where another machine is."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return f"{_said(text)} is not HOST:PORT"
    host, port = found[1], int(found[2])
    if host.startswith("[") and not _is_ip(host[1:-1]):
        return f"{_said(text)}: {host} is no IPv6 address"
    if port > PORT_MAX:
        return f"{_said(text)}: no port is above {PORT_MAX:,}"
    if somebody and not port:
        return f"{_said(text)}: nobody is at port 0"
    if somebody and _is_any(host):
        return f"{_said(text)}: {host} is any address, and nobody's"
    return ""


def wrong_endpoint(text: str, *, somebody: bool = False) -> str:
    """The same of tcp://HOST:PORT."""
    if not text.startswith(TCP) or not _ADDRESS.fullmatch(text[len(TCP) :]):
        return f"{_said(text)} is not tcp://HOST:PORT"
    return wrong_address(text[len(TCP) :], somebody=somebody)


def address(text: str) -> str:
    """Where to serve, as it is. For argparse, as what follows."""
    return _checked(text, wrong_address(text))


def target(text: str) -> str:
    """Where another machine is, HOST:PORT, as it is."""
    return _checked(text, wrong_address(text, somebody=True))


def endpoint(text: str) -> str:
    """Where to publish, tcp://HOST:PORT, as it is."""
    return _checked(text, wrong_endpoint(text))


def advertised(bound: str, said: str | None = None, option: str = "") -> str:
    """What others are told of a place that serves at `bound`: `said`, if that was, with the bound port for its port 0.

    Both with or without tcp://. Raises: ValueError, which names the option to say it with, for all addresses at once.
    """
    host, _, port = (said or bound).rpartition(":")
    if _is_any(host.removeprefix(TCP)):
        raise ValueError(f"{said or bound} is any address, and nobody finds it there: say with {option} where they do")
    return f"{host}:{bound.rpartition(':')[2] if port == '0' else port}"


def whole(least: int, most: int, unit: str = "") -> Callable[[str], int]:
    """A whole number within these, both included."""

    def number(text: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not least <= int(text) <= most:
            of = f" {unit}" if unit else ""
            raise argparse.ArgumentTypeError(f"{_said(text)} is no whole number from {least:,} to {most:,}{of}")
        return int(text)

    return number


def wrong_name(text: str) -> str:
    """What is wrong with a machine's name, in words; nothing if it is one."""
    return "" if _NAME.fullmatch(text) else f"{_said(text)} is not a name: 1 to 64 letters, digits, . _ -"


def machine_name(text: str) -> str:
    """A machine's name, as it is."""
    return _checked(text, wrong_name(text))


def path(text: str) -> Path:
    """A file or a directory, be it there or not; not the empty text, which would be the working directory."""
    return Path(_checked(text, "" if text else "'' is no file and no directory"))


def operator_token(text: str) -> str:
    """The token that the file holds which makes an operator."""
    try:
        with path(text).open(encoding="utf-8") as file:
            return token_in(file.read(TOKEN_FILE_MAX))
    except (OSError, ValueError) as e:
        raise argparse.ArgumentTypeError(f"{text}: {getattr(e, 'strerror', None) or e}") from e


def token_in(text: str) -> str:
    """The token that a file's text is. Raises: ValueError if that is none."""
    token = text.strip()
    if len(token) < TOKEN_MIN or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError(f"no token: {TOKEN_MIN} or more ASCII characters on one line, without spaces")
    return token


def printable(text: str) -> str:
    """The same without what would steer a terminal: what came from elsewhere may hold anything."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _said(text: str) -> str:
    """What was said, quoted and not too long for a line."""
    return repr(text if len(text) <= SAID_MAX else text[:SAID_MAX] + "…")


def _checked(text: str, wrong: str) -> str:
    if wrong:
        raise argparse.ArgumentTypeError(wrong)
    return text


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_any(host: str) -> bool:
    """Whether a host is all addresses of a machine."""
    bare = host.strip("[]")
    return host in _ANY_HOST or (_is_ip(bare) and ip_address(bare).is_unspecified)


def called(module: str, word: str) -> str:
    """How another of these programs is started, in the way that this one was: by its module, or as `lobmesh WORD`."""
    return f"lobmesh {word}" if Parser.renamed[1].startswith("lobmesh ") else f"python -m {module}"


class UsageError(ValueError):
    """What was asked for does not fit together, or cannot be had."""


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
