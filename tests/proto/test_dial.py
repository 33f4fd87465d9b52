"""Every program complains in one line about what it was told wrongly; examples come first in its help."""

import argparse
from collections.abc import Callable

import pytest

import bus.process
import engine.log.condense
import engine.log.skip
import engine.process
import engine.publish.history
import tools.bench.__main__
from proto.dial import AT, Parser, address, advertised, default_address, endpoint, target, whole
from tools import faults, replay, tail_feed
from tools.flow import replay_flow, trade
from tools.orders import options
from tools.run import command, late_joiners

PROGRAMS: dict[str, Callable[[], argparse.ArgumentParser]] = {
    "bus": bus.process.parser,
    "engine": engine.process.parser,
    "engine.log.condense": engine.log.condense.parser,
    "engine.log.skip": engine.log.skip.parser,
    "engine.publish.history": engine.publish.history.parser,
    "run_cluster": command.parser,
    "bench": tools.bench.__main__.parser,
    "faults": faults.parser,
    "orders": options.parser,
    "replay": replay.parser,
    "flow.replay_flow": replay_flow.parser,
    "run.late_joiners": late_joiners.parser,
    "tail_feed": tail_feed.parser,
    "flow.trade": trade.parser,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_wrong_usage_is_one_line_that_names_the_program(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        PROGRAMS[name]().parse_args(["--no-such-option"])
    out, err = capsys.readouterr()
    assert (left.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{name}: ")


def test_examples_come_first_and_a_part_of_a_program_has_none() -> None:
    parser = Parser(prog="python -m tools.demo", examples="demo 1\n")
    part = parser.add_subparsers().add_parser("part")
    assert parser.format_help().startswith("demo 1\nusage: python -m tools.demo ")
    assert part.format_help().startswith("usage: python -m tools.demo part")


def test_the_environment_may_say_whom_to_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(AT, raising=False)
    assert default_address() == ""
    monkeypatch.setenv(AT, " 127.0.0.1:4001\n")
    assert default_address() == "127.0.0.1:4001"


@pytest.mark.parametrize("text", ["127.0.0.1:0", "localhost:65535", "[::1]:4001", "engine-1.example:4001"])
def test_an_address_is_a_host_and_a_port(text: str) -> None:
    assert address(text) == text
    assert endpoint(f"tcp://{text}") == f"tcp://{text}"


@pytest.mark.parametrize("text", ["", "nowhere", "127.0.0.1:65536", "::1:4001", "[::1]", "a b:1", "h:-1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    for check, given in ((address, text), (endpoint, f"tcp://{text}"), (endpoint, text)):
        with pytest.raises(argparse.ArgumentTypeError):
            check(given)


@pytest.mark.parametrize("text", ["127.0.0.1:0", "0.0.0.0:4001", "[::]:4001", "0:4001", "*:4001"])
def test_nobody_is_at_port_0_or_at_any_address(text: str) -> None:
    assert address(text) == text
    with pytest.raises(argparse.ArgumentTypeError):
        target(text)


@pytest.mark.parametrize(
    ("bound", "said", "told"),
    [
        ("127.0.0.1:4001", None, "127.0.0.1:4001"),
        ("[::1]:4001", None, "[::1]:4001"),
        ("0.0.0.0:4001", "venue.example:80", "venue.example:80"),
        ("0.0.0.0:4001", "venue.example:0", "venue.example:4001"),
        ("tcp://[::]:5001", "tcp://[2001:db8::1]:0", "tcp://[2001:db8::1]:5001"),
        ("0.0.0.0:4001", None, None),
        ("tcp://*:5001", None, None),
        ("127.0.0.1:4001", "[::]:4001", None),
    ],
)
def test_what_is_advertised_is_where_a_machine_is_found(bound: str, said: str | None, told: str | None) -> None:
    if told is None:
        with pytest.raises(ValueError, match="nobody finds it there: say with --here where they do"):
            advertised(bound, said, "--here")
    else:
        assert advertised(bound, said, "--here") == told


def test_a_number_out_of_its_range_is_named_with_the_range() -> None:
    hours = whole(1, 86_400, "seconds")
    assert [hours(text) for text in ("1", "86400", "+5")] == [1, 86_400, 5]
    for text, said in [(text, text) for text in ("0", "86401", "-1", "0.4", "x", "")] + [("9" * 5_000, "9" * 64 + "…")]:
        with pytest.raises(argparse.ArgumentTypeError) as wrong:
            hours(text)
        assert str(wrong.value) == f"{said!r} is no whole number from 1 to 86,400 seconds"
