"""A feed while it runs: its sockets, its readers and the directory they are found by, on the running event loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic_ns
from typing import Final

import grpc

from bus.access.asking import HistoryError, Machine, Tap
from bus.access.directory import Changed, Conflict, Directory, Entry
from bus.access.directory import Event as DirectoryEvent
from bus.access.exchange import DirectoryLoop
from bus.access.subscriber import Subscriber
from bus.reader.events import BookEvent, Comparison, Trade, Trouble
from bus.reader.history import FeedUseError, Past, span_of
from bus.reader.teller import EventSink, Teller
from bus.reader.verify import Verifier
from bus.stream.actions import Action, Applied, AskRange, AskSnapshot, ClientLimits, Lagged, State
from bus.stream.feed_client import FeedClient
from proto.feed import END, FeedError, Frame, decode
from proto.instrument import Instrument
from proto.marketdata_pb2 import RANGE_OK, HistoryRequest

BACK_TIMES: Final = 16
ANSWER_S: Final = 3.0  # for any machine named to answer, until that is said to be a trouble
EVERYWHERE: Final = (0, 0)  # what concerns no one stream


@dataclass(frozen=True, slots=True)
class Settings:
    """How a feed is to be read: as the arguments of Feed."""

    machines: Sequence[str]
    limits: ClientLimits
    back_s: float
    lines: Mapping[int, Sequence[str]]
    feeds: Mapping[int, str]
    engines: frozenset[int]
    source: str
    taps: Sequence[Tap]
    seed: int | None


class Reading:
    """The streams of a venue, being read. `told` is told all that happens; deltas only while they are `wanted()`."""

    def __init__(self, settings: Settings, told: EventSink, wanted: Callable[[], bool]) -> None:
        self.loop = asyncio.get_running_loop()
        self.directory = Directory()
        self._settings = settings
        self._told = told
        self._wanted = wanted
        self._verifier: Verifier | None = None
        self._machines: dict[str, Machine] = {}  # whose books ours were compared with
        self._backs: dict[tuple[int, int], Back] = {}
        self._stopped = False
        self.subscriber = Subscriber(
            self._sources,
            random.Random(settings.seed),
            listen=self._on_action,
            heard=self._on_heard,
            quoted=lambda reader, quoted: self.teller.on_quote(reader, quoted),
            limits=settings.limits,
            taps=settings.taps,
        )
        self.teller = Teller(self.subscriber.clients, self.subscriber.quotes, told, monotonic_ns)
        self._exchange = DirectoryLoop(self.directory, settings.machines)
        self._exchange.listen(self._on_event)
        self._exchange.start()
        self._waiting = self.loop.create_task(self._wait())

    async def stop(self) -> None:
        """The sockets first: who breaks off an iteration and ends its loop leaves time for the first await, no more.

        Left open, they would hang whatever collects them.
        """
        self._stopped = True
        for back in self._backs.values():
            if back.timer is not None:
                back.timer.cancel()
        self._waiting.cancel()
        try:
            await self.subscriber.stop()
        finally:
            await asyncio.gather(self._waiting, return_exceptions=True)
            for machine in self._machines.values():
                await machine.close()
            await self._exchange.stop()

    def streams_of(self, symbols: frozenset[str]) -> set[tuple[int, int]]:
        """Where these books are, as far as they are known."""
        found = [self.directory.instrument(symbol) for symbol in symbols]
        return {(instrument.engine, instrument.channel) for instrument in found if instrument is not None}

    def come_back(self) -> None:
        """From best prices to whole books, for all streams that went over."""
        for stream in list(self.subscriber.clients):
            self.subscriber.come_back(*stream)

    # What was

    async def history(self, symbols: Sequence[str], request: HistoryRequest) -> AsyncGenerator[BookEvent | Trade, None]:
        """What happened to some books of one stream. Raises: HistoryError, FeedUseError."""
        if self._stopped:
            raise FeedUseError("this feed has been left")
        await self._exchange.joined(ANSWER_S)
        instruments = [self._instrument(symbol) for symbol in symbols]
        streams = {(instrument.engine, instrument.channel) for instrument in instruments}
        if len(streams) != 1:
            raise HistoryError(f"{', '.join(symbols)} are not of one stream: ask for each")
        [(request.engine, request.channel)] = streams
        past = Past({i.id: (i.symbol, (i.tick_size, i.lot_size)) for i in instruments}, request.first_seq)
        for spans in (self._kept, self._logged):
            async with aclosing(past.events_of(spans(request))) as events:
                async for event in events:
                    yield event
            if request.last_seq and past.next_seq > request.last_seq:
                return
            request.first_seq = past.next_seq

    def _instrument(self, symbol: str) -> Instrument:
        instrument = self.directory.instrument(symbol)
        home = None if instrument is None else self.directory.engine(instrument.engine)
        if instrument is None or home is None or home.left:
            raise HistoryError(f"no engine is known that has {symbol}")
        return instrument

    async def _kept(self, request: HistoryRequest) -> AsyncGenerator[Applied, None]:
        """What is kept for repairs, of the present epoch, by whole events: nothing if that begins too late."""
        client = self.subscriber.clients.get((request.engine, request.channel))
        if client is None or not client.epoch or not request.first_seq or request.to_ns:
            return
        epoch, last = client.epoch, request.last_seq or client.next_seq - 1
        if request.epoch not in (0, epoch) or last < request.first_seq:
            return
        request.epoch, request.last_seq = epoch, last
        for target in self._knowing(request.engine):
            machine = Machine(target)
            try:
                due = max(1, request.first_seq - 1)  # which must have ended an event
                ended = False
                while due <= last or not ended:
                    reply = await machine.range(request.engine, request.channel, epoch, due, max(due, last))
                    if reply.status != RANGE_OK:
                        break
                    for frame in map(decode, reply.frames):
                        if not _continues(frame, (request.engine, request.channel, epoch), due):
                            raise FeedError("a range of something else")
                        span = span_of(frame, due)
                        if due < request.first_seq and not span.rows[0][0] & END:
                            return
                        for at, row in enumerate(span.rows, due):
                            ended = row[0] & END != 0
                            if at >= last and ended:
                                break
                        if at >= request.first_seq:
                            yield span_of(frame, max(due, request.first_seq), at + 1)
                        due = at + 1
            except (grpc.aio.AioRpcError, FeedError):
                pass  # another may have it
            finally:
                await machine.close()
            if due > request.first_seq:
                return

    async def _logged(self, request: HistoryRequest) -> AsyncGenerator[Applied, None]:
        """What its engine has its log played again for."""
        home = self.directory.engine(request.engine)
        assert home is not None
        machine = Machine(home.grpc)
        try:
            async with aclosing(machine.history(request)) as frames:
                async for frame in frames:
                    yield span_of(frame)
        finally:
            await machine.close()

    # Whether it is right

    async def verify(self, turn: int, timeout_s: float) -> list[Comparison]:
        """Each stream beside one other machine's, of which each has its turn: at first the engine itself."""
        if self._verifier is None:
            self._verifier = Verifier()
        await self._exchange.joined(timeout_s)
        compared = []
        for client in list(self.subscriber.clients.values()):
            target = self._other(client.engine, turn)
            if target is None:
                compared.append(Comparison(client.engine, client.channel, "", problem="no other machine is known"))
                continue
            names = [entry.name for entry in self.directory.entries() if entry.grpc == target]
            if target not in self._machines:
                self._machines[target] = Machine(target)
            machine = self._machines[target]
            compared.append(await self._verifier.compare(client, machine, (names or [target])[0], timeout_s))
        return compared

    def _other(self, engine: int, turn: int) -> str | None:
        """Who gives the second opinion: not our own source, unless there is no other."""
        known = [*self._knowing(engine), *self._homes(engine)]
        others = list(dict.fromkeys(target for target in reversed(known[1:]) if target != known[0])) or known
        return others[turn % len(others)] if others else None

    # What happens

    def _on_action(self, client: FeedClient, action: Action) -> None:
        if self._verifier is not None:
            self._verifier.heard(client, action)
        if isinstance(action, Lagged) and action.conflate and self._settings.back_s:
            self._back_later(client)
        if not isinstance(action, Applied) or self._wanted():
            self.teller.on_action(client, action)

    def _on_heard(self, client: FeedClient) -> None:
        self.teller.on_heard(client)

    def _back_later(self, client: FeedClient) -> None:
        """It has gone over to best prices: have it try the whole stream again."""
        stream = (client.engine, client.channel)
        back = self._backs.setdefault(stream, Back(self._settings.back_s))
        wait_s = back.gone_over(self.loop.time())

        def come() -> None:
            if client.state is State.LAGGED:
                self.subscriber.come_back(*stream)
                self.teller.on_heard(client)

        back.timer = self.loop.call_later(wait_s, come)

    async def _wait(self) -> None:
        if not await self._exchange.joined(ANSWER_S):
            machines = ", ".join(self._settings.machines)
            self._told(Trouble(f"nobody answers at {machines}; trying on"), EVERYWHERE)

    def _on_event(self, event: DirectoryEvent) -> None:
        if self._stopped:
            return
        if isinstance(event, Changed):
            self._follow(event.entry)
        elif isinstance(event, Conflict):
            self._told(Trouble(str(event)), EVERYWHERE)

    def _follow(self, entry: Entry) -> None:
        settings = self._settings
        if entry.fabric or entry.left or not entry.feed or (settings.engines and entry.engine not in settings.engines):
            return
        endpoints = [settings.feeds.get(entry.engine, entry.feed), *settings.lines.get(entry.engine, ())]
        self.subscriber.follow(entry.engine, endpoints, entry.channels)

    def _sources(self, engine: int, asked: AskRange | AskSnapshot) -> Sequence[str]:
        return self._homes(engine) if isinstance(asked, AskSnapshot) and asked.home else self._knowing(engine)

    def _knowing(self, engine: int) -> list[str]:
        """Who may know an engine's stream: fabric nodes, the one named first at the head; then the engine."""
        if self._settings.source:
            return [self._settings.source]
        named = {target: at for at, target in enumerate(self._settings.machines)}
        fabrics = [entry.grpc for entry in self.directory.fabrics()]
        fabrics.sort(key=lambda target: named.get(target, len(named)))
        return fabrics + self._homes(engine)

    def _homes(self, engine: int) -> list[str]:
        home = self.directory.engine(engine)
        return [home.grpc] if home is not None and not home.left else []


def _continues(frame: Frame, stream: tuple[int, int, int], due: int) -> bool:
    """Whether it holds that delta of a stream: engine, channel, epoch."""
    header = frame.header
    return (header.engine, header.channel, header.epoch) == stream and header.first_seq <= due < frame.next_seq


class Back:
    """How long a stream is left to best prices: the longer, the sooner it was too fast again."""

    def __init__(self, back_s: float) -> None:
        self.timer: asyncio.TimerHandle | None = None
        self._least_s = self._wait_s = back_s
        self._back_at: float | None = None  # when it came back, or comes

    def gone_over(self, now_s: float) -> float:
        """It goes over now; for how long."""
        if self.timer is not None:
            self.timer.cancel()
        if self._back_at is not None:
            soon = now_s - self._back_at < self._wait_s
            self._wait_s = min(2 * self._wait_s, BACK_TIMES * self._least_s) if soon else self._least_s
        self._back_at = now_s + self._wait_s
        return self._wait_s
