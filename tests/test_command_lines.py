"""The command lines of engines and fabric nodes, each option wrong in every way: one line, and an exit code."""

import argparse
import gc
import logging
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import bus.process
import engine.process
from engine.log.sqlite import SqliteLog
from proto import logs
from proto.cluster import dumps
from tests.engines import cluster_of

HUGE = "9" * 30
NOWHERE = "203.0.113.9"  # of a network that is only written about
ADDRESSES = ["", "x", ":1", "h:", "h:-1", "h:65536", f"h:{HUGE}", "::1:1", "[::1]", "[::zz]:1", "tcp://h:1", "a b:1"]
ENDPOINTS = ["", "x", "h:1", "tcp://", "tcp://h", "tcp://h:65536", "tcp://::1:1", "ipc://x"]
NUMBERS = ["", "x", "1.5", "1e3", "0x1", "-1", HUGE, "٣"]


class Places:
    """Files, directories and ports as a command line may name them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file("cluster.toml").write_bytes(b"\xef\xbb\xbf" + dumps(cluster_of(2)).encode())
        self.file("wild.toml").write_text("[[engine]]\nid = 1\ngrpc = '0.0.0.0:0'\n")
        self.file("empty").touch()
        self.file("binary").write_bytes(bytes(range(256)))
        self.file("token").write_text("a token of some length".replace(" ", "-"))
        self.taken = socket.create_server(("127.0.0.1", 0))
        self.port = self.taken.getsockname()[1]
        self.log = SqliteLog(directory / "busy")

    def file(self, name: str) -> Path:
        return self.directory / name

    def close(self) -> None:
        self.taken.close()
        self.log.close()

    def fill(self, text: str) -> str:
        return text.replace("DIR", str(self.directory)).replace("TAKEN", str(self.port))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    places = Places(tmp_path_factory.mktemp("places"))
    yield places
    places.close()


@pytest.fixture(autouse=True)
def _process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a main does to its process, ours is spared."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.CRITICAL)
    monkeypatch.setattr(engine.process, "gc", SimpleNamespace(disable=gc.collect, freeze=gc.collect))
    monkeypatch.setattr(sys, "setswitchinterval", lambda seconds: None)
    monkeypatch.setattr(logs, "set_up", lambda *, verbose: None)
    yield
    root.setLevel(level)


ENGINE = {
    "--cluster": "DIR/cluster.toml", "--engine": "1", "--data": "DIR/data", "--grpc": "127.0.0.1:0",
    "--feed": "tcp://127.0.0.1:0",
}  # fmt: skip
BUS = {"--engine": "1", "--grpc": "127.0.0.1:0"}

# By option: what is wrong usage (exit code 2), and what keeps the program from starting (3).
ENGINE_OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "--cluster": (["", "DIR", "DIR/absent", "DIR/cluster.toml/x", "DIR/empty", "DIR/binary", "/dev/null"], []),
    "--engine": ([*NUMBERS, "0", "3", "1000"], []),
    "--data": ([""], ["DIR/empty", "DIR/empty/x", "DIR/busy", "/dev/null", "/proc/none/x", "/proc/sys"]),
    "--grpc": (
        [*ADDRESSES, "0.0.0.0:0", "[::]:0", "0:4001"],
        ["127.0.0.1:TAKEN", f"{NOWHERE}:1", "no-such-host.invalid:1"],
    ),
    "--feed": (
        [*ENDPOINTS, "tcp://0.0.0.0:0", "tcp://[::]:0", "tcp://*:0"],
        ["tcp://127.0.0.1:TAKEN", f"tcp://{NOWHERE}:1"],
    ),
    "--advertise-grpc": ([*ADDRESSES, "0.0.0.0:4001", "[::]:4001"], []),
    "--advertise-feed": ([*ENDPOINTS, "tcp://0.0.0.0:4001", "tcp://*:4001"], []),
    "--join": ([*ADDRESSES, "127.0.0.1:0", "0.0.0.0:4001", "[::]:4001"], []),
    "--name": (["", "a b", "x" * 65, "ü", "a/b", "a\nb"], []),
    "--snapshot-after": (NUMBERS, []),
    "--clock-bound": ([*NUMBERS, "36501"], []),
    "--keep-log": (NUMBERS, []),
    "--operator-token-file": (["", "DIR", "DIR/absent", "DIR/token/x", "DIR/empty", "DIR/binary", "/dev/zero"], []),
}
BUS_OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "--engine": ([*NUMBERS, "0", "1000"], []),
    "--name": ENGINE_OPTIONS["--name"],
    "--grpc": ENGINE_OPTIONS["--grpc"],
    "--advertise-grpc": ENGINE_OPTIONS["--advertise-grpc"],
    "--join": ENGINE_OPTIONS["--join"],
    "--only": ([*NUMBERS, "0", "1000"], []),
    "--seed": (["", "x", "1.5"], []),
}

Main = Callable[[list[str]], int]
CASES = [
    pytest.param(main, usual, option, value, code, id=f"{name} {option} {value[:20]}")
    for name, main, usual, options in (
        ("engine", engine.process.main, ENGINE, ENGINE_OPTIONS), ("bus", bus.process.main, BUS, BUS_OPTIONS)
    )
    for option, by_code in options.items()
    for code, values in zip((2, 3), by_code, strict=True)
    for value in values
]  # fmt: skip


@pytest.mark.parametrize(("main", "usual", "option", "value", "code"), CASES)
def test_a_wrong_option_is_one_line_and_an_exit_code(
    main: Main,
    usual: dict[str, str],
    option: str,
    value: str,
    code: int,
    places: Places,
    capfd: pytest.CaptureFixture[str],
) -> None:
    words = [f"{name}={places.fill(said)}" for name, said in {**usual, option: value}.items()]
    words += ["--new"] if main is engine.process.main else []
    try:
        left = main(words)
    except SystemExit as e:
        left = int(str(e.code))
    out, err = capfd.readouterr()
    assert (left, out) == (code, ""), err
    assert err.startswith("engine: " if main is engine.process.main else "bus: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "[Errno" not in err
    assert "there is no log" not in err  # which would hide what is asked here
    began = places.file("data")
    assert not began.exists() or code == 3, "wrong usage began a log"
    shutil.rmtree(began, ignore_errors=True)


@pytest.mark.parametrize(
    ("parser", "options"), [(engine.process.parser, ENGINE_OPTIONS), (bus.process.parser, BUS_OPTIONS)]
)
def test_every_option_that_takes_a_value_is_tried(
    parser: Callable[[], argparse.ArgumentParser], options: dict[str, object]
) -> None:
    known = {action.option_strings[-1] for action in parser()._actions if action.nargs != 0}
    assert known == set(options)


def test_an_address_in_the_file_that_is_any_address_needs_one_to_tell(
    places: Places, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ENGINE | {"--cluster": "DIR/wild.toml"}
    del options["--grpc"]
    words = [f"{name}={places.fill(said)}" for name, said in options.items()]
    assert engine.process.main(words) == 2
    assert capfd.readouterr().err == (
        "engine: 0.0.0.0:0 is any address, and nobody finds it there: say with --advertise-grpc where they do\n"
    )
    assert engine.process.main([*words, "--new", "--advertise-grpc=h:0", f"--data={places.directory}/busy"]) == 3
