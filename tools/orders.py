"""Orders by hand: a command line for people, one call each.

    orders --at 127.0.0.1:5001 --account 7 new ALFA buy 10 100.25 --tif day
    orders --at … --account 7 new ALFA sell 5 --type stop --stop-price 99
    orders --at … --account 7 replace ALFA 1 8 100.50      order 1: 8 in all at 100.50
    orders --at … --account 7 cancel ALFA 1
    orders --at … --account 7 mass-cancel [ALFA]
    orders --at … --account 7 open [ALFA]
    orders --at … --account 7 executions [--follow]
    orders --at … book ALFA [--depth 5]
    orders --at … state ALFA [auction]                     shows it, or, as the operator, changes it

Results are lines of JSON on stdout, complaints go to stderr. A client order id that is not given is taken from
the clock.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import grpc
from google.protobuf.json_format import MessageToDict

from engine.gateway import report_columns
from engine.types import ReportRow
from proto import marketdata_pb2 as md
from proto import marketdata_pb2_grpc as md_grpc
from proto import orders_pb2 as pb
from proto import orders_pb2_grpc as pb_grpc

CALL_S: Final = 5.0
FINE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3


def _named(prefix: str, names: Sequence[str]) -> dict[str, str]:
    """The names of an enum's values, by what people write."""
    return {name.removeprefix(prefix).lower().replace("_", "-"): name for name in names}


TYPES: Final = _named("ORDER_TYPE_", pb.OrderType.keys())
FORCES: Final = _named("TIME_IN_FORCE_", pb.TimeInForce.keys())
MODES: Final = _named("STP_", pb.SelfTradePrevention.keys())
STATES: Final = _named("TRADING_STATE_", pb.TradingState.keys())
MEANINGS: Final = _named("QUANTITY_", pb.QuantityMeaning.keys())


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="orders", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--at", required=True, metavar="HOST:PORT", help="an engine (for `book`, any machine)")
    parser.add_argument("--account", type=int, default=0)
    verbs = parser.add_subparsers(dest="verb", required=True)
    new = verbs.add_parser("new", help="enter an order")
    new.add_argument("symbol")
    new.add_argument("side", choices=("buy", "sell"))
    new.add_argument("quantity")
    new.add_argument("price", nargs="?", default="", help="of a pegged order: its worst")
    new.add_argument("--type", choices=TYPES, default="limit")
    new.add_argument("--tif", choices=FORCES, default="gtc")
    for name in ("--stop-price", "--display", "--minimum", "--offset"):
        new.add_argument(name, default="")
    new.add_argument("--expires-ns", type=int, default=0)
    new.add_argument("--oco", type=int, default=0, help="the client order id of the order it is linked to")
    new.add_argument("--post-only", action="store_true")
    new.add_argument("--all-or-none", action="store_true")
    replace = verbs.add_parser("replace", help="change an order")
    replace.add_argument("symbol")
    replace.add_argument("target", type=int)
    replace.add_argument("quantity")
    replace.add_argument("price")
    replace.add_argument("--meaning", choices=MEANINGS, default="total")
    replace.add_argument("--stop-price", default="")
    cancel = verbs.add_parser("cancel", help="cancel an order")
    cancel.add_argument("symbol")
    cancel.add_argument("target", type=int)
    mass = verbs.add_parser("mass-cancel", help="cancel all, or all of a symbol")
    mass.add_argument("symbol", nargs="?", default="")
    for verb in (new, replace, cancel, mass):
        verb.add_argument("--id", type=int, default=0, help="the client order id of this command")
    for verb in (new, replace):
        verb.add_argument("--stp", choices=MODES, default="cancel-newest")
    live = verbs.add_parser("open", help="the live orders")
    live.add_argument("symbol", nargs="?", default="")
    executions = verbs.add_parser("executions", help="the reports so far")
    executions.add_argument("--follow", action="store_true", help="and those to come")
    book = verbs.add_parser("book", help="what is to be seen of a book")
    book.add_argument("symbol")
    book.add_argument("--depth", type=int, default=10)
    state = verbs.add_parser("state", help="an instrument's trading state")
    state.add_argument("symbol")
    state.add_argument("state", nargs="?", choices=[name for name in STATES if name != "unknown"])
    return parser


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
        case "book" | "state" if args.verb == "book" or not args.state:
            market = md_grpc.MarketDataStub(channel)  # type: ignore[no-untyped-call]
            depth = args.depth if args.verb == "book" else 1
            yield market.GetBook(md.BookRequest(symbol=args.symbol, depth=depth), timeout=CALL_S)
        case _:
            operator = pb_grpc.OperatorStub(channel)  # type: ignore[no-untyped-call]
            yield operator.SetState(pb.SetStateRequest(symbol=args.symbol, state=STATES[args.state]), timeout=CALL_S)


def _executions(orders: Any, args: argparse.Namespace) -> Iterator[Any]:
    """What there is, and with --follow what comes; else until nothing came for a moment."""
    stream = orders.Executions(pb.ExecutionsRequest(account=args.account), timeout=None if args.follow else 1.0)
    try:
        yield from stream
    except grpc.RpcError as e:
        if args.follow or e.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            raise


def lines_of(message: Any) -> Iterator[dict[str, Any]]:
    """A message as JSON will have it; of a batch of reports, each report (prices in ticks, quantities in lots)."""
    if not isinstance(message, pb.ReportBatch):
        yield MessageToDict(message, preserving_proto_field_name=True)
        return
    for row in zip(*report_columns(message), strict=True):
        report = ReportRow(*row)
        named = {"kind": pb.ReportKind.Name(report.kind), "reason": pb.Reason.Name(report.reason)}
        when = {"home": message.home, "position": message.position, "time_ns": message.time_ns}
        yield when | report._asdict() | named


def refused(message: Any) -> bool:
    """Whether an answer says that nothing was done."""
    if isinstance(message, pb.Report):
        return message.kind in (pb.REPORT_REFUSED, pb.REPORT_UNKNOWN)
    return isinstance(message, pb.OperatorReply) and message.reason != pb.REASON_NONE


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 if it was done, 1 if it was refused, 2 for wrong usage, 3 if nobody answers."""
    args = parser().parse_args(argv)
    if not args.account and args.verb not in ("book", "state"):
        print(f"orders: {args.verb} needs --account", file=sys.stderr)
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
        print(f"orders: {args.at}: {e.code().name}: {e.details()}", file=sys.stderr)
        return UNREACHABLE if e.code() is grpc.StatusCode.UNAVAILABLE else REFUSED
    except KeyboardInterrupt:
        return FINE
    return result


if __name__ == "__main__":
    sys.exit(main())
