"""docs/orders.md and the examples of order entry are run as they are written, against one engine."""

import ast
import asyncio
import contextlib
import inspect
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import SELL, SyncClient
from tests.engine.test_process import Venue
from tests.patience import patience

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[3]
README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "orders.md").read_text()
INSTRUMENT = """
[[instrument]]
id = {id}
symbol = "{symbol}"
engine = 1
tick_size = "0.01"
lot_size = "1"
price_min = 1
price_max = 1000000
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where an engine serves that trades ALFA, BETA and GAMMA."""
    directory = tmp_path_factory.mktemp("venue")
    with Venue(directory, 1) as venue:
        listed = [INSTRUMENT.format(id=id, symbol=symbol) for id, symbol in enumerate(("ALFA", "BETA", "GAMMA"), 1)]
        (directory / "cluster.toml").write_text("[[engine]]\nid = 1\n" + "".join(listed))
        yield venue.start(1)


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_every_example_of_the_page_says_what_the_page_says(address: str) -> None:
    names: dict[str, object] = {"address": address}
    out = io.StringIO()

    async def run() -> None:
        for block in blocks():
            code = compile(block, "docs/orders.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.isawaitable(result):
                await asyncio.wait_for(result, patience(20))

    with contextlib.redirect_stdout(out):
        asyncio.run(run())
    said = out.getvalue().splitlines()
    promised = re.findall(r"print\(.*\) +# (.*)", "".join(blocks()))
    assert len(promised) >= 5
    for promise in promised:
        pattern = re.escape(promise.split(": a new price")[0]).replace("…", ".*")
        assert any(re.fullmatch(pattern, line) for line in said), (promise, said)


def test_every_exception_of_the_page_is_one_of_the_sdk() -> None:
    import engine.client

    named = re.findall(r"^\| `(\w+)`", PAGE.split("## What goes wrong")[1], re.MULTILINE)
    kinds = {name for name in engine.client.__all__ if name.endswith("Error")} - {"ClientError"}
    assert {*named} == {*kinds, "TypeError"}


def example(name: str, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", f"examples.{name}", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_order_of_the_readme_is_sent(address: str, tmp_path: Path) -> None:
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "SyncClient" in code)
    (tmp_path / "buy.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "buy.py"), address],
        env=environment,
        capture_output=True,
        text=True,
        timeout=patience(30),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split(", id ")[0] for line in done.stdout.splitlines()] == [
        "accepted ALFA buy 5 @ 120.00, open 5", "canceled ALFA buy 5 @ 120.00, open 0",
    ]  # fmt: skip


def test_the_quickstart_trades(address: str) -> None:
    with example("quickstart_orders", address, "GAMMA", "95.00") as process:
        out, err = process.communicate(timeout=patience(30))
    assert (process.returncode, err) == (0, "")
    accepted, canceled = out.splitlines()
    assert accepted.startswith("accepted GAMMA buy 1 @ 95.00, open 1, id ")
    assert canceled.startswith("canceled GAMMA buy 1 @ 95.00, open 0, id ")
    with example("quickstart_orders", address, "NOPE", "95.00") as process:
        out, err = process.communicate(timeout=patience(30))
    assert (process.returncode, out, err.count("\n")) == (1, "", 1)
    assert "there are ALFA, BETA, GAMMA" in err


def test_the_market_maker_quotes_leans_and_leaves_nothing(address: str) -> None:
    with example("market_maker", address, "BETA", "90.00") as process, SyncClient(address, account=9) as other:
        assert process.stdout is not None
        for price, says in (("89.98", "buy 1 @ 89.98: holds 1 lots"), ("89.97", "buy 1 @ 89.97: holds 2 lots")):
            other.new("BETA", SELL, price, 1)
            assert process.stdout.readline().strip() == says
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=patience(30))
        assert (process.returncode, out, err) == (0, "", "")
        with SyncClient(address, account=4712) as maker:
            deadline = time.monotonic() + patience(10)
            while maker.open_orders().orders:  # the venue cancels them
                assert time.monotonic() < deadline
                time.sleep(0.02)


@pytest.mark.parametrize("name", ["quickstart_orders", "market_maker"])
def test_an_example_says_in_one_line_what_it_wants(name: str) -> None:
    for words, code, says in (
        ((), 2, "HOST:PORT SYMBOL PRICE"), (("nowhere", "ALFA", "95.00"), 1, "nowhere"),
    ):  # fmt: skip
        with example(name, *words) as process:
            out, err = process.communicate(timeout=patience(30))
        assert (process.returncode, out, err.count("\n")) == (code, "", 1), err
        assert err.startswith(f"{name}: ")
        assert says in err
