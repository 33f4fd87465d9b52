"""What the judge of a run hears for itself: every trade on every feed, and each instrument's day.

The observer reads the engines' own publishers, not the lines with faults, so what it misses it says: trades on a feed
that nobody reported must not hide behind a loss.
"""

import asyncio
from typing import Final

import zmq

from proto import feed
from proto.feed import EXECUTE, OP_MASK, TOLD, TRADE, FeedError, Frame
from tools.flow.tally import TradeKey, TradeSum
from tools.run.day.watch import InstrumentDay

DRAIN_S: Final = 0.02  # how often sockets are drained
BURST: Final = 2_000
HIGH_WATER_MARK: Final = 8_192


class TradeWatch:
    """Adds up the trades of streams from the first frame heard, and notes which of their deltas it did not get.

    It follows the `days` of those instruments that it is given one for. Pure: frames in.
    """

    def __init__(self) -> None:
        self.trades: dict[int, TradeSum] = {}
        self.days: dict[int, InstrumentDay] = {}
        self.missed: dict[int, int] = {}
        self.bad_frames = 0
        self._last: dict[int, int] = {}  # trade id of each instrument
        self._due: dict[tuple[int, int], tuple[int, int]] = {}  # by engine and channel: epoch, next sequence

    def stands_at(self, engine: int, channel: int) -> tuple[int, int]:
        """Epoch and next sequence of a stream, as heard so far; (0, 0): nothing was."""
        return self._due.get((engine, channel), (0, 0))

    def hears(self, engine: int) -> bool:
        """Whether anything of this engine was heard: from there on nothing is missed unnoticed."""
        return any(heard == engine for heard, _ in self._due)

    def frame(self, data: bytes) -> None:
        """Take in one frame; a damaged one is counted, an old one passed over."""
        try:
            frame = feed.decode(data)
        except FeedError:
            self.bad_frames += 1
            return
        header = frame.header
        if header.kind != feed.KIND_D:
            return
        epoch, due = self._due.get((header.engine, header.channel), (header.epoch, header.first_seq))
        if header.epoch < epoch:
            return
        if header.epoch > epoch:
            due = 1
        if header.epoch > epoch or header.first_seq > due:
            self._doubt(header.engine)
        if header.first_seq > due:
            self.missed[header.engine] = self.missed.get(header.engine, 0) + header.first_seq - due
        self._add(frame, max(0, due - header.first_seq))
        self._due[header.engine, header.channel] = (header.epoch, max(due, frame.next_seq))

    def _doubt(self, engine: int) -> None:
        """Something of this engine may have passed unheard."""
        for day in self.days.values():
            if day.engine == engine:
                day.doubt()

    def _add(self, frame: Frame, skip: int) -> None:
        last, days = self._last, self.days
        for i, (op, instrument, order_id, price, quantity, trade_id) in enumerate(frame.rows[skip:], skip):
            code = op & OP_MASK
            if code in (EXECUTE, TRADE) and last.get(instrument) != trade_id:  # an uncross executes both sides of one
                last[instrument] = trade_id
                self.trades.setdefault(instrument, TradeSum()).add(TradeKey(trade_id, price, quantity))
            if days and (day := days.get(instrument)):
                extra = frame.extras[order_id] if code in TOLD else None
                day.take((op, instrument, order_id, price, quantity, trade_id), extra, frame.time_of(i))


class Observer:
    """A TradeWatch with sockets, drained on the event loop."""

    def __init__(self) -> None:
        self.watch = TradeWatch()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        self._task: asyncio.Task[None] | None = None

    def follow(self, name: str, endpoint: str) -> None:
        """Read this publisher; one that was followed under that name is given up, when what it sent has been read."""
        if name in self._sockets:
            self.drain()
            self._sockets.pop(name).close(linger=0)
        socket = self._context.socket(zmq.SUB)
        socket.set_hwm(HIGH_WATER_MARK)
        socket.setsockopt(zmq.SUBSCRIBE, b"D")
        socket.connect(endpoint)
        self._sockets[name] = socket

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.close()

    def close(self) -> None:
        for socket in self._sockets.values():
            socket.close(linger=0)
        self._sockets.clear()
        self._context.term()

    def drain(self) -> None:
        """Read all that has arrived."""
        for socket in self._sockets.values():
            for _ in range(BURST):
                try:
                    self.watch.frame(socket.recv(zmq.NOBLOCK))
                except zmq.Again:
                    break

    async def _run(self) -> None:
        while True:
            self.drain()
            await asyncio.sleep(DRAIN_S)
