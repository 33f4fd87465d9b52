"""An engine inside a test of one's own: a venue of one instrument for the length of a test, on ports of its own.

    python -m pytest examples/test_trader.py

The fixture is all there is to it: a file, a process that says in one line where it serves, and its end.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import BUY, SELL, SyncClient

VENUE = """
[[engine]]
id = 1

[[instrument]]
id = 1
symbol = "ALFA"
engine = 1
tick_size = "0.01"
lot_size = "1"
price_min = 1
price_max = 100000
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """HOST:PORT of an engine with an empty book."""
    (tmp_path / "cluster.toml").write_text(VENUE)
    arguments = [
        "--cluster",
        str(tmp_path / "cluster.toml"),
        "--engine",
        "1",
        "--data",
        str(tmp_path / "data"),
        "--new",
    ]
    with subprocess.Popen([sys.executable, "-m", "engine", *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield json.loads(process.stdout.readline())["grpc"]
        finally:
            process.terminate()


def test_a_taker_pays_the_makers_price(engine: str) -> None:
    with SyncClient(engine, account=1) as maker, SyncClient(engine, account=2) as taker:
        maker.new("ALFA", SELL, price="100.25", quantity=10)
        taker.new("ALFA", BUY, price="100.50", quantity=4)
        bought = next(report for report in taker.reports(timeout_s=10.0) if report.trade_id)
        assert (str(bought.price), bought.quantity) == ("100.25", 4)


def test_a_price_between_two_ticks_is_refused(engine: str) -> None:
    with SyncClient(engine, account=1) as client, pytest.raises(ValueError, match="tick"):
        client.new("ALFA", BUY, price="100.001", quantity=1)
