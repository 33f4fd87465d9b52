"""A session with the venue that outlives connections, engines' restarts and their change of ports.

The reconnect contract, kept by `Session`:

    connection lost   the engine is looked for by its id, in the directory of any machine that ever was heard of
    found again       reports go on from the cursors, so that none is missed and none is given twice. One command that
                      was not answered is sent again to each home, under its id: its answer comes behind all that the
                      home had, so when it is there, the commands that are still not answered never arrived, and only
                      they are sent again. What is submitted meanwhile goes behind them
    UNAVAILABLE then  the home is not linked yet, and may have had the command: one of that home's is asked for again,
                      until it answers; then the others that are still not answered
    UNKNOWN           a command was sent on to its home, and that did not answer: likewise, under the same id, for
                      `patience_s`; then OutcomeUnknownError, or an answer of kind UNKNOWN
    not found         within `patience_s`: UnreachableError, to whoever waits
    reports lost      the venue keeps the last 65,536 of an account and home; what is gone by the time that the session
                      is back, ReportsLostError says to whoever reads, once, where it would have come. Commands are
                      answered all the same
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Container
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import grpc
from google.protobuf.message import DecodeError

from engine.client.report import (
    BadCommandError,
    ClientError,
    MassCanceled,
    OutcomeUnknownError,
    RefusedError,
    Report,
    ReportsLostError,
    SessionClosedError,
    SessionError,
    UnreachableError,
    reports_of,
)
from engine.client.report_queue import ReportQueue
from engine.client.sent import Sent, encoded
from engine.client.stream import WELCOME_S, greet, raise_status
from engine.client.units import Price, Quantity, lots, needed_lots, ticks, whole
from proto import orders_pb2 as pb
from proto.columns import (
    ALL_OR_NONE,
    BAD_CLIENT_ORDER_ID,
    BAD_PRICE,
    BUY,
    CANCEL,
    CAPPED,
    FORCES,
    LOG_FAILED,
    MALFORMED,
    MASS_CANCEL,
    MEANING_TOTAL,
    MEANINGS,
    NEW,
    NO_TERMS,
    OUTCOME_UNKNOWN,
    POST_ONLY,
    REFUSED,
    REPEAT,
    REPLACE,
    SELL,
    THROTTLED,
    TIF_GTC,
    TYPE_LIMIT,
    TYPES,
    UNAVAILABLE,
    UNKNOWN,
    Commands,
    Terms,
    is_peg,
    is_priced,
    select,
)
from proto.connect import BROKEN_STREAM, channel
from proto.orders import (
    later_reports,
    report_columns,
    unwrap,
    wrap,
    write_batch,
    write_reports,
)

if TYPE_CHECKING:
    from engine.client.client import Client

WINDOW: Final = 4_096  # commands sent and not answered, beyond which `submit` waits; a home engine remembers 8,192
FIRST_S: Final = 10.0  # the longest wait for a first connection: an address may be wrong
RETRY_S: Final = (0.05, 1.0)
ASK_AGAIN_S: Final = (0.1, 1.0)  # how soon a command is asked for again that nobody knows the outcome of, doubling
CLOSE_S: Final = 5.0  # how long a session that is closed waits for its last answers

_ON_THE_WAY: Final = frozenset((UNAVAILABLE, THROTTLED, LOG_FAILED))
_FATAL: Final = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.OUT_OF_RANGE,
}


class _Doubt(NamedTuple):
    """Since when it is not known what became of a command, and at which home."""

    since: float
    home: int


class Session:
    """One stream after another to the same engine, seen as one. Made by `Client.session`, entered with `async with`.

    Every call raises SessionClosedError at once while it is not open, and what ended the session if something did:
    UnreachableError, SessionError, ReportsLostError (an engine whose log was begun anew).

    engine    the one it is held with            engines   every engine of the venue
    cursors   of each home, the number of the last report taken in: a later session can go on from there
    connects  how often it was connected
    """

    def __init__(self, client: Client, cursors: dict[int, int], *, reports: bool) -> None:
        self.client = client
        self.cursors = cursors
        self.id = 0
        self.engine = client.engine
        self.engines: list[int] = []
        self.connects = 0
        self._unread = ReportQueue() if reports else None
        self._unanswered: dict[int, Sent] = {}  # by id of the command, in the order they were submitted
        self._everywhere: dict[int, Sent] = {}
        self._doubted: dict[int, _Doubt] = {}  # commands that may have been had, and nobody says
        self._put_off: dict[int, int] = {}  # of those, the ones to be asked for again, and their homes
        self._asked: set[int] = set()  # of those, the ones that are on their way again
        self._back: set[int] = set()  # homes that have answered such a one
        self._ask_in_s = ASK_AGAIN_S[0]
        self._ticking = False
        self._probes: set[int] = set()  # commands sent again before all others, which wait for their answers
        self._holding = True  # nothing is sent: not connected yet, or probing
        self._out: deque[tuple[Sent, bytes]] = deque()
        self._wake = asyncio.Event()
        self._connected = asyncio.Event()
        self._room: deque[asyncio.Future[None]] = deque()
        self._error: ClientError | None = None
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Session:
        """Connect. Raises: UnreachableError within the client's patience, SessionError."""
        if self._task is not None or self._closing:
            raise SessionClosedError("a session is entered once: make another with Client.session()")
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)
        connected = asyncio.create_task(self._connected.wait())
        try:
            await asyncio.wait([self._task, connected], return_when=asyncio.FIRST_COMPLETED)
            if self._error is not None:
                raise self._error
        except BaseException:
            await self.close(drain=False)
            raise
        finally:
            connected.cancel()
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
        price: Price | None = None,
        quantity: Quantity | None = None,
        *,
        type: int = TYPE_LIMIT,
        time_in_force: int = TIF_GTC,
        post_only: bool = False,
        all_or_none: bool = False,
        stop_price: Price | None = None,
        display: Quantity | None = None,
        minimum: Quantity | None = None,
        expires_ns: int = 0,
        offset: Price | None = None,
        oco: int = 0,
        client_order_id: int = 0,
        price_ticks: int | None = None,
        quantity_lots: int | None = None,
        stop_price_ticks: int | None = None,
        display_lots: int | None = None,
        minimum_lots: int | None = None,
        offset_ticks: int | None = None,
    ) -> Report:
        """Enter an order; the report that acknowledges it. What it trades comes as reports of their own.

            report = await session.new("ALFA", BUY, price="120.00", quantity=5)
            await session.new("ALFA", SELL, quantity=5, type=TYPE_STOP, stop_price="99.50", time_in_force=TIF_DAY)

        symbol           or the instrument's id
        side             BUY or SELL
        price            text or Decimal, in units of price: "120.00". An int is refused, since it might be meant as
                         ticks: those go by `price_ticks`. A market or stop order has none; of a pegged order it is the
                         worst price. `stop_price` and `offset` (from a peg's reference) are alike
        quantity         text, Decimal or int, in units: 5 is what "5" is, also where a lot is 10 of them; lots go by
                         `quantity_lots`. `display` (what an iceberg shows), `minimum` (what must trade at once) alike
        type             TYPE_..., `time_in_force` TIF_..., as engine/RULES.md explains them
        expires_ns       of a GTD order: nanoseconds since the Unix epoch
        oco              the client order id of the live order that it is linked to
        client_order_id  the command's id, 1 to 2^64 - 1, new for this account; 0: the client's next

        Raises: RefusedError, of which BadCommandError and UnknownSymbolError are raised before anything is sent;
        TypeError for a value of another kind; OutcomeUnknownError; UnreachableError, SessionError, SessionClosedError.
        """
        self._check_open()
        instrument = await self.client.learned(symbol)
        if side not in (BUY, SELL) or type not in TYPES or time_in_force not in FORCES:
            raise BadCommandError(MALFORMED, "side is BUY or SELL, type one of TYPE_..., time_in_force one of TIF_...")
        at = ticks("price", price, price_ticks, instrument)
        flags = side | type | time_in_force | post_only * POST_ONLY | all_or_none * ALL_OR_NONE
        if is_peg(type) and at is not None:
            flags |= CAPPED
        if at is None and is_priced(flags):
            raise BadCommandError(BAD_PRICE, "an order of this type needs a price")
        if at is not None and not is_priced(flags):
            raise BadCommandError(BAD_PRICE, "a market order has no price, and a stop order a stop price only")
        terms = Terms(
            ticks("stop_price", stop_price, stop_price_ticks, instrument) or 0,
            lots("display", display, display_lots, instrument) or 0,
            lots("minimum", minimum, minimum_lots, instrument) or 0,
            whole("expires_ns", expires_ns),
            ticks("offset", offset, offset_ticks, instrument) or 0,
            whole("oco", oco),
        )
        total = needed_lots(quantity, quantity_lots, instrument)
        return await self._one(NEW, client_order_id, instrument.id, flags, at or 0, total, 0, terms)

    async def cancel(self, symbol: str | int, target: int, *, client_order_id: int = 0) -> Report:
        """Cancel the order that was entered under the id `target`; the report that says so.

            await session.cancel("ALFA", report.client_order_id)

        Raises: as `new`; RefusedError for an order that is not live any more (TOO_LATE) or never was (UNKNOWN_ORDER).
        """
        self._check_open()
        instrument = await self.client.learned(symbol)
        return await self._one(CANCEL, client_order_id, instrument.id, 0, 0, 0, whole("target", target))

    async def replace(
        self,
        symbol: str | int,
        target: int,
        price: Price | None = None,
        quantity: Quantity | None = None,
        *,
        meaning: int = MEANING_TOTAL,
        stop_price: Price | None = None,
        client_order_id: int = 0,
        price_ticks: int | None = None,
        quantity_lots: int | None = None,
        stop_price_ticks: int | None = None,
    ) -> Report:
        """Change price and quantity, and the stop price of a sleeping stop, of the order entered under `target`.

            await session.replace("ALFA", report.client_order_id, price="120.10", quantity=8)

        Both are stated anew, in the units that `new` has; an order that only has a stop price is given that alone.
        `meaning` says what the quantity is: the total with what is filled (MEANING_TOTAL), what shall remain
        (MEANING_OPEN), or how much less (MEANING_REDUCE_BY). `priority_kept` of the report says whether it kept its
        place. Raises: as `new`; RefusedError also for BELOW_FILLED and NOTHING_TO_CHANGE.
        """
        self._check_open()
        instrument = await self.client.learned(symbol)
        if meaning not in MEANINGS:
            raise BadCommandError(MALFORMED, "meaning is one of MEANING_...")
        at = ticks("price", price, price_ticks, instrument)
        stop = ticks("stop_price", stop_price, stop_price_ticks, instrument)
        if at is None and stop is None:
            raise BadCommandError(BAD_PRICE, "a replace states the price anew")
        total = needed_lots(quantity, quantity_lots, instrument)
        target = whole("target", target)
        terms = Terms(stop or 0)
        return await self._one(REPLACE, client_order_id, instrument.id, meaning, at or 0, total, target, terms)

    async def mass_cancel(self, symbol: str | int | None = None, *, client_order_id: int = 0) -> MassCanceled:
        """Cancel all of the account's orders, or, with a symbol, those of one instrument; how many there were.

            canceled, engines_missing = await session.mass_cancel()

        Of everything: an engine that cannot be reached or does not answer is named, and its orders may still be live.
        Raises: as `new`.
        """
        self._check_open()
        if symbol is not None:
            instrument = await self.client.learned(symbol)
            report = await self._one(MASS_CANCEL, client_order_id, instrument.id, 0, 0, 0, 0)
            return MassCanceled(report.row.quantity, [])
        commands = Commands()
        commands.add(MASS_CANCEL, client_order_id or self.client.next_id(), 0)
        message = encoded(commands, self.client.account)
        sent = Sent(commands, message, answers=True, marks=tuple(self.engines))
        self._everywhere[sent.ids[0]] = sent
        self._send(sent)
        reports = await sent
        missing = [report.home for report in reports if report.kind in (REFUSED, UNKNOWN)]
        return MassCanceled(sum(r.row.quantity for r in reports if r.home not in missing), missing)

    # Many

    async def submit(self, commands: Commands, *, answers: bool = False) -> Sent:
        """Send a batch, as soon as fewer than WINDOW commands are unanswered; await what it gives for the answers.

            commands = Commands()
            commands.add(NEW, 0, alfa.id, SELL, price=12_000, quantity=5)   # whole ticks and lots
            for report in await (await session.submit(commands, answers=True)): ...

        An id of 0 is replaced by a new one, in `commands`. A refusal is an answer, not an exception.
        Raises: BadCommandError, with nothing sent, for more than 4,096 commands, columns of different lengths, a value
        that its column cannot hold, an id given twice or waiting for its answer already; UnreachableError,
        SessionError, SessionClosedError.
        Cost: 0.2 µs a command in batches of 256, and 0.13 µs for its answer.
        """
        self._check_open()
        if 0 in commands.client_order_id:
            commands.client_order_id = [id or self.client.next_id() for id in commands.client_order_id]
        message = encoded(commands, self.client.account)
        while len(self._unanswered) > WINDOW:
            room: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._room.append(room)
            await room
            self._check_open()
        if not self._unanswered.keys().isdisjoint(commands.client_order_id):
            raise BadCommandError(BAD_CLIENT_ORDER_ID, "an id that is waiting for its answer already")
        sent = Sent(commands, message, answers=answers)
        self._unanswered.update(dict.fromkeys(sent.ids, sent))
        self._send(sent)
        return sent

    @property
    def unanswered(self) -> int:
        """Commands sent and not answered."""
        return len(self._unanswered)

    # Reports

    async def batches(self) -> AsyncIterator[pb.ReportBatch]:
        """Reports as they come, by columns of whole ticks and lots: for speed. Otherwise as iterating over the session.

        (proto/orders.proto, ReportBatch; `reports_of` makes reports of a batch.)
        """
        if self._task is None:
            self._check_open()
        if self._unread is None:
            raise SessionClosedError("the session was made without reports")
        while True:
            while (batch := self._unread.take()) is not None:
                yield batch
            if self._closing:
                return
            if self._error is not None:
                raise self._error
            await self._unread.wait()

    async def __aiter__(self) -> AsyncIterator[Report]:
        """The account's reports, of all homes, whoever caused them; ends when the session is closed.

            async for report in session:
                print(report)                      # or: report.kind == TRADED, report.price, report.row.price

        Each home's come in the order of their numbers, each once, across reconnects.
        Raises: ReportsLostError where some are lost, once: iterate again to go on behind them; UnreachableError,
        SessionError; SessionClosedError before the session is entered.
        """
        async for batch in self.batches():
            await self.client.learn(batch.instrument)
            for report in reports_of(batch, self.client.instruments):
                yield report

    async def close(self, *, drain: bool = True) -> None:
        """End the session, after what is unanswered is answered if `drain`, for CLOSE_S at most. Twice is once."""
        task = self._task
        if task is None or self._closing:
            return
        if drain and self._error is None:
            with contextlib.suppress(TimeoutError, ClientError):
                async with asyncio.timeout(CLOSE_S):
                    for sent in [*dict.fromkeys(self._unanswered.values()), *self._everywhere.values()]:
                        await sent
        self._closing = True
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._fail(SessionClosedError("the session is closed"))

    # The connection

    async def _run(self) -> None:
        wait, lost_at, why = RETRY_S[0], time.monotonic(), ""
        patience_s = min(FIRST_S, self.client.patience_s)
        while True:
            connects, endpoint = self.connects, ""
            try:
                endpoint = await self.client.find()
                await self._serve(endpoint)
            except grpc.aio.AioRpcError as e:
                why = f"{e.code().name}: {e.details()}"
                if e.code() in _FATAL:
                    lost = e.code() is grpc.StatusCode.OUT_OF_RANGE
                    text = e.details() or ""
                    self._give_up(ReportsLostError({}, text) if lost else SessionError(e.code(), text))
                    return
            except UnreachableError as e:
                why = str(e)
            except (TimeoutError, DecodeError, *BROKEN_STREAM) as e:
                why = str(e) or f"the engine gave no welcome within {WELCOME_S:g} s"
            except asyncio.CancelledError:
                if self._closing or _is_cancelled():
                    raise  # otherwise it was the call that was canceled, not we
            if not self.connects:
                self.client.leave(endpoint)  # it may be one of several that would do
            if self.connects > connects:
                wait, lost_at, patience_s = RETRY_S[0], time.monotonic(), self.client.patience_s
            elif time.monotonic() > lost_at + patience_s:
                again = f"engine {self.engine} did not come back" if self.connects else "no engine is reached"
                self._give_up(UnreachableError(f"{again} within {patience_s:g} s: {why}"))
                return
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            wait = min(wait * 2, RETRY_S[1])

    async def _serve(self, endpoint: str) -> None:
        """One connection, to its end."""
        async with channel(endpoint) as there:
            call: Any = there.stream_stream("/lobmesh.v1.Orders/Session")()
            try:
                self._welcome(await greet(call, self._hello()))
                reader = asyncio.create_task(self._read(call))
                writer = asyncio.create_task(self._write(call))
                try:
                    await asyncio.wait([reader, writer], return_when=asyncio.FIRST_COMPLETED)
                    await asyncio.wait([reader], timeout=WELCOME_S)  # it alone learns the status
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
            skip_lost=True,
        )

    def _welcome(self, welcome: pb.Welcome) -> None:
        self.connects += 1
        self.id = welcome.session
        self.engine = self.client.engine = welcome.engine
        self.engines = list(welcome.engines)
        for cursor in welcome.cursors:
            self._jump(cursor.home, cursor.last_seq)
        self._out.clear()
        for among in (self._put_off, self._asked, self._back):
            among.clear()
        self._ask_in_s, self._ticking = ASK_AGAIN_S[0], False
        self._holding = True
        self._probes = self._first_of_each_home()
        for sent in dict.fromkeys(self._unanswered[id] for id in self._probes):
            self._write_later(sent, self._probes)
        if self._probes:  # a home that hangs holds up the others for so long
            asyncio.get_running_loop().call_later(WELCOME_S, self._release, self.connects)
        else:
            self._release(self.connects)
        self._connected.set()

    def _first_of_each_home(self) -> set[int]:
        """Commands that may have been had: the first of each home. All of them are doubted from now on."""
        now, first = time.monotonic(), dict[int, int]()
        for sent in dict.fromkeys(self._unanswered.values()):
            if not sent.begun:
                continue
            for id, instrument in zip(sent.ids, sent.batch().instrument, strict=True):
                if id in self._unanswered:
                    known = self.client.instruments.get(instrument)
                    home = known.engine if known is not None else 0
                    self._doubted.setdefault(id, _Doubt(now, home))
                    first.setdefault(home, id)
        return set(first.values())

    def _release(self, connection: int) -> None:
        """Send what is not answered, in the order it was submitted; once in a connection.

        What may have been had waits on where its home did not answer.
        """
        if connection != self.connects or not self._holding:
            return
        self._holding = False
        self._put_off |= {id: self._doubted[id].home for id in self._probes}
        self._asked |= self._probes
        self._probes.clear()
        silent = {*self._put_off.values()}
        self._put_off |= {id: doubt.home for id, doubt in self._doubted.items() if doubt.home in silent}
        self._tick()
        waiting = {id: sent for id, sent in self._unanswered.items() if id not in self._put_off}
        for sent in dict.fromkeys([*waiting.values(), *self._everywhere.values()]):
            self._write_later(sent, waiting, self._everywhere)

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
        await raise_status(call)

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
            self._jump(batch.home, batch.first_seq - 1)
            self.cursors[batch.home] = last
        elif put_off := self._put_off_unknown(batch):
            batch = _without(batch, put_off)
        if self._unanswered or self._everywhere:
            self._settle(batch)
        fresh = batch.first_seq or any(not flags & REPEAT for flags in batch.flags[:] or [0] * len(batch.kind))
        if fresh and self._unread is not None:
            self._unread.put(batch)

    def _jump(self, home: int, last: int) -> None:
        """The reports of a home go on after that number; what lies between is lost."""
        cursor = self.cursors.setdefault(home, last)
        if last > cursor:
            if self._unread is not None:
                self._unread.put_lost(home, cursor + 1, last)
            self.cursors[home] = last

    def _settle(self, batch: pb.ReportBatch) -> None:
        """Match answers with commands."""
        pop, everywhere, instruments = self._unanswered.pop, self._everywhere, self.client.instruments
        commands = batch.command[:]
        reports: list[Report] | None = None
        for row, command in enumerate(commands):
            sent = pop(command, None) or everywhere.get(command)
            if sent is None or (sent.marks and not sent.is_due(batch.home)):
                continue
            if sent.answers is not None:
                reports = reports or list(reports_of(batch, instruments))
                sent.answers[batch.home if sent.marks else command] = reports[row]
            sent.answered()
            if sent.marks and sent.done:
                del everywhere[command]
        if self._doubted:
            for command in commands:
                self._doubted.pop(command, None)
                self._put_off.pop(command, None)
                if command in self._asked:
                    self._asked.discard(command)
                    self._back.add(batch.home)
            self._probes.difference_update(commands)
        if not self._probes:
            self._release(self.connects)
        while self._room and len(self._unanswered) <= WINDOW:
            room = self._room.popleft()
            if not room.done():
                room.set_result(None)

    def _put_off_unknown(self, batch: pb.ReportBatch) -> set[int]:
        """The commands of which this does not say what became: they are asked for again, a little later.

        Such are UNKNOWN, and, of a command that may have been had, a refusal on the way: that is of this attempt.
        After `patience_s` the outcome is left unknown.
        """
        now, found = time.monotonic(), set[int]()
        reasons = batch.reason[:] or [0] * len(batch.kind)
        for row, (kind, command, reason) in enumerate(zip(batch.kind, batch.command, reasons, strict=False)):
            on_the_way = kind == REFUSED and reason in _ON_THE_WAY and command in self._doubted
            if command not in self._unanswered or not (kind == UNKNOWN or on_the_way):
                continue
            if now > self._doubted.setdefault(command, _Doubt(now, batch.home)).since + self.client.patience_s:
                if kind != UNKNOWN:
                    batch.kind[row], batch.reason[row] = UNKNOWN, OUTCOME_UNKNOWN
                continue
            self._put_off[command] = batch.home
            self._asked.discard(command)
            self._probes.discard(command)
            found.add(command)
        self._tick()
        return found

    def _tick(self) -> None:
        """See to what is put off in a moment, if something is."""
        if not self._put_off:
            self._ask_in_s = ASK_AGAIN_S[0]
        elif not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(self._ask_in_s, self._ask_again, self.connects)
            self._ask_in_s = min(2 * self._ask_in_s, ASK_AGAIN_S[1])

    def _ask_again(self, connection: int) -> None:
        """Ask each home for one command, and for all that are left once one is settled: also by the end of patience."""
        if connection != self.connects:
            return
        asked_of = {self._put_off[id] for id in self._asked if id in self._put_off}
        again: dict[int, Sent] = {}
        for id, home in self._put_off.items():
            if id not in self._asked and (home not in asked_of or home in self._back):
                again[id] = self._unanswered[id]
                asked_of.add(home)
        self._back.clear()
        self._asked |= again.keys()
        for sent in dict.fromkeys(again.values()):
            self._write_later(sent, again)
        self._ticking = False
        self._tick()

    # Odds and ends

    async def _one(
        self, op: int, id: int, instrument: int, flags: int, price: int, quantity: int, target: int,
        terms: Terms = NO_TERMS,
    ) -> Report:  # fmt: skip
        commands = Commands()
        commands.add(op, whole("client_order_id", id), instrument, flags, price, quantity, target,
                     terms if any(terms) else None)  # fmt: skip
        (report,) = await (await self.submit(commands, answers=True))
        if report.kind == REFUSED:
            raise RefusedError(report.reason, report.detail, report)
        if report.kind == UNKNOWN:
            raise OutcomeUnknownError(report)
        return report

    def _send(self, sent: Sent) -> None:
        if not self._holding:
            self._out.append((sent, sent.message))
            self._wake.set()

    def _write_later(self, sent: Sent, *among: Container[int]) -> None:
        """Queue those commands of a batch once more whose ids are in one of these."""
        keep = [any(id in ids for ids in among) for id in sent.ids]
        if any(keep):
            self._out.append((sent, wrap(write_batch(select(sent.batch(), keep)))))
            self._wake.set()

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._task is None or self._closing:
            state = "is closed" if self._closing else "is not open yet: enter it with `async with`"
            raise SessionClosedError(f"the session {state}")
        if asyncio.get_running_loop() is not self._loop:
            raise SessionClosedError("the session belongs to another event loop")

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._closing:
                self._give_up(SessionClosedError("the session was not closed, and its event loop has ended"))
        elif (error := task.exception()) is not None:
            self._give_up(ClientError(f"the session broke: {error!r}"))

    def _give_up(self, error: ClientError) -> None:
        self._error = error
        self._fail(error)

    def _fail(self, error: ClientError) -> None:
        for sent in [*self._unanswered.values(), *self._everywhere.values()]:
            sent.fail(error)
        for among in (self._unanswered, self._everywhere, self._doubted, self._put_off, self._asked):
            among.clear()
        while self._room:
            room = self._room.popleft()
            if not room.done():
                room.set_exception(error)
        if self._unread is not None:
            self._unread.wake()


def _without(batch: pb.ReportBatch, commands: set[int]) -> pb.ReportBatch:
    """A batch without numbers, without the answers to these commands."""
    rows = [row for row in zip(*report_columns(batch), strict=True) if row[1] not in commands]
    if not rows:
        return pb.ReportBatch(home=batch.home, account=batch.account)
    flat = [value for row in rows for value in row]
    return pb.ReportBatch.FromString(write_reports(batch.home, batch.account, 0, 0, 0, flat))


def _is_cancelled() -> bool:
    """Whether somebody wants the running task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
