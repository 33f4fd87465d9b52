"""A fabric node: mirrors every engine it hears of, and answers for all of them.

node = FabricNode("fabric-1", seed=1)
port = await node.serve("127.0.0.1:0", join=["127.0.0.1:4000"])
...
await node.stop()
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]

from bus.access.claim import claim
from bus.access.directory import Changed, Directory, Displaced, Entry, Event, Superseded
from bus.access.exchange import DirectoryLoop, DirectoryRefused, new_start
from bus.access.inquiry import inquire
from bus.access.subscriber import OnAction, Subscriber
from bus.service import Look, MarketData, NotServed, StreamLook
from bus.stream.actions import AskRange, AskSnapshot, ClientLimits, Standing, State
from bus.stream.feed_client import FeedClient
from bus.stream.levels import ShownLevel, by_order, by_price
from bus.stream.mirror import BUY_SIDE, SELL_SIDE, MirrorBook
from bus.stream.sequencer import RangeResult
from proto import connect
from proto.dial import advertised
from proto.instrument import Instrument
from proto.snapshot import Snapshot

RING_FRAMES: Final = 16_384  # twice what a reader can be behind; engines keep four times as many
GAPS_MAX: Final = 64  # closed ones, of a stream, in one answer
JOIN_S: Final = 2.0
STOP_S: Final = 1.0
SERVICES: Final = ("lobmesh.v1.MarketData", "lobmesh.v1.Directory")

logger = logging.getLogger(__name__)


class MirrorSource:
    """What mirrors know, as a `bus.service.Source`."""

    def __init__(
        self,
        clients: dict[tuple[int, int], FeedClient],
        directory: Directory,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._clients = clients
        self._directory = directory
        self._clock_ns = clock_ns
        self._found: dict[str, Instrument] = {}  # by symbol, as defined on the feed

    def position(self, engine: int, channel: int) -> tuple[int, int, int] | None:
        client = self._clients.get((engine, channel))
        if client is None:
            return None
        if client.state not in (State.LIVE, State.ENDED):
            raise NotServed(f"stream {engine}.{channel} is {client.state.value} here")
        epoch, sequence = client.position
        return client.incarnation, epoch, sequence

    def snapshot(self, engine: int, channel: int, instruments: Sequence[int]) -> Snapshot:
        client = self._clients[engine, channel]
        doubted = [name for name in client.doubted if not instruments or name in instruments]
        if doubted:
            raise NotServed(f"instruments in doubt here: {doubted}")
        return client.mirror.snapshot(engine, channel, client.incarnation, client.epoch, time.time_ns(), instruments)

    def find(self, engine: int, channel: int, epoch: int, first_seq: int, last_seq: int) -> RangeResult | None:
        client = self._clients.get((engine, channel))
        return None if client is None or client.ring is None else client.ring.find(epoch, first_seq, last_seq)

    def look(self, symbol: str, depth: int, orders: bool) -> Look | None:
        instrument = self._instrument(symbol)
        if instrument is None:
            return None
        client = self._clients.get((instrument.engine, instrument.channel))
        book = client.mirror.books.get(instrument.id) if client is not None else None
        if client is None or book is None:
            return Look(instrument, 0, 0, Standing.UNKNOWN, 0, MirrorBook(instrument.id).outline(), [], [])
        epoch, sequence = client.position
        return Look(
            instrument,
            epoch,
            sequence,
            client.standing(instrument.id),
            client.age_ns(self._clock_ns()),
            book.outline(),
            _levels(book, BUY_SIDE, depth, orders),
            _levels(book, SELL_SIDE, depth, orders),
        )

    def instruments(self) -> Sequence[Instrument]:
        known = {instrument.id: instrument for instrument in self._directory.instruments()}
        for client in self._clients.values():
            for book in client.mirror.books.values():
                if book.definition is not None and book.instrument not in known:
                    known[book.instrument] = _defined(client, book)
        return [known[name] for name in sorted(known)]

    def streams(self) -> Sequence[StreamLook]:
        return [
            StreamLook(
                engine,
                channel,
                client.epoch,
                client.state.value,
                client.next_seq,
                client.counters.as_dict(),
                [*list(client.ledger.closed)[-GAPS_MAX:], *client.ledger.open],
            )
            for (engine, channel), client in sorted(self._clients.items())
        ]

    def _instrument(self, symbol: str) -> Instrument | None:
        """By the directory, or, where it does not know, by the definitions on the feed."""
        listed = self._directory.instrument(symbol)
        if listed is not None:
            return listed
        found = self._found.get(symbol)
        if found is None or not self._is_defined(found):
            self._found = {instrument.symbol: instrument for instrument in self.instruments()}
            found = self._found.get(symbol)
        return found

    def _is_defined(self, instrument: Instrument) -> bool:
        """Whether the feed still says that there is such an instrument."""
        client = self._clients.get((instrument.engine, instrument.channel))
        book = None if client is None else client.mirror.books.get(instrument.id)
        return book is not None and book.definition is not None and book.definition.symbol == instrument.symbol


def _levels(book: MirrorBook, side: int, depth: int, orders: bool) -> list[ShownLevel]:
    return by_order(book.queues(side), depth) if orders else by_price(book.levels(side, depth))


def _defined(client: FeedClient, book: MirrorBook) -> Instrument:
    definition = book.definition
    assert definition is not None
    return Instrument(
        id=book.instrument,
        symbol=definition.symbol,
        engine=client.engine,
        channel=client.channel,
        tick_size=Decimal(definition.tick_size),
        lot_size=Decimal(definition.lot_size),
        price_min=definition.price_min,
        price_max=definition.price_max,
    )


class FabricNode:
    """One fabric node, on the running event loop.

    engine   the engine on the same machine, 0 if there is none
    only     mirror these engines; empty: every one
    """

    def __init__(
        self,
        name: str,
        *,
        engine: int = 0,
        only: Collection[int] = (),
        seed: int = 0,
        limits: ClientLimits | None = None,
        listen: OnAction | None = None,
        displaced: Callable[[str], None] = logger.critical,
    ) -> None:
        """`displaced`: told why, if another machine turns out to have the name: this one is to stop."""
        self.name = name
        self._displaced = displaced
        self.engine = engine
        self.grpc = ""
        self.directory = Directory()
        self._only = frozenset(only)
        self._rng = random.Random(f"{seed} {name}")
        self.subscriber = Subscriber(self._sources, self._rng, ring_frames=RING_FRAMES, listen=listen, limits=limits)
        self.source = MirrorSource(self.subscriber.clients, self.directory)
        self.market_data = MarketData(self.source)
        self._server: grpc.aio.Server | None = None
        self._health: Any = None
        self._loop: DirectoryLoop | None = None

    async def serve(self, address: str = "127.0.0.1:0", join: Sequence[str] = (), advertise: str | None = None) -> int:
        """Open the port and join; returns the port. Others find it at `advertise`, if not where it is bound.

        Raises: OSError if it cannot be had; ValueError if it is 0.0.0.0 and nothing is advertised; DirectoryRefused,
        also if a machine of this name runs.
        """
        found = claim(self.name, 0, (await inquire(join, lambda entry: entry.name == self.name)).seen, None)
        if found.taken:
            raise DirectoryRefused(found.taken)
        server = self._server = connect.server()
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection([*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        self.market_data.add_to(server)
        loop = self._loop = DirectoryLoop(self.directory, join)
        loop.add_to(server)
        loop.listen(self._on_event)
        port = connect.bind(server, address)
        await server.start()
        self.grpc = f"{address.rpartition(':')[0]}:{port}"
        where = advertised(self.grpc, advertise)
        entry = Entry(self.name, self.engine, True, 0, 0, time.time_ns(), where)
        loop.announce(replace(entry, start=new_start(), follows=found.follows))
        loop.start()
        if not await loop.joined(JOIN_S):
            logger.warning("nobody answered at %s yet; trying on", ", ".join(join))
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self) -> None:
        """Say good-bye, and end."""
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        if self._loop is not None:
            await self._loop.stop()
        await self.subscriber.stop()
        if self._server is not None:
            await self._server.stop(STOP_S)

    def _on_event(self, event: Event) -> None:
        """Follow engines, wherever they come back; give way to a machine that has our name."""
        if isinstance(event, Displaced):
            self._displaced(event.why)
        elif isinstance(event, Superseded):
            self._displaced(f"{self.name} was silent, and another of its name has begun at {event.entry.grpc}")
        if not isinstance(event, Changed):
            return
        entry = event.entry
        if entry.fabric or entry.left or not entry.feed or (self._only and entry.engine not in self._only):
            return
        self.subscriber.follow(entry.engine, entry.feed, entry.channels)

    def _sources(self, engine: int, asked: AskRange | AskSnapshot) -> Sequence[str]:
        """Ranges come from the engine; snapshots from another fabric node, then the engine."""
        home = self.directory.engine(engine)
        engines = [home.grpc] if home is not None and not home.left else []
        others = [entry.grpc for entry in self.directory.fabrics() if entry.name != self.name]
        if isinstance(asked, AskRange):
            return engines or others
        if asked.home:
            return engines
        self._rng.shuffle(others)
        return [*others, *engines]
