"""Orders by hand, and the operator's desk: a command line for people, one call each.

Results are lines of JSON on stdout, complaints go to stderr, one line each. A client order id that is not given is
taken from the clock. What a trader sends goes to any engine; what an operator says is brought to the instrument's home,
and a kill switch without a symbol to every engine.
"""

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.json_format import MessageToDict

from engine.entry.guard import BEARER, token_in
from proto import cluster_pb2, cluster_pb2_grpc
from proto import marketdata_pb2 as md
from proto import marketdata_pb2_grpc as md_grpc
from proto import orders_pb2 as pb
from proto import orders_pb2_grpc as pb_grpc
from proto.columns import FLAG_SELL, PRIORITY_KEPT, REPEAT, ReportRow
from proto.dial import Parser, address
from proto.instrument import FIELDS
from proto.orders import liquidity, report_columns

CALL_S: Final = 5.0
SETTLED_S: Final = 1.0  # without --follow, how long to listen
FINE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3

EXAMPLES: Final = """\
examples, with any engine at HOST:PORT:

  a trader
    python -m tools.orders --at HOST:PORT --account 7 new ALFA buy 10 100.25 --tif day
    python -m tools.orders --at HOST:PORT --account 7 new ALFA sell 5 --type stop --stop-price 99
    python -m tools.orders --at HOST:PORT --account 7 replace ALFA 1 8 100.50    order 1: 8 in all, at 100.50
    python -m tools.orders --at HOST:PORT --account 7 cancel ALFA 1
    python -m tools.orders --at HOST:PORT --account 7 mass-cancel                everywhere; or: mass-cancel ALFA
    python -m tools.orders --at HOST:PORT --account 7 open                       the live orders; or: open ALFA
    python -m tools.orders --at HOST:PORT --account 7 executions --follow

  anybody
    python -m tools.orders --at HOST:PORT book ALFA --depth 5
    python -m tools.orders --at HOST:PORT state ALFA                             its trading state and its session

  an operator (--operator-token-file FILE where the engine asks for a token)
    python -m tools.orders --at HOST:PORT state ALFA auction                     pre-open, open, halted, auction, closed
    python -m tools.orders --at HOST:PORT halt ALFA                              and: resume ALFA
    python -m tools.orders --at HOST:PORT --account 7 kill                       everywhere; or, of all: kill ALFA
    python -m tools.orders --at HOST:PORT --account 7 unkill
    python -m tools.orders --at HOST:PORT bust ALFA 12                           trade 12 is void
    python -m tools.orders --at HOST:PORT correct ALFA 12 5 100.25               it was 5 at 100.25
    python -m tools.orders --at HOST:PORT roll ALFA                              a new day, when it is closed
    python -m tools.orders --at HOST:PORT add-instrument GOLD 99 --tick 0.05 --lot 10 --price-min 1 --price-max 500
    python -m tools.orders --at HOST:PORT delist GOLD                            --here: by this engine, not by its home

"""


def _named(prefix: str, names: Sequence[str]) -> dict[str, str]:
    """The names of an enum's values, by what people write."""
    return {name.removeprefix(prefix).lower().replace("_", "-"): name for name in names}


TYPES: Final = _named("ORDER_TYPE_", pb.OrderType.keys())
FORCES: Final = _named("TIME_IN_FORCE_", pb.TimeInForce.keys())
MODES: Final = _named("STP_", pb.SelfTradePrevention.keys())
STATES: Final = _named("TRADING_STATE_", pb.TradingState.keys())
MEANINGS: Final = _named("QUANTITY_", pb.QuantityMeaning.keys())

OF_ACCOUNT: Final = ("new", "replace", "cancel", "mass-cancel", "open", "executions")
OF_OPERATOR: Final = ("halt", "resume", "kill", "unkill", "bust", "correct", "roll", "add-instrument", "delist")


def number(text: str) -> int:
    """A whole number of 64 bits, without a sign."""
    if not re.fullmatch("[0-9]{1,20}", text) or int(text) >= 1 << 64:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 to 2^64 - 1")
    return int(text)


def small(text: str) -> int:
    """A whole number of 32 bits, without a sign."""
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 to 2^32 - 1")
    return int(text)


def decimal(text: str) -> str:
    """A decimal number, which goes on its way as it is: only the engine knows ticks and lots."""
    if text and not re.fullmatch(r"[+-]?[0-9]{1,24}([.][0-9]{1,24})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a decimal number")
    return text


def symbol(text: str) -> str:
    if text and not re.fullmatch("[A-Z0-9._-]{1,16}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a symbol: 1 to 16 of A-Z 0-9 . _ -")
    return text


def ticks(text: str) -> int:
    """A whole number of 63 bits, of either sign."""
    if not re.fullmatch("-?[0-9]{1,18}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of ticks")
    return int(text)


def token(path: str) -> str:
    try:
        return token_in(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise argparse.ArgumentTypeError(f"{path}: {e}") from e


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.orders", description="Orders by hand, and the operator's desk.", examples=EXAMPLES
    )
    parser.add_argument(
        "--at", type=address, required=True, metavar="HOST:PORT", help="an engine, or, to look, any machine"
    )
    parser.add_argument(
        "--account", type=number, default=0, metavar="N", help="whose orders; of kill and unkill: 0 is all"
    )
    parser.add_argument(
        "--operator-token-file", type=token, metavar="FILE", dest="token", help="what makes an operator"
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _trading(verbs)
    _looking(verbs)
    _operating(verbs)
    return parser


def _trading(verbs: Any) -> None:
    new = verbs.add_parser("new", help="enter an order")
    new.add_argument("symbol", type=symbol)
    new.add_argument("side", choices=("buy", "sell"))
    new.add_argument("quantity", type=decimal)
    new.add_argument("price", type=decimal, nargs="?", default="", help="of a pegged order: its worst")
    new.add_argument("--type", choices=TYPES, default="limit")
    new.add_argument("--tif", choices=FORCES, default="gtc")
    for name in ("--stop-price", "--display", "--minimum", "--offset"):
        new.add_argument(name, type=decimal, default="")
    new.add_argument("--expires-ns", type=number, default=0)
    new.add_argument("--oco", type=number, default=0, help="the client order id of the order it is linked to")
    new.add_argument("--post-only", action="store_true")
    new.add_argument("--all-or-none", action="store_true")
    replace = verbs.add_parser("replace", help="change an order")
    replace.add_argument("symbol", type=symbol)
    replace.add_argument("target", type=number)
    replace.add_argument("quantity", type=decimal)
    replace.add_argument("price", type=decimal, nargs="?", default="", help="not of a stop, which has --stop-price")
    replace.add_argument("--meaning", choices=MEANINGS, default="total")
    replace.add_argument("--stop-price", type=decimal, default="")
    cancel = verbs.add_parser("cancel", help="cancel an order")
    cancel.add_argument("symbol", type=symbol)
    cancel.add_argument("target", type=number)
    mass = verbs.add_parser("mass-cancel", help="cancel all, or all of a symbol")
    mass.add_argument("symbol", type=symbol, nargs="?", default="")
    for verb in (new, replace, cancel, mass):
        verb.add_argument("--id", type=number, default=0, help="the client order id of this command")
    for verb in (new, replace):
        verb.add_argument("--stp", choices=MODES, default="cancel-newest")


def _looking(verbs: Any) -> None:
    live = verbs.add_parser("open", help="the live orders")
    live.add_argument("symbol", type=symbol, nargs="?", default="")
    executions = verbs.add_parser("executions", help="the reports so far, in ticks and lots")
    executions.add_argument("--follow", action="store_true", help="and those to come")
    book = verbs.add_parser("book", help="what is to be seen of a book")
    book.add_argument("symbol", type=symbol)
    book.add_argument("--depth", type=small, default=10)
    state = verbs.add_parser("state", help="an instrument's trading state and session; with a state: set it")
    state.add_argument("symbol", type=symbol)
    state.add_argument("state", nargs="?", choices=[name for name in STATES if name != "unknown"])


def _operating(verbs: Any) -> None:
    for name, what in (("halt", "halt trading"), ("resume", "open it again"), ("roll", "begin a new day")):
        verbs.add_parser(name, help=what).add_argument("symbol", type=symbol)
    delist = verbs.add_parser("delist", help="cancel everything and trade it no more")
    delist.add_argument("symbol", type=symbol)
    delist.add_argument("--here", action="store_true", help="by the engine at --at, where another has the symbol, too")
    for name, what in (("kill", "cancel and refuse the orders of --account, or of all"), ("unkill", "lift it again")):
        kill = verbs.add_parser(name, help=what)
        kill.add_argument("symbol", type=symbol, nargs="?", default="")
        kill.add_argument("--all", action="store_true", help="everybody's, everywhere")
    bust = verbs.add_parser("bust", help="declare a trade void")
    correct = verbs.add_parser("correct", help="declare what a trade was instead")
    for verb in (bust, correct):
        verb.add_argument("symbol", type=symbol)
        verb.add_argument("trade", type=number)
    correct.add_argument("quantity", type=decimal)
    correct.add_argument("price", type=decimal)
    add = verbs.add_parser("add-instrument", help="begin to trade an instrument on the engine at --at")
    add.add_argument("symbol", type=symbol)
    add.add_argument("id", type=small)
    for name in ("tick", "lot"):
        add.add_argument(f"--{name}", dest=f"{name}_size", type=decimal, required=True, metavar="SIZE")
    for name in ("--price-min", "--price-max"):
        add.add_argument(name, type=ticks, required=True, metavar="TICKS")
    add.add_argument("--channel", type=small, default=1)
    for name in ("--quantity-max", "--notional-max", "--collar", "--band"):
        add.add_argument(name, type=number, default=0)
    add.add_argument("--allocation", choices=("fifo", "pro-rata"), default="fifo")
    add.add_argument("--auction-reference", type=ticks, default=0, metavar="TICKS")
    add.add_argument("--state", choices=[name for name in STATES if name != "unknown"], default="open")


def answers(args: argparse.Namespace, channel: grpc.Channel) -> Iterator[Any]:
    """The messages that answer what was asked. Raises: grpc.RpcError."""
    orders = pb_grpc.OrdersStub(channel)  # type: ignore[no-untyped-call]
    own = {"account": args.account, "client_order_id": getattr(args, "id", 0) or time.time_ns()}
    match args.verb:
        case "new":
            yield orders.NewOrder(
                pb.NewOrderRequest(
                    **own, symbol=args.symbol, side=pb.SIDE_SELL if args.side == "sell" else pb.SIDE_BUY,
                    type=TYPES[args.type], time_in_force=FORCES[args.tif], price=args.price, quantity=args.quantity,
                    post_only=args.post_only, self_trade_prevention=MODES[args.stp], stop_price=args.stop_price,
                    display=args.display, minimum=args.minimum, all_or_none=args.all_or_none,
                    expires_ns=args.expires_ns, offset=args.offset, oco=args.oco,
                ),
                timeout=CALL_S,
            )  # fmt: skip
        case "replace":
            yield orders.ReplaceOrder(
                pb.ReplaceOrderRequest(
                    **own, symbol=args.symbol, target=args.target, price=args.price, quantity=args.quantity,
                    meaning=MEANINGS[args.meaning], self_trade_prevention=MODES[args.stp], stop_price=args.stop_price,
                ),
                timeout=CALL_S,
            )  # fmt: skip
        case "cancel":
            request = pb.CancelOrderRequest(**own, symbol=args.symbol, target=args.target)
            yield orders.CancelOrder(request, timeout=CALL_S)
        case "mass-cancel":
            yield orders.MassCancel(pb.MassCancelRequest(**own, symbol=args.symbol), timeout=CALL_S)
        case "open":
            yield orders.OpenOrders(pb.OpenOrdersRequest(account=args.account, symbol=args.symbol), timeout=CALL_S)
        case "executions":
            yield from _executions(orders, args)
        case "book":
            yield _book(channel, args, args.depth)
        case "state" if not args.state:
            book = _book(channel, args, 1)
            for side in ("bids", "asks"):
                book.ClearField(side)
            yield book
        case _:
            yield from _operated(channel, args)


def _book(channel: grpc.Channel, args: argparse.Namespace, depth: int) -> Any:
    """As this machine has it; an engine has its own only, but knows whose the others are."""
    try:
        return _book_at(channel, args.symbol, depth)
    except grpc.RpcError as e:
        if e.code() is not grpc.StatusCode.NOT_FOUND:
            raise
        home = _homes(channel, args.symbol, args.at)[0]
        if home == args.at:
            raise
    with grpc.insecure_channel(home) as there:
        return _book_at(there, args.symbol, depth)


def _book_at(channel: grpc.Channel, symbol: str, depth: int) -> Any:
    market = md_grpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
    return market.GetBook(md.BookRequest(symbol=symbol, depth=depth), timeout=CALL_S)


def _operated(channel: grpc.Channel, args: argparse.Namespace) -> Iterator[pb.OperatorReply]:
    """What the home of the instrument answers, or every engine if it is about none; one that is down stops no other."""
    name, request = _asked_of_operator(args)
    here = args.verb == "add-instrument" or getattr(args, "here", False)
    targets = [args.at] if here else _homes(channel, args.symbol, args.at)
    metadata = [("authorization", BEARER + args.token)] if args.token else None
    for target in targets:
        with grpc.insecure_channel(target) as home:
            operator = pb_grpc.OperatorStub(home)  # type: ignore[no-untyped-call]
            try:
                yield getattr(operator, name)(request, timeout=CALL_S, metadata=metadata)
            except grpc.RpcError as e:
                if len(targets) == 1:
                    raise
                yield pb.OperatorReply(reason=pb.REASON_UNAVAILABLE, detail=f"{target}: {complaint(e)}")


def _asked_of_operator(args: argparse.Namespace) -> tuple[str, Any]:
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
        case "delist":
            return "Delist", pb.DelistRequest(symbol=args.symbol)
    said: dict[str, Any] = {name: getattr(args, name) for name in FIELDS if name in args}
    return "AddInstrument", pb.AddInstrumentRequest(**said)


def _homes(channel: grpc.Channel, symbol: str, at: str) -> list[str]:
    """Where the engine of that symbol is, or, without one, every engine; the machine itself if nobody knows."""
    directory = cluster_pb2_grpc.DirectoryStub(channel)  # type: ignore[no-untyped-call]
    found = directory.Exchange(cluster_pb2.DirectoryEntries(), timeout=CALL_S).entries
    engines = [entry for entry in found if not entry.fabric and not entry.left]
    if symbol:
        engines = [entry for entry in engines if symbol in [listed.symbol for listed in entry.instruments]]
    return [entry.grpc for entry in engines] or [at]


def _executions(orders: Any, args: argparse.Namespace) -> Iterator[Any]:
    """What there is, and with --follow what comes; else until nothing came for a moment."""
    stream = orders.Executions(pb.ExecutionsRequest(account=args.account), timeout=None if args.follow else SETTLED_S)
    try:
        yield from stream
    except grpc.RpcError as e:
        if args.follow or e.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise


def lines_of(message: Any) -> Iterator[dict[str, Any]]:
    """A message as JSON will have it; of a batch of reports, each report (prices in ticks, quantities in lots)."""
    if not isinstance(message, pb.ReportBatch):
        yield _sided(MessageToDict(message, preserving_proto_field_name=True))
        return
    for i, row in enumerate(zip(*report_columns(message), strict=True)):
        report = ReportRow(*row)
        told = {"home": message.home, "seq": message.first_seq and message.first_seq + i}
        told |= {"position": message.position, "time_ns": message.time_ns} | report._asdict()
        flags = told.pop("flags")
        yield told | {
            "kind": pb.ReportKind.Name(report.kind),
            "reason": pb.Reason.Name(report.reason),
            "side": pb.Side.Name(flags & FLAG_SELL),
            "liquidity": pb.Liquidity.Name(liquidity(report)),
            "priority_kept": bool(flags & PRIORITY_KEPT),
            "repeat": bool(flags & REPEAT),
        }


def _sided(told: dict[str, Any]) -> dict[str, Any]:
    """With the side of what is bought, too, which JSON leaves out as the first name of its enum."""
    for parts in told.values():
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict):
                _sided(part)
    if "order_id" in told:
        told.setdefault("side", pb.Side.Name(pb.SIDE_BUY))
    return told


def refused(message: Any) -> bool:
    """Whether an answer says that something was not done."""
    if isinstance(message, pb.MassCancelReply):
        return bool(message.engines_missing) or any(map(refused, message.reports))
    if isinstance(message, pb.OpenOrdersReply):
        return bool(message.engines_missing)
    if isinstance(message, pb.Report):
        return message.kind in (pb.REPORT_REFUSED, pb.REPORT_UNKNOWN)
    return isinstance(message, pb.OperatorReply) and message.reason != pb.REASON_NONE


NOBODY: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def wanting(args: argparse.Namespace) -> str:
    """What is missing in what was asked, if anything."""
    if args.verb in OF_ACCOUNT and not args.account:
        return f"{args.verb} needs --account"
    if args.verb in ("kill", "unkill") and not (args.account or args.symbol or args.all):
        return f"{args.verb} needs --account, a symbol, or --all"
    if args.verb in ("kill", "unkill") and args.all and (args.account or args.symbol):
        return f"{args.verb} --all is about every account and symbol"
    return ""


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 if it was done, 1 if it was refused, 2 for wrong usage, 3 if nobody answers."""
    try:
        args = parser().parse_args(argv)
    except SystemExit as e:
        return int(e.code or FINE)
    if missing := wanting(args):
        print(f"orders: {missing}", file=sys.stderr)
        return USAGE
    result = FINE
    try:
        with grpc.insecure_channel(args.at) as channel:
            for message in answers(args, channel):
                for line in lines_of(message):
                    print(json.dumps(line), flush=True)
                if refused(message):
                    result = REFUSED
    except grpc.RpcError as e:
        print(f"orders: {args.at}: {complaint(e)}", file=sys.stderr)
        return UNREACHABLE if e.code() in NOBODY else REFUSED
    except KeyboardInterrupt:
        return FINE
    return result


def complaint(error: Any) -> str:
    """Why a call failed, in one line."""
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return "this machine does not do that: is it an engine?"
    return f"{error.code().name}: {' '.join((error.details() or '').split())}"


if __name__ == "__main__":
    sys.exit(main())
