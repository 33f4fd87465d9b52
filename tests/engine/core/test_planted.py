"""Breaches of the rules, planted one by one into a copy of the core: the default run of the oracle finds each of them.

Each run of the suite tries the two that once went unnoticed; LOBMESH_PLANTED=all tries the whole list (`make nightly`).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).resolve().parents[3]
NEEDED: Final = ("engine", "bus", "proto", "tests", "tools")
SEED: Final = 20261129
ALWAYS: Final = ("one in fifty plain cancels is ignored", "a maker in nine is not told of its trade")


class Breach(NamedTuple):
    """A rule that is broken by writing `new` where `old` stands in a module of the core."""

    rule: str
    module: str
    old: str
    new: str


def breaches() -> Iterator[Breach]:
    """Those of planted.txt: a blank line between them, the rule, the module, lines that go, lines that come."""
    for block in (Path(__file__).parent / "planted.txt").read_text().rstrip("\n").split("\n\n"):
        rule, module, *lines = block.split("\n")
        old, new = ("".join(line[1:] + "\n" for line in lines if line[0] == sign) for sign in "-+")
        yield Breach(rule.removeprefix("# "), module, old, new)


PLANTED: Final = list(breaches())


def tried() -> list[Breach]:
    every = os.environ.get("LOBMESH_PLANTED") == "all"
    return [breach for breach in PLANTED if every or breach.rule in ALWAYS]


@pytest.mark.processes
@pytest.mark.parametrize("breach", tried(), ids=lambda breach: breach.rule.replace(" ", "_"))
def test_the_oracle_finds_a_breach_of_the_rules(breach: Breach, tmp_path: Path) -> None:
    for name in NEEDED:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.so", "__pycache__", "scenarios"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / "engine" / "core" / f"{breach.module}.py"
    source = path.read_text()
    assert source.count(breach.old) == 1, "there is nothing to break, or more than one"
    path.write_text(source.replace(breach.old, breach.new))
    usual = {name: value for name, value in os.environ.items() if name != "LOBMESH_ORACLE_COMMANDS"}
    done = subprocess.run(
        [
            sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:randomly", "-p", "no:cacheprovider",
            f"--hypothesis-seed={SEED}", "tests/engine/core/test_oracle.py",
        ],
        cwd=tmp_path,
        env={**usual, "LOBMESH_ORACLE_SHRINK": "0", "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 1, f"nobody noticed that {breach.rule}:\n{done.stdout[-2000:]}{done.stderr[-500:]}"


def test_each_breach_can_be_planted() -> None:
    for breach in PLANTED:
        source = (ROOT / "engine" / "core" / f"{breach.module}.py").read_text()
        assert source.count(breach.old) == 1, breach.rule
        compile(source.replace(breach.old, breach.new), breach.module, "exec")
