"""Bugs, planted one at a time in a copy of the tree: a run of each must end with a verdict that does not hold.

    python -m tests.plants                        all of them, each with up to three seeds
    python -m tests.plants last_comes_first       those named
    python -m tests.plants --list

A plant is code that is added to the end of a module, where it replaces something by a version that errs now and then.
Exit 0 if each made the verdict fail within its seeds, 1 if one did not, 2 for wrong usage.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tools.child import patience_asked

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("engine", "bus", "proto", "tools", "tests")
SEEDS = 3
RUN_S = 240.0  # the longest that a run may take on a quiet machine
QUIET = "--duration 3 --engines 2 --instruments 4 --traders 8 --rate 800"
KILLS = (
    "--duration 6 --engines 2 --instruments 4 --traders 8 --rate 800 "
    "--faults kill=engine-1@1,restart=engine-1@1.6,kill=engine-2@2.5,restart=engine-2@3.1,"
    "kill=engine-1@4,restart=engine-1@4.6"
)

BUSY_KILLS = (
    "--duration 8 --engines 2 --instruments 4 --traders 20 --rate 3000 --faults "
    "kill=engine-1@1,restart=engine-1@1.3,kill=engine-2@2.2,restart=engine-2@2.5,kill=engine-1@3.4,restart=engine-1@3.7,"
    "kill=engine-2@4.6,restart=engine-2@4.9,kill=engine-1@5.8,restart=engine-1@6.1,kill=engine-2@7,restart=engine-2@7.3"
)


class Plant(NamedTuple):
    module: str
    code: str
    run: str = QUIET


def every(count: int) -> str:
    """A function `now_and_then()` that is true at each so manieth call."""
    return f"""
_calls = [0]
def now_and_then():
    _calls[0] += 1
    return _calls[0] % {count} == 0
"""


PLANTS = {
    "does_not_match": Plant(
        "engine/core/trading.py",
        every(50)
        + """
_incoming = Trading.incoming
def incoming(self, market, order, stp, command):
    if not order.flags & (TYPE_MASK | TIF_MASK) and now_and_then():
        self.rest(market, order)
    else:
        _incoming(self, market, order, stp, command)
Trading.incoming = incoming
""",
    ),
    "canceled_trades_on": Plant(
        "engine/core/entry.py",
        every(20)
        + """
_cancel = OrderEntry.cancel
def cancel(self, account, command, instrument, target):
    order = account.commands.get(target)
    live = isinstance(order, Order) and order.open
    market = self._markets.get(instrument)
    if not live or market is None or order.past is not None or not market.open or not now_and_then():
        return _cancel(self, account, command, instrument, target)
    self._trading.record.touch(account).extend((
        CANCELED, command, target, order.order_id, instrument, order.side,
        order.price, order.quantity, 0, order.filled, 0, NO_REASON,
    ))
    account.commands[command] = order
    return NO_REASON
OrderEntry.cancel = cancel
""",
    ),
    "last_comes_first": Plant(
        "engine/core/book.py",
        """
def rest(self, order):
    ladder = self.asks if order.side else self.bids
    level = ladder.levels.get(order.price)
    if level is None:
        ladder.open(order.price, order)
        return
    first = level.next
    order.prev, order.next = level, first
    first.prev = level.next = order
Book.rest = rest
""",
    ),
    "acknowledged_before_durable": Plant(
        "engine/log/commit.py",
        """
_init = _LogThread.__init__
def __init__(self, log, loop, done):
    self._told = done
    _init(self, log, loop, lambda position, error: None)
def append(self, expected, bodies, *, resume):
    self._asked.put((expected, bodies, resume))
    self._loop.call_soon(self._told, expected + len(bodies), None)
_LogThread.__init__, _LogThread.append = __init__, append
""",
        BUSY_KILLS,
    ),
    "delta_left_out": Plant(
        "engine/publish/source.py",
        every(150)
        + """
_publish = EngineFeed.publish
def publish(self, time_ns, deltas, *, idle):
    for channel in deltas:
        if len(channel.rows) > 6 and channel.rows[0] & 15 <= 5 and now_and_then():
            del channel.rows[:6]
    _publish(self, time_ns, deltas, idle=idle)
EngineFeed.publish = publish
""",
    ),
    "wrong_quantity_numbered": Plant(
        "bus/stream/sequencer.py",
        every(150)
        + """
_append = Sequencer.append
def append(self, time_ns, rows, extras=()):
    if rows and rows[0] & 15 == 1 and now_and_then():
        rows = [*rows[:4], rows[4] + 1, *rows[5:]]
    _append(self, time_ns, rows, extras)
Sequencer.append = append
""",
    ),
    "mirror_ignores_a_change": Plant(
        "bus/stream/mirror.py",
        every(100)
        + """
_apply = Mirror._apply
def apply(self, rows, extras):
    _apply(self, [row for row in rows if row[0] & 15 != 3 or not now_and_then()], extras)
Mirror._apply = apply
""",
    ),
    "maker_is_told_nothing": Plant(
        "engine/core/trading.py",
        every(40)
        + """
_traded = Trading._traded
def traded(self, market, order, flag, *more):
    if not flag & MAKER or not now_and_then():
        _traded(self, market, order, flag, *more)
Trading._traded = traded
""",
    ),
    "restart_forgets_records": Plant(
        "engine/log/replay.py",
        every(25)
        + """
_apply_record = _apply
def _apply(venue, position, record):
    if now_and_then():
        return venue.tick(position, record.time_ns)
    return _apply_record(venue, position, record)
""",
        KILLS,
    ),
    "link_changes_an_order": Plant(
        "engine/entry/link.py",
        every(40)
        + """
from proto.orders import read_batch, write_batch
_as_sent = _commands
def _commands(batch, commands):
    if now_and_then():
        changed = read_batch(batch.account, batch.session, batch.stp, commands)
        changed.quantity = [quantity + 1 if op == 1 else quantity for op, quantity in zip(changed.op, changed.quantity)]
        commands = write_batch(changed)
    return _as_sent(batch, commands)
""",
    ),
    "nothing_expires": Plant(
        "engine/core/waiting.py",
        """
Deadlines.due = lambda self, time_ns: None
Deadlines.next_ns = 0
""",
        "--duration 8 --engines 2 --instruments 4 --traders 8 --rate 1500",
    ),
    "slice_keeps_its_place": Plant(
        "engine/core/trading.py",
        """
_rest_at_the_back = Trading._show
def _show(self, market, order, by):
    _rest_at_the_back(self, market, order, by)
    if by == 0 and order.more is not None and order.more.tip is not None:
        tip = order.more.tip
        book = market.book
        level = (book.asks if order.side else book.bids).levels[order.price]
        if level.next is not tip:
            tip.prev.next, level.prev = level, tip.prev
            tip.prev, tip.next = level, level.next
            level.next.prev = tip
            level.next = tip
Trading._show = _show
""",
    ),
    "by_size_is_first_come": Plant(
        "engine/core/market.py",
        """
_define = Market.define
def define(self, instrument):
    _define(self, instrument)
    self.pro_rata = False
    self.mind()
Market.define = define
_mind = Market.mind
def mind(self):
    self.pro_rata = False
    _mind(self)
Market.mind = mind
""",
    ),
    "trade_at_another_price": Plant(
        "engine/core/trading.py",
        every(40)
        + """
_traded_at = Trading._traded
def traded(self, market, order, flag, at, *more):
    _traded_at(self, market, order, flag, at + (1 if flag & MAKER and now_and_then() else 0), *more)
Trading._traded = traded
""",
    ),
    "replace_loses_lots": Plant(
        "engine/core/entry.py",
        every(25)
        + """
_replace = OrderEntry.replace
def replace(self, account, stp, row, terms):
    reason = _replace(self, account, stp, row, terms)
    order = account.commands.get(row[6])
    plain = isinstance(order, Order) and not isinstance(order.past, More) and order.open > 1
    if reason == NO_REASON and plain and now_and_then():
        order.open -= 1
    return reason
OrderEntry.replace = replace
""",
    ),
}


def planted(plant: Plant, directory: Path) -> None:
    """A copy of the tree with that bug."""
    for room in ROOMS:
        shutil.copytree(ROOT / room, directory / room, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "run_cluster.py", directory)
    with (directory / plant.module).open("a") as module:
        module.write("\n\n# planted\n" + dedent(plant.code))


def verdict_of(plant: Plant, directory: Path, seed: int) -> tuple[int, list[str], str]:
    """Exit code of a run in that copy, the findings that fail, and what it complained of."""
    command = [sys.executable, "run_cluster.py", *plant.run.split(), "--seed", str(seed), "--json"]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, timeout=RUN_S * patience_asked(), check=False
    )
    failed: list[str] = []
    if done.stdout.startswith("{"):
        failed = [each["title"] for each in json.loads(done.stdout)["findings"] if each["mark"] == "fails"]
    return done.returncode, failed, done.stderr.strip()[-300:]


def found(name: str, seeds: int) -> bool:
    """Whether one of the seeds makes the verdict fail; says what each came to."""
    plant = PLANTS[name]
    with tempfile.TemporaryDirectory(prefix="lobmesh-plant-") as made:
        directory = Path(made)
        planted(plant, directory)
        for seed in range(1, seeds + 1):
            began = time.monotonic()
            try:
                code, failed, complaints = verdict_of(plant, directory, seed)
            except subprocess.TimeoutExpired:
                code, failed, complaints = -1, [], "it did not end"
            said = ", ".join(failed) or complaints or "the verdict holds"
            print(f"{name:28} seed {seed}  exit {code}  {time.monotonic() - began:5.1f} s  {said}", flush=True)
            if code == 1 and failed:
                return True
    return False


def main(argv: Sequence[str] | None = None) -> int:
    out = argparse.ArgumentParser(prog="python -m tests.plants", description=__doc__.split("\n\n")[0])
    out.add_argument("names", nargs="*", choices=[[], *PLANTS], metavar="NAME")
    out.add_argument("--seeds", type=int, default=SEEDS)
    out.add_argument("--list", action="store_true")
    args = out.parse_args(argv)
    if args.list:
        print("\n".join(PLANTS))
        return 0
    missed = [name for name in args.names or PLANTS if not found(name, args.seeds)]
    print(
        f"{len(args.names or PLANTS) - len(missed)} of {len(args.names or PLANTS)} found"
        + "".join(f"; {m} not" for m in missed)
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
