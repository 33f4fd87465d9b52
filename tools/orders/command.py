"""Orders by hand, and what an operator may say: what is asked of the venue, and the exit code.

Any machine's address will do. A trader's calls go to an engine, which passes them on; what an operator says is brought
to the instrument's home, and a kill switch without a symbol to every engine: the directory says where they are. A
client order id that is not given is taken from the clock.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc

from engine.client import Client, ClientError, IncompleteError, SessionError, UnreachableError
from proto import marketdata_pb2 as md
from proto import marketdata_pb2_grpc as md_grpc
from proto import orders_pb2 as pb
from proto import orders_pb2_grpc as pb_grpc
from proto.columns import Terms
from proto.connect import channel
from proto.dial import BEARER
from proto.instrument import FIELDS
from tools.orders import show
from tools.orders.options import FORCES, MEANINGS, MODES, STATES, TYPES, limits, parser, wanting

CALL_S: Final = 5.0
REPLY_MAX: Final = 64 << 20  # bytes of an answer
FINE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
NOBODY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class Question:
    """One question to the venue, and what it answers."""

    def __init__(self, args: argparse.Namespace, printer: show.Printer) -> None:
        self.args = args
        self.wrong: list[str] = []  # what was refused, or is missing
        self._printer = printer
        self._client = Client(args.at, args.account)
        self._id = getattr(args, "id", 0) or time.time_ns()

    async def ask(self) -> None:
        """Ask, and print the answer. Raises: grpc.RpcError, ClientError, OSError where it cannot be printed."""
        match self.args.verb:
            case "new" | "replace" | "cancel" | "mass-cancel":
                await self._order()
            case "open":
                await self._open()
            case "executions":
                await self._executions()
            case "instruments":
                await self._client.find()
                listed = {instrument.id: instrument for instrument in self._client.instruments.values()}
                self._printer.rows(map(show.of_instrument, listed.values()), show.INSTRUMENTS)
            case "book":
                await self._book()
            case "state" if not self.args.state:
                self._facts(show.of_state(await self._book_of(1)))
            case _:
                await self._operate()

    # A trader

    async def _order(self) -> None:
        method, request = asked_of_engine(self.args, self._id)
        try:
            reply = await self._client.call(method, request)
        except SessionError as e:
            if e.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise
            raise UnreachableError(f"no answer in time: the same again with --id {self._id} has one effect") from e
        if method == "MassCancel":
            answers = pb.MassCancelReply.FromString(reply)
            self._print([line for report in answers.reports for line in show.of_answer(report)], show.REPORTS)
            self._missing(answers.engines_missing)
        else:
            self._print(show.of_answer(pb.Report.FromString(reply)), show.REPORTS)

    async def _open(self) -> None:
        reply = await self._client.open_orders(self.args.symbol or "")
        self._printer.rows(map(show.of_order, reply.orders), show.ORDERS)
        self._missing(reply.engines_missing)

    async def _executions(self) -> None:
        executions = self._client.executions(follow=self.args.follow)
        try:
            async for report in executions:
                self._printer.rows([show.of_report(report)], show.REPORTS)
                while self.args.follow and executions.missing:
                    complain(executions.missing.pop(0))
        except IncompleteError as e:
            self.wrong.append(str(e))

    # Anybody

    async def _book(self) -> None:
        book = show.of_book(await self._book_of(self.args.depth))
        if not self._printer.table:
            self._printer.rows([book], show.LEVELS)
            return
        last = f", last {book['last_quantity']} @ {book['last_price']}" if "last_price" in book else ""
        print(f"{book['symbol']} {book['trading_state']}, {book['book']} at {book['sequence']:,}{last}")
        self._printer.rows(show.levels_of(book), show.LEVELS)

    async def _book_of(self, depth: int) -> md.Book:
        """As this machine has it; an engine has its own only, but knows whose the others are."""
        try:
            return await self._book_at(self.args.at, depth)
        except grpc.aio.AioRpcError as e:
            if e.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            home = (await self._homes())[0]
            self._client.instrument(self.args.symbol)  # if nobody has it, that is the answer
            if home == self.args.at:
                raise
        return await self._book_at(home, depth)

    async def _book_at(self, target: str, depth: int) -> md.Book:
        async with channel(target, reply_max=REPLY_MAX) as there:
            market = md_grpc.MarketDataStub(there)  # type: ignore[no-untyped-call]
            book: md.Book = await market.GetBook(md.BookRequest(symbol=self.args.symbol, depth=depth), timeout=CALL_S)
            return book

    # An operator

    async def _operate(self) -> None:
        """What the instrument's home answers, or every engine if it is about none; one that is down stops no other."""
        here = self.args.verb in ("add-instrument", "clock-ok") or getattr(self.args, "here", False)
        targets = [await self._client.find()] if here else await self._homes()
        for target in targets:
            try:
                reply = await self._operated(target)
            except grpc.aio.AioRpcError as e:
                if len(targets) == 1:
                    raise
                reply = pb.OperatorReply(reason=pb.REASON_UNAVAILABLE, detail=f"{target}: {complaint(e)}")
            self._print([show.of_reply(reply)], show.REPLIES)

    async def _operated(self, target: str) -> pb.OperatorReply:
        name, request = asked_of_operator(self.args)
        metadata = [("authorization", BEARER + self.args.token)] if self.args.token else None
        async with channel(target) as there:
            operator = pb_grpc.OperatorStub(there)  # type: ignore[no-untyped-call]
            reply: pb.OperatorReply = await getattr(operator, name)(request, timeout=CALL_S, metadata=metadata)
            return reply

    async def _homes(self) -> list[str]:
        """Where the engine of the symbol is, or, without one, every engine; the nearest if nobody knows."""
        nearest = await self._client.find()
        known = self._client.instruments.get(self.args.symbol) if self.args.symbol else None
        if known is not None:
            return [self._client.endpoints.get(known.engine, nearest)]
        return [nearest] if self.args.symbol else list(self._client.endpoints.values()) or [nearest]

    # What is said

    def _print(self, lines: list[show.Line], columns: dict[str, int]) -> None:
        self._printer.rows(lines, columns)
        self.wrong += [said for line in lines if (said := show.refusal(line))]

    def _facts(self, line: show.Line) -> None:
        self._printer.rows(show.facts(line) if self._printer.table else [line], show.FACTS)

    def _missing(self, engines: Sequence[int]) -> None:
        self.wrong += [f"engine {engine} does not answer: what it has is not here" for engine in engines]


def asked_of_engine(args: argparse.Namespace, id: int) -> tuple[str, Any]:
    """A trader's call, and what it says."""
    own = {"account": args.account, "client_order_id": id, "symbol": args.symbol}
    match args.verb:
        case "new":
            return "NewOrder", pb.NewOrderRequest(
                **own, side=pb.SIDE_SELL if args.side == "sell" else pb.SIDE_BUY, type=TYPES[args.type],
                time_in_force=FORCES[args.tif], price=args.price, quantity=args.quantity, post_only=args.post_only,
                self_trade_prevention=MODES[args.stp], all_or_none=args.all_or_none,
                **{name: getattr(args, name) for name in Terms._fields},
            )  # fmt: skip
        case "replace":
            return "ReplaceOrder", pb.ReplaceOrderRequest(
                **own, target=args.target, price=args.price, quantity=args.quantity, meaning=MEANINGS[args.meaning],
                self_trade_prevention=MODES[args.stp], stop_price=args.stop_price,
            )  # fmt: skip
        case "cancel":
            return "CancelOrder", pb.CancelOrderRequest(**own, target=args.target)
    return "MassCancel", pb.MassCancelRequest(**own)


def asked_of_operator(args: argparse.Namespace) -> tuple[str, Any]:
    """The call, and what it says."""
    match args.verb:
        case "state":
            return "SetState", pb.SetStateRequest(symbol=args.symbol, state=STATES[args.state])
        case "halt":
            return "SetState", pb.SetStateRequest(symbol=args.symbol, state=pb.TRADING_STATE_HALTED)
        case "resume":
            return "SetState", pb.SetStateRequest(symbol=args.symbol, state=pb.TRADING_STATE_OPEN)
        case "kill" | "unkill":
            return "Kill", pb.KillRequest(account=args.account, symbol=args.symbol, lift=args.verb == "unkill")
        case "bust":
            return "BustTrade", pb.BustTradeRequest(symbol=args.symbol, trade_id=args.trade)
        case "correct":
            return "CorrectTrade", pb.CorrectTradeRequest(
                symbol=args.symbol, trade_id=args.trade, price=args.price, quantity=args.quantity
            )
        case "roll":
            return "Roll", pb.RollRequest(symbol=args.symbol)
        case "clock-ok":
            return "ConfirmClock", pb.ConfirmClockRequest()
        case "delist":
            return "Delist", pb.DelistRequest(symbol=args.symbol)
    said: dict[str, Any] = {name: getattr(args, name) for name in FIELDS if name != "engine"}
    return "AddInstrument", pb.AddInstrumentRequest(**said | limits(args))


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 if it was done, 1 if it was refused or a list is not whole, 2 for wrong usage, 3 if nobody answers."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as e:
        return int(e.code or FINE)
    if missing := wanting(args):
        complain(missing)
        return USAGE
    question = Question(args, show.Printer(sys.stdout, table=sys.stdout.isatty() and not args.json))
    try:
        asyncio.run(question.ask())
    except UnreachableError as e:
        complain(str(e))
        return UNREACHABLE
    except ClientError as e:
        complain(str(e))
        return UNREACHABLE if isinstance(e, SessionError) and e.code in NOBODY else REFUSED
    except grpc.aio.AioRpcError as e:
        complain(f"{args.at}: {complaint(e)}")
        return UNREACHABLE if e.code() in NOBODY else REFUSED
    except KeyboardInterrupt:
        if not getattr(args, "follow", False):
            raise
    for said in question.wrong:
        complain(said)
    return REFUSED if question.wrong else FINE


def complain(said: str) -> None:
    print(f"orders: {said}", file=sys.stderr)


def complaint(error: grpc.aio.AioRpcError) -> str:
    """Why a call failed, in one line."""
    return f"{error.code().name}: {' '.join((error.details() or '').split())}"
