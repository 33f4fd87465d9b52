"""Engines as processes: what they print, how they end, and that no acknowledged order is lost by kill -9 or a pause."""

import asyncio
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import pytest

from engine.client import Client, Commands, RefusedError, Report, reports_of
from engine.core.commands import SetState
from engine.log.records import Epoch, Group, decode
from engine.log.replay import replay, restore
from engine.log.view import SqliteLogView
from proto import marketdata_pb2, marketdata_pb2_grpc, orders_pb2_grpc
from proto import orders_pb2 as pb
from proto.cluster import dumps
from proto.columns import ACCEPTED, BUY, NEW, NO_REASON, SELL, UNAVAILABLE
from proto.orders_pb2 import REPORT_ACCEPTED, NewOrderRequest, OpenOrdersReply
from tests.engines import cluster_of
from tests.patience import patience
from tools.orders import command

ROOT = Path(__file__).resolve().parents[2]
E1A, E2A = 10, 20


class Venue:
    """Engines in a directory; every process is gone when it is left."""

    def __init__(self, directory: Path, engines: int) -> None:
        self.directory = directory
        self.processes: dict[int, subprocess.Popen[str]] = {}
        self.ready: dict[int, dict[str, object]] = {}
        (directory / "cluster.toml").write_text(dumps(cluster_of(engines)))

    def __enter__(self) -> "Venue":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait(10)
            assert process.stdout
            process.stdout.close()

    def command(self, engine: int, *options: str) -> list[str]:
        where = ["--cluster", str(self.directory / "cluster.toml"), "--data", str(self.directory / f"engine-{engine}")]
        if not (self.directory / f"engine-{engine}" / "log.sqlite").exists():
            options = ("--new", *options)
        return [sys.executable, "-m", "engine", "--engine", str(engine), *where, *options]

    def start(self, engine: int, *options: str) -> str:
        """Start an engine, and give its endpoint when it serves."""
        joins = [str(ready["grpc"]) for other, ready in self.ready.items() if other != engine]
        options += tuple(word for join in joins for word in ("--join", join))
        old = self.processes.get(engine)
        if old is not None:
            assert old.stdout
            old.stdout.close()
        process = subprocess.Popen(self.command(engine, *options), stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self.processes[engine] = process
        assert process.stdout
        line = process.stdout.readline()
        assert line, f"engine {engine} ended with {process.wait(10)}"
        self.ready[engine] = json.loads(line)
        return str(self.ready[engine]["grpc"])

    def signal(self, engine: int, number: int) -> None:
        self.processes[engine].send_signal(number)

    def run(self, engine: int, *options: str) -> tuple[int, str]:
        """Run an engine that should not get as far as to serve: exit code and complaint."""
        done = subprocess.run(
            self.command(engine, *options), capture_output=True, text=True, timeout=patience(30), cwd=ROOT
        )
        assert done.stdout == ""
        return done.returncode, done.stderr


@pytest.fixture
def venue(tmp_path: Path) -> Iterator[Venue]:
    with Venue(tmp_path, 2) as venue:
        yield venue


async def book(endpoint: str) -> marketdata_pb2.Book:
    async with grpc.aio.insecure_channel(endpoint) as channel:
        stub = marketdata_pb2_grpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
        return await stub.GetBook(marketdata_pb2.BookRequest(symbol="E1A", by_order=True))  # type: ignore[no-any-return]


@pytest.mark.processes
def test_it_says_where_it_serves_in_one_line_and_stops_cleanly(venue: Venue) -> None:
    grpc_endpoint = venue.start(1)
    ready = venue.ready[1]
    pid = venue.processes[1].pid
    assert ready == {"ready": True, "name": "engine-1", "grpc": grpc_endpoint, "feed": ready["feed"], "pid": pid}
    assert str(ready["feed"]).startswith("tcp://127.0.0.1:")
    venue.signal(1, signal.SIGTERM)
    out, _ = venue.processes[1].communicate(timeout=patience(10))
    assert (venue.processes[1].returncode, out) == (0, "")


@pytest.mark.processes
def test_what_keeps_it_from_starting_is_said_and_is_in_the_exit_code(venue: Venue) -> None:
    """Of a process; every other way is tried without one, in tests/test_command_lines.py."""
    endpoint = venue.start(1)
    code, why = venue.run(1)
    assert (code, "is in use by process" in why) == (3, True)
    elsewhere = str(venue.directory / "elsewhere")
    code, why = venue.run(1, "--name", "other", "--data", elsewhere, "--new", "--join", endpoint)
    assert (code, why) == (3, f"engine: other cannot start: engine 1 belongs to engine-1, which runs at {endpoint}\n")


@pytest.mark.processes
def test_an_edit_that_takes_what_another_engine_has_is_refused_before_it_is_logged(venue: Venue) -> None:
    file = venue.directory / "cluster.toml"
    before = file.read_text()
    at = venue.start(1)
    venue.start(2)
    venue.signal(2, signal.SIGTERM)
    assert venue.processes[2].wait(10) == 0
    file.write_text(before.replace("engine = 1", "engine = 2", 1))
    code, why = venue.run(2, "--join", at)
    assert code == 3
    assert "E1A (instrument 10) is new in the file and belongs to engine-1: take it out, or choose another" in why
    file.write_text(before)
    venue.start(2)
    view = SqliteLogView(venue.directory / "engine-2")
    assert [type(decode(body)).__name__ for _, body in view.read(0)] == ["Epoch", "Epoch"]  # nothing of it
    view.close()


@pytest.mark.processes
def test_a_log_is_begun_only_where_that_was_asked_for_and_none_is_there(venue: Venue) -> None:
    data = venue.directory / "engine-1"
    where = ["--cluster", str(venue.directory / "cluster.toml"), "--data", str(data)]

    def start(*options: str, engine: int = 1) -> tuple[int, str]:
        words = [sys.executable, "-m", "engine", "--engine", str(engine), *where, *options]
        done = subprocess.run(words, capture_output=True, text=True, timeout=patience(30), cwd=ROOT)
        assert done.stdout == ""
        return done.returncode, done.stderr

    why = f"engine: engine-1 cannot start: there is no log in {data}: is it the right directory, and its disk mounted?"
    assert start() == (3, f"{why} --new begins one\n")
    assert not data.exists()
    data.mkdir()
    assert start() == (3, f"{why} --new begins one\n")
    assert list(data.iterdir()) == []
    venue.start(1, "--new")
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)
    code, why = start("--new")
    assert (code, why) == (
        3, f"engine: engine-1 cannot start: {data} holds a log of 1 records: --new would begin another\n"
    )  # fmt: skip
    code, why = start(engine=2)
    assert (code, "this is the log of engine 1" in why, why.count("\n")) == (3, True, 1)
    with (data / "log.sqlite").open("r+b") as database:
        database.seek(2 * 4_096)
        database.write(b"damage")
    code, why = start()
    assert (code, "log damaged at position" in why, why.count("\n")) == (3, True, 1)
    assert why.endswith(f"; what can be read of it: python -m tools.log verify {data}\n")


def _enter(at: str, *ids: int) -> None:
    with grpc.insecure_channel(at) as channel:
        stub = orders_pb2_grpc.OrdersStub(channel)  # type: ignore[no-untyped-call]
        for id in ids:
            order = NewOrderRequest(account=7, client_order_id=id, symbol="E1A", price="1.00", quantity="5")
            assert stub.NewOrder(order, timeout=patience(10)).kind == REPORT_ACCEPTED


@pytest.mark.processes
def test_a_log_that_is_behind_what_the_venue_has_seen_is_taken_up_only_if_its_loss_is_accepted(venue: Venue) -> None:
    data, old, true = (venue.directory / name for name in ("engine-1", "old", "true"))
    venue.start(1)
    venue.start(2)
    _enter(str(venue.ready[1]["grpc"]), 1)
    venue.signal(1, signal.SIGTERM)
    assert venue.processes[1].wait(10) == 0
    shutil.copytree(data, old)  # a backup
    at = venue.start(1)
    join = ["--join", str(venue.ready[2]["grpc"])]
    _enter(at, 2, 3, 4)
    time.sleep(1.2)  # a round of the directory: how far the log reaches
    code, why = venue.run(1, "--data", str(old), *join, "--accept-loss")  # it is no substitute for the one that runs
    assert (code, why) == (
        3, f"engine: engine-1 cannot start: the name engine-1 is taken by another machine that runs at {at}\n"
    )  # fmt: skip
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)

    data.rename(true)
    shutil.copytree(old, data)
    code, why = venue.run(1, *join)
    assert (code, why) == (
        3, "engine: engine-1 cannot start: this log ends at epoch 1, record 2, and the venue has seen epoch 3, record "
        "6: 4 records are missing; to start without it: --accept-loss\n",
    )  # fmt: skip
    shutil.rmtree(data)
    code, why = venue.run(1, *join, "--new")
    assert (code, "this log is empty, and the venue has seen engine-1 at epoch 3, record 6" in why) == (3, True)
    shutil.rmtree(data)
    shutil.copytree(true, data)
    at = venue.start(1)  # the true one is not locked out
    assert _stream(at) == 7
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)

    shutil.rmtree(data)
    shutil.copytree(old, data)
    at = venue.start(1, "--accept-loss")
    assert _stream(at) == 8  # above all that was seen
    with grpc.insecure_channel(at) as channel:  # and its history is found, though its record is the third
        asked = marketdata_pb2.HistoryRequest(engine=1, channel=1, epoch=8, first_seq=1)
        *_, last = marketdata_pb2_grpc.MarketDataStub(channel).GetHistory(asked, timeout=patience(30))  # type: ignore[no-untyped-call]
    assert (last.end.status, last.end.epoch, last.end.next_seq > 1) == (marketdata_pb2.HISTORY_OK, 8, True)
    _enter(at, 2)
    log = SqliteLogView(data)
    opened = decode(log.body(3) or b"")
    assert isinstance(opened, Epoch)
    assert (opened.above, "accepting a loss: this log ends at epoch 1, record 2" in opened.owner) == (7, True)
    log.close()
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)
    at = venue.start(1)
    assert _stream(at) == 9
    venue.signal(1, signal.SIGTERM)
    assert venue.processes[1].wait(10) == 0
    shutil.rmtree(data)
    shutil.copytree(true, data)
    code, why = venue.run(1, *join)  # and now this one is behind
    assert (code, "and the venue has seen epoch 9" in why) == (3, True)


def _stream(at: str) -> int:
    """The epoch of the engine there."""
    with grpc.insecure_channel(at) as channel:
        streams = marketdata_pb2_grpc.MarketDataStub(channel).GetStreams(  # type: ignore[no-untyped-call]
            marketdata_pb2.StreamsRequest(), timeout=patience(10)
        )
        return int(streams.streams[0].epoch)


@pytest.mark.processes
def test_of_two_copies_of_one_directory_the_second_to_start_is_refused_and_named(venue: Venue) -> None:
    venue.start(1)
    venue.start(2)
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)
    copy = venue.directory / "copy"
    shutil.copytree(venue.directory / "engine-1", copy)
    at = venue.start(1)
    code, why = venue.run(1, "--data", str(copy), "--join", str(venue.ready[2]["grpc"]))
    assert (code, at in why, why.count("\n")) == (3, True, 1)
    code, why = venue.run(1, "--data", str(copy), "--join", at)
    assert (code, at in why) == (3, True)
    _enter(at, 1)


@pytest.mark.processes
def test_an_engine_starts_without_what_another_added_too_and_an_operator_settles_it(
    venue: Venue, capfd: pytest.CaptureFixture[str]
) -> None:
    def say(at: str, line: str) -> dict[str, Any]:
        """What tools.orders says, and the code it ends with."""
        capfd.readouterr()
        code = command.main(["--at", at, *line.split()])
        out, err = capfd.readouterr()
        return (json.loads(out) if out else {"complaint": err}) | {"code": code}

    one = venue.start(1)
    ready = venue.ready.pop(1)
    two = venue.start(2)  # neither has heard of the other
    for at, named in ((one, "NOVA 99"), (one, "STAR 98"), (two, "NOVA 97"), (two, "GOLD 98"), (two, "IRON 96")):
        assert say(at, f"add-instrument {named} --tick 1 --lot 1 --price-min 1 --price-max 900")["code"] == 0
    assert say(two, "--account 7 new NOVA buy 5 100 --id 1")["home"] == 2
    venue.signal(2, signal.SIGTERM)
    assert venue.processes[2].wait(10) == 0
    venue.ready[1] = ready

    capfd.readouterr()
    two = venue.start(2)
    said = capfd.readouterr().err
    for known in ("NOVA (instrument 97)", "GOLD (instrument 98)"):
        assert f"{known} was added here and belongs to engine-1: it is not listed" in said
        assert f"--at {two} delist {known.split()[0]} --here" in said
    assert "IRON" not in said
    deadline = time.monotonic() + patience(10)
    while say(two, "--account 7 new NOVA buy 1 1 --id 2").get("reason") == "unavailable":
        assert time.monotonic() < deadline  # the way to engine 1 is not open yet
    assert say(two, "--account 7 new NOVA buy 1 3 --id 3")["home"] == 1
    assert say(two, "--account 7 new GOLD buy 1 3 --id 4")["reason"] == "unknown-instrument"  # 98 is STAR
    assert say(two, "--account 7 new E2A buy 1 3 --id 5")["home"] == 2
    assert say(one, "--account 7 new IRON buy 1 3 --id 6")["home"] == 2
    assert say(two, "book NOVA")["engine"] == 1

    for symbol in ("NOVA", "GOLD"):
        assert say(two, f"delist {symbol} --here")["code"] == 0
    reports = [json.loads(line) for line in executions_of(two, capfd)]
    assert [(r["home"], r["reason"]) for r in reports if r["client_order_id"] == 1] == [
        (2, "none"), (2, "delisted"),
    ]  # fmt: skip
    assert say(two, "--account 7 new NOVA buy 1 4 --id 7")["home"] == 1
    venue.signal(2, signal.SIGTERM)
    assert venue.processes[2].wait(10) == 0
    capfd.readouterr()
    two = venue.start(2)
    assert "belongs to" not in capfd.readouterr().err


def executions_of(at: str, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of account 7's reports."""
    capfd.readouterr()
    assert command.main(["--at", at, "--account", "7", "executions"]) == 0
    return capfd.readouterr().out.splitlines()


@pytest.mark.processes
def test_a_damaged_log_is_not_served(venue: Venue) -> None:
    venue.start(1)
    venue.signal(1, signal.SIGTERM)
    assert venue.processes[1].wait(10) == 0
    (venue.directory / "engine-1" / "log.sqlite").write_bytes(b"no database at all" * 1_000)
    code, why = venue.run(1)
    assert (code, "engine-1 cannot start: log damaged" in why) == (3, True)


@pytest.mark.processes
def test_an_epoch_is_opened_at_each_start_and_a_book_is_there_again(venue: Venue) -> None:
    async def first(endpoint: str) -> marketdata_pb2.Book:
        async with Client([endpoint], 7).session() as session:
            await session.new("E1A", BUY, "1.50", 5)
            await session.new("E1A", BUY, "1.50", 7)
        return await book(endpoint)

    before = asyncio.run(first(venue.start(1)))
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)
    after = asyncio.run(book(venue.start(1)))
    assert list(after.bids) == list(before.bids)
    assert (before.epoch, after.epoch) == (1, 4)
    assert [(level.price, level.quantity, len(level.orders)) for level in after.bids] == [(150, 12, 2)]


async def linked(client: Client) -> OpenOrdersReply:
    """The account's orders, once every engine answers."""
    deadline = time.monotonic() + patience(10)
    while (answer := await client.open_orders()).engines_missing:
        assert time.monotonic() < deadline, "no link"
        await asyncio.sleep(0.02)
    return answer


@pytest.mark.processes
def test_kill_9_under_load_loses_no_acknowledged_order_and_doubles_none(venue: Venue) -> None:
    async def test() -> None:
        seed = venue.start(2)
        venue.start(1)
        client = Client([seed], 7, engine=1)
        await linked(client)  # else the session begins at the other home as soon as that answers
        async with client.session() as session:
            reports: list[Report] = []

            async def follow() -> None:
                async for batch in session.batches():
                    reports.extend(reports_of(batch))

            reader = asyncio.ensure_future(follow())
            sent = []
            for batch in range(150):
                commands = Commands(op=[NEW] * 64, instrument=[E1A, E2A] * 32, price=[5] * 64, quantity=[1] * 64)
                sent.append(await session.submit(commands, answers=True))
                if batch == 75:
                    venue.signal(1, signal.SIGKILL)
                    venue.processes[1].wait(10)
                    await asyncio.to_thread(venue.start, 1)
                await asyncio.sleep(0)
            for one in sent:
                assert {answer.kind for answer in await asyncio.wait_for(one, patience(30))} <= {ACCEPTED, 5}
            assert session.connects == 2
            accepted = {answer.client_order_id for one in sent for answer in await one if answer.kind == ACCEPTED}
            refused = [answer for one in sent for answer in await one if answer.kind != ACCEPTED]
            assert {answer.reason for answer in refused} <= {UNAVAILABLE}
            assert all(answer.instrument == E2A for answer in refused)  # its link was not up again at once
            orders = (await linked(session.client)).orders
            ids = [order.client_order_id for order in orders]
            assert len(ids) == len(set(ids))
            assert set(ids) == accepted
            deadline = time.monotonic() + patience(10)
            while len([report for report in reports if report.seq]) < len(accepted) and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            for home in (1, 2):
                numbers = [report.seq for report in reports if report.home == home and report.seq]
                assert numbers == list(range(1, len(numbers) + 1))
            assert len([report for report in reports if report.kind == ACCEPTED]) == len(accepted)
            reader.cancel()

    asyncio.run(test())


class Amid:
    """Operators, special orders and sessions that end, all at once, until the engine is gone; and what it answered."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.accepted: set[int] = set()  # ids of account 7
        self.listed: set[str] = set()
        self.state: tuple[int, int] = (0, 2)  # the last one of E1B, and the log record that it came to be in
        self.ids = iter(range(1, 1_000_000))
        self.answers = 0

    async def run(self, endpoint: str) -> None:
        """Ends when the engine does."""
        async with grpc.aio.insecure_channel(endpoint, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            self.orders = orders_pb2_grpc.OrdersStub(channel)  # type: ignore[no-untyped-call]
            self.operator = orders_pb2_grpc.OperatorStub(channel)  # type: ignore[no-untyped-call]
            flows = (self._operate, self._operate, self._enter, self._enter, self._come_and_go)
            await asyncio.gather(*(self._again(flow) for flow in flows))

    async def _again(self, flow: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                await flow()
                self.answers += 1
        except grpc.aio.AioRpcError as e:
            if e.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                raise

    async def _operate(self) -> None:
        id = next(self.ids)
        if self.rng.random() < 0.5:
            state = self.rng.choice((pb.TRADING_STATE_HALTED, pb.TRADING_STATE_OPEN, pb.TRADING_STATE_AUCTION))
            reply = await self.operator.SetState(pb.SetStateRequest(symbol="E1B", state=state))
            if reply.reason == NO_REASON:
                self.state = max(self.state, (reply.position, state))
        else:
            symbol = f"N{id}"
            wish = pb.AddInstrumentRequest(
                id=1_000 + id, symbol=symbol, tick_size="0.01", lot_size="1", price_min=1, price_max=900
            )
            if (await self.operator.AddInstrument(wish)).reason == NO_REASON:
                self.listed.add(symbol)

    async def _enter(self) -> None:
        id, rng = next(self.ids), self.rng
        special: dict[str, Any] = rng.choice((
            {"type": pb.ORDER_TYPE_ICEBERG, "price": "1.00", "display": "2"},
            {"type": pb.ORDER_TYPE_STOP_LIMIT, "price": "1.20", "stop_price": "1.10"},
            {"type": pb.ORDER_TYPE_PEG_BID},
            {"price": "1.00", "time_in_force": pb.TIME_IN_FORCE_GTD, "expires_ns": time.time_ns() + 10**12},
            {"price": "1.00", "all_or_none": True},
        ))  # fmt: skip
        wish = pb.NewOrderRequest(
            account=7, client_order_id=id, symbol="E1A", quantity=str(rng.randint(3, 9)), **special
        )
        if (await self.orders.NewOrder(wish)).kind == ACCEPTED:
            self.accepted.add(id)

    async def _come_and_go(self) -> None:
        call = self.orders.Session()
        await call.write(pb.SessionRequest(hello=pb.Hello(account=8, cancel_on_disconnect=True)))
        await call.read()
        batch = pb.CommandBatch(
            op=[NEW] * 3, client_order_id=[next(self.ids) for _ in range(3)], instrument=[E1A] * 3, price=[50] * 3,
            quantity=[1] * 3,
        )  # fmt: skip
        await call.write(pb.SessionRequest(commands=batch.SerializeToString()))
        if await call.read() is grpc.aio.EOF:
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata())
        call.cancel()


@pytest.mark.processes
def test_kill_9_amid_operators_special_orders_and_ends_of_sessions_loses_nothing_answered(
    venue: Venue,
) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    amid = Amid(seed)

    async def open_orders(endpoint: str, account: int) -> set[int]:
        async with grpc.aio.insecure_channel(endpoint) as channel:
            stub = orders_pb2_grpc.OrdersStub(channel)  # type: ignore[no-untyped-call]
            found = await stub.OpenOrders(pb.OpenOrdersRequest(account=account, symbol="E1A"))
            return {order.client_order_id for order in found.orders}

    async def killed(endpoint: str, answers: int) -> None:
        running = asyncio.ensure_future(amid.run(endpoint))
        deadline = time.monotonic() + patience(20)
        while amid.answers < answers:
            assert time.monotonic() < deadline, "the engine does not answer"
            await asyncio.sleep(amid.rng.uniform(0, 0.02))
        venue.signal(1, signal.SIGKILL)
        await running

    endpoint = venue.start(1)
    for turn in (1, 2):
        asyncio.run(killed(endpoint, turn * 100))
        venue.processes[1].wait(10)
        view = SqliteLogView(venue.directory / "engine-1")
        after, state = restore(view)
        logged = [(position, decode(body)) for position, body in view.read(0)]
        commands = [(position, part) for position, one in logged if isinstance(one, Group) for part in one.parts]
        said = [(position, part.state) for position, part in commands if isinstance(part, SetState)]
        for _ in replay(view, state, after, lambda position, time_ns, outcome: None):
            pass
        view.close()
        left = state.venue
        left.check()
        assert amid.accepted <= set(left.accounts[7].commands)
        assert amid.listed <= {market.instrument.symbol for market in left.markets.values()}
        assert amid.state in said
        endpoint = venue.start(1)
        assert asyncio.run(open_orders(endpoint, 7)) == {order.client_order_id for order in left.open_orders(7)}
    deadline = time.monotonic() + patience(20)
    while asyncio.run(open_orders(endpoint, 8)):  # nobody stands for those sessions any more
        assert time.monotonic() < deadline, "the orders of sessions that ended stay"
        time.sleep(0.2)
    assert len(amid.accepted) > 10
    assert len(amid.listed) > 10


@pytest.mark.processes
def test_a_paused_home_engine_costs_its_own_instruments_only(venue: Venue) -> None:
    async def test() -> None:
        seed = venue.start(1)
        venue.start(2)
        async with Client([seed], 7, engine=1).session() as session:
            deadline = time.monotonic() + patience(10)
            while True:
                try:
                    await session.new("E2A", BUY, "0.05", 1)
                    break
                except RefusedError:
                    assert time.monotonic() < deadline, "no link"
                    await asyncio.sleep(0.02)
            venue.signal(2, signal.SIGSTOP)
            silent = asyncio.ensure_future(session.new("E2A", BUY, "0.05", 1, client_order_id=77))
            longest = 0.0
            while not (missing := (await session.client.open_orders()).engines_missing):
                began = time.monotonic()
                await session.new("E1A", BUY, "0.05", 1)
                longest = max(longest, time.monotonic() - began)
            assert longest < 1.0
            assert list(missing) == [2]
            sent = [silent]
            while not (await asyncio.wait(sent[-1:], timeout=0.5))[0]:  # until the link is known to be gone
                sent.append(asyncio.ensure_future(session.new("E2A", BUY, "0.05", 1)))
            with pytest.raises(RefusedError) as refused:
                await sent.pop()
            assert refused.value.reason == UNAVAILABLE
            venue.signal(2, signal.SIGCONT)
            for one in sent:  # asked for again under their ids until their home answered
                assert (await asyncio.wait_for(one, patience(30))).kind == ACCEPTED
            mine = [order.client_order_id for order in (await session.client.open_orders("E2A")).orders]
            assert mine.count(77) == 1

    asyncio.run(test())


@pytest.mark.processes
def test_an_engine_that_has_snapshots_made_restarts_from_them_after_kill_9(venue: Venue) -> None:
    async def enter(endpoint: str, count: int) -> marketdata_pb2.Book:
        async with Client([endpoint], 7).session() as buyer, Client([endpoint], 8).session() as seller:
            for nth in range(count):
                await buyer.new("E1A", BUY, f"1.5{nth % 5}", 5)
                await seller.new("E1A", SELL, f"1.5{nth % 7}", 3)
        return await book(endpoint)

    def snapshots() -> int:
        view = SqliteLogView(venue.directory / "engine-1")
        found = view.load_snapshot()
        view.close()
        return found[0] if found is not None else 0

    asyncio.run(enter(venue.start(1, "--snapshot-after", "20"), 30))
    deadline = time.monotonic() + patience(20)
    while not snapshots():
        assert time.monotonic() < deadline, "no snapshot was made"
        time.sleep(0.05)
    made = snapshots()
    assert made > 20
    before = asyncio.run(enter(str(venue.ready[1]["grpc"]), 10))
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)
    endpoint = venue.start(1, "--snapshot-after", "1")
    after = asyncio.run(book(endpoint))
    time.sleep(1.1)  # while the next one is being made
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)
    again = asyncio.run(book(venue.start(1)))
    assert list(before.bids) == list(after.bids) == list(again.bids) != []
    assert list(before.asks) == list(after.asks) == list(again.asks)
    assert before.last_trade_id == after.last_trade_id == again.last_trade_id > 0
    assert snapshots() >= made


@pytest.mark.processes
def test_an_engine_told_to_drops_what_two_snapshots_cover_and_comes_back_with_the_same_book(venue: Venue) -> None:
    async def enter(endpoint: str, count: int) -> None:
        async with Client([endpoint], 7).session() as session:
            for nth in range(count):
                await session.new("E1A", BUY, f"1.5{nth % 5}", 5)

    def log() -> tuple[int, int]:
        view = SqliteLogView(venue.directory / "engine-1")
        found = view.dropped, next(view.snapshots(), (0, b""))[0]
        view.close()
        return found

    asyncio.run(enter(venue.start(1, "--snapshot-after", "0"), 40))
    venue.signal(1, signal.SIGTERM)
    assert venue.processes[1].wait(10) == 0
    condense = [sys.executable, "-m", "engine.log.condense", "--data", str(venue.directory / "engine-1")]
    subprocess.run(condense, check=True, timeout=patience(30), cwd=ROOT)
    first = log()[1]
    endpoint = venue.start(1, "--snapshot-after", "1", "--keep-log", "30")
    asyncio.run(enter(endpoint, 5))
    before = asyncio.run(book(endpoint))
    deadline = time.monotonic() + patience(20)
    while not log()[0]:
        assert time.monotonic() < deadline, "nothing was dropped"
        time.sleep(0.05)
    dropped, second = log()
    assert 0 < dropped <= first < second
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)
    view = SqliteLogView(venue.directory / "engine-1")
    assert [position for position, _ in view.read(dropped)] == [*range(dropped + 1, 48)]
    assert dropped <= 47 - 30
    view.close()
    after = asyncio.run(book(venue.start(1)))
    assert list(before.bids) == list(after.bids) != []


@pytest.mark.processes
def test_to_drop_what_no_snapshot_covers_is_wrong_usage(venue: Venue) -> None:
    assert venue.run(1, "--keep-log", "5", "--snapshot-after", "0") == (
        2, "engine: --keep-log needs snapshots: --snapshot-after must not be 0\n"
    )  # fmt: skip
    assert venue.run(1, "--keep-log", "-1") == (
        2,
        "engine: argument --keep-log: '-1' is no whole number from 0 to 1,000,000,000,000,000,000\n",
    )


# An engine whose wall clock is ten years ahead while a file is there.
JUMPING = """
import os, sys, time
real = time.time_ns
time.time_ns = lambda: real() + (10 * 365 * 86_400 * 10**9 if os.path.exists(sys.argv[1]) else 0)
from engine.process import main
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.processes
def test_no_order_expires_by_a_clock_that_jumped_until_an_operator_confirms_it(
    venue: Venue, capfd: pytest.CaptureFixture[str]
) -> None:
    flag, said = venue.directory / "jumped", venue.directory / "said"

    def start(*options: str) -> str:
        words = [sys.executable, "-c", JUMPING, str(flag), *venue.command(1, *options)[3:]]
        with said.open("a") as stderr:
            process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=ROOT)
        old = venue.processes.pop(1, None)
        if old is not None and old.stdout:
            old.stdout.close()
        venue.processes[1] = process
        assert process.stdout
        return str(json.loads(process.stdout.readline())["grpc"])

    def live(at: str) -> list[int]:
        with grpc.insecure_channel(at) as channel:
            reply = orders_pb2_grpc.OrdersStub(channel).OpenOrders(  # type: ignore[no-untyped-call]
                pb.OpenOrdersRequest(account=7), timeout=patience(10)
            )
            return sorted(order.client_order_id for order in reply.orders)

    def enter(at: str, id: int) -> None:
        with grpc.insecure_channel(at) as channel:
            order = NewOrderRequest(
                account=7, client_order_id=id, symbol="E1A", price="1.00", quantity="5",
                time_in_force="TIME_IN_FORCE_GTD", expires_ns=time.time_ns() + 3_600 * 10**9,
            )  # fmt: skip
            assert orders_pb2_grpc.OrdersStub(channel).NewOrder(order, timeout=patience(10)).kind == REPORT_ACCEPTED  # type: ignore[no-untyped-call]

    def confirm(at: str) -> str:
        capfd.readouterr()
        assert command.main(["--at", at, "--json", "clock-ok"]) == 0
        return str(json.loads(capfd.readouterr().out)["detail"])

    at = start()
    enter(at, 1)
    flag.touch()  # it jumps while the engine runs
    enter(at, 2)
    time.sleep(0.5)  # the engine has looked more than once what is due
    enter(at, 3)
    assert live(at) == [1, 2, 3]
    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)

    at = start()  # and it is ten years ahead at a start
    enter(at, 4)
    assert live(at) == [1, 2, 3, 4]
    assert "3,650.0 days ahead of the time" in confirm(at)
    _until(lambda: live(at) == [])
    assert confirm(at) == "the clock was believed already"
    text = said.read_text()
    assert text.count("is not believed: it jumped; it is taken up by a second a minute, or at once when") == 1
    assert text.count("more time has passed since the last record than is believed") == 1
    assert text.count("the log's last record is 3,650.0 days old") == 1

    venue.signal(1, signal.SIGKILL)
    venue.processes[1].wait(10)
    flag.unlink()  # and now it is right, and ten years behind the log
    at = start()
    venue.signal(1, signal.SIGTERM)
    assert venue.processes[1].wait(10) == 0
    assert "is not believed: it is behind the log's last record; orders expire only when" in said.read_text()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + patience(10)
    while not true():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
