"""The entry engine's side of a link: commands go to their home, reports and answers come back.

Each pair (entry engine, home engine) has one ordered stream, opened by the entry engine, so that an account's commands
arrive in the order they were sent, and its reports in the order of their numbers.

    state    input                          next    what becomes of commands
    DOWN     send                           DOWN    not sent: UNAVAILABLE
    DOWN     the home answers the hello     UP      sessions are told, accounts followed from the last report seen
    UP       send                           UP      queued, in order; more than QUEUE_MAX waiting: UNAVAILABLE
    UP       answered so many               UP      those are done; their reports came before
    UP       the oldest overdue             DOWN    as when the stream ends: a home that hangs is as good as gone
    UP       the stream ends                DOWN    on their way: UNKNOWN (the outcome is); not yet written: UNAVAILABLE

The home's side is engine/entry/home.py.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from engine.entry.door import answers
from engine.entry.reports import Hub
from engine.entry.router import Origin
from engine.entry.streams import cancelled
from proto import connect
from proto.columns import OUTCOME_UNKNOWN, REFUSED, UNAVAILABLE, UNKNOWN, Batch
from proto.orders import GarbledError, read_reports, unwrap
from proto.orders_pb2 import (
    Following,
    LinkCommands,
    LinkFollow,
    LinkHello,
    LinkReply,
    LinkRequest,
    LinkSession,
    LinkWelcome,
)

QUEUE_MAX: Final = 65_536  # commands on the way to one home and not answered
ANSWER_S: Final = 2.0  # a command on its way for so long has an unknown outcome
CONNECT_S: Final = 2.0
RETRY_S: Final = (0.05, 1.0)  # the first and the longest wait before a link is tried again
LINGER_S: Final = 10.0  # an account that nobody follows any more is followed for so long

logger = logging.getLogger(__name__)


class _Sent:
    """A batch on its way to a home."""

    __slots__ = ("batch", "commands", "due", "origin", "written")

    def __init__(self, batch: Batch, commands: bytes, origin: Origin, due: float) -> None:
        self.batch = batch
        self.commands = commands
        self.origin = origin
        self.due = due
        self.written = False


class _Followed:
    """An account whose reports come over a link."""

    __slots__ = ("last_seq", "seen", "waiting")

    def __init__(self) -> None:
        self.last_seq: int | None = None  # None: the home has not said yet
        self.seen = 0.0  # when somebody was last seen following
        self.waiting: list[asyncio.Future[None]] = []


class LinkState(Enum):
    DOWN = "down"
    UP = "up"


class HomeLink:
    """The way to one home engine. `where` gives its endpoint, or None while nobody knows it."""

    def __init__(
        self, entry: int, home: int, hub: Hub, where: Callable[[], str | None], *, answer_s: float = ANSWER_S
    ) -> None:
        self.entry = entry
        self.home = home
        self.state = LinkState.DOWN
        self.channel: grpc.aio.Channel | None = None
        self._hub = hub
        self._where = where
        self._answer_s = answer_s
        self._loop = asyncio.get_running_loop()
        self._out: deque[bytes | _Sent] = deque()
        self._wake = asyncio.Event()
        self._sent: deque[_Sent] = deque()
        self._answered = 0
        self._waiting = 0  # commands in `_sent`
        self._accounts: dict[int, _Followed] = {}
        self._sessions: dict[tuple[int, int], None] = {}
        self.connects = 0

    # What the rest of the engine asks of it

    def send(self, batch: Batch, commands: bytes, origin: Origin) -> bool:
        """See engine/entry/router.py, Carrier. Its reports reach all that follow the account here."""
        if self.state is LinkState.DOWN or self._waiting + len(batch) > QUEUE_MAX:
            return False
        self.follow(batch.account, None)
        sent = _Sent(batch, commands, origin, self._loop.time() + self._answer_s)
        self._sent.append(sent)
        self._waiting += len(batch)
        self._put(sent)
        origin.begun()
        return True

    def follow(self, account: int, after: int | None) -> None:
        """Follow an account from now on; with `after`, have the reports after that number sent again."""
        followed = self._accounts.get(account)
        new = followed is None
        if followed is None:
            followed = self._accounts[account] = _Followed()
        followed.seen = self._loop.time()
        if self.state is LinkState.UP and (new or after is not None):
            self._put(_request(LinkRequest(follow=_follow(account, after))))

    async def standing(self, account: int) -> int | None:
        """The number of the account's last report at that home; None while the link is down."""
        followed = self._accounts[account]
        while followed.last_seq is None:
            if self.state is LinkState.DOWN:
                return None
            waiting = self._loop.create_future()
            followed.waiting.append(waiting)
            await waiting
        return followed.last_seq

    def session(self, account: int, session: int, *, closed: bool) -> None:
        """Tell the home of a session that asked for cancel on disconnect."""
        if closed:
            self._sessions.pop((account, session), None)
        else:
            self._sessions[account, session] = None
        if self.state is LinkState.UP:
            self._put(_request(LinkRequest(session=_session(account, session, closed))))

    # Keeping it up

    async def run(self) -> None:
        """Keep the link up until cancelled."""
        wait = RETRY_S[0]
        try:
            while True:
                endpoint = self._where()
                if endpoint is not None and await self._serve(endpoint):
                    wait = RETRY_S[0]
                await asyncio.sleep(wait * random.uniform(0.5, 1.0))
                wait = min(wait * 2, RETRY_S[1])
        finally:
            self._down()

    async def _serve(self, endpoint: str) -> bool:
        """Open the stream and serve it to its end; whether it was ever up."""
        channel = connect.channel(endpoint)
        tasks: list[asyncio.Task[None]] = []
        was_up = False
        try:
            call: Any = channel.stream_stream("/lobmesh.v1.Peers/Link")()
            async with asyncio.timeout(CONNECT_S):
                welcome = await self._hello(call)
            if welcome.engine != self.home:
                logger.warning("%s is engine %d, not %d", endpoint, welcome.engine, self.home)
                return False
            self.channel = channel
            was_up = True
            self._up()
            tasks = [asyncio.create_task(step(call)) for step in (self._write, self._read, self._watch)]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if not task.cancelled():
                    task.result()
        except (*connect.BROKEN_STREAM, TimeoutError, GarbledError, DecodeError) as e:
            if was_up:
                logger.warning("link to engine %d lost: %s", self.home, _why(e))
        finally:
            await cancelled(*tasks)
            self._down()
            await channel.close()
        return was_up

    async def _hello(self, call: Any) -> LinkWelcome:
        await call.write(_request(LinkRequest(hello=LinkHello(engine=self.entry))))
        data = await call.read()
        if data is grpc.aio.EOF:
            raise GarbledError("no welcome")
        return LinkReply.FromString(data).welcome

    async def _write(self, call: Any) -> None:
        while True:
            while self._out:
                message = self._out.popleft()
                if isinstance(message, _Sent):
                    message.written = True
                    message = _commands(message.batch, message.commands)
                await call.write(message)
            self._wake.clear()
            await self._wake.wait()

    async def _read(self, call: Any) -> None:
        while (data := await call.read()) is not grpc.aio.EOF:
            reports = unwrap(data)
            if reports is not None:
                self._relay(reports)
                continue
            reply = LinkReply.FromString(data)
            match reply.WhichOneof("kind"):
                case "answered":
                    self._settle(reply.answered)
                case "following":
                    self._stands(reply.following)
                case "reports":
                    self._relay(reply.reports)

    async def _watch(self, call: Any) -> None:
        """Give up on a home that does not answer, and on accounts that nobody follows."""
        while True:
            await asyncio.sleep(min(0.1, self._answer_s / 4))
            now = self._loop.time()
            if self._sent and now > self._sent[0].due:
                raise TimeoutError(f"no answer for {self._answer_s:g} s")
            for account, followed in list(self._accounts.items()):
                if self._hub.followers(account):
                    followed.seen = now
                elif now > followed.seen + LINGER_S:
                    del self._accounts[account]
                    self._put(_request(LinkRequest(follow=LinkFollow(account=account, stop=True))))

    def _up(self) -> None:
        self.state = LinkState.UP
        self.connects += 1
        self._out.clear()
        self._answered = 0
        for account, session in self._sessions:
            self._put(_request(LinkRequest(session=_session(account, session, False))))
        for account, followed in self._accounts.items():
            after = followed.last_seq
            for follower in self._hub.followers(account):
                cursor = follower.cursors.get(self.home)
                if cursor is not None:
                    follower.catching_up.add(self.home)
                    after = cursor if after is None else min(after, cursor)
            self._put(_request(LinkRequest(follow=_follow(account, after))))
        logger.info("link to engine %d up", self.home)

    def _down(self) -> None:
        self.state = LinkState.DOWN
        self.channel = None
        self._out.clear()
        sent, self._sent = self._sent, deque()
        self._waiting = 0
        for one in sent:
            kind, reason = (UNKNOWN, OUTCOME_UNKNOWN) if one.written else (REFUSED, UNAVAILABLE)
            one.origin.tell(self.home, answers(one.batch, kind, reason))
            one.origin.ended()
        for followed in self._accounts.values():
            _release(followed)

    def _settle(self, answered: int) -> None:
        if not self._answered <= answered <= self._answered + len(self._sent):
            raise GarbledError(f"{answered} answered")
        for _ in range(answered - self._answered):
            sent = self._sent.popleft()
            self._waiting -= len(sent.batch)
            sent.origin.ended()
        self._answered = answered

    def _stands(self, following: Following) -> None:
        followed = self._accounts.get(following.account)
        if followed is None:
            return
        followed.last_seq = following.last_seq
        for follower in self._hub.followers(following.account):
            follower.stands(self.home, following.first_held, following.last_seq)
        _release(followed)

    def _relay(self, data: bytes) -> None:
        reports = read_reports(data)
        if reports.home != self.home or not reports.kind:
            raise GarbledError("reports of another home, or none")
        followed = self._accounts.get(reports.account)
        if followed is not None and reports.first_seq:
            followed.last_seq = max(followed.last_seq or 0, reports.first_seq + len(reports.kind) - 1)
        for follower in self._hub.followers(reports.account):
            follower.offer(self.home, reports.first_seq, len(reports.kind), data)

    def _put(self, message: bytes | _Sent) -> None:
        self._out.append(message)
        self._wake.set()


def _release(followed: _Followed) -> None:
    waiting, followed.waiting = followed.waiting, []
    for future in waiting:
        if not future.done():
            future.set_result(None)


def _request(request: LinkRequest) -> bytes:
    return request.SerializeToString()


def _follow(account: int, after: int | None) -> LinkFollow:
    return LinkFollow(account=account, after_seq=after or 0, live_only=after is None)


def _session(account: int, session: int, closed: bool) -> LinkSession:
    return LinkSession(account=account, session=session, cancel_on_disconnect=True, closed=closed)


def _commands(batch: Batch, commands: bytes) -> bytes:
    message = LinkCommands(
        account=batch.account,
        session=batch.session,
        self_trade_prevention=batch.stp,  # type: ignore[arg-type]
        commands=commands,
    )
    return LinkRequest(commands=message).SerializeToString()


def _why(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error) or type(error).__name__
