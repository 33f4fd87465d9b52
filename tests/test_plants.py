"""Planted bugs are found: two of the matching, in a market of one process; all, in real runs, by tests/plants.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.plants import PLANTS, planted
from tests.soak_runs import drawn
from tools.run.command import options_of, parser

# Traders in a copy of the tree, and what the audit makes of it.
MARKET = """
from dataclasses import replace
from decimal import Decimal
from proto.instrument import PRO_RATA, Instrument
from tests.exchange import Exchange
from tools.flow.traders import made_traders

first = Instrument(1, "ALFA", 1, 1, Decimal("0.01"), Decimal(1), 1, 1_000_000)
market = (first, replace(first, id=2, symbol="BRAVO"), replace(first, id=4, symbol="DELTA", allocation=PRO_RATA))
exchange = Exchange(made_traders(10, market, seed=1), market)
exchange.run(6)
print(*exchange.audited.breaches().counts, sep="\\n")
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "rule"),
    [("does_not_match", "never crossed while open"), ("last_comes_first", "price and time priority")],
)
def test_a_planted_bug_of_matching_is_a_breach(tmp_path: Path, name: str, rule: str) -> None:
    planted(PLANTS[name], tmp_path)
    done = subprocess.run([sys.executable, "-c", MARKET], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, rule in done.stdout.splitlines()) == (0, True), done.stderr


@pytest.mark.processes
def test_every_plant_finds_what_it_replaces(tmp_path: Path) -> None:
    """All of them in one copy: a module that has lost a name which a plant wraps cannot be loaded."""
    first, *others = PLANTS.values()
    planted(first, tmp_path)
    for plant in others:
        with (tmp_path / plant.module).open("a") as module:
            module.write(plant.code)
    names = [plant.module.removesuffix(".py").replace("/", ".") for plant in PLANTS.values()]
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    done = subprocess.run(
        [sys.executable, "-c", code, *names], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(PLANTS) >= 12


@pytest.mark.parametrize("seed", range(60))
def test_every_run_of_a_soak_is_one_that_can_be(seed: int) -> None:
    options_of(parser().parse_args(drawn(seed)))
