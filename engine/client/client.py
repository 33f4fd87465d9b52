"""The SDK: a session with the venue that outlives connections, engines' restarts and their change of ports.

    async with Client(["127.0.0.1:4000"], account=7).session() as session:
        report = await session.new("ALFA", BUY, price="10.25", quantity=3)      # one order, acknowledged
        sent = await session.submit(Commands(op=[...], ...))                    # many, as columns
        await sent                                                              # all answered
        async for report in session: ...                                        # both sides of every trade

The reconnect contract, kept by `Session`:

    connection lost   the engine is looked for by its id, in the directory of any machine that ever was heard of
    found again       commands that were not answered are sent again under the same ids: the home engine knows them
    UNAVAILABLE then  the home is not linked yet, and may have had the command: sent again until it says
    reports           go on from the cursors, so that none is missed and none is given twice
    not found         within `patience_s`: UnreachableError, to whoever waits
    UNKNOWN           a command was sent on to its home, and that did not answer: OutcomeUnknownError; it may have had
                      its effect, so send the same again under the same id, or look at the order

Numbers are whole ticks and lots; text and `Decimal` are turned into them by the instrument. A float is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from proto import orders_pb2 as pb
from proto.cluster import Instrument
from proto.cluster_pb2 import DirectoryEntries, DirectoryEntry
from proto.columns import (
    ALL_OR_NONE,
    CANCEL,
    CAPPED,
    LOG_FAILED,
    MASS_CANCEL,
    MEANING_TOTAL,
    NEW,
    OUTCOME_UNKNOWN,
    POST_ONLY,
    REFUSED,
    REPEAT,
    REPLACE,
    STP_CANCEL_NEWEST,
    THROTTLED,
    TIF_GTC,
    TYPE_LIMIT,
    TYPE_MARKET,
    TYPE_PEG_BID,
    TYPE_STOP,
    UNAVAILABLE,
    UNKNOWN,
    Batch,
    Terms,
    select,
)
from proto.connect import BROKEN_STREAM
from proto.instrument import ListingError, instrument_of
from proto.orders import BATCH_MAX, later_reports, lots_of, report_columns, ticks_of, unwrap, wrap, write_batch

WINDOW: Final = 4_096  # commands sent and not answered, beyond which `submit` waits; a home engine remembers 8,192
UNREAD_MAX: Final = 262_144  # reports not read, beyond which the session reads no further; then the engine cuts it off
PATIENCE_S: Final = 30.0
ASK_S: Final = 1.0  # deadline of one call to a directory, and of a session's welcome
RETRY_S: Final = (0.05, 1.0)
ASK_AGAIN_S: Final = 0.1
CLOSE_S: Final = 5.0

_ON_THE_WAY: Final = frozenset((UNAVAILABLE, THROTTLED, LOG_FAILED))
_FATAL: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.OUT_OF_RANGE,
}
_CHANNEL_OPTIONS: Final = [
    ("grpc.max_receive_message_length", 64 << 20),
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.use_local_subchannel_pool", 1),
]


class ClientError(Exception):
    """The venue could not do what was asked."""


class RefusedError(ClientError):
    """A command was refused and had no effect; `reason` says why (proto Reason)."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"refused: {pb.Reason.Name(report.reason)}")
        self.report = report
        self.reason = report.reason


class OutcomeUnknownError(ClientError):
    """A command was sent on and not answered: send it again under the same id."""

    def __init__(self, report: Report) -> None:
        super().__init__(f"command {report.command} was not answered by engine {report.home}")
        self.report = report


class UnreachableError(ClientError):
    """No engine that could take the session answers."""


class SessionError(ClientError):
    """The engine will not have this session; `code` is the status."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code = code


class ReportsLostError(SessionError):
    """The reports after a cursor are no longer held: the session cannot go on without a hole."""


class Report(NamedTuple):
    """One execution report (proto ReportBatch says what each column means). `seq` 0: it has no number.

    `position` is that of the log record that caused it: all reports of one event have the same one, each side's.
    """

    home: int
    seq: int
    position: int
    time_ns: int
    kind: int
    command: int
    client_order_id: int
    order_id: int
    instrument: int
    flags: int
    price: int
    quantity: int
    open: int
    filled: int
    trade_id: int
    reason: int


class MassCanceled(NamedTuple):
    """What a mass cancel did: orders canceled, and the engines that did not say."""

    canceled: int
    engines_missing: list[int]


class Commands:
    """Commands as columns, one list per attribute (proto/columns.py, Batch); a column left out is zero throughout.

    `terms`, what single commands say beside the columns, is by row, and None while none says anything.

    Cost: to make and encode 256 of them, 0.15 µs each when the columns are given whole.
    """

    __slots__ = ("client_order_id", "flags", "instrument", "op", "price", "quantity", "target", "terms")

    def __init__(
        self,
        op: list[int] | None = None,
        client_order_id: list[int] | None = None,
        instrument: list[int] | None = None,
        flags: list[int] | None = None,
        price: list[int] | None = None,
        quantity: list[int] | None = None,
        target: list[int] | None = None,
    ) -> None:
        self.op = op if op is not None else []
        zeros = [0] * len(self.op)
        self.client_order_id = client_order_id if client_order_id is not None else zeros[:]
        self.instrument = instrument if instrument is not None else zeros[:]
        self.flags = flags if flags is not None else zeros[:]
        self.price = price if price is not None else zeros[:]
        self.quantity = quantity if quantity is not None else zeros[:]
        self.target = target if target is not None else zeros[:]
        self.terms: list[Terms] | None = None

    def __len__(self) -> int:
        return len(self.op)

    def add(
        self,
        op: int,
        client_order_id: int,
        instrument: int,
        flags: int = 0,
        price: int = 0,
        quantity: int = 0,
        target: int = 0,
        terms: Terms | None = None,
    ) -> None:
        """Add one row."""
        if terms is not None and self.terms is None:
            self.terms = [Terms()] * len(self.op)
        if self.terms is not None:
            self.terms.append(terms or Terms())
        self.op.append(op)
        self.client_order_id.append(client_order_id)
        self.instrument.append(instrument)
        self.flags.append(flags)
        self.price.append(price)
        self.quantity.append(quantity)
        self.target.append(target)

    def batch(self, account: int) -> Batch:
        return Batch(
            account,
            0,
            0,
            self.op,
            self.client_order_id,
            self.instrument,
            self.flags,
            self.price,
            self.quantity,
            self.target,
            self.terms,
        )


class Sent:
    """Commands on their way. Await it: it ends when each is answered, and gives the answers if they were asked for.

    `left` counts those not answered; `answers` has the report that answered each command, by its id.
    """

    __slots__ = ("_done", "answers", "batch", "begun", "doubted_at", "left", "marks")

    def __init__(self, batch: Batch, *, answers: bool, marks: tuple[int, ...] = ()) -> None:
        self.batch = batch
        self.left = len(batch)
        self.answers: dict[int, Report] | None = {} if answers else None
        self.begun = False  # to be written: from here on it may have an effect
        self.doubted_at = 0.0  # when it was sent again, not knowing; 0: never
        self.marks = marks  # homes whose answer is due, if every home has to answer
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def done(self) -> bool:
        return self._done.done()

    def __await__(self) -> Generator[Any, None, list[Report]]:
        yield from asyncio.shield(self._done).__await__()
        if self.answers is None:
            return []
        return [self.answers[id] for id in self.batch.client_order_id]

    def answered(self) -> None:
        self.left -= 1
        if not self.left and not self._done.done():
            self._done.set_result(None)

    def fail(self, error: ClientError) -> None:
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # whoever does not await it has the session to tell


class Client:
    """An account's way to the venue. `seeds` are machines of it, host:port; one that answers is enough.

    `engine` 0: any. `instruments` are learnt from the directory unless given.
    """

    def __init__(
        self,
        seeds: Sequence[str],
        account: int,
        *,
        engine: int = 0,
        cancel_on_disconnect: bool = False,
        self_trade_prevention: int = STP_CANCEL_NEWEST,
        throttle: int = 0,
        patience_s: float = PATIENCE_S,
        instruments: Iterable[Instrument] = (),
    ) -> None:
        assert seeds
        self.account = account
        self.engine = engine
        self.cancel_on_disconnect = cancel_on_disconnect
        self.self_trade_prevention = self_trade_prevention
        self.throttle = throttle
        self.patience_s = patience_s
        self.instruments: dict[int | str, Instrument] = {}
        self.endpoints: dict[int, str] = {}  # by engine, as last heard
        self._seeds = list(seeds)
        self._machines: list[str] = []  # all that were heard of, engines and fabric nodes
        self._ids = itertools.count(time.time_ns())
        self._learn(instruments)

    def next_id(self) -> int:
        """A client order id that this account has not used: the time this client was made, counted on."""
        return next(self._ids)

    def session(self, cursors: Mapping[int, int] | None = None, *, reports: bool = True) -> Session:
        """A session; enter it to connect. `cursors`: the last report seen of each home, to go on from.

        With `reports`, iterate over the session: more than UNREAD_MAX unread ones stop it.
        """
        return Session(self, dict(cursors or {}), reports=reports)

    def instrument(self, symbol: str | int) -> Instrument:
        """By symbol or id. Raises: KeyError."""
        return self.instruments[symbol]

    async def learned(self, symbol: str | int) -> Instrument:
        """As `instrument`; one that is not known yet is asked for: it may have been added while the venue runs."""
        if symbol not in self.instruments:
            await self.find()
        return self.instruments[symbol]

    async def open_orders(self, symbol: str = "") -> pb.OpenOrdersReply:
        """The account's live orders; names the engines that did not answer."""
        wish = pb.OpenOrdersRequest(account=self.account, symbol=symbol)
        return pb.OpenOrdersReply.FromString(await self._call("OpenOrders", wish.SerializeToString()))

    async def order(self, symbol: str, client_order_id: int) -> pb.Order | None:
        """One of the account's orders, live or not yet forgotten."""
        wish = pb.GetOrderRequest(account=self.account, symbol=symbol, client_order_id=client_order_id)
        try:
            return pb.Order.FromString(await self._call("GetOrder", wish.SerializeToString()))
        except SessionError as e:
            if e.code is grpc.StatusCode.NOT_FOUND:
                return None
            raise

    async def find(self) -> str:
        """The endpoint of the client's engine, asked of any machine that answers. Raises: UnreachableError."""
        asked = [asyncio.create_task(_ask(target)) for target in dict.fromkeys([*self._seeds, *self._machines])]
        try:
            for answer in asyncio.as_completed(asked):
                target, entries, name = await answer
                if entries is None:
                    continue
                try:
                    found = self._heard(entries, target, name)
                except ListingError:  # what it says cannot be used; perhaps another machine says it right
                    continue
                if found:
                    return found
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        raise UnreachableError(f"engine {self.engine or 'any'} is not to be found from {', '.join(self._seeds)}")

    def _heard(self, entries: list[DirectoryEntry], target: str, name: str) -> str:
        """Take in what a machine says; the endpoint of the engine looked for, or nothing."""
        if not entries:  # it has no directory: then it is itself the engine
            return target
        self._machines = [entry.grpc for entry in entries if not entry.left]
        for entry in entries:
            self._learn(map(instrument_of, entry.instruments))
            if not entry.fabric and not entry.left:
                self.endpoints[entry.engine] = entry.grpc
        if self.engine:
            return self.endpoints.get(self.engine, "")
        own = [entry.engine for entry in entries if entry.name == name]
        return self.endpoints.get(own[0] if own else 0) or next(iter(self.endpoints.values()), "")

    def _learn(self, instruments: Iterable[Instrument]) -> None:
        for instrument in instruments:
            self.instruments[instrument.id] = instrument
            self.instruments[instrument.symbol] = instrument

    async def _call(self, method: str, request: bytes) -> bytes:
        async with grpc.aio.insecure_channel(await self.find(), options=_CHANNEL_OPTIONS) as channel:
            call: Any = channel.unary_unary(f"/lobmesh.v1.Orders/{method}")
            try:
                reply: bytes = await call(request, timeout=CLOSE_S)
                return reply
            except grpc.aio.AioRpcError as e:
                raise SessionError(e.code(), e.details() or "") from e


class Session:
    """One stream after another to the same engine, seen as one. Made by `Client.session`."""

    def __init__(self, client: Client, cursors: dict[int, int], *, reports: bool) -> None:
        self.client = client
        self.cursors = cursors  # of each home, the last report taken in
        self.id = 0
        self.engine = client.engine
        self.engines: list[int] = []
        self.connects = 0
        self._keep = reports
        self._unanswered: dict[int, Sent] = {}
        self._everywhere: dict[int, Sent] = {}
        self._unread: deque[pb.ReportBatch] = deque()
        self._unread_count = 0
        self._out: deque[tuple[Sent, bytes]] = deque()
        self._put_off: dict[int, Sent] = {}
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self._connected = asyncio.Event()
        self._room: deque[asyncio.Future[None]] = deque()
        self._reading: asyncio.Future[None] | None = None
        self._error: ClientError | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Session:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)
        connected = asyncio.create_task(self._connected.wait())
        await asyncio.wait([self._task, connected], return_when=asyncio.FIRST_COMPLETED)
        connected.cancel()
        if self._error is not None:
            raise self._error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close(drain=kind is None)

    # Single commands

    async def new(
        self,
        symbol: str | int,
        side: int,
        price: int | str | Decimal = 0,
        quantity: int | str | Decimal = 0,
        *,
        type: int = TYPE_LIMIT,
        time_in_force: int = TIF_GTC,
        post_only: bool = False,
        all_or_none: bool = False,
        stop_price: int | str | Decimal | None = None,
        display: int | str | Decimal = 0,
        minimum: int | str | Decimal = 0,
        expires_ns: int = 0,
        offset: int | str | Decimal = 0,
        oco: int = 0,
        client_order_id: int = 0,
    ) -> Report:
        """Enter an order; the report that acknowledges it. `type` and `time_in_force` as in proto/columns.py.

        `oco` is the client order id of the live order it is linked to. A pegged order's `price`, unless it is 0, is its
        worst price. Raises: RefusedError, OutcomeUnknownError, UnreachableError, SessionError.
        """
        instrument = await self.client.learned(symbol)
        capped = type >= TYPE_PEG_BID and bool(price)
        flags = side | type | time_in_force | post_only * POST_ONLY | all_or_none * ALL_OR_NONE | capped * CAPPED
        ticks = 0 if type in (TYPE_MARKET, TYPE_STOP) else _ticks(price, instrument)
        terms = Terms(
            0 if stop_price is None else _ticks(stop_price, instrument),
            _lots(display, instrument),
            _lots(minimum, instrument),
            expires_ns,
            _ticks(offset, instrument),
            oco,
        )
        return await self._one(NEW, client_order_id, instrument.id, flags, ticks, _lots(quantity, instrument), 0, terms)

    async def cancel(self, symbol: str | int, target: int, *, client_order_id: int = 0) -> Report:
        """Cancel the order that was entered under the id `target`. Raises: as `new`."""
        instrument = await self.client.learned(symbol)
        return await self._one(CANCEL, client_order_id, instrument.id, 0, 0, 0, target)

    async def replace(
        self,
        symbol: str | int,
        target: int,
        price: int | str | Decimal,
        quantity: int | str | Decimal,
        *,
        meaning: int = MEANING_TOTAL,
        stop_price: int | str | Decimal | None = None,
        client_order_id: int = 0,
    ) -> Report:
        """Change price and quantity, and the stop price of a sleeping stop, of the order entered under `target`.

        Raises: as `new`.
        """
        instrument = await self.client.learned(symbol)
        ticks, lots = _ticks(price, instrument), _lots(quantity, instrument)
        terms = None if stop_price is None else Terms(_ticks(stop_price, instrument))
        return await self._one(REPLACE, client_order_id, instrument.id, meaning, ticks, lots, target, terms)

    async def mass_cancel(self, symbol: str | int = "", *, client_order_id: int = 0) -> MassCanceled:
        """Cancel all of the account's orders, or those of one instrument. Raises: as `new`, for one instrument."""
        if symbol:
            instrument = await self.client.learned(symbol)
            report = await self._one(MASS_CANCEL, client_order_id, instrument.id, 0, 0, 0, 0)
            return MassCanceled(report.quantity, [])
        commands = Commands()
        commands.add(MASS_CANCEL, client_order_id or self.client.next_id(), 0)
        sent = Sent(commands.batch(self.client.account), answers=True, marks=tuple(self.engines))
        sent.left = len(self.engines)
        self._everywhere[commands.client_order_id[0]] = sent
        self._send(sent)
        await asyncio.shield(sent._done)
        assert sent.answers is not None
        missing = [home for home, report in sent.answers.items() if report.kind in (REFUSED, UNKNOWN)]
        return MassCanceled(sum(report.quantity for report in sent.answers.values() if report.kind != REFUSED), missing)

    # Many

    async def submit(self, commands: Commands, *, answers: bool = False) -> Sent:
        """Send a batch, as soon as fewer than WINDOW commands are unanswered. Await what it gives for the answers.

        An id of 0 is replaced by a new one. Raises: ValueError for more than 4,096 commands, or an id that is waiting
        for its answer already; UnreachableError, SessionError.
        """
        if len(commands) > BATCH_MAX:
            raise ValueError(f"a batch of {len(commands)} commands, {BATCH_MAX} at most")
        if 0 in commands.client_order_id:
            commands.client_order_id = [id or self.client.next_id() for id in commands.client_order_id]
        while len(self._unanswered) > WINDOW:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(room)
            await room
        if not self._unanswered.keys().isdisjoint(commands.client_order_id):
            raise ValueError("an id that is waiting for its answer already")
        sent = Sent(commands.batch(self.client.account), answers=answers)
        if not sent.left:
            sent._done.set_result(None)
            return sent
        self._unanswered.update(dict.fromkeys(commands.client_order_id, sent))
        self._send(sent)
        return sent

    @property
    def unanswered(self) -> int:
        """Commands sent and not answered."""
        return len(self._unanswered)

    # Reports

    async def batches(self) -> AsyncIterator[pb.ReportBatch]:
        """Reports as they come, by columns; ends when the session is closed. Raises: as `submit`."""
        while True:
            while self._unread:
                batch = self._unread.popleft()
                self._unread_count -= len(batch.kind)
                self._wake_reader()
                yield batch
            if self._error is not None:
                raise self._error
            if self._closing:
                return
            self._news.clear()
            await self._news.wait()

    async def __aiter__(self) -> AsyncIterator[Report]:
        async for batch in self.batches():
            for report in reports_of(batch):
                yield report

    async def close(self, *, drain: bool = True) -> None:
        """End the session, after what is unanswered is answered if `drain`. Twice is once."""
        if self._task is None:
            return
        if drain and self._error is None:
            with contextlib.suppress(TimeoutError, ClientError):
                async with asyncio.timeout(CLOSE_S):
                    for sent in [*dict.fromkeys(self._unanswered.values()), *self._everywhere.values()]:
                        await asyncio.shield(sent._done)
        self._closing = True
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        self._fail(UnreachableError("the session is closed"))
        self._news.set()

    # The connection

    async def _run(self) -> None:
        wait, lost_at = RETRY_S[0], time.monotonic()
        while True:
            connects = self.connects
            try:
                await self._serve(await self.client.find())
            except grpc.aio.AioRpcError as e:
                if e.code() in _FATAL:
                    lost = e.code() is grpc.StatusCode.OUT_OF_RANGE
                    self._give_up((ReportsLostError if lost else SessionError)(e.code(), e.details() or ""))
                    return
            except (UnreachableError, TimeoutError, DecodeError, *BROKEN_STREAM):
                pass  # tried again, until patience ends
            except asyncio.CancelledError:
                if self._closing:
                    raise  # otherwise it was the call that was canceled, not we
            if self.connects > connects:
                wait, lost_at = RETRY_S[0], time.monotonic()
            elif time.monotonic() > lost_at + self.client.patience_s:
                self._give_up(UnreachableError(f"engine {self.engine or 'any'} did not come back"))
                return
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, RETRY_S[1])

    async def _serve(self, endpoint: str) -> None:
        """One connection, to its end."""
        async with grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS) as channel:
            call: Any = channel.stream_stream("/lobmesh.v1.Orders/Session")()
            try:
                async with asyncio.timeout(ASK_S):
                    await call.write(pb.SessionRequest(hello=self._hello()).SerializeToString())
                    first = await call.read()
                if first is grpc.aio.EOF:
                    await _raise_status(call)
                self._welcome(pb.SessionReply.FromString(first).welcome)
                reader = asyncio.create_task(self._read(call))
                writer = asyncio.create_task(self._write(call))
                try:
                    await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.wait([reader], timeout=ASK_S)  # it alone learns the status
                    await (reader if reader.done() else writer)
                finally:
                    reader.cancel()
                    writer.cancel()
                    await asyncio.gather(reader, writer, return_exceptions=True)
            finally:
                call.cancel()

    def _hello(self) -> pb.Hello:
        client = self.client
        return pb.Hello(
            account=client.account,
            cancel_on_disconnect=client.cancel_on_disconnect,
            self_trade_prevention=client.self_trade_prevention,  # type: ignore[arg-type]
            throttle=client.throttle,
            cursors=[pb.Cursor(home=home, last_seq=last) for home, last in self.cursors.items()],
            session=self.id,
        )

    def _welcome(self, welcome: pb.Welcome) -> None:
        self.connects += 1
        self.id = welcome.session
        self.engine = self.client.engine = welcome.engine
        self.engines = list(welcome.engines)
        for cursor in welcome.cursors:
            self.cursors.setdefault(cursor.home, cursor.last_seq)
        self._out.clear()
        for sent in dict.fromkeys([*self._unanswered.values(), *self._everywhere.values()]):
            if sent.begun and not sent.doubted_at:
                sent.doubted_at = time.monotonic()
            self._write_later(sent, self._unanswered, self._everywhere)
        self._connected.set()

    async def _write(self, call: Any) -> None:
        while True:
            while self._out:
                sent, message = self._out.popleft()
                sent.begun = True
                await call.write(message)
            self._wake.clear()
            await self._wake.wait()

    async def _read(self, call: Any) -> None:
        while (data := await call.read()) is not grpc.aio.EOF:
            reports = unwrap(data)
            if reports is not None:
                self._take(reports)
            if self._unread_count > UNREAD_MAX:
                await self._unread_room()
        await _raise_status(call)

    async def _unread_room(self) -> None:
        self._reading = asyncio.get_running_loop().create_future()
        await self._reading
        self._reading = None

    def _wake_reader(self) -> None:
        reading = self._reading
        if reading is not None and not reading.done() and self._unread_count < UNREAD_MAX // 2:
            reading.set_result(None)

    def _take(self, data: bytes) -> None:
        """One ReportBatch: drop what was seen, settle what it answers, keep it for whoever reads."""
        batch = pb.ReportBatch.FromString(data)
        if batch.first_seq:
            cursor = self.cursors.get(batch.home)
            last = batch.first_seq + len(batch.kind) - 1
            if cursor is not None and batch.first_seq <= cursor:
                if last <= cursor:
                    return
                batch = pb.ReportBatch.FromString(later_reports(data, cursor))
            self.cursors[batch.home] = last
        settled = not self._unanswered and not self._everywhere
        settled = settled or self._settle(batch)
        if self._keep and settled and (batch.first_seq or any(not flags & REPEAT for flags in batch.flags[:] or (0,))):
            self._unread.append(batch)
            self._unread_count += len(batch.kind)
            self._news.set()

    def _settle(self, batch: pb.ReportBatch) -> bool:
        """Match answers with commands; False if they are no answers and nobody needs to see them."""
        if not batch.first_seq and self._put_off_refused(batch):
            return False
        pop, put_off = self._unanswered.pop, self._put_off
        commands = batch.command[:]
        columns: tuple[list[int], ...] | None = None
        for i, command in enumerate(commands):
            if put_off and command in put_off and not batch.first_seq and batch.kind[i] == REFUSED:
                continue
            sent = pop(command, None)
            if sent is None:
                continue
            if sent.answers is not None:
                if columns is None:
                    columns = report_columns(batch)
                sent.answers[command] = _report(batch, columns, i)
            sent.answered()
        for command in [command for command in self._everywhere if command in commands]:
            self._settle_everywhere(batch, command, commands.index(command))
        while self._room and len(self._unanswered) <= WINDOW:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)
        return True

    def _put_off_refused(self, batch: pb.ReportBatch) -> bool:
        """Refusals on the way do not say what became of a command that was sent before: ask again, a little later.

        After `patience_s` the outcome is left unknown. True if that was all there was in the batch.
        """
        put_off = 0
        for row, (kind, reason) in enumerate(zip(batch.kind, batch.reason[:] or (), strict=False)):
            sent = self._unanswered.get(batch.command[row])
            if sent is None or not sent.doubted_at or kind != REFUSED or reason not in _ON_THE_WAY:
                continue
            if time.monotonic() > sent.doubted_at + self.client.patience_s:
                batch.kind[row], batch.reason[row] = UNKNOWN, OUTCOME_UNKNOWN
                continue
            if not self._put_off:
                asyncio.get_running_loop().call_later(ASK_AGAIN_S, self._ask_again)
            self._put_off[batch.command[row]] = sent
            put_off += 1
        return put_off == len(batch.kind)

    def _ask_again(self) -> None:
        put_off, self._put_off = self._put_off, {}
        waiting = {id: sent for id, sent in put_off.items() if id in self._unanswered}
        for sent in dict.fromkeys(waiting.values()):
            self._write_later(sent, waiting)

    def _settle_everywhere(self, batch: pb.ReportBatch, command: int, row: int) -> None:
        sent = self._everywhere[command]
        assert sent.answers is not None
        if batch.home in sent.marks and batch.home not in sent.answers:
            sent.answers[batch.home] = _report(batch, report_columns(batch), row)
            sent.answered()
            if sent.done:
                del self._everywhere[command]

    # Odds and ends

    async def _one(
        self,
        op: int,
        id: int,
        instrument: int,
        flags: int,
        price: int,
        quantity: int,
        target: int,
        terms: Terms | None = None,
    ) -> Report:
        commands = Commands()
        commands.add(op, id, instrument, flags, price, quantity, target, terms if terms and any(terms) else None)
        (report,) = await (await self.submit(commands, answers=True))
        if report.kind == REFUSED:
            raise RefusedError(report)
        if report.kind == UNKNOWN:
            raise OutcomeUnknownError(report)
        return report

    def _send(self, sent: Sent) -> None:
        if self._error is not None:
            self._fail(self._error)
            raise self._error
        if self._connected.is_set():
            self._out.append((sent, wrap(write_batch(sent.batch))))
            self._wake.set()

    def _write_later(self, sent: Sent, *among: dict[int, Sent]) -> None:
        """Queue those commands of a batch once more whose ids are in one of these."""
        keep = [any(id in ids for ids in among) for id in sent.batch.client_order_id]
        self._out.append((sent, wrap(write_batch(select(sent.batch, keep)))))
        self._wake.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._give_up(ClientError(f"the session broke: {error!r}"))

    def _give_up(self, error: ClientError) -> None:
        self._error = error
        self._fail(error)
        self._news.set()

    def _fail(self, error: ClientError) -> None:
        for sent in [*self._unanswered.values(), *self._everywhere.values()]:
            sent.fail(error)
        self._unanswered.clear()
        self._everywhere.clear()
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_exception(error)


def reports_of(batch: pb.ReportBatch) -> Iterator[Report]:
    """The reports of a batch, one by one."""
    columns = report_columns(batch)
    return (_report(batch, columns, row) for row in range(len(batch.kind)))


def _report(batch: pb.ReportBatch, columns: tuple[list[int], ...], row: int) -> Report:
    seq = batch.first_seq + row if batch.first_seq else 0
    return Report(batch.home, seq, batch.position, batch.time_ns, *(column[row] for column in columns))


def _ticks(price: int | str | Decimal, instrument: Instrument) -> int:
    if isinstance(price, int):
        return price
    if not isinstance(price, str | Decimal):
        raise TypeError(f"a price is ticks, text or a Decimal, not {type(price).__name__}")
    return ticks_of(str(price), instrument.tick_size)


def _lots(quantity: int | str | Decimal, instrument: Instrument) -> int:
    if isinstance(quantity, int):
        return quantity
    if not isinstance(quantity, str | Decimal):
        raise TypeError(f"a quantity is lots, text or a Decimal, not {type(quantity).__name__}")
    return lots_of(str(quantity), instrument.lot_size)


async def _ask(target: str) -> tuple[str, list[DirectoryEntry] | None, str]:
    """What the machine at `target` knows: its entries, and its name; None if it does not answer."""
    try:
        async with grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS) as channel:
            call: Any = channel.unary_unary("/lobmesh.v1.Directory/Exchange")
            reply = DirectoryEntries.FromString(await call(b"", timeout=ASK_S))
    except grpc.aio.AioRpcError as e:
        return target, [] if e.code() is grpc.StatusCode.UNIMPLEMENTED else None, ""
    except DecodeError:
        return target, None, ""
    return target, list(reply.entries), str(getattr(reply, "from"))


async def _raise_status(call: Any) -> None:
    """Raise what a stream ended with; one that ended well is one that has to be opened again, too."""
    code = await call.code()
    if code is not grpc.StatusCode.OK:
        initial, trailing = await call.initial_metadata(), await call.trailing_metadata()
        raise grpc.aio.AioRpcError(code, initial, trailing, await call.details())
    raise UnreachableError("the engine ended the session")
