"""Says what a listener has to say until the listening ends: on a terminal, or as JSON lines; and what came of it."""

import argparse
import asyncio
import contextlib
import json
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, Final, TextIO

from tools.tail import live
from tools.tail.ending import DIFFERS_EXIT, FINE_EXIT, GAP_EXIT, CannotWrite
from tools.tail.listener import Listener, Shows

FLUSH_S: Final = 0.02


async def say_all(
    args: argparse.Namespace,
    listener: Listener,
    shows: Shows,
    tasks: Sequence[Coroutine[Any, Any, None]],
    out: TextIO,
) -> int:
    """While the tasks run, say what there is to say, until the listening ends; the exit code.

    Raises: what a task does; CannotWrite for the recording; OSError for `out`, also when nobody reads it.
    """
    said = listener.said
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, said.end, "interrupted")
    running = [loop.create_task(task) for task in tasks]

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            said.end("it failed")

    for task in running:
        task.add_done_callback(ended)
    try:
        if live.is_terminal(out) and not (args.json or args.raw):
            await live.show(listener, shows, args.depth, args.stats, out)
        else:
            await _print(args, listener, shows, out)
        for task in running:
            if task.done():
                task.result()
        if said.problem:
            raise CannotWrite(said.problem)
        open_gaps = sum(stream.open_gaps for stream in listener.streams(shows))
        return DIFFERS_EXIT if said.differing else GAP_EXIT if open_gaps else FINE_EXIT
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _print(args: argparse.Namespace, listener: Listener, shows: Shows, out: TextIO) -> None:
    said = listener.said

    def say() -> None:
        while said.lines:
            print(json.dumps(said.lines.popleft()), file=out)

    while not said.ended.is_set():
        say()
        out.flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_S):
                await said.ended.wait()
    if args.stats:
        listener.tell_stats(shows)
    say()
    streams = listener.streams(shows)
    summary = {"event": "end", "why": said.why, "deltas": said.deltas, "verified": said.verified}
    gaps = {"gaps": sum(stream.gaps for stream in streams), "open_gaps": sum(stream.open_gaps for stream in streams)}
    print(json.dumps({**summary, **gaps}), file=out, flush=True)
