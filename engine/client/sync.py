"""Order entry without asyncio, for scripts and notebooks.

    with SyncClient("127.0.0.1:4000", account=7) as client:
        report = client.new("ALFA", BUY, price="120.00", quantity=5)
        print(report)
        client.cancel("ALFA", report.client_order_id)
        for report in client.reports(timeout_s=1.0):
            print(report)

Each call is that of the async session (engine/client/session.py), made in an event loop that runs in a thread of its
own, one for all clients of the process. It may be called from any thread, also where another loop runs, as in a
notebook: that one stands still as long as a call takes.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from engine.client.client import Client
from engine.client.report import Report, SessionClosedError, reports_of
from engine.client.session import Session
from proto.columns import Commands
from proto.orders_pb2 import ReportBatch

P = ParamSpec("P")
T = TypeVar("T")


class _Loop:
    """The event loop of all clients, in its thread, from the first one on to the end of the program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.open: weakref.WeakSet[SyncClient] = weakref.WeakSet()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of this. An interrupt (Ctrl-C) ends it there, too."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="lobmesh orders", daemon=True).start()
                atexit.register(self._end)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _end(self) -> None:
        """Close what was left open, so that its last commands are answered."""
        for client in list(self.open):
            client.close()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._loop.stop)


_LOOP: Final = _Loop()


def _of_session(
    call: Callable[Concatenate[Session, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    @functools.wraps(call)
    def waits(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _LOOP.run(call(self.session, *args, **kwargs))

    return waits


def _of_client(
    call: Callable[Concatenate[Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    @functools.wraps(call)
    def waits(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return _LOOP.run(call(self.client, *args, **kwargs))

    return waits


class SyncClient:
    """An account's session, without asyncio. Enter it with `with`, or call `open` and, when all is done, `close`.

    Takes what `Client` takes. With `reports`, the account's reports are kept for `reports()`; `cursors` says from where
    on, as in `Client.session`. A program that ends without closing it closes it all the same, and waits a few seconds
    for what was sent to be answered. Every call raises what that of the async session raises.

    `client` is the async client: `client.instrument("ALFA")` and `client.next_id()` need no waiting.
    """

    def __init__(
        self,
        seeds: str | Sequence[str],
        account: int,
        *,
        cursors: Mapping[int, int] | None = None,
        reports: bool = True,
        **options: Any,
    ) -> None:
        self.client = Client(seeds, account, **options)
        self._cursors = cursors
        self._keep = reports
        self._session: Session | None = None

    new = _of_session(Session.new)
    cancel = _of_session(Session.cancel)
    replace = _of_session(Session.replace)
    mass_cancel = _of_session(Session.mass_cancel)
    open_orders = _of_client(Client.open_orders)
    order = _of_client(Client.order)

    def open(self) -> SyncClient:
        """Connect. Raises: UnreachableError within the client's patience, SessionError; SessionClosedError if open."""
        if self._session is not None:
            raise SessionClosedError("the client is open already")
        session = self.client.session(self._cursors, reports=self._keep)
        _LOOP.run(session.__aenter__())
        self._session = session
        _LOOP.open.add(self)
        return self

    def close(self, *, drain: bool = True) -> None:
        """End the session, after what is unanswered is answered if `drain`. Twice is once; it can be opened again."""
        session, self._session = self._session, None
        if session is not None:
            self._cursors = session.cursors
            _LOOP.open.discard(self)
            _LOOP.run(session.close(drain=drain))

    def __enter__(self) -> SyncClient:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close(drain=kind is None)

    @property
    def session(self) -> Session:
        """The async session. Raises: SessionClosedError while there is none."""
        if self._session is None:
            raise SessionClosedError("the client is not open: use `with`, or call open()")
        return self._session

    def submit(self, commands: Commands) -> list[Report]:
        """Send a batch of commands (`Session.submit`), and wait for the answers, in the order of the commands."""
        return _LOOP.run(_answers(self.session, commands))

    def reports(self, timeout_s: float | None = None) -> Iterator[Report]:
        """The account's reports as they come; ends when none came for `timeout_s`, or at the close.

        Raises: as iterating over the async session.
        """
        session = self.session
        while True:
            batch = _LOOP.run(_next_batch(session, timeout_s))
            if batch is None:
                return
            yield from reports_of(batch, self.client.instruments)

    def executions(self) -> list[Report]:
        """The account's reports so far, of every engine, all of them (`Client.executions`).

        Raises: IncompleteError if some are missing.
        """
        return _LOOP.run(_listed(self.client))


async def _answers(session: Session, commands: Commands) -> list[Report]:
    return await (await session.submit(commands, answers=True))


async def _next_batch(session: Session, timeout_s: float | None) -> ReportBatch | None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            batch = await anext(session.batches(), None)
            if batch is not None:
                await session.client.learn(batch.instrument)
            return batch
    return None


async def _listed(client: Client) -> list[Report]:
    return [report async for report in client.executions()]
