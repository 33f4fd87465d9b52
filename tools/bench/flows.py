"""The order flow that is measured: a recorded one where it lies at hand, a seeded one like it where it does not.

A flow is a list of messages in the shape of the recorded workloads (tools/flow/messages.py): new, cancel and modify, by
the client's own order ids. `batches` makes of it the very bytes that a session would send (tools/flow/workload.py).
"""

import os
import random
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Final

from proto.columns import FLAG_SELL, NEW, STP_NONE, Batch
from proto.instrument import Instrument
from proto.orders import write_batch
from tools.flow import messages as flow
from tools.flow import workload
from tools.flow.messages import WorkloadRow

REGIMES: Final = ("static", "normal", "swing-25", "swing-40", "flash-crash")
LARGE: Final = "normal-large"
BATCH: Final = 256
INSTRUMENT: Final = Instrument(
    id=1, symbol="FLOW", engine=1, channel=1, tick_size=Decimal("0.01"), lot_size=Decimal(1),
    price_min=1, price_max=1 << 24,
)  # fmt: skip
ACCOUNT: Final = 7
MIDDLE: Final = 1 << 20  # ticks, of what `resting` makes

# How far each synthesised regime's price wanders in all, as a share of where it begins.
_SWING: Final = {"static": 0.0, "normal": 0.02, "swing-25": 0.25, "swing-40": 0.40, "flash-crash": -0.45, LARGE: 0.04}


@dataclass(frozen=True, slots=True)
class Flow:
    """Messages and where they are from."""

    name: str
    source: str
    rows: list[WorkloadRow]


def find_data() -> Path | None:
    """Where recorded flow lies: $LOBMESH_DATA, or shared/data beside the checkout; None if it is not there."""
    named = os.environ.get("LOBMESH_DATA")
    path = Path(named) if named else Path(__file__).resolve().parents[2].parent / "shared" / "data"
    return path if (path / "workload").is_dir() else None


def load(name: str, data: Path | None, seed: int, count: int = 0) -> Flow:
    """A regime by name, whole or its first `count` messages; synthesised if `data` is None."""
    if data is not None:
        path = data / "workload" / f"{name}.bin.gz"
        rows = flow.read_workload(path)
        source = f"{name}.bin.gz"
    else:
        rows = synthesise(name, count or (400_000 if name == LARGE else 40_000), seed)
        source = f"{name}, synthesised with seed {seed}"
    if count and count < len(rows):
        rows = rows[:count]
        source += f", first {count}"
    return Flow(name, source, rows)


def synthesise(name: str, count: int, seed: int) -> list[WorkloadRow]:
    """A flow in the proportions of the recorded ones: half new, of which a seventh IOC, 41 % cancels, 9 % modifies."""
    chance = random.Random(f"{seed} {name}")
    swing = _SWING[name]
    live: list[tuple[int, int]] = []  # order id, side; some have traded, as in the recorded flow
    rows: list[WorkloadRow] = []
    next_id = 1
    for sequence in range(count):
        progress = sequence / count
        shift = swing * (2 * abs(progress - 0.5) if swing < 0 else progress)
        middle = round(33_000 * (1 + shift + (0.45 if swing < 0 else 0)))
        turn = chance.random()
        if not live or turn < 0.5:
            side = chance.getrandbits(1)
            ioc = int(chance.random() < 0.146)
            away = chance.randrange(1, 120) if not ioc else -chance.randrange(0, 6)
            price = middle - away if side == 0 else middle + away
            rows.append(WorkloadRow(flow.NEW, side, ioc, chance.randrange(1, 100), sequence, next_id, price))
            if not ioc:
                live.append((next_id, side))
            next_id += 1
            continue
        at = chance.randrange(len(live))
        order_id, side = live[at]
        price = middle + (chance.randrange(1, 120) if side else -chance.randrange(1, 120))
        if turn < 0.91:
            live[at] = live[-1]
            live.pop()
            rows.append(WorkloadRow(flow.CANCEL, side, 0, 1, sequence, order_id, price))
        else:
            rows.append(WorkloadRow(flow.MODIFY, side, 0, chance.randrange(1, 100), sequence, order_id, price))
    return rows


def batches(rows: list[WorkloadRow], size: int = BATCH, account: int = ACCOUNT) -> list[bytes]:
    """The flow as serialized CommandBatches of `size` rows: what a session sends, and what the log holds."""
    return [write_batch(batch) for batch in workload.batches(rows, account, INSTRUMENT.id, size)]


def resting(first: int, count: int, chance: random.Random, levels: int) -> Batch:
    """New orders that rest, with ids from `first` on, at random prices within so many levels on both sides."""
    sides = [chance.getrandbits(1) for _ in range(count)]
    prices = [MIDDLE + (1 if side else -1) * chance.randrange(1, levels + 1) for side in sides]
    return Batch(
        ACCOUNT, 0, STP_NONE, [NEW] * count, list(range(first, first + count)), [INSTRUMENT.id] * count,
        [side * FLAG_SELL for side in sides], prices, [10] * count, [0] * count,
    )  # fmt: skip
