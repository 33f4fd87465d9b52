"""A whole cluster for the length of a run: started, let loose on, troubled as told, brought to rest, and judged."""

import asyncio
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from proto import cluster as cluster_file
from proto.dial import called
from proto.snapshot import Snapshot
from tools.child import Children, StartError
from tools.flow.order_counts import Counted
from tools.run import verdict as judge
from tools.run.auditing import Audit, Others
from tools.run.day.plan import day_of
from tools.run.day.run import DayRun
from tools.run.day.verdict import DayEvidence, day_to_json, judge_day
from tools.run.disruption import Disruption
from tools.run.evidence import Ended, EngineLife, Evidence
from tools.run.feeds import Feeds
from tools.run.flows import Flows, within
from tools.run.live_view import Board
from tools.run.machines import START_S, Machines, Place
from tools.run.options import RATE, Options, venue_of
from tools.run.polling import LOOK_S, Poller
from tools.run.verdict import Verdict

TICK_S: Final = 0.05
PUBLISHED_S: Final = 1.0  # on a quiet machine: what was logged before is on the feed by then


class CannotStart(Exception):
    """The run did not come to its beginning; the text says why."""


class ClusterRun:
    """One run. `board` shows it while it goes on; `run` ends with its verdict, or with None for one that serves.

    `drain` (a first Ctrl-C) ends trading early and goes on to the verdict. Cancelling the task ends everything at once.
    """

    def __init__(self, options: Options, directory: Path) -> None:
        """Raises: UsageError."""
        self.options = options
        endless = options.replay or options.serve
        self.board = Board(options.title(), duration_s=0.0 if endless else options.duration_s)
        self._fresh = not (directory / "cluster.toml").exists()  # no order was ever entered here
        self._children = Children()
        self._machines = Machines(venue_of(options, directory), directory, self._children, self._on_start)
        self._machines.ports = options.ports()
        self._flows = Flows(self._machines, self._children)
        self._poller = Poller(self._machines, self.board, self._heard)
        self._disruption = Disruption(
            options.faults, self._machines, self._flows, self._poller, self._now_s, self._happened
        )
        self._feeds: Feeds | None = None  # once there is a loop to hear on
        self._day: DayRun | None = None
        if options.trading_day:
            day = day_of(options.duration_s, self._machines.venue.instruments, options.seed)
            self._day = DayRun(day, self._machines, self._flows, self._poller, self.board, self._happened)
        self._drain = asyncio.Event()
        self._began = 0.0  # when trading began, on the monotonic clock
        self._began_ns = 0  # when the run did, by the venue's time
        self._seconds = 0.0  # of trading
        self._opening = Counted()  # what had happened before
        self._next_trades: dict[int, int] = {}  # next trade id of each instrument when the run began

    def drain(self) -> None:
        self._drain.set()

    async def run(self) -> Verdict | None:
        """Raises: CannotStart; asyncio.CancelledError. No process is left behind, whatever happens."""
        with self._children:
            try:
                if not self.options.serve:
                    self._feeds = Feeds(self._home_of, self._machines.allocation)
                await self._start()
                await self._trade()
                if self.options.serve:
                    await self._flows.stop()
                    self._say_ends(await self._stop())
                    return None
                evidence = await self._settle()
                return judge.judge(replace(evidence, ended=await self._stop()))
            finally:
                await self._disruption.close()
                if self._day:
                    await self._day.close()
                await self._flows.close()
                await self._machines.close()
                if self._feeds:
                    await self._feeds.stop()

    # Starting

    async def _start(self) -> None:
        machines, options = self._machines, self.options
        machines.cluster_file.write_text(cluster_file.dumps(machines.venue))
        self._began_ns = time.time_ns()
        try:
            troubled = bool(options.faults.messages or options.faults.answers)
            if troubled:
                await machines.start_proxy(options.faults, options.seed)
            self.board.phase = "starting engines"
            await machines.start_engines()
            await self._hear_all()
            if self._day:
                self.board.phase = "rolling the day"
                await self._day.prepare()
            owners = await self._poller.owners()
            self._next_trades = _next_trades(owners)
            if self._day:
                await self._day.watch(self._heard(), owners)
            await self._start_flows()  # first, so that the fabric nodes join a venue at work
            self.board.phase = "starting fabric nodes"
            await machines.start_fabrics()
            if troubled:
                await self._flows.start_late_joiners()
            self._flows.go()
        except StartError as e:
            raise CannotStart(str(e)) from None

    async def _start_flows(self) -> None:
        options = self.options
        if options.replay:
            self.board.phase = "reading recorded flow"
            await self._flows.start_replays(options.replay, options.check, options.rate)
            return
        self.board.phase = "opening ladders"
        first_id = 1 if self._fresh else time.time_ns()  # early ids were given before
        states = self._day.states if self._day else {}
        rate = options.rate or RATE
        opened = await self._flows.start_traders(options.traders, rate, options.seed, first_id, states)
        self._happened(f"{opened:,} orders in the opening ladders")

    async def _hear_all(self) -> None:
        """Until every engine is heard: a trade from now on that is not on the feed is one that it missed."""
        if self._feeds is None:
            return
        deadline = time.monotonic() + START_S * self._machines.patience.factor
        streams = [(engine.id, c) for engine in self._machines.venue.engines for c in range(1, engine.channels + 1)]
        while not all(self._heard().hears(*stream) for stream in streams):
            if time.monotonic() > deadline:
                raise StartError("nothing is heard on the engines' feeds")
            await asyncio.sleep(TICK_S)

    def _heard(self) -> Feeds:
        assert self._feeds
        return self._feeds

    def _home_of(self, engine: int) -> str:
        """Where an engine answers now; empty while it does not."""
        place = self._machines.engines.get(engine)
        return place.asked.target if place and place.serving else ""

    def _on_start(self, place: Place) -> None:
        if "feed" in place.child.ready and self._feeds is not None:
            channels = self._machines.venue.engine(place.id).channels
            self._heard().follow(place.id, place.child.ready["feed"], channels)
        self._flows.tell_machines()

    # Trading

    async def _trade(self) -> None:
        self._began = time.monotonic()
        self._opening = self._flows.counted()
        self.board.phase = "serving" if self.options.serve else "trading"
        if self._machines.proxy:
            self._machines.proxy.tell({"begin": True})
        self._tell_addresses()
        if self._day:
            self._day.begin()
        self._disruption.begin()
        try:
            next_look = 0.0
            while not self._over():
                self.board.now_s = self._now_s()
                if self._day:
                    self._day.tick(self._now_s())
                for place in self._machines.ended():
                    self._happened(f"{place.name} ended by itself")
                if self._now_s() >= next_look:
                    await self._poller.look(self._flows.counted())
                    next_look = self._now_s() + LOOK_S
                await asyncio.sleep(TICK_S)
        finally:
            await self._disruption.end()
        self._seconds = self._now_s()
        self._disruption.over()
        if self._day:
            await self._day.finish(self._drain.is_set())

    def _tell_addresses(self) -> None:
        """Where to look and where to order, to be copied."""
        machines = self._machines
        symbol = machines.venue.instruments[0].symbol
        fabric, engine = (each[0].asked.target for each in (machines.serving_fabrics(), machines.serving_engines()))
        self.board.addresses = [
            f"watch it: {called('tools.tail_feed', 'tail')} {fabric} --symbol {symbol}",
            f"trade there: {called('tools.orders', 'orders')} --at {engine} book {symbol}",
        ]
        for line in self.board.addresses:
            self._happened(line)
        for place in machines.serving_engines():
            symbols = " ".join(instrument.symbol for instrument in machines.venue.instruments_of(place.id))
            self._happened(f"{place.name} at {place.asked.target}: {symbols}")

    def _over(self) -> bool:
        if self._drain.is_set():
            return True
        if self.options.serve:
            return False
        return self._flows.done if self.options.replay else self._now_s() >= self.options.duration_s

    def _now_s(self) -> float:
        return time.monotonic() - self._began

    def _happened(self, what: str) -> None:
        self.board.happened.append(f"{self._now_s() if self._began else 0.0:6.1f} s  {what}")

    # Coming to rest

    async def _settle(self) -> Evidence:
        """Stop the flow, let every mirror reach its owner, and gather what there is to judge."""
        machines, flows, poller, feeds = self._machines, self._flows, self._poller, self._heard()
        self.board.phase = "draining"
        await flows.stop()
        until_ns = time.time_ns()
        await asyncio.sleep(PUBLISHED_S * machines.patience.factor)
        self.board.phase = "coming to rest"
        await poller.rest()
        audit = Audit(machines, flows, feeds)
        audit.look()
        await flows.report()
        await poller.look(flows.counted())
        owners = await poller.owners()
        mirrors, marked = await poller.mirrors(owners), await poller.marks()
        machines.ended()
        proxied, answers = await self._proxy_counts()
        self.board.phase = "auditing"
        others = Others(flows.accounts, self._next_trades, self._began_ns)
        audited = await audit.finish(until_ns, others)
        day = self._day_evidence(audit)
        self.board.phase = "at rest"
        instruments = machines.venue.instruments
        return Evidence(
            symbols={i.id: i.symbol for i in instruments},
            homes={i.id: i.engine for i in instruments},
            engines=tuple(self._life_of(place) for place in machines.engines.values()),
            fabrics_down=tuple(
                (p.name, p.killed_at_s or 0.0) for p in machines.fabrics.values() if p.down and not p.left
            ),
            counted=flows.counted().with_others(others.executed),
            opening=self._opening,
            seconds=flows.seconds or self._seconds,
            feed=feeds.trades,
            feed_missed=feeds.missed,
            trade_ids={id: next_id - self._next_trades.get(id, 1) for id, next_id in _next_trades(owners).items()},
            audited=audited,
            others=others.found(),
            mirrors=mirrors,
            marked=marked,
            seen=(*poller.seen(), *flows.seen_by_late_joiners()),
            late_joiners=flows.late_joiners_found(),
            outages=tuple(self._disruption.outages),
            moved=tuple(self._disruption.moved),
            proxied=proxied,
            answers=answers,
            checks=(*flows.findings, *(judge_day(day) if day else ())),
            day=day_to_json(day) if day else None,
        )

    def _day_evidence(self, audit: Audit) -> DayEvidence | None:
        if self._day is None:
            return None
        troubled = bool(str(self.options.faults))
        return self._day.evidence(self._now_s(), self._drain.is_set(), troubled, self._fresh, audit.told)

    def _life_of(self, place: Place) -> EngineLife:
        symbols = tuple(i.symbol for i in self._machines.venue.instruments_of(place.id))
        return EngineLife(place.id, tuple(place.epochs), place.down, place.killed_at_s, place.left, symbols)

    async def _proxy_counts(self) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, int]]]:
        """What was done to messages, line by line, and to calls, machine by machine."""
        proxy = self._machines.proxy
        if proxy is None or not proxy.alive:
            return {}, {}
        proxy.tell({"report": True})
        line = await within(proxy.line(), START_S * self._machines.patience.factor)
        return (dict(line["counts"]), dict(line.get("answers", {}))) if line else ({}, {})

    async def _stop(self) -> tuple[Ended, ...]:
        """End every process as its owner would, and say which did not end well."""
        machines = self._machines
        others = [machines.proxy, self._flows.joiners, *self._flows.children]
        children = [place.child for place in machines.places() if not place.down]
        children += [child for child in others if child is not None]
        early = [child for child in children if not child.alive and child is not self._flows.joiners]
        await self._children.stop()
        ended = [Ended(child.name, f"{_how(child.returncode)} by itself") for child in early]
        late = [child for child in children if child.returncode and child not in early]
        return (*ended, *(Ended(child.name, f"{_how(child.returncode)} when told to end") for child in late))

    def _say_ends(self, ended: Sequence[Ended]) -> None:
        self.board.phase = "ended"
        self.board.failed = bool(ended)
        for each in ended:
            self._happened(f"{each.name} {each.how}")
        if not ended:
            self._happened("all processes ended as they were asked to")


def _next_trades(owners: Sequence[Snapshot]) -> dict[int, int]:
    """The next trade id of each instrument."""
    return {book.instrument: book.next_trade_id for owner in owners for book in owner.books}


def _how(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"ended by {signal.Signals(-returncode).name}"
    return f"ended with exit code {returncode}"
