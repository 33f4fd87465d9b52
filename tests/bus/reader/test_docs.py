"""docs/reader.md and the reader's example are run as they are written, beside an engine."""

import ast
import asyncio
import contextlib
import inspect
import io
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import bus.reader
from proto.feed import ADD, END, EXECUTE, SELL
from tests.bus.reader.test_feed import Aside
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reader.md").read_text()


class Market(Aside):
    """A book of two bids and an offer that is bought of, again and again."""

    def begin(self) -> None:
        bids = [(ADD | END, 1, 11, 11_990, 5, 0), (ADD | END, 1, 12, 11_980, 7, 0)]
        for row in [*bids, (ADD | END | SELL, 1, 13, 12_000, 1_000_000, 0)]:
            self.engine.publish([row])

    def buy(self, quantity: int) -> None:
        self.bought += 1
        self.engine.publish([(EXECUTE | END | SELL, 1, 13, 12_000, quantity, self.bought)])

    bought = 0


@pytest.fixture
def market() -> Iterator[Market]:
    with Market() as market:
        market.loop.call_soon_threadsafe(market.begin)
        yield market


@contextlib.contextmanager
def trading(market: Market) -> Iterator[None]:
    """Three lots now and then: whoever listens hears of one soon."""
    ended = threading.Event()

    def trade() -> None:
        while not ended.wait(0.1):
            market.loop.call_soon_threadsafe(market.buy, 3)

    thread = threading.Thread(target=trade)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_every_example_of_the_page_says_what_the_page_says(market: Market) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, object] = {"address": market.engine.grpc}
    out = io.StringIO()
    with contextlib.redirect_stdout(out), trading(market):
        for block in blocks:
            code = compile(block, "docs/reader.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, names)
            if inspect.isawaitable(result):

                async def run(result: object = result) -> None:
                    assert inspect.isawaitable(result)
                    await asyncio.wait_for(result, patience(20))

                asyncio.run(run())
    said = out.getvalue().splitlines()
    promised = re.findall(r"print\(.*\) +# (.*)", "".join(blocks))
    assert len(promised) == 10
    for promise in promised:
        pattern = r"[0-9]+" if promise.isdecimal() else re.escape(promise)
        assert any(re.fullmatch(pattern, line) for line in said), (promise, said)


def test_the_page_names_all_that_the_sdk_has() -> None:
    shown = {*re.findall(r"`(\w+)", PAGE)} | {*re.findall(r"import (.*)", PAGE)}
    named = {"Book", "Delta", "Event", "LedgerLine", "Level", "Stream", "Comparison", "Feed"}  # described, not events
    public = {name for name in vars(bus.reader) if name[0].isupper()} - named
    assert public <= {name for line in shown for name in re.split(r"\W+", line)}


@pytest.mark.processes
def test_the_example_shows_each_change_of_the_best_prices_and_what_they_are_worth(market: Market) -> None:
    command = [sys.executable, "-m", "examples.best_bid_offer", market.engine.grpc, "ALFA"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = threading.Timer(patience(30), process.kill)
        deadline.start()
        assert process.stdout is not None
        while (line := process.stdout.readline()) != "ALFA  119.90 x 5 | 120.00 x 1000000\n":
            assert line, process.stderr and process.stderr.read()
        market.loop.call_soon_threadsafe(market.buy, 4)
        assert process.stdout.readline() == "ALFA  119.90 x 5 | 120.00 x 999996\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=patience(20))
        deadline.cancel()
    assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.processes
@pytest.mark.parametrize("words", [[], ["nowhere", "ALFA"], ["127.0.0.1:65536", "ALFA"]])
def test_the_example_refuses_what_is_no_address_in_a_line(words: list[str]) -> None:
    command = [sys.executable, "-m", "examples.best_bid_offer", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=patience(30))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
