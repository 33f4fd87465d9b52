"""An event loop of its own, for programs without one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, Final, TypeVar

from bus.reader.history import FeedUseError

LOOK_S: Final = 0.1  # between two looks whether the thread still runs

T = TypeVar("T")


class FeedThread:
    """Runs `begin()` on a loop, then what is handed to it, and when it is told to stop, `end()`.

    Raises: what `begin` raises.
    """

    def __init__(self, begin: Callable[[], None], end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._begin = begin
        self._end = end
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="feed", daemon=True)
        self._thread.start()
        self._loop = self._started.result()

    def do(self, what: Callable[[], T]) -> T:
        """Its result, had on the thread. Raises: what it raises; FeedUseError when the feed has been left."""
        if threading.current_thread() is self._thread:
            return what()

        async def perform() -> T:
            return what()

        return self.wait(perform())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of something that takes its time. Raises: as do()."""
        try:
            done = asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:  # the loop is closed
            work.close()
            raise FeedUseError("this feed has been left") from None
        while True:
            try:
                return done.result(LOOK_S)
            except CancelledError:
                raise FeedUseError("this feed has been left") from None
            except TimeoutError:
                if done.done():
                    raise
                if not self._thread.is_alive():
                    work.close()
                    raise FeedUseError("this feed has been left") from None

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    async def _serve(self) -> None:
        try:
            self._stopping = asyncio.Event()
            self._begin()
        except BaseException as e:
            self._started.set_exception(e)
            return
        self._started.set_result(asyncio.get_running_loop())
        await self._stopping.wait()
        await self._end()
