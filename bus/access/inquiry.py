"""Asks the venue, before a machine begins, what it knows of it: the calls behind bus/access/claim.py."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from bus.access.claim import Known
from bus.access.directory import Entry
from bus.access.exchange import DirectoryError, entry_of, exchange
from proto import cluster_pb2, connect, marketdata_pb2, marketdata_pb2_grpc

DEADLINE_S: Final = 1.0
TRIES: Final = 3  # before a machine that takes calls and does not answer is held to be gone
ASKED_MAX: Final = 8  # machines that are asked how far they have an engine's streams


@dataclass(frozen=True, slots=True)
class Answer:
    """`seen`: what was found; `answered`: how many of the seeds answered at all."""

    seen: tuple[Known, ...]
    answered: int
    now_ns: tuple[int, ...] = ()  # the clocks of those that told theirs


async def inquire(
    seeds: Sequence[str], concerns: Callable[[Entry], bool], *, engine: int = 0, deadline_s: float = DEADLINE_S
) -> Answer:
    """What the machines at `seeds` know of the entries that `concerns` names, and whether those run.

    `engine`: whose streams are asked after, too; 0: nobody's. All are asked at once: it takes no longer than five
    deadlines, however many hang, and with nobody there no time. Raises: nothing.
    """
    replies = [reply for reply in await asyncio.gather(*(_exchange(seed, deadline_s) for seed in seeds)) if reply]
    found: dict[tuple[str, int, int], tuple[Entry, int]] = {}
    others: dict[str, None] = dict.fromkeys(seeds)
    for reply in replies:
        reached = {(one.name, one.start): one.position for one in reply.reached}
        for entry in _entries(reply):
            if concerns(entry):
                key = entry.name, entry.incarnation, entry.start
                known, position = found.get(key, (entry, 0))
                newest = entry if entry.newer_than(known) else known
                found[key] = newest, max(position, reached.get((entry.name, entry.start), 0))
            elif entry.fabric and not entry.left:
                others[entry.grpc] = None
    runs = await asyncio.gather(*(_runs(entry, deadline_s) for entry, _ in found.values()))
    streams: set[tuple[int, int, int]] = set()
    if engine and found and not any(runs):
        for told in await asyncio.gather(
            *(_streams(target, engine, deadline_s) for target in list(others)[:ASKED_MAX])
        ):
            streams |= told
    standing = tuple(sorted(streams))
    seen = [Known(entry, run, position, standing) for (entry, position), run in zip(found.values(), runs, strict=True)]
    return Answer(tuple(seen), len(replies), tuple(reply.now_ns for reply in replies if reply.now_ns))


async def _runs(entry: Entry, deadline_s: float) -> bool:
    """Whether a machine of that name answers where the entry says that it is."""
    if entry.left:
        return False
    reply = await _exchange(entry.grpc, deadline_s, TRIES)
    return reply is not None and str(getattr(reply, "from")) == entry.name


async def _exchange(target: str, deadline_s: float, tries: int = 1) -> cluster_pb2.DirectoryEntries | None:
    """The answer; None: nobody is there, or does not answer."""
    for _ in range(tries):
        try:
            return await exchange(target, deadline_s)
        except grpc.aio.AioRpcError as e:
            if e.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                return None
    return None


async def _streams(target: str, engine: int, deadline_s: float) -> set[tuple[int, int, int]]:
    """How far the machine at `target` has the engine's streams: (epoch, channel, next sequence)."""
    stub: Any = marketdata_pb2_grpc.MarketDataStub
    try:
        async with connect.channel(target) as channel:
            reply = await stub(channel).GetStreams(marketdata_pb2.StreamsRequest(), timeout=deadline_s)
    except grpc.aio.AioRpcError:
        return set()
    return {(one.epoch, one.channel, one.next_seq) for one in reply.streams if one.engine == engine}


def _entries(reply: cluster_pb2.DirectoryEntries) -> list[Entry]:
    """Those that are entries; what is none is counted where it is exchanged (bus/access/exchange.py)."""
    entries: list[Entry] = []
    for message in reply.entries:
        try:
            entries.append(entry_of(message))
        except DirectoryError:
            continue
    return entries
