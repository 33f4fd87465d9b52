"""The home engine's side of a link: commands of other engines' clients come in by the own door, reports go out.

`Presence` keeps who of those that asked for cancel on disconnect is still there, here or at another engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError

from engine.entry.reports import CutOffError, Follower, Hub, Outbox
from engine.entry.router import Router
from engine.entry.streams import ENDED_WELL, PEERS, Streams, begin, end, status_of
from engine.log.commit import Committer, Submission
from proto.columns import REPORT_WIDTH
from proto.orders import GarbledError, wrap, write_reports
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

GRACE_S: Final = 5.0  # how long a session may be without an engine before it counts as disconnected
SESSIONS_MAX: Final = 65_536  # sessions that ask for cancel on disconnect, over one link
FOLLOWED_MAX: Final = 65_536  # accounts, over one link


class Presence:
    """Sessions that asked for cancel on disconnect, and who stands for each: the own engine's session, or a link.

    owner says it closed             its orders are canceled, by a logged command
    owner lost (its engine died),    an orphan: canceled when nobody stands for it within GRACE_S
    or found in the log at the start
    another owner opens it           that one stands for it now; what the one before says no longer counts

    The end of a session that entered nothing here cancels nothing, and is not logged.
    """

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.committer: Committer | None = None  # set when the engine is up
        self._grace_s = grace_s
        self._owners: dict[tuple[int, int], object] = {}
        self._orphans: dict[tuple[int, int], float] = {}
        self._entered: set[tuple[int, int]] = set()  # of those: something was taken from them, to be logged

    def entered(self, account: int, session: int) -> None:
        """A batch of the session was taken, to be logged."""
        key = account, session
        if key in self._owners or key in self._orphans:
            self._entered.add(key)

    def opened(self, account: int, session: int, owner: object) -> None:
        self._owners[account, session] = owner
        self._orphans.pop((account, session), None)

    def closed(self, account: int, session: int, owner: object) -> bool:
        """Cancel what the session entered, if `owner` still stands for it; whether it did."""
        if self._owners.get((account, session)) is not owner:
            return False
        del self._owners[account, session]
        self._disconnect(account, session)
        return True

    def lost(self, owner: object, now: float) -> None:
        """Whoever stood for these sessions is gone. Cost: O(sessions)."""
        for key in [key for key, one in self._owners.items() if one is owner]:
            del self._owners[key]
            if key in self._entered:
                self._orphans[key] = now + self._grace_s

    def found(self, sessions: Iterable[tuple[int, int]], now: float) -> None:
        """Sessions that have live orders after a restart."""
        for key in sessions:
            self._orphans[key] = now + self._grace_s
            self._entered.add(key)

    def tick(self, now: float) -> None:
        """Disconnect whoever has not come back in time."""
        for key in [key for key, due in self._orphans.items() if now >= due]:
            del self._orphans[key]
            self._disconnect(*key)

    def _disconnect(self, account: int, session: int) -> None:
        if (account, session) not in self._entered:
            return
        self._entered.remove((account, session))
        if self.committer is not None:
            self.committer.submit(Submission.disconnect(account, session))


class _EntryLink:
    """What a home engine keeps for one link: whom it follows, and how far it has answered."""

    def __init__(self, hub: Hub, outbox: Outbox) -> None:
        self.outbox = outbox
        self._hub = hub
        self._followers: dict[int, Follower] = {}
        self._sessions: set[tuple[int, int]] = set()
        self._batches: deque[_LinkBatch] = deque()
        self._answered = 0
        self._told = 0
        self._idle: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()

    def follow(self, wish: LinkFollow) -> None:
        account = wish.account
        follower = self._followers.get(account)
        if wish.stop:
            if follower is not None:
                self._hub.unfollow(follower)
                del self._followers[account]
            return
        if follower is None and len(self._followers) >= FOLLOWED_MAX:
            raise GarbledError(f"more than {FOLLOWED_MAX:,} accounts are followed")
        last, first = self._hub.kept.last_seq(account), self._hub.kept.first_held(account)
        self.outbox.put(
            LinkReply(following=Following(account=account, last_seq=last, first_held=first)).SerializeToString()
        )
        after = last if wish.live_only else max(min(wish.after_seq, last), first - 1)
        if follower is None:
            follower = self._followers[account] = Follower(account, self.outbox, {self._hub.home: after})
            self._hub.follow(follower, link=True)
        elif not wish.live_only:
            self._hub.send_again(follower, after)

    def opened(self, account: int, session: int) -> None:
        self._sessions.add((account, session))
        if len(self._sessions) > SESSIONS_MAX:
            raise GarbledError(f"more than {SESSIONS_MAX:,} sessions are open")

    def closed(self, account: int, session: int) -> None:
        self._sessions.discard((account, session))

    def batch(self, account: int) -> _LinkBatch:
        batch = _LinkBatch(self, account)
        self._batches.append(batch)
        return batch

    def answered(self) -> None:
        """Some batch is done: say so, once for all that are done in this turn of the loop."""
        before = self._answered
        while self._batches and self._batches[0].done:
            self._batches.popleft()
            self._answered += 1
        if before == self._told and self._answered > before:
            self._loop.call_soon(self._tell)
        if self._idle is not None and not self._batches and not self._idle.done():
            self._idle.set_result(None)

    async def all_answered(self) -> None:
        """Wait until every batch is done, and it is said."""
        while self._batches:
            self._idle = self._loop.create_future()
            await self._idle
        await asyncio.sleep(0)  # that turn of the loop

    def close(self) -> None:
        for follower in self._followers.values():
            self._hub.unfollow(follower)

    def _tell(self) -> None:
        self._told = self._answered
        self.outbox.put(LinkReply(answered=self._answered).SerializeToString())


class _LinkBatch:
    """A batch that came over a link (engine/entry/router.py, Origin)."""

    __slots__ = ("_account", "_link", "_under_way", "done")

    def __init__(self, link: _EntryLink, account: int) -> None:
        self._link = link
        self._account = account
        self._under_way = 0
        self.done = False

    def tell(self, home: int, rows: list[int]) -> None:
        self._link.outbox.put(wrap(write_reports(home, self._account, 0, 0, 0, rows)), len(rows) // REPORT_WIDTH)

    def begun(self) -> None:
        self._under_way += 1

    def ended(self) -> None:
        self._under_way -= 1
        self.settle()

    def settle(self) -> None:
        if not self._under_way:
            self.done = True
            self._link.answered()


class Home:
    """The Peers service of a home engine, but FindOrders, on raw messages (`handlers`)."""

    def __init__(
        self,
        router: Router,
        hub: Hub,
        presence: Presence,
        streams: Streams,
        *,
        epoch: int,
        incarnation: int,
    ) -> None:
        self._router = router
        self._hub = hub
        self._presence = presence
        self._streams = streams
        self._epoch = epoch
        self._incarnation = incarnation

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(PEERS, {"Link": grpc.stream_stream_rpc_method_handler(self.link)})

    async def link(self, _: AsyncIterator[bytes], context: Any) -> None:
        """One entry engine's link, to its end."""
        await begin(context)
        outbox = self._streams.open()
        link = _EntryLink(self._hub, outbox)
        how = ENDED_WELL
        try:
            hello = await _hello(context)
            if not hello.engine or hello.engine == self._router.engine:
                raise GarbledError("the hello names no other engine")
            welcome = LinkWelcome(engine=self._router.engine, epoch=self._epoch, incarnation=self._incarnation)
            outbox.put(LinkReply(welcome=welcome).SerializeToString())
            await self._streams.serve(context, outbox, link.all_answered, self._receive(context, link))
        except (DecodeError, GarbledError, CutOffError) as e:
            how = status_of(e)
        finally:
            self._streams.close(outbox)
            link.close()
            self._presence.lost(link, asyncio.get_running_loop().time())
        await end(context, how)

    async def _receive(self, context: Any, link: _EntryLink) -> None:
        while (data := await context.read()) is not grpc.aio.EOF:
            request = LinkRequest.FromString(data)
            match request.WhichOneof("kind"):
                case "commands":
                    self._take(request.commands, link)
                    if self._router.committer.crowded:
                        await self._router.committer.room()
                case "follow":
                    link.follow(request.follow)
                case "session":
                    self._session(request.session, link)
                case _:
                    raise GarbledError("a request of no kind")

    def _take(self, commands: LinkCommands, link: _EntryLink) -> None:
        origin = link.batch(commands.account)
        self._router.take_own(
            commands.account, commands.session, commands.self_trade_prevention, commands.commands, origin
        )
        origin.settle()

    def _session(self, session: LinkSession, link: _EntryLink) -> None:
        if not session.account or not session.session:
            raise GarbledError("a session without a number, or of nobody")
        if session.closed:
            link.closed(session.account, session.session)
            self._presence.closed(session.account, session.session, link)
        elif session.cancel_on_disconnect:
            link.opened(session.account, session.session)
            self._presence.opened(session.account, session.session, link)


async def _hello(context: Any) -> LinkHello:
    data = await context.read()
    return LinkRequest.FromString(b"" if data is grpc.aio.EOF else data).hello
