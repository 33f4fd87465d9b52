"""An account's way to the venue: finding its machines, and the calls that need no session."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message

from engine.client.executions import Executions
from engine.client.report import SessionError, UnknownSymbolError, UnreachableError
from engine.client.session import Session
from engine.client.units import within
from proto import orders_pb2 as pb
from proto.cluster_pb2 import DirectoryEntries, DirectoryEntry
from proto.columns import STP_CANCEL_NEWEST, STP_DECREMENT, UNKNOWN_INSTRUMENT
from proto.connect import channel
from proto.dial import wrong_address
from proto.instrument import ENGINE_MAX, Instrument, ListingError, instrument_of
from proto.refusals import explain

PATIENCE_S: Final = 30.0
ASK_S: Final = 1.0  # deadline of one call to a directory
CALL_S: Final = 5.0
REPLY_MAX: Final = 64 << 20  # bytes of a list of orders
ID_MAX: Final = (1 << 64) - 1
THROTTLE_MAX: Final = (1 << 32) - 1


class Client:
    """An account's way to the venue, as long as the program runs; it connects when something is asked of it.

        client = Client("127.0.0.1:4000", account=7)
        async with client.session() as session:
            report = await session.new("ALFA", BUY, price="120.00", quantity=5)

    seeds                  a machine of the venue, host:port, or several; engines or fabric nodes: one that answers is
                           enough, and the others are learnt from it
    account                whose orders
    engine                 the engine to hold the session with; 0: the one beside the machine that answers, or any
    cancel_on_disconnect   the venue cancels what a session entered when that ends, or is gone for five seconds
    self_trade_prevention  what happens when the account's own orders would meet (STP_..., proto/columns.py)
    throttle               commands a second that the venue takes from a session, others are refused; 0: any
    patience_s             seconds that an engine may be away, and a command without an answer, before an error says so;
                           of the first connection ten at most
    instruments            those that are known already; all others are learnt from the directory

    `instruments` has all that are known, by id and by symbol. Raises: ValueError for an address that is none, and for a
    number that cannot be; TypeError for what is no whole number.
    """

    def __init__(
        self,
        seeds: str | Sequence[str],
        account: int,
        *,
        engine: int = 0,
        cancel_on_disconnect: bool = False,
        self_trade_prevention: int = STP_CANCEL_NEWEST,
        throttle: int = 0,
        patience_s: float = PATIENCE_S,
        instruments: Iterable[Instrument] = (),
    ) -> None:
        self._seeds = [seeds] if isinstance(seeds, str) else list(seeds)
        if not self._seeds:
            raise ValueError("no machine is named: HOST:PORT of one of the venue's")
        if wrong := next(filter(None, (wrong_address(seed, somebody=True) for seed in self._seeds)), ""):
            raise ValueError(wrong)
        within("account", account, ID_MAX)
        within("engine", engine, ENGINE_MAX)
        within("self_trade_prevention", self_trade_prevention, STP_DECREMENT)
        within("throttle", throttle, THROTTLE_MAX)
        self.account = account
        self.engine = engine
        self.cancel_on_disconnect = cancel_on_disconnect
        self.self_trade_prevention = self_trade_prevention
        self.throttle = throttle
        self.patience_s = patience_s
        self.instruments: dict[int | str, Instrument] = {}
        self.endpoints: dict[int, str] = {}  # by engine, as last heard
        self._machines: list[str] = []  # all that were heard of, engines and fabric nodes
        self._left: set[str] = set()
        self._strangers: set[int] = set()  # instruments that nobody knew when they were asked for
        self._ids = itertools.count(time.time_ns())
        self._learn(instruments)

    def next_id(self) -> int:
        """A client order id that this account has not used: the time this client was made, counted on."""
        return next(self._ids)

    def session(self, cursors: Mapping[int, int] | None = None, *, reports: bool = True) -> Session:
        """A session; enter it once, with `async with`, to connect.

        `cursors`: of each home, the number of the last report seen, to go on from; a home not named begins live.
        With `reports` (the default) the account's reports are kept for whoever iterates over the session, up to
        UNREAD_MAX of them; without, commands are answered all the same.
        Raises: ValueError, TypeError for cursors that cannot be.
        """
        for home, last in (cursors or {}).items():
            within("cursors: a home", home, ENGINE_MAX)
            within("cursors: a number", last, ID_MAX)
        return Session(self, dict(cursors or {}), reports=reports)

    def executions(self, cursors: Mapping[int, int] | None = None, *, follow: bool = False) -> Executions:
        """The account's reports so far, of every engine: after `cursors`, else from the oldest that is held.

            async for report in client.executions(): ...

        With `follow`, those to come as well, without end. Raises, when all that there is was given: IncompleteError,
        if that is not all; UnreachableError, SessionError.
        """
        return Executions(self, dict(cursors or {}), follow=follow)

    def instrument(self, symbol: str | int) -> Instrument:
        """One that is known already, by symbol or id. Raises: UnknownSymbolError, which names those there are."""
        found = self.instruments.get(symbol)
        if found is None:
            symbols = [name for name in self.instruments if isinstance(name, str)]
            raise UnknownSymbolError(
                UNKNOWN_INSTRUMENT, explain(UNKNOWN_INSTRUMENT, symbol=str(symbol), symbols=symbols)
            )
        return found

    async def learned(self, symbol: str | int) -> Instrument:
        """As `instrument`; one that is not known yet is asked for: it may have been added while the venue runs."""
        if symbol not in self.instruments:
            await self.find()
        return self.instrument(symbol)

    async def open_orders(self, symbol: str = "") -> pb.OpenOrdersReply:
        """The account's live orders (`orders`, decimals as text), of one symbol or of all.

        `engines_missing` are the engines that did not answer: unless it is empty, the list is not whole.
        Raises: UnknownSymbolError, UnreachableError; SessionError for an account that may not trade, too many orders.

            for order in (await client.open_orders("ALFA")).orders:
                print(order.client_order_id, order.price, order.open)
        """
        wish = pb.OpenOrdersRequest(account=self.account, symbol=symbol)
        return pb.OpenOrdersReply.FromString(await self._asked("OpenOrders", wish))

    async def order(self, symbol: str, client_order_id: int) -> pb.Order | None:
        """One of the account's orders, live or not yet forgotten; None if there is none. Raises: as `open_orders`."""
        wish = pb.GetOrderRequest(account=self.account, symbol=symbol, client_order_id=client_order_id)
        try:
            return pb.Order.FromString(await self._asked("GetOrder", wish))
        except SessionError as e:
            if e.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    async def _asked(self, method: str, wish: pb.OpenOrdersRequest | pb.GetOrderRequest) -> bytes:
        try:
            return await self.call(method, wish)
        except SessionError as e:
            if e.code is grpc.StatusCode.INVALID_ARGUMENT and wish.symbol:
                self.instrument(wish.symbol)  # if that is what is wrong, it says which symbols there are
            raise

    async def call(self, method: str, request: Message) -> bytes:
        """A call of the Orders service (proto/orders.proto), by whichever engine answers; the reply's bytes.

        A command that is sent twice, since an engine broke off, has one effect: it has its id.
        Raises: UnreachableError, SessionError with the status.
        """
        tried: set[str] = set()
        while True:
            endpoint = await self.find()
            async with channel(endpoint, reply_max=REPLY_MAX) as there:
                unary: Any = there.unary_unary(f"/lobmesh.v1.Orders/{method}")
                try:
                    reply: bytes = await unary(request.SerializeToString(), timeout=CALL_S)
                    return reply
                except grpc.aio.AioRpcError as e:
                    if e.code() is not grpc.StatusCode.UNAVAILABLE or endpoint in tried:
                        raise SessionError(e.code(), " ".join((e.details() or "").split())) from e
            tried.add(endpoint)
            self.leave(endpoint)

    async def find(self) -> str:
        """The endpoint of the client's engine, asked of any machine that answers, and every instrument that it names.

        Raises: UnreachableError, which says who was asked, and what each said.
        """
        said: list[str] = []
        asked = [asyncio.create_task(_ask(target)) for target in dict.fromkeys([*self._seeds, *self._machines])]
        try:
            for answer in asyncio.as_completed(asked):
                target, entries, more = await answer
                if entries is None:
                    said.append(f"{target}: {more}")
                    continue
                try:
                    if found := self._heard(entries, target, more):
                        return found
                    said.append(f"{target} does not know engine {self.engine or 'any'}")
                except ListingError as e:  # what it says cannot be used; perhaps another machine says it right
                    said.append(f"{target}: {e}")
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise UnreachableError("; ".join(said))

    async def learn(self, ids: Iterable[int]) -> None:
        """Hear of instruments that the client does not know yet, if a machine answers and knows them."""
        unknown = {id for id in ids if id and id not in self.instruments} - self._strangers
        if unknown:
            self._strangers |= unknown
            with contextlib.suppress(UnreachableError):
                await self.find()

    def _heard(self, entries: list[DirectoryEntry], target: str, name: str) -> str:
        """Take in what a machine says; the endpoint of the engine looked for, or nothing."""
        if not entries:  # it has no directory: then it is itself the engine
            return target
        self._machines = [entry.grpc for entry in entries if not entry.left]
        for entry in entries:
            self._learn(map(instrument_of, entry.instruments))
            if not entry.fabric and not entry.left:
                self.endpoints[entry.engine] = entry.grpc
        own = next((entry for entry in entries if entry.name == name), None)
        if own is not None and not own.fabric and self.engine in (0, own.engine) and target not in self._left:
            return target  # where it was reached, whatever address it gives to others
        if self.engine:
            return self.endpoints.get(self.engine, "")
        beside = self.endpoints.get(own.engine if own is not None else 0)
        known = [*([beside] if beside else []), *self.endpoints.values()]
        return next((endpoint for endpoint in known if endpoint not in self._left), known[0] if known else "")

    def _learn(self, instruments: Iterable[Instrument]) -> None:
        for instrument in instruments:
            self.instruments[instrument.id] = instrument
            self.instruments[instrument.symbol] = instrument

    def leave(self, endpoint: str) -> None:
        """Do not come back to this engine, which does not answer, while another would do."""
        self._left.add(endpoint)


async def _ask(target: str) -> tuple[str, list[DirectoryEntry] | None, str]:
    """What the machine at `target` knows: its entries, and its name; None if it does not answer, and why."""
    try:
        async with channel(target, reply_max=REPLY_MAX) as there:
            call: Any = there.unary_unary("/lobmesh.v1.Directory/Exchange")
            reply = DirectoryEntries.FromString(await call(b"", timeout=ASK_S))
    except grpc.aio.AioRpcError as e:
        if e.code() is grpc.StatusCode.UNIMPLEMENTED:
            return target, [], ""
        if e.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return target, None, f"nobody answers (within {ASK_S:g} s)"
        return target, None, f"nobody answers ({(e.details() or e.code().name).split(': ')[-1].strip('[]')})"
    except DecodeError:
        return target, None, "what it says is garbled"
    return target, list(reply.entries), str(getattr(reply, "from"))
