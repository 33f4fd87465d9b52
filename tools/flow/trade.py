"""Traders as a process: seeded agents with a session each, entering through all engines in turn.

    python -m tools.flow.trade --cluster cluster.toml --join 127.0.0.1:4000 --traders 12 --rate 1500 --seed 1

It speaks as tools/child.py says: ready when all sessions stand, {"opened": N, "tally": {...}} when the makers'
opening ladders are answered, and from then on it trades; told to stop, it is done when all is answered or time is up.
A report is preceded by {"acknowledged": {...}}, an account a line. It is told besides {"machines": ["HOST:PORT",
...]}, where the venue's machines are now, {"states": {INSTRUMENT: STATE, ...}}, in which trading states instruments
are, and {"jump": {INSTRUMENT: TICKS, ...}}, that they are worth so much more.
"""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.flow.trade", "trade")

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from engine.client import Client, ClientError, Commands, Session
from proto import cluster
from proto.cluster import Cluster, ClusterError
from proto.columns import ACCEPTED, CANCEL, OUTCOME_UNKNOWN, TRADED, UNAVAILABLE, ReportRow
from proto.dial import Parser
from proto.orders import report_columns
from proto.orders_pb2 import ReportBatch
from tools.child import patience_asked, ready, run, say, say_tally, told
from tools.flow.order_counts import Latencies, OrderCounts
from tools.flow.traders import FIRST_ACCOUNT, Agent, Command, MarketMaker, made_traders

PACE_S: Final = 0.05  # each agent acts so often
BATCH_MAX: Final = 256
OPENING_MAX: Final = 100_000
AGAIN_S: Final = 0.5  # until a command whose outcome is unknown is sent again; doubles, up to
AGAIN_S_MAX: Final = 4.0
ANSWERS_S: Final = 10.0  # how long the last answers may take
PROBES: Final = 1 << 63  # ids from here on are of commands that only find out whether an engine is reached
REACH_S: Final = 20.0
PATIENCE_S: Final = 2.0  # an engine that is away longer is left for another
UNANSWERED_MAX: Final = 500  # an account with more waits before it sends more


class Trader:
    """One agent and its session, over as many engines as it takes."""

    def __init__(
        self, agent: Agent, joins: Sequence[str], venue: Cluster, first_engine: int, tally: OrderCounts
    ) -> None:
        self.agent = agent
        self.session: Session | None = None
        self.machines = list(joins)  # any of which knows the way
        self._venue = venue
        self._engines = [engine.id for engine in venue.engines]
        self._next_engine = self._engines.index(first_engine)
        self._tally = tally
        self._cursors: dict[int, int] = {}
        self._waiting: dict[int, Command] = {}
        self._again: dict[int, float] = {}  # command -> when it is to be sent again
        self._patience: dict[int, float] = {}  # command -> how long to wait the next time
        self.up = asyncio.Event()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    async def run(self) -> None:
        """Hold a session; when its engine stays away, go on through the next one, from where the reports stood."""
        while True:
            client = Client(
                self.machines,
                self.agent.account,
                engine=self._engines[self._next_engine],
                self_trade_prevention=self.agent.stp,
                patience_s=PATIENCE_S,
                instruments=self._venue.instruments,
            )
            self._next_engine = (self._next_engine + 1) % len(self._engines)
            try:
                async with client.session(self._cursors) as session:
                    self.session = session
                    await self._send_again(list(self._waiting))
                    self.up.set()
                    async for batch in session.batches():
                        self._take(batch)
            except ClientError as e:
                print(f"account {self.agent.account}: {e}", file=sys.stderr)
            finally:
                if self.session:
                    self._cursors = dict(self.session.cursors)
                self.session = None
                self.up.clear()

    async def reach(self, deadline: float) -> None:
        """Until orders for every engine get there: a cancel of nothing, to each, until it is refused for that reason.

        Raises: TimeoutError.
        """
        instruments = [self._venue.instruments_of(engine)[:1] for engine in self._engines]
        missing = [instrument.id for found in instruments for instrument in found]
        probe = itertools.count(PROBES)
        async with asyncio.timeout_at(deadline):
            while missing:
                commands = Commands()
                for instrument in missing:
                    commands.add(CANCEL, next(probe), instrument, target=PROBES - 1)
                session = self.session
                if session is not None:
                    with suppress(ClientError):
                        answers = await (await session.submit(commands, answers=True))
                        far = (UNAVAILABLE, OUTCOME_UNKNOWN)
                        missing = [answer.instrument for answer in answers if answer.reason in far]
                if missing:
                    await asyncio.sleep(PACE_S)

    async def act(self, now_s: float, commands: int) -> int:
        """Let the agent send up to `commands`; how many it did send."""
        if self.session is None or self.waiting > UNANSWERED_MAX:
            return 0
        wished = self.agent.act(now_s, commands)
        for start in range(0, len(wished), BATCH_MAX):
            batch = wished[start : start + BATCH_MAX]
            self._tally.send(
                self.agent.account, [(c.client_order_id, c.instrument) for c in batch], time.monotonic_ns()
            )
            self._waiting.update((command.client_order_id, command) for command in batch)
            await self._submit(batch)
        return len(wished)

    async def chase(self, now_s: float) -> None:
        """Send again what nobody could say the outcome of."""
        due = [id for id, at_s in self._again.items() if at_s <= now_s]
        for id in due:
            del self._again[id]
        await self._send_again([id for id in due if id in self._waiting])

    async def _send_again(self, ids: Sequence[int]) -> None:
        for start in range(0, len(ids), BATCH_MAX):
            batch = [self._waiting[id] for id in ids[start : start + BATCH_MAX]]
            for command in batch:
                self._tally.send_again(self.agent.account, command.client_order_id)
            await self._submit(batch)

    async def _submit(self, batch: Sequence[Command]) -> None:
        """A batch that cannot be sent now stays in `waiting`, and goes with the next session."""
        if self.session is None:
            return
        commands = Commands()
        for c in batch:
            commands.add(*c)
        with suppress(ClientError):
            await self.session.submit(commands)

    def _take(self, batch: ReportBatch) -> None:
        now_ns = time.monotonic_ns()
        account = self.agent.account
        rows = list(map(ReportRow._make, zip(*report_columns(batch), strict=True)))
        self._tally.numbered(batch.home, account, batch.first_seq, rows)
        for row in rows:
            if row.command >= PROBES:
                continue
            if self._tally.is_open(account, row) and row.command in self._waiting:
                patience_s = self._patience.get(row.command, AGAIN_S)
                self._again[row.command] = now_ns / 1e9 + patience_s
                self._patience[row.command] = min(2 * patience_s, AGAIN_S_MAX)
                self._tally.report(batch.home, account, row, now_ns)
                continue
            sent = self._waiting.get(row.command)
            if sent is not None and row.kind == ACCEPTED and not sent.entered_as(row):
                self._tally.altered += 1
            own = self.agent.orders.get(row.client_order_id)
            if own is not None and row.kind == TRADED and 0 < own.expires_ns <= batch.time_ns:
                self._tally.outlived += 1
            self._tally.report(batch.home, account, row, now_ns)
            if (account, row.command) not in self._tally.waiting:
                self._waiting.pop(row.command, None)
                self._patience.pop(row.command, None)
            self.agent.report(row)


class Traders:
    """All traders, their pace, and what is said to whoever watches."""

    def __init__(self, venue: Cluster, joins: Sequence[str], traders: int, rate: int, seed: int, first_id: int) -> None:
        self.tally = OrderCounts()
        agents = made_traders(traders, venue.instruments, seed, first_id, FIRST_ACCOUNT)
        self._news = agents[0].news
        self._engines = [engine.id for engine in venue.engines]
        self.traders = [
            Trader(agent, joins, venue, self._engines[i % len(self._engines)], self.tally)
            for i, agent in enumerate(agents)
        ]
        self._pace = rate * PACE_S / max(1, traders)
        self._stopped = asyncio.Event()
        self._patience = patience_asked()
        self._begin()

    def _begin(self) -> None:
        """The agents' time begins now."""
        self._began = time.monotonic()
        for trader in self.traders:
            trader.agent.clock_ns = time.time_ns()

    async def run(self) -> None:
        tasks = [asyncio.create_task(trader.run()) for trader in self.traders]
        try:
            await asyncio.gather(*(trader.up.wait() for trader in self.traders))
            ready("traders")
            listener = asyncio.create_task(self._listen())
            tasks.append(listener)
            await self._open()
            tasks.append(asyncio.create_task(say_tally(self.tally.to_json)))
            await self._trade()
            await self._finish()
            await listener
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _now_s(self) -> float:
        return time.monotonic() - self._began

    async def _open(self) -> None:
        """The makers' ladders, as fast as they are taken, once every engine is reached from everywhere."""
        deadline = asyncio.get_running_loop().time() + REACH_S * self._patience
        await asyncio.gather(*(trader.reach(deadline) for trader in self.traders[: len(self._engines)]))
        self._begin()
        makers = [trader for trader in self.traders if isinstance(trader.agent, MarketMaker)]
        sent = [await trader.act(0.0, OPENING_MAX) for trader in makers]
        await self._answered(self._began + ANSWERS_S * self._patience)
        self._begin()
        self.tally.latencies = Latencies()
        say({"opened": sum(sent), "tally": self.tally.to_json()})

    async def _trade(self) -> None:
        """Each trader in its turn, evenly over the time: a venue's clients do not act all at once."""
        began = time.monotonic()
        turn_s = PACE_S / len(self.traders)
        owed = [0.0] * len(self.traders)
        turn = 0
        while not self._stopped.is_set():
            at = turn % len(self.traders)
            trader = self.traders[at]
            owed[at] = min(owed[at] + self._pace, 10 * self._pace + 1)
            if owed[at] >= 1:
                await trader.act(self._now_s(), int(owed[at]))
                owed[at] -= int(owed[at])
            await trader.chase(time.monotonic())
            turn = max(turn + 1, int((time.monotonic() - began) / turn_s) - len(self.traders))
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, began + turn * turn_s - time.monotonic())):
                    await self._stopped.wait()

    async def _finish(self) -> None:
        await self._answered(time.monotonic() + ANSWERS_S * self._patience)
        say({"tally": self.tally.to_json(), "done": True})

    async def _answered(self, deadline: float) -> None:
        while any(trader.waiting for trader in self.traders) and time.monotonic() < deadline:
            for trader in self.traders:
                await trader.chase(time.monotonic())
            await asyncio.sleep(PACE_S)

    async def _listen(self) -> None:
        """Do what is told, to the end of it."""
        try:
            async for order in told():
                if order.get("stop"):
                    self._stopped.set()
                if order.get("machines"):
                    for trader in self.traders:
                        trader.machines = list(order["machines"])
                self._news.enter({int(instrument): state for instrument, state in order.get("states", {}).items()})
                for instrument, ticks in order.get("jump", {}).items():
                    self._news.jump(int(instrument), ticks)
                if order.get("report"):
                    self._report()
        finally:
            self._stopped.set()

    def _report(self) -> None:
        for account, homes in self.tally.acknowledged.to_json().items():
            say({"acknowledged": {account: homes}})
        lasting = {
            trader.agent.account: sum(not order.expires_ns for order in trader.agent.orders.values())
            for trader in self.traders
        }
        say({"tally": self.tally.to_json(), "lasting": lasting, "reported": True})


def parser() -> argparse.ArgumentParser:
    out = Parser(prog="python -m tools.flow.trade", description="Seeded traders for a running cluster.")
    out.add_argument("--cluster", type=Path, required=True, help="the venue's cluster.toml")
    out.add_argument("--join", action="append", required=True, metavar="HOST:PORT", help="any machine (repeatable)")
    out.add_argument("--traders", type=int, default=12)
    out.add_argument("--rate", type=int, default=1_500, help="orders/s of all together")
    out.add_argument("--seed", type=int, default=1)
    out.add_argument("--first-id", type=int, default=1, help="first client order id")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 2 for wrong usage."""
    args = parser().parse_args(argv)
    try:
        venue = cluster.load(args.cluster)
    except ClusterError as e:
        print(f"trade: {e}", file=sys.stderr)
        return 2
    run(lambda: Traders(venue, args.join, args.traders, args.rate, args.seed, args.first_id).run())
    return 0
