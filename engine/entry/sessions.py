"""Sessions and drop copies: commands in, execution reports out, in batches and as raw bytes.

A session's commands are never made into messages of rows: the columns are checked, and the bytes go into the log as
they came. Bytes that are no message are the client's fault (INVALID_ARGUMENT) and change nothing; so is a hello that
cannot be. An account that the venue does not list is PERMISSION_DENIED. Everything else that is not done is answered by
a report that says why; engine/entry/streams.py has what a stream ends with.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from engine.entry.door import Throttle, check_origin
from engine.entry.home import Presence
from engine.entry.link import HomeLink
from engine.entry.reference import Reference
from engine.entry.reports import CutOffError, Follower, Hub, Outbox
from engine.entry.router import Router
from engine.entry.streams import ENDED_WELL, ORDERS, Streams, abort, begin, check_account, end, parse, status_of
from proto import orders_pb2 as pb
from proto.columns import REPORT_WIDTH
from proto.orders import GarbledError, unwrap, wrap, write_reports

STANDING_S: Final = 0.25  # how long a session waits to hear where its account stands at a home


class SessionIds:
    """Numbers that no session of any engine had before: engine, milliseconds, a counter.

    `clock_ns` only spreads them: they rise also when it stands still.
    """

    def __init__(self, engine: int, clock_ns: Callable[[], int]) -> None:
        self._engine = engine
        self._clock_ns = clock_ns
        self._last = 0

    def next(self) -> int:
        """54 bits of time, in units of 1/8192 ms, below 10 bits of engine."""
        now = (self._clock_ns() // 1_000_000 << 13) & (1 << 54) - 1
        self._last = max(now, self._last + 1)
        return self._engine << 54 | self._last


class Session:
    """One client's stream (engine/entry/router.py, Origin)."""

    def __init__(self, hello: pb.Hello, id: int, outbox: Outbox, now: float) -> None:
        self.account = hello.account
        self.id = id
        self.stp = hello.self_trade_prevention
        self.throttle = Throttle(hello.throttle, now) if hello.throttle else None
        self.cancel_on_disconnect = hello.cancel_on_disconnect
        self.outbox = outbox
        self._under_way = 0  # batches
        self._idle: asyncio.Future[None] | None = None

    @property
    def logged_id(self) -> int:
        """What the log knows it by: only sessions whose end cancels something are known there."""
        return self.id if self.cancel_on_disconnect else 0

    def tell(self, home: int, rows: list[int]) -> None:
        self.outbox.put(wrap(write_reports(home, self.account, 0, 0, 0, rows)), len(rows) // REPORT_WIDTH)

    def begun(self) -> None:
        self._under_way += 1

    def ended(self) -> None:
        self._under_way -= 1
        if self._idle is not None and not self._under_way and not self._idle.done():
            self._idle.set_result(None)

    async def answered(self) -> None:
        """Wait until every batch is answered, and the answers are in the outbox."""
        if self._under_way:
            self._idle = asyncio.get_running_loop().create_future()
            await self._idle


class Sessions:
    """The streams of the Orders service, on raw messages (`handlers`)."""

    def __init__(
        self,
        router: Router,
        reference: Reference,
        hub: Hub,
        presence: Presence,
        links: dict[int, HomeLink],
        streams: Streams,
        ids: SessionIds,
    ) -> None:
        self._router = router
        self._reference = reference
        self._hub = hub
        self._presence = presence
        self._links = links
        self._streams = streams
        self._ids = ids

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            ORDERS,
            {
                "Session": grpc.stream_stream_rpc_method_handler(self.session),
                "Executions": grpc.unary_stream_rpc_method_handler(self.executions),
            },
        )

    async def session(self, _: AsyncIterator[bytes], context: Any) -> None:
        """One client's stream, to its end."""
        await begin(context)
        hello = await self._hello(context)
        outbox = self._streams.open()
        session = self._open(hello, outbox)
        cursors = {c.home: c.last_seq for c in hello.cursors}
        follower = Follower(session.account, outbox, cursors, skip_lost=hello.skip_lost)
        how, closed = ENDED_WELL, True
        try:
            await self._follow(follower)
            await context.write(self._welcome(session, follower))
            await self._streams.serve(context, outbox, session.answered, self._receive(context, session))
        except (GarbledError, DecodeError, CutOffError) as e:
            how = status_of(e)
            closed = how[0] is not grpc.StatusCode.UNAVAILABLE  # we go, not the client
        finally:
            # All that hangs on the session first: a client that does not read does not take its status either.
            self._streams.close(outbox)
            self._hub.unfollow(follower)
            if closed:
                self._closed(session)
        await end(context, how)

    async def executions(self, data: bytes, context: Any) -> None:
        """The account's reports from past numbers, then live, until the client has enough."""
        await begin(context)
        request = await parse(context, pb.ExecutionsRequest, data)
        await check_account(context, self._reference, request.account)
        cursors = dict.fromkeys((self._router.engine, *self._links), 0)
        cursors.update({c.home: c.last_seq for c in request.cursors})
        outbox = self._streams.open()
        follower = Follower(request.account, outbox, cursors, wrapped=False, oldest=True)
        how = ENDED_WELL
        try:
            await self._follow(follower)
            await self._streams.serve(context, outbox, self._router.committer.settled)
        except CutOffError as e:
            how = status_of(e)
        finally:
            self._streams.close(outbox)
            self._hub.unfollow(follower)
        await end(context, how)

    async def _hello(self, context: Any) -> pb.Hello:
        data = await context.read()
        request = await parse(context, pb.SessionRequest, b"" if data is grpc.aio.EOF else data)
        if request.WhichOneof("kind") != "hello":
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, "the first request of a session is the hello")
        hello = request.hello
        await check_account(context, self._reference, hello.account)
        try:
            check_origin(hello.account, hello.self_trade_prevention)
        except GarbledError as e:
            await abort(context, grpc.StatusCode.INVALID_ARGUMENT, str(e))
        return hello

    def _open(self, hello: pb.Hello, outbox: Outbox) -> Session:
        session = Session(hello, hello.session or self._ids.next(), outbox, asyncio.get_running_loop().time())
        if session.cancel_on_disconnect:
            self._presence.opened(session.account, session.id, session)
            for link in self._links.values():
                link.session(session.account, session.id, closed=False)
        return session

    def _closed(self, session: Session) -> None:
        if session.cancel_on_disconnect and self._presence.closed(session.account, session.id, session):
            for link in self._links.values():
                link.session(session.account, session.id, closed=True)

    async def _follow(self, follower: Follower) -> None:
        """Have an account's reports of every home come to a follower. A home that hangs is not waited for long."""
        self._hub.follow(follower)
        asked = []
        for home, link in self._links.items():
            cursor = follower.cursors.get(home)
            if cursor is not None:
                follower.catching_up.add(home)
            link.follow(follower.account, cursor)
            if cursor is None:
                asked.append(asyncio.create_task(_begin_at(follower, home, link)))
        if asked:
            _, late = await asyncio.wait(asked, timeout=STANDING_S)
            for task in late:
                task.cancel()

    def _welcome(self, session: Session, follower: Follower) -> bytes:
        welcome = pb.Welcome(
            engine=self._router.engine,
            session=session.id,
            cursors=[pb.Cursor(home=home, last_seq=last) for home, last in follower.began.items()],
            engines=[self._router.engine, *self._links],
        )
        return pb.SessionReply(welcome=welcome).SerializeToString()

    async def _receive(self, context: Any, session: Session) -> None:
        take, committer = self._router.take, self._router.committer
        account, logged_id, stp, throttle = session.account, session.logged_id, session.stp, session.throttle
        loop = asyncio.get_running_loop()
        while (data := await context.read()) is not grpc.aio.EOF:
            commands = unwrap(data)
            if commands is None:
                request = pb.SessionRequest.FromString(data)
                if request.WhichOneof("kind") != "commands":
                    raise GarbledError("a request without commands")
                commands = request.commands
            take(account, logged_id, stp, commands, session, throttle, loop.time() if throttle is not None else 0.0)
            if committer.crowded:
                await committer.room()


async def _begin_at(follower: Follower, home: int, link: HomeLink) -> None:
    """Begin live at a home, as soon as it has said where the account stands."""
    last = await link.standing(follower.account)
    if last is not None and home not in follower.cursors:
        follower.stands(home, 1, last)
