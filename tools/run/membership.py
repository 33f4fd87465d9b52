"""Machines that join a running venue, leave it or come back: how soon all are in step, and whether anyone else was
disturbed."""

import asyncio
import contextlib
import time
from collections.abc import Sequence, Set
from typing import Final

import grpc

from bus.access.exchange import DirectoryError, ask
from engine.client import Client, ClientError
from proto.columns import BUY
from proto.instrument import Instrument
from tools.run.evidence import Seen, counter
from tools.run.machines import Machines, Place
from tools.run.polling import LIVE, answer

STEP_S: Final = 5.0  # within which everybody is in step, on a quiet machine
POLL_S: Final = 0.05
CALL_S: Final = 1.0
ACCOUNT: Final = 999_999  # who tries the joined instrument, with an order that is canceled
ABOVE_MIN: Final = 10  # ticks: where nobody trades
UNDISTURBED: Final = ("joins", "resnapshots", "lags")  # counters that do not rise in whoever is left in peace


async def joined(machines: Machines, engine: Place, fabric: Place) -> tuple[float, tuple[str, ...]]:
    """Wait until all mirror it, it mirrors all, and its instruments are traded from everywhere.

    How many seconds that took, and what was still missing when the time was up.
    """
    began = time.monotonic()
    instruments = machines.venue.instruments_of(engine.id)
    traded: dict[str, None] = {}
    while True:
        missing = await _not_mirrored(machines, engine, fabric)
        for place in machines.serving_engines():
            for instrument in instruments if place.name not in traded else ():
                left_s = STEP_S * machines.patience.factor - (time.monotonic() - began)
                why = await _trade(place, instrument, max(min(left_s, CALL_S), POLL_S))
                if why:
                    missing.append(f"{place.name} took no order for {instrument.symbol}: {why}")
                else:
                    traded[place.name] = None
        took_s = time.monotonic() - began
        if not missing or took_s > STEP_S * machines.patience.factor:
            return took_s, tuple(missing)
        await asyncio.sleep(POLL_S)


async def back(machines: Machines, place: Place) -> tuple[float, tuple[str, ...]]:
    """Wait until all mirror an engine that came back, or a fabric node that came back mirrors all. As above."""
    began = time.monotonic()
    while True:
        if place.name.startswith("engine"):
            missing = await _behind(place, machines.serving_fabrics())
        else:
            missing = [why for engine in machines.serving_engines() for why in await _behind(engine, [place])]
        took_s = time.monotonic() - began
        if not missing or took_s > STEP_S * machines.patience.factor:
            return took_s, tuple(missing)
        await asyncio.sleep(POLL_S)


async def left(machines: Machines, gone: Place) -> tuple[float, tuple[str, ...]]:
    """Wait until every machine knows that it has left, and no reader of its stream waits for more. As above."""
    began = time.monotonic()
    while True:
        missing = []
        for place in machines.serving():
            with contextlib.suppress(grpc.aio.AioRpcError, DirectoryError):
                entries = await ask(place.asked.target, CALL_S)
                if not any(entry.name == gone.name and entry.left for entry in entries):
                    missing.append(f"{place.name} does not know that it has left")
        if gone.name.startswith("engine"):
            for place in machines.serving_fabrics():
                streams = await answer(place.asked.streams(CALL_S)) or []
                states = [stream.state for stream in streams if stream.engine == gone.id]
                if states != ["ended"] * machines.venue.engine(gone.id).channels:
                    missing.append(f"{place.name} has its stream {', '.join(states) or 'not at all'}, not ended")
        if gone.child.returncode:
            return time.monotonic() - began, (*missing, f"it ended with exit code {gone.child.returncode}")
        took_s = time.monotonic() - began
        if not missing or took_s > STEP_S * machines.patience.factor:
            return took_s, tuple(missing)
        await asyncio.sleep(POLL_S)


def disturbed(before: Sequence[Seen], after: Sequence[Seen], engines: Set[int], names: Set[str]) -> tuple[str, ...]:
    """Readers that had to begin anew meanwhile, though neither they nor the engine they read were moved or troubled."""
    out = []
    for each in after:
        if each.engine in engines or each.machine in names or each.gone:
            continue
        then = [seen for seen in before if (seen.machine, seen.engine) == (each.machine, each.engine)]
        rose = counter([each], *UNDISTURBED) - counter(then, *UNDISTURBED) if then else 0
        if rose > 0:
            out.append(f"{each.machine} began anew with engine-{each.engine}")
    return tuple(out)


async def _not_mirrored(machines: Machines, engine: Place, fabric: Place) -> list[str]:
    """Who does not have the new engine's stream live at its sequence, and which streams the new node lacks."""
    missing = await _behind(engine, machines.serving_fabrics())
    homes = {home for home, _ in await _live(fabric)}
    lacks = [other.name for other in machines.serving_engines() if other.id not in homes]
    return [*missing, *(f"{fabric.name} does not mirror {name}" for name in lacks)]


async def _behind(engine: Place, fabrics: Sequence[Place]) -> list[str]:
    """Which of the fabric nodes do not have the engine's streams live where it stands now."""
    streams = await answer(engine.asked.streams(CALL_S)) or []
    ends = {(stream.engine, stream.channel): (stream.epoch, stream.next_seq) for stream in streams}
    missing = [] if ends else [f"{engine.name} does not answer"]
    for place in fabrics:
        has = await _live(place)
        missing += [
            f"{place.name} is not in step with {engine.name}" for key in ends if has.get(key, (0, 0)) < ends[key]
        ]
    return missing


async def _live(fabric: Place) -> dict[tuple[int, int], tuple[int, int]]:
    """Epoch and next sequence of the streams that a fabric node has live, by engine and channel."""
    streams = await answer(fabric.asked.streams(CALL_S)) or []
    return {(s.engine, s.channel): (s.epoch, s.next_seq) for s in streams if s.state == LIVE}


async def _trade(place: Place, instrument: Instrument, timeout_s: float) -> str:
    """Send an order through this engine and cancel it; why that did not go, or nothing."""
    price = (instrument.price_min + ABOVE_MIN) * instrument.tick_size
    try:
        async with (
            asyncio.timeout(timeout_s),
            Client([place.asked.target], account=ACCOUNT).session() as session,
        ):
            report = await session.new(instrument.symbol, BUY, price=f"{price:f}", quantity=f"{instrument.lot_size:f}")
            await session.cancel(instrument.symbol, report.client_order_id)
            return ""
    except (ClientError, grpc.aio.AioRpcError, LookupError, TimeoutError) as e:
        return f"{type(e).__name__} {e}".strip()
