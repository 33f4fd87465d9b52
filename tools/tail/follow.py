"""Follows a venue's feed, or plays a recording, as the command line has it."""

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any, BinaryIO, Final, TextIO

import grpc

from bus.access.asking import Tap
from bus.access.directory import Entry
from bus.access.exchange import DirectoryError, ask
from bus.reader import Feed, Trouble
from proto.dial import wrong_address
from tools.tail.ending import CannotConnect, CannotOpen
from tools.tail.listener import Listener, chosen
from tools.tail.play import play
from tools.tail.record import SEED, Recorder, Writer
from tools.tail.say import say_all

WAIT_S: Final = 0.3  # between two tries, with --wait
CONNECT_S: Final = 5.0  # for the machine named to answer
REFUSED_S: Final = 1.0  # how long one that cannot be reached is tried again


def run(args: argparse.Namespace) -> int:
    """The exit code. Raises: CannotGoOn; OSError when standard output takes no more, or nobody reads it."""
    with contextlib.ExitStack() as files:
        try:
            played: BinaryIO | None = files.enter_context(args.play.open("rb")) if args.play else None
            writer = Writer(files.enter_context(args.record.open("wb", buffering=0))) if args.record else None
        except OSError as e:
            raise CannotOpen(f"{args.play or args.record}: {e.strerror}") from None
        return asyncio.run(play(args, played, sys.stdout) if played else follow(args, writer, sys.stdout))


async def follow(args: argparse.Namespace, writer: Writer | None, out: TextIO) -> int:
    """From the first question to the exit code. Raises: as run()."""
    entries, listener = await _venue(args)
    taps: list[Tap] = []
    if writer is not None:
        recorder = Recorder(writer, lambda why: listener.cannot_write(f"{args.record}: {why}"))
        taps.append(recorder.tap)
        writer.begin(listener.instruments, time.time_ns())
    if args.raw:
        taps.append(listener.tap)
    others = [e.grpc for e in entries if e.grpc != args.machine and not e.left and not wrong_address(e.grpc)]
    engines = {instrument.engine for instrument in listener.instruments}
    async with Feed(
        [args.machine, *others], conflate=args.conflate,
        feeds=_feeds(args.feed, sorted(engines)), engines=engines, source=args.source or "", taps=taps,
        seed=SEED if writer else None,
    ) as feed:  # fmt: skip
        tasks: list[Coroutine[Any, Any, None]] = [_take(listener, feed), listener.hear(feed)]
        if args.source:
            tasks.append(_source(listener, feed, args.source))
        if args.verify:
            tasks.append(listener.verify(feed))
        if args.stats:
            tasks.append(listener.stats(feed))
        if listener.wants_history:
            tasks.append(listener.tell_history(feed))
        return await say_all(args, listener, feed, tasks, out)


async def _take(listener: Listener, feed: Feed) -> None:
    async for event in feed.events():
        listener.take(event, feed)


async def _source(listener: Listener, feed: Feed, source: str) -> None:
    """Say of the one machine that is asked that it does not answer: what waits for it waits without a word."""
    try:
        await _entries(source)
    except CannotConnect as e:
        listener.take(Trouble(f"--source {e}; trying on"), feed)


async def _venue(args: argparse.Namespace) -> tuple[tuple[Entry, ...], Listener]:
    """Who is there, as soon as somebody is. Raises: CannotConnect."""
    while True:
        try:
            entries = await _entries(args.machine)
            homes = [entry for entry in entries if not entry.fabric and not entry.left]
            return entries, Listener(args, chosen([i for entry in homes for i in entry.instruments], args.symbol))
        except CannotConnect:
            if not args.wait:
                raise
            await asyncio.sleep(WAIT_S)


async def _entries(machine: str) -> tuple[Entry, ...]:
    """All that the machine knows of. One that is busy may refuse a connection at first. Raises: CannotConnect."""
    deadline = time.monotonic() + REFUSED_S
    while True:
        try:
            return await ask(machine, CONNECT_S)
        except grpc.aio.AioRpcError as e:
            if e.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                raise CannotConnect(f"{machine}: {e.code().name.lower().replace('_', ' ')}") from None
            await asyncio.sleep(0.1)
        except DirectoryError as e:
            raise CannotConnect(f"{machine}: {e}") from None


def _feeds(given: Sequence[str], engines: Sequence[int]) -> dict[int, str]:
    """Feed endpoints by engine. Raises: CannotConnect when it is not clear which engine one is for."""
    out: dict[int, str] = {}
    for text in given:
        engine, equals, where = text.rpartition("=")
        if equals:
            out[int(engine)] = where
        elif len(engines) == 1:
            out[engines[0]] = where
        else:
            named = ", ".join(map(str, engines))
            raise CannotConnect(f"--feed {text}: of which engine ({named})? Say --feed ENGINE={text}, or --symbol")
    return out
