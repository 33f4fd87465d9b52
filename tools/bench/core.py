"""Matching alone: the same `Venue.apply` that an engine calls, on the batches that an engine would make.

Only `apply` is timed, in processor time of its thread. The columns are decoded from a session's bytes just before, so
that the integers are as fresh as in an engine, and the reports are encoded just after, as an engine does before it
lets go of them.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, Final

from engine.core.venue import Venue
from proto.columns import MAKER, STP_NONE, TRADED, Batch, report_rows
from proto.orders import read_batch, write_reports
from tools.bench import flows, special
from tools.bench.bare import BareMatcher, Trade
from tools.bench.child import PipeChild
from tools.bench.flows import ACCOUNT, BATCH, INSTRUMENT, LARGE, REGIMES, Flow
from tools.bench.measure import BenchOptions, PartReport, Rounds, build, cpu_ns, hash_of, in_turns, quiet, say
from tools.flow import workload
from tools.flow.workload import Answers

GOAL_PLAIN: Final = 800_000
GOAL_COMPILED: Final = 1_800_000


@dataclass(frozen=True, slots=True)
class Work:
    """A flow made ready: its bytes, and what the right answers come to."""

    flow: Flow
    batches: list[bytes]
    answers: Answers
    trades: list[Trade]


@dataclass(frozen=True, slots=True)
class Checked:
    """What is kept of a flow to be timed: a heap full of holes where rows and reports were would be timed with it."""

    source: str
    batches: list[bytes]
    answers: Answers
    count: int  # messages


def checked(name: str, options: BenchOptions) -> Checked:
    """A flow, prepared in a process of its own."""
    work = prepare(flows.load(name, options.data, options.seed, options.take(0, 100_000 if name == LARGE else 0)))
    return Checked(work.flow.source, work.batches, work.answers, len(work.flow.rows))


def read(commands: bytes) -> Batch:
    return read_batch(ACCOUNT, 0, STP_NONE, commands)


def prepare(flow: Flow) -> Work:
    """Run the flow once, untimed: walk the venue's invariants, check its trades against the bare matcher's."""
    encoded = flows.batches(flow.rows)
    venue = Venue(1, [INSTRUMENT])
    bare = BareMatcher()
    reports: list[int] = []
    for i, commands in enumerate(encoded, 1):
        batch = read(commands)
        for answered in venue.apply(i, i, [batch]).reports:
            reports += answered.rows
        bare.apply(batch.op, batch.client_order_id, batch.flags, batch.price, batch.quantity, batch.target)
    venue.check()
    trades = traded(reports)
    if trades != bare.trades:
        raise AssertionError(f"{flow.name}: the venue and the bare matcher trade differently")
    answers = workload.answers(flow.rows, report_rows(reports))
    assert (answers.trades, answers.resting) == (len(trades), len(bare.orders))
    return Work(flow, encoded, answers, trades)


def traded(reports: list[int]) -> list[Trade]:
    """Taker, maker, price and quantity of every trade, in order."""
    found: list[Trade] = []
    taker = 0
    for report in report_rows(reports):
        if report.kind == TRADED:
            if report.flags & MAKER:
                found.append((taker, report.client_order_id, report.price, report.quantity))
            else:
                taker = report.client_order_id
    return found


def venue_rate(batches: list[bytes]) -> float:
    """Messages a second through a new venue's `apply`."""
    venue = Venue(1, [INSTRUMENT])
    spent = count = 0
    with quiet():
        for i, commands in enumerate(batches, 1):
            batch = read(commands)
            before = cpu_ns()
            outcome = venue.apply(i, i, [batch])
            spent += cpu_ns() - before
            count += len(batch)
            for answered in outcome.reports:
                write_reports(1, answered.account, answered.first_seq, i, i, answered.rows)
    return count * 1e9 / spent


def bare_rate(batches: list[bytes]) -> float:
    """The same through the bare matcher."""
    bare = BareMatcher()
    spent = count = 0
    with quiet():
        for commands in batches:
            batch = read(commands)
            before = cpu_ns()
            bare.apply(batch.op, batch.client_order_id, batch.flags, batch.price, batch.quantity, batch.target)
            spent += cpu_ns() - before
            count += len(batch)
    return count * 1e9 / spent


def run(options: BenchOptions) -> PartReport:
    """core.<regime> for each regime, and core.worst of the five."""
    names = [*REGIMES, LARGE]
    say("core: reading and checking six flows")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        works = dict(zip(names, pool.map(checked, names, repeat(options)), strict=True))
    rounds = options.turns(9, 2)
    say(f"core: {rounds} rounds")
    found = measure(works, REGIMES, rounds)
    found |= measure(works, (LARGE,), min(rounds, 5))
    compiled = build() == "compiled"
    goal = GOAL_COMPILED if compiled else GOAL_PLAIN
    report = PartReport(
        "core",
        f"at least {goal:,} messages/s ({'compiled' if compiled else 'plain Python'}) on the worst of the five regimes "
        f"and on {LARGE}",
        f"batches of {BATCH}; " + ", ".join(work.source for work in works.values()),
        "one process, one thread; processor time",
    )
    worst = min(REGIMES, key=lambda name: sorted(found[name])[len(found[name]) // 2])
    all_of_it = hash_of(*[works[name].answers.sha256 for name in REGIMES])  # whichever was the worst this time
    for name, title in [(worst, "worst"), *((name, name) for name in names)]:
        report.add(
            f"core.{title}", "messages/s", found[name], found[_bare(name)],
            digest=all_of_it if title == "worst" else works[name].answers.sha256[:16],
            against="a bare bisect matcher: no ids, accounts, repeats, reports or deltas",
            goal=f">= {goal:,}" if title in ("worst", LARGE) else "",
        )  # fmt: skip
    say(f"core: special, mixed and venue, {rounds} rounds")
    plain = {name: [read(commands) for commands in works[name].batches] for name in ("static", "normal")}
    special.add_rows(report, plain, options.seed, rounds)
    if compiled:
        beside_plain(report, worst, works[worst], min(rounds, 5))
    report.notes.append(
        f"The worst regime is {worst}. Trades equal the bare matcher's in every flow. SHA-256 of the answers:\n\n"
        + "\n".join(
            f"    {name:12} {work.answers.sha256}  {work.answers.trades:,} trades, {work.answers.resting:,} resting"
            for name, work in works.items()
        )
    )
    return report


def beside_plain(report: PartReport, name: str, work: Checked, rounds: int) -> None:
    """core.compiled: the compiled build beside the same source in plain Python, in turns."""
    say(f"core: {name} in plain Python")
    with PipeChild("tools.bench.core:serve", plain=True) as twin:
        found = in_turns({"ours": partial(venue_rate, work.batches), "plain": partial(twin.ask, work.batches)}, rounds)
    report.add(
        "core.compiled", "messages/s", found["ours"], found["plain"],
        digest=work.answers.sha256[:16], against="the same source in plain Python, on the same flow",
        goal="ratio >= 1.50",
    )  # fmt: skip


def serve(connection: "Connection[Any, Any]") -> None:
    """Answer batches with the rate of `Venue.apply` on them."""
    assert build() == "plain Python"
    while True:
        connection.send(venue_rate(*connection.recv()))


def measure(works: dict[str, Checked], names: tuple[str, ...], rounds: int) -> Rounds:
    contenders: dict[str, Callable[[], float]] = {}
    for name in names:
        contenders[name] = partial(venue_rate, works[name].batches)
        contenders[_bare(name)] = partial(bare_rate, works[name].batches)
    return in_turns(contenders, rounds)


def _bare(name: str) -> str:
    return f"{name} bare"
