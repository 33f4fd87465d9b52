"""Order entry without asyncio: in a script, in a notebook, and when the program ends."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.client import (
    ACCEPTED,
    BUY,
    CANCELED,
    NEW,
    SELL,
    BadCommandError,
    Commands,
    SessionClosedError,
    SyncClient,
    UnreachableError,
)
from tests.engines import Running
from tests.patience import patience

ROOT = Path(__file__).resolve().parents[3]
E1A = 10


class Trading(Running):
    """One that has clients."""

    def client(self, account: int = 7, **options: object) -> SyncClient:
        return SyncClient(self.address, account, instruments=self.engines.cluster.instruments, **options)  # type: ignore[arg-type]

    def open_ids(self, account: int = 7) -> list[int]:
        return [order.client_order_id for order in self.engines[1].venue.open_orders(account)]


@pytest.fixture
def running() -> Iterator[Trading]:
    engine = Trading()
    yield engine
    engine.stop()


def test_a_script_trades_without_asyncio(running: Trading) -> None:
    with running.client() as client, running.client(8) as other:
        report = client.new("E1A", BUY, price="1.50", quantity=5)
        assert str(report).startswith("accepted E1A buy 5 @ 1.50")
        assert client.replace("E1A", report.client_order_id, "1.50", 4).priority_kept
        assert other.new("E1A", SELL, "1.50", 1).kind == ACCEPTED
        assert client.cancel("E1A", report.client_order_id).kind == CANCELED
        answers = client.submit(Commands([NEW] * 3, instrument=[E1A] * 3, price=[5, 6, 7], quantity=[1] * 3))
        assert [(answer.kind, answer.row.price) for answer in answers] == [(ACCEPTED, price) for price in (5, 6, 7)]
        assert len(client.open_orders("E1A").orders) == 3
        assert client.order("E1A", 1) is None
        told = [str(report.kind) for report in client.reports(timeout_s=0.2)]
        assert told == ["accepted", "replaced", "traded", "canceled", *["accepted"] * 3]
        assert client.mass_cancel() == (3, [])
        assert [str(report.kind) for report in client.executions()][-4:] == [*["canceled"] * 3, "mass-canceled"]


def test_it_works_where_a_loop_runs_as_in_a_notebook(running: Trading) -> None:
    async def cell() -> int:
        with running.client() as client:
            return int(client.new("E1A", BUY, "1.50", 5).kind)

    assert asyncio.run(cell()) == ACCEPTED


def test_errors_are_those_of_the_session(running: Trading) -> None:
    client = running.client()
    for call in (
        lambda: client.new("E1A", BUY, "1.50", 5),
        lambda: next(client.reports()),
        lambda: client.mass_cancel(),
    ):
        with pytest.raises(SessionClosedError, match="the client is not open"):
            call()
    with client:
        with pytest.raises(SessionClosedError, match="open already"):
            client.open()
        with pytest.raises(BadCommandError):
            client.new("E1A", BUY, "1.505", 5)
        with pytest.raises(TypeError, match="price_ticks="):
            client.new("E1A", BUY, 150, 5)  # type: ignore[arg-type]
        client.new("E1A", BUY, "1.50", 5)
    client.close()
    with client:  # opened again, it goes on with the reports from where it was
        client.new("E1A", BUY, "1.51", 5)
        assert [str(report.price) for report in client.reports(timeout_s=0.2)] == ["1.51"]
    with (
        pytest.raises(UnreachableError, match=r"no engine is reached within 0\.2 s"),
        SyncClient("127.0.0.1:1", 7, patience_s=0.2),
    ):
        pass


def test_an_interrupt_ends_a_wait_and_the_client_goes_on(running: Trading) -> None:
    with running.client() as client:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            next(client.reports())
        assert client.new("E1A", BUY, "1.50", 5).kind == ACCEPTED
        assert next(client.reports(timeout_s=5)).kind == ACCEPTED  # nobody else waits for it any more


LEFT_OPEN = """
import atexit, sys
from engine.client import BUY, NEW, Commands, SyncClient
from proto.instrument import Instrument
from decimal import Decimal

client = SyncClient(sys.argv[1], 7, instruments=[Instrument(10, "E1A", 1, 1, Decimal("0.01"), Decimal(1), 1, 100_000)])
atexit.register(lambda: print("closed" if client._session is None else "left open"))
client.open()
client.new("E1A", BUY, "1.50", 5, client_order_id=5)
print("open", flush=True)
{end}
"""


@pytest.mark.processes
@pytest.mark.parametrize(
    ("end", "code", "says"),
    [
        ("", 0, ""),
        ("raise RuntimeError('seen')", 1, "RuntimeError: seen"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGINT)\nnext(client.reports())",
            -signal.SIGINT,
            "KeyboardInterrupt",
        ),
    ],
)
def test_a_program_that_leaves_it_open_ends_all_the_same(running: Trading, end: str, code: int, says: str) -> None:
    program = LEFT_OPEN.format(end=end)
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, running.address], cwd=ROOT, capture_output=True, text=True, timeout=patience(30)
    )
    assert (done.returncode, done.stdout) == (code, "open\nclosed\n"), done.stderr
    assert (done.stderr.splitlines() or [""])[-1] == says
    assert time.monotonic() < began + 15
    assert running.open_ids() == [5]
