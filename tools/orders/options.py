"""What may be said on the command line of orders, and what is wrong with it."""

import argparse
import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

from proto import orders_pb2 as pb
from proto.dial import AT, Parser, UsageError, default_address, operator_token, target, whole
from proto.feed import SIZE, SYMBOL
from proto.instrument import NOTIONAL_MAX
from proto.orders import BadValueError, lots_of, ticks_of

EXAMPLES: Final = """\
examples, with any machine of the venue at HOST:PORT (or its address in LOBMESH_AT, and no --at):

  a trader
    python -m tools.orders --at HOST:PORT --account 7 new ALFA buy 10 100.25 --tif day --id 1
    python -m tools.orders --at HOST:PORT --account 7 new ALFA sell 5 --type stop --stop-price 99
    python -m tools.orders --at HOST:PORT --account 7 replace ALFA 1 8 100.50    order 1: 8 in all, at 100.50
    python -m tools.orders --at HOST:PORT --account 7 cancel ALFA 1
    python -m tools.orders --at HOST:PORT --account 7 mass-cancel                everywhere; or: mass-cancel ALFA
    python -m tools.orders --at HOST:PORT --account 7 open                       the live orders; or: open ALFA
    python -m tools.orders --at HOST:PORT --account 7 executions --follow        the reports so far, and those to come

  anybody
    python -m tools.orders --at HOST:PORT instruments                            what is traded, and within which limits
    python -m tools.orders --at HOST:PORT book ALFA --depth 5
    python -m tools.orders --at HOST:PORT state ALFA                             its trading state and its session

  an operator (--operator-token-file FILE where the engine asks for a token)
    python -m tools.orders --at HOST:PORT state ALFA auction                     pre-open, open, halted, auction, closed
    python -m tools.orders --at HOST:PORT halt ALFA                              and: resume ALFA
    python -m tools.orders --at HOST:PORT --account 7 kill                       everywhere; kill ALFA: there only
    python -m tools.orders --at HOST:PORT --account 7 unkill
    python -m tools.orders --at HOST:PORT bust ALFA 12                           trade 12 is void
    python -m tools.orders --at HOST:PORT correct ALFA 12 5 100.25               it was 5 at 100.25
    python -m tools.orders --at HOST:PORT roll ALFA                              a new day, when it is closed
    python -m tools.orders --at HOST:PORT add-instrument GOLD 99 --tick 0.05 --lot 10 --price-min 1 --price-max 500
    python -m tools.orders --at HOST:PORT delist GOLD                            --here: by this engine, not by its home
    python -m tools.orders --at HOST:PORT clock-ok                               its clock jumped, and is right

An order is known by its client order id: the --id it was entered with, or else one from the clock, which the answer
tells. All prices are in units of price, all quantities in units, limits too: 100.25, not 10,025 ticks. On a terminal
the answers are a table, otherwise, and with --json, a JSON object a line. A list that is not whole says so, and exits
1. What the types, times in force and modes do: engine/RULES.md.

exit codes: 0 it is done; 1 it was refused, or a list is not whole; 2 wrong usage; 3 nobody answers

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


number, small, time_ns = whole(0, (1 << 64) - 1), whole(0, (1 << 32) - 1), whole(0, (1 << 63) - 1)


def decimal(text: str) -> str:
    """A decimal number, which goes on its way as it is: only the engine knows ticks and lots."""
    if not re.fullmatch(r"[+-]?[0-9]{1,24}([.][0-9]{1,24})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a decimal number")
    return text


def symbol(text: str) -> str:
    if not SYMBOL.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a symbol: 1 to 16 of A-Z 0-9 . _ -")
    return text


def size(text: str) -> str:
    """What a tick or a lot is."""
    if not SIZE.fullmatch(text) or not Decimal(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: a decimal above 0, at most 12 digits either side")
    return text


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m tools.orders", description="Orders by hand, and the operator's desk.", examples=EXAMPLES
    )
    parser.add_argument(
        "--at",
        type=target,
        default=default_address() or None,
        metavar="HOST:PORT",
        help=f"any machine of the venue; without it, the one in {AT}",
    )
    parser.add_argument(
        "--account", type=number, default=0, metavar="N", help="whose orders; of kill and unkill: 0 is all"
    )
    parser.add_argument(
        "--operator-token-file", type=operator_token, metavar="FILE", dest="token", help="what makes an operator"
    )
    parser.add_argument("--json", action="store_true", help="JSON on a terminal, too")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    _trading(verbs)
    _looking(verbs)
    _operating(verbs)
    return parser


_TARGET: Final = "which order: the id it was entered with"


def _trading(verbs: Any) -> None:
    new = verbs.add_parser("new", help="enter an order")
    new.add_argument("symbol", type=symbol)
    new.add_argument("side", choices=("buy", "sell"))
    new.add_argument("quantity", type=decimal)
    new.add_argument("price", type=decimal, nargs="?", default=None, help="of a pegged order: its worst")
    new.add_argument("--type", choices=TYPES, default="limit", help="default limit")
    new.add_argument("--tif", choices=FORCES, default="gtc", help="time in force; default gtc: until canceled")
    for name, metavar, meaning in (
        ("--stop-price", "PRICE", "a stop: the last trade that sets it off"),
        ("--display", "QUANTITY", "an iceberg: what is shown at a time"),
        ("--minimum", "QUANTITY", "it trades so much at first, or waits"),
        ("--offset", "PRICE", "a peg: how far from what it follows"),
    ):
        new.add_argument(name, type=decimal, default=None, metavar=metavar, help=meaning)
    new.add_argument(
        "--expires-ns", type=time_ns, default=0, metavar="TIME", help="of --tif gtd: nanoseconds since 1970, UTC"
    )
    new.add_argument(
        "--oco", type=number, default=0, metavar="ID", help="one cancels the other: the id of the order it is linked to"
    )
    new.add_argument("--post-only", action="store_true", help="refused if it would trade at once")
    new.add_argument("--all-or-none", action="store_true", help="it trades whole, or waits")
    replace = verbs.add_parser("replace", help="change an order")
    replace.add_argument("symbol", type=symbol)
    replace.add_argument("target", type=number, help=_TARGET)
    replace.add_argument("quantity", type=decimal)
    replace.add_argument("price", type=decimal, nargs="?", default=None, help="not of a stop, which has --stop-price")
    replace.add_argument(
        "--meaning",
        choices=MEANINGS,
        default="total",
        help="what the quantity is: all with what is filled, what is left, how much less",
    )
    replace.add_argument("--stop-price", type=decimal, default=None, metavar="PRICE", help="of a stop")
    cancel = verbs.add_parser("cancel", help="cancel an order")
    cancel.add_argument("symbol", type=symbol)
    cancel.add_argument("target", type=number, help=_TARGET)
    mass = verbs.add_parser("mass-cancel", help="cancel all, or all of a symbol")
    mass.add_argument("symbol", type=symbol, nargs="?", default=None)
    for verb in (new, replace, cancel, mass):
        verb.add_argument(
            "--id", type=number, default=0, help="the client order id of this command; else one from the clock"
        )
    for verb in (new, replace):
        verb.add_argument(
            "--stp", choices=MODES, default="cancel-newest", help="what if it meets an order of its own account"
        )


def _looking(verbs: Any) -> None:
    live = verbs.add_parser("open", help="the live orders")
    live.add_argument("symbol", type=symbol, nargs="?", default=None)
    executions = verbs.add_parser("executions", help="the reports so far")
    executions.add_argument("--follow", action="store_true", help="and those to come")
    verbs.add_parser("instruments", help="what is traded, where, and within which limits")
    book = verbs.add_parser("book", help="what is to be seen of a book")
    book.add_argument("symbol", type=symbol)
    book.add_argument("--depth", type=small, default=10)
    state = verbs.add_parser("state", help="an instrument's trading state and session; with a state: set it")
    state.add_argument("symbol", type=symbol)
    state.add_argument("state", nargs="?", choices=[name for name in STATES if name != "unknown"])


def _operating(verbs: Any) -> None:
    for name, what in (("halt", "halt trading"), ("resume", "open it again"), ("roll", "begin a new day")):
        verbs.add_parser(name, help=what).add_argument("symbol", type=symbol)
    verbs.add_parser("clock-ok", help="the clock of the engine at --at is right, though it jumped")
    delist = verbs.add_parser("delist", help="cancel everything and trade it no more")
    delist.add_argument("symbol", type=symbol)
    delist.add_argument("--here", action="store_true", help="by the engine at --at, where another has the symbol, too")
    for name, what in (("kill", "cancel and refuse the orders of --account, or of all"), ("unkill", "lift it again")):
        kill = verbs.add_parser(name, help=what)
        kill.add_argument("symbol", type=symbol, nargs="?", default=None)
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
        add.add_argument(f"--{name}", dest=f"{name}_size", type=size, required=True, metavar="SIZE")
    for name in ("--price-min", "--price-max"):
        add.add_argument(name, type=decimal, required=True, metavar="PRICE")
    add.add_argument("--channel", type=small, default=1)
    add.add_argument("--quantity-max", type=decimal, default="0", help="an order's largest; 0: any")
    add.add_argument(
        "--notional-max", type=decimal, default="0", help="an order's largest price times quantity; 0: any"
    )
    add.add_argument(
        "--collar", type=decimal, default="0", help="how far a market order may go, in units of price; 0: any"
    )
    add.add_argument("--band", type=decimal, default="0", help="how far a trade may be from the reference; 0: any")
    add.add_argument("--allocation", choices=("fifo", "pro-rata"), default="fifo")
    add.add_argument("--auction-reference", type=decimal, default="0", metavar="PRICE")
    add.add_argument("--state", choices=[name for name in STATES if name != "unknown"], default="open")


def limits(args: argparse.Namespace) -> dict[str, int]:
    """An instrument's limits in ticks and lots, as the engine takes them. Raises: UsageError."""
    tick, lot = Decimal(args.tick_size), Decimal(args.lot_size)
    found: dict[str, int] = {}
    try:
        for name in ("price_min", "price_max", "collar", "band", "auction_reference"):
            found[name] = ticks_of(getattr(args, name), tick)
        found["quantity_max"] = lots_of(args.quantity_max, lot) if Decimal(args.quantity_max) else 0
    except BadValueError as e:
        raise UsageError(f"add-instrument: {e}") from e
    found["notional_max"] = int(Decimal(args.notional_max) / (tick * lot))
    if found["notional_max"] > NOTIONAL_MAX or found["notional_max"] * tick * lot != Decimal(args.notional_max):
        step = f"{tick * lot:f}"
        raise UsageError(
            f"add-instrument: --notional-max {args.notional_max} is not a multiple of {step}, or too large"
        )
    low, reference, high = (found[name] for name in ("price_min", "auction_reference", "price_max"))
    if low > high:
        raise UsageError(f"add-instrument: --price-min {args.price_min} is above --price-max {args.price_max}")
    if (found["band"] or reference) and not low <= reference <= high:
        raise UsageError("add-instrument: --auction-reference is not within the price limits, as a --band needs it")
    if min(found["collar"], found["band"], found["notional_max"]) < 0:
        raise UsageError("add-instrument: --collar, --band and --notional-max are not below 0")
    return found


def wanting(args: argparse.Namespace) -> str:
    """What is missing in what was asked, if anything."""
    if not args.at:
        return f"which machine? --at HOST:PORT, or its address in {AT}"
    if args.verb in OF_ACCOUNT and not args.account:
        return f"{args.verb} needs --account"
    if args.verb in ("kill", "unkill") and not (args.account or args.symbol or args.all):
        return f"{args.verb} needs --account, a symbol, or --all"
    if args.verb in ("kill", "unkill") and args.all and (args.account or args.symbol):
        return f"{args.verb} --all is about every account and symbol"
    if args.verb == "add-instrument":
        try:
            limits(args)
        except UsageError as e:
            return str(e)
    return ""
