"""A recording told again: its records, and readers that are given them, one after the other, in their time."""

import argparse
import asyncio
import contextlib
import json
import os
import struct
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from random import Random
from types import SimpleNamespace
from typing import BinaryIO, Final, TextIO

from bus.access.asking import Ranged
from bus.access.subscriber import jitter_of
from bus.reader.events import Book, Stream
from bus.reader.teller import EventSink, Teller
from bus.stream.actions import Action, AskRange, AskSnapshot, State, Withdrawn
from bus.stream.feed_client import FeedClient
from bus.stream.sequencer import RangeStatus
from proto.feed import FeedError
from proto.instrument import FIELDS, Instrument, ListingError, instrument_of
from proto.snapshot import Snapshot, decode_snapshot
from tools.tail.ending import CannotConnect
from tools.tail.listener import Listener, chosen
from tools.tail.record import FAILED, FRAME, HEAD, LENGTH, MAGIC, RANGE, RANGE_HEAD, SEED, SNAPSHOT, VENUE, TapeRecord
from tools.tail.say import say_all

RECORD_MAX: Final = 128 << 20
PLAYED_AHEAD: Final = 10_000  # lines, before they are printed


class RecordingError(ValueError):
    """This file is no recording."""


class Recording:
    """The records of a file, to be iterated once, the venue's first. Raises: RecordingError, where it is none.

    cut   it ended within a record: what came after is missing
    """

    def __init__(self, file: BinaryIO) -> None:
        self.cut = False
        self._file = file

    def __iter__(self) -> Iterator[TapeRecord]:
        if self._read(len(MAGIC)) != MAGIC:
            raise RecordingError("this is no recording")
        while head := self._read(LENGTH.size):
            length = LENGTH.unpack(head)[0] if len(head) == LENGTH.size else 0
            if len(head) == LENGTH.size and not HEAD.size <= length <= RECORD_MAX:
                raise RecordingError(f"a record of {length:,} bytes")
            rest = self._read(length)
            if not length or len(rest) < length:
                self.cut = True
                return
            kind, time_ns, engine, channel = HEAD.unpack_from(rest)
            yield TapeRecord(kind, rest[HEAD.size :], time_ns, engine, channel)

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError as e:
            raise RecordingError(str(e.strerror)) from None


def venue_of(record: TapeRecord) -> list[Instrument]:
    """The instruments of the first record. Raises: RecordingError."""
    if record.kind != VENUE:
        raise RecordingError("it does not begin with its venue")
    try:
        return [instrument_of(SimpleNamespace(**dict.fromkeys(FIELDS, 0) | each)) for each in json.loads(record.body)]
    except (ValueError, TypeError, RecursionError, ListingError) as e:
        raise RecordingError(f"its venue cannot be read: {e}") from None


def range_of(body: bytes) -> Ranged:
    """Raises: RecordingError."""
    try:
        status, epoch = RANGE_HEAD.unpack_from(body)
        frames, at = [], RANGE_HEAD.size
        while at < len(body):
            (length,) = LENGTH.unpack_from(body, at)
            at += LENGTH.size + length
            frames.append(body[at - length : at])
        return Ranged(RangeStatus(status), epoch, frames)
    except (struct.error, ValueError) as e:
        raise RecordingError(f"a range that cannot be read: {e}") from None


class Player:
    """The readers of a recording's streams. `told` is told what they do (bus/reader/teller.py)."""

    def __init__(self, instruments: Sequence[Instrument], told: EventSink) -> None:
        seed = Random(SEED).getrandbits(64)  # as Subscriber has it
        streams = dict.fromkeys((i.engine, i.channel) for i in instruments)
        self._clients = {stream: FeedClient(*stream, jitter_of(seed, *stream)) for stream in streams}
        self.now_ns = 0
        self.unasked = 0  # answers to what was not asked this time
        self._asked: dict[FeedClient, AskRange | AskSnapshot] = {}
        self._teller = Teller(self._clients, {}, told, lambda: self.now_ns)

    def book(self, symbol: str, depth: int = 0) -> Book:
        """As Feed.book."""
        return self._teller.book(symbol, depth)

    def streams(self) -> list[Stream]:
        """As Feed.streams."""
        return self._teller.streams()

    def play(self, record: TapeRecord) -> None:
        """Have it taken in, and the time until then pass. Raises: RecordingError."""
        self.now_ns = record.time_ns
        for client in self._clients.values():
            if client.state is State.DOWN:
                self._act(client, client.start(record.time_ns))
            before = None
            while (due_ns := client.deadline_ns) is not None and due_ns <= record.time_ns and due_ns != before:
                before = due_ns
                self._act(client, client.tick(due_ns))
        reader = self._clients.get((record.engine, record.channel))
        if reader is not None:
            self._act(reader, self._taken_in(reader, record))

    def _taken_in(self, client: FeedClient, record: TapeRecord) -> list[Action]:
        if record.kind == FRAME:
            return client.frame(record.body, record.time_ns)
        asked = self._asked.pop(client, None)
        if record.kind == SNAPSHOT and isinstance(asked, AskSnapshot):
            return client.snapshot_reply(asked.ask, _snapshot(record), record.time_ns)
        if record.kind == RANGE and isinstance(asked, AskRange):
            return client.range_reply(asked.ask, *range_of(record.body), record.time_ns)
        if record.kind == FAILED and asked is not None:
            return client.failed(asked.ask, record.body.decode(errors="replace"), record.time_ns)
        self.unasked += 1
        return []

    def _act(self, client: FeedClient, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, AskRange | AskSnapshot):
                self._asked[client] = action
            elif isinstance(action, Withdrawn):
                self._asked.pop(client, None)
            self._teller.on_action(client, action)
        self._teller.on_heard(client)


def _snapshot(record: TapeRecord) -> Snapshot:
    try:
        return decode_snapshot(record.body)
    except FeedError as e:
        raise RecordingError(f"a snapshot that cannot be read: {e}") from None


async def play(args: argparse.Namespace, file: BinaryIO, out: TextIO) -> int:
    """A recording told as if it came now; the exit code. Raises: CannotConnect when it is none; as say_all()."""
    try:
        return await _play(args, Recording(file), out)
    except RecordingError as e:
        raise CannotConnect(f"{args.play}: {e}") from None


async def _play(args: argparse.Namespace, recording: Recording, out: TextIO) -> int:
    records = iter(recording)
    first = next(records, None)
    if first is None:
        raise RecordingError("there is nothing in it")
    instruments = venue_of(first)
    listener = Listener(args, chosen(instruments, args.symbol))
    player: Player = Player(instruments, lambda event, *_: listener.take(event, player))

    async def go_on() -> None:
        async for record in _paced(args, listener, first.time_ns, records):
            if args.raw and record.kind == FRAME:
                listener.take_frame(record.body, record.time_ns)
            player.play(record)
            if listener.said.ended.is_set():
                return
        listener.said.end("the recording was cut off here" if recording.cut else "end of the recording")

    return await say_all(args, listener, player, [go_on()], out)


async def _paced(
    args: argparse.Namespace, listener: Listener, began_ns: int, records: Iterable[TapeRecord]
) -> AsyncIterator[TapeRecord]:
    """Each record in its time: at the speed of then, another, as fast as may be, or a frame for each line of stdin."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    speed = 1.0 if args.speed is None else args.speed
    steps: asyncio.Queue[bool] = asyncio.Queue()
    if args.step:
        threading.Thread(target=_count_lines, args=(sys.stdin.fileno(), loop, steps), daemon=True).start()
    for record in records:
        if args.step and record.kind == FRAME:
            if not await steps.get():
                return
        elif speed and not args.step:
            due = began + (record.time_ns - began_ns) / 1e9 / speed
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
        elif len(listener.said.lines) > PLAYED_AHEAD:
            await asyncio.sleep(0)
        yield record


def _count_lines(descriptor: int, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bool]) -> None:
    """Put True for each line that comes, then False. Whoever ends before that need not wait for it."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: it has ended
        while read := os.read(descriptor, 65_536):
            for _ in range(read.count(b"\n")):
                loop.call_soon_threadsafe(lines.put_nowait, True)
        loop.call_soon_threadsafe(lines.put_nowait, False)
