"""One word over the programs: it finds each, passes on what it is told, and gives back its exit code."""

import pytest

from proto.dial import Parser, called
from tools import lobmesh
from tools.lobmesh import PROGRAMS, main


@pytest.fixture(autouse=True)
def _own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Parser, "renamed", ("", ""))


def code(argv: list[str]) -> int | str | None:
    """How a program ends, whether it returns or exits."""
    try:
        return main(argv)
    except SystemExit as e:
        return e.code


@pytest.mark.parametrize("word", PROGRAMS)
def test_the_help_of_each_program_says_how_it_was_called(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code([word, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"lobmesh {word}" in out
    assert f"{PROGRAMS[word].called} " not in out


@pytest.mark.parametrize("word", PROGRAMS)
def test_wrong_usage_of_a_program_has_its_exit_code_and_its_name(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code([word, "--no-such-option"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith(PROGRAMS[word].called.split()[-1].removeprefix("tools.").removesuffix(".py") + ": ")


def test_what_a_program_returns_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "no-such-file", "--in-process"]) == 2
    assert capsys.readouterr().err == "replay: no-such-file: No such file or directory\n"


@pytest.mark.parametrize("argv", [[], ["no-such-word"], ["--no-such-option"]])
def test_a_word_that_is_none_is_wrong_usage_in_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("lobmesh: ")


def test_its_own_help_names_every_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == lobmesh.usage() + "\n"
    assert all(f"    {word} " in lobmesh.usage() for word in PROGRAMS)


def test_ctrl_c_while_a_program_is_loaded_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tools.lobmesh.importlib.import_module", interrupted)
    assert main(["tail"]) == 130


def test_it_says_its_version_also_where_it_is_not_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("lobmesh ")


def test_a_run_says_how_to_look_and_trade_as_it_was_called() -> None:
    """Installed, there is `lobmesh` in any directory, and a `python` that knows the modules perhaps in none."""
    assert called("tools.tail_feed", "tail") == "python -m tools.tail_feed"
    code(["run", "--help"])
    assert (called("tools.tail_feed", "tail"), called("tools.orders", "orders")) == ("lobmesh tail", "lobmesh orders")
