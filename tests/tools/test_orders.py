"""tools.orders: what people type, what is wrong with it, and one run against real engines."""

import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest

from proto import orders_pb2 as pb
from tests.bus.test_node import process_of
from tests.engine.test_process import Venue
from tools import orders
from tools.orders import EXAMPLES, FINE, REFUSED, UNREACHABLE, USAGE, main, parser

AT = ["--at", "127.0.0.1:1"]  # where nobody answers
TOKEN = "0123456789abcdef"


def test_help_begins_with_examples_and_every_example_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == FINE
    out = capsys.readouterr().out
    assert out.startswith(EXAMPLES)
    lines = [line.strip() for line in EXAMPLES.splitlines() if line.startswith("    python -m tools.orders ")]
    said = [line.split("   ")[0].split()[3:] for line in lines]
    assert len(said) >= 15
    verbs = set()
    for line in said:
        args = parser().parse_args(["127.0.0.1:5001" if word == "HOST:PORT" else word for word in line])
        assert orders.wanting(args) == ""
        verbs.add(args.verb)
    assert verbs == {*orders.OF_ACCOUNT, *orders.OF_OPERATOR, "book", "state"} - {"resume"}


WRONG: list[tuple[list[str], str]] = [
    ([], "the following arguments are required: --at, VERB"),
    (["--at", "nowhere", "book", "ALFA"], "'nowhere' is not HOST:PORT"),
    ([*AT, "frob"], "invalid choice: 'frob'"),
    ([*AT, "open"], "open needs --account"),
    ([*AT, "--account", "-1", "open"], "'-1' is not a whole number"),
    ([*AT, "--account", "18446744073709551616", "open"], "is not a whole number"),
    ([*AT, "--account", "7", "new", "ALFA"], "the following arguments are required: side, quantity"),
    ([*AT, "--account", "7", "new", "ALFA", "hold", "5", "100"], "invalid choice: 'hold'"),
    ([*AT, "--account", "7", "new", "alfa", "buy", "5", "100"], "'alfa' is not a symbol"),
    ([*AT, "--account", "7", "new", "ALFA", "buy", "five", "100"], "'five' is not a decimal number"),
    ([*AT, "--account", "7", "new", "ALFA", "buy", "5", "1O0"], "'1O0' is not a decimal number"),
    ([*AT, "--account", "7", "new", "ALFA", "buy", "5", "100", "--type", "lottery"], "invalid choice: 'lottery'"),
    ([*AT, "--account", "7", "cancel", "ALFA", "x"], "'x' is not a whole number"),
    ([*AT, "state", "ALFA", "asleep"], "invalid choice: 'asleep'"),
    ([*AT, "book", "ALFA", "--depth", "4294967296"], "is not a whole number"),
    ([*AT, "kill"], "kill needs --account, a symbol, or --all"),
    ([*AT, "kill", "ALFA", "--all"], "kill --all is about every account and symbol"),
    ([*AT, "bust", "ALFA", "one"], "'one' is not a whole number"),
    ([*AT, "add-instrument", "GOLD", "99", "--tick", "x"], "'x' is not a decimal number"),
    ([*AT, "add-instrument", "GOLD", "99"], "required: --tick, --lot, --price-min, --price-max"),
    ([*AT, "--operator-token-file", "/nowhere", "roll", "ALFA"], "/nowhere"),
    ([*AT, "--operator-token-file", "/dev/null", "roll", "ALFA"], "no token"),
]


@pytest.mark.parametrize(("argv", "says"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_wrong_input_is_said_in_one_line_and_exits_2(
    argv: Sequence[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.startswith("orders")
    assert err.count("\n") == 1


def test_when_nobody_answers_it_exits_3(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["--account", "7", "open"], ["book", "ALFA"], ["halt", "ALFA"]):
        assert main([*AT, *words]) == UNREACHABLE
        err = capsys.readouterr().err
        assert err.startswith("orders: 127.0.0.1:1: UNAVAILABLE: ")
        assert err.count("\n") == 1


def test_every_order_an_operator_can_give_is_put_into_its_call() -> None:
    def asked(*words: str) -> tuple[str, Any]:
        return orders._asked_of_operator(parser().parse_args([*AT, *words]))

    assert asked("resume", "ALFA") == ("SetState", pb.SetStateRequest(symbol="ALFA", state=pb.TRADING_STATE_OPEN))
    assert asked("state", "ALFA", "pre-open")[1].state == pb.TRADING_STATE_PRE_OPEN
    assert asked("kill", "--all") == ("Kill", pb.KillRequest())
    assert asked("unkill", "ALFA") == ("Kill", pb.KillRequest(symbol="ALFA", lift=True))
    assert asked("correct", "ALFA", "12", "5", "-100.25") == (
        "CorrectTrade", pb.CorrectTradeRequest(symbol="ALFA", trade_id=12, quantity="5", price="-100.25"),
    )  # fmt: skip
    added = "add-instrument GOLD 99 --tick 0.05 --lot 10 --price-min -5 --price-max 500 --channel 2 --quantity-max 9"
    added += " --notional-max 90 --collar 3 --band 4 --allocation pro-rata --auction-reference -7 --state pre-open"
    assert asked(*added.split()) == (
        "AddInstrument",
        pb.AddInstrumentRequest(
            id=99, symbol="GOLD", channel=2, tick_size="0.05", lot_size="10", price_min=-5, price_max=500,
            quantity_max=9, notional_max=90, collar=3, band=4, allocation="pro-rata", auction_reference=-7,
            state="pre-open",
        ),
    )  # fmt: skip


@pytest.mark.processes
def test_a_day_at_two_engines_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")

    def say(line: str, code: int = FINE) -> list[dict[str, Any]]:
        """What is printed on a line; it ends with that exit code."""
        capsys.readouterr()
        assert main(["--at", at, *line.split()]) == code, line
        out, err = capsys.readouterr()
        assert bool(err) == (code != FINE and not out)
        return [json.loads(told) for told in out.splitlines()] or [{"complaint": err}]

    with Venue(tmp_path, 2) as venue:
        options = ("--operator-token-file", str(secret))
        one, at = venue.start(1, *options), venue.start(2, *options)
        deadline = time.monotonic() + 10
        while main(["--at", at, "--account", "7", "open"]) != FINE:  # an engine does not answer yet
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (sold,) = say("--account 7 new E1A sell 5 1.50 --id 1")  # all at engine 2; E1A is engine 1's
        assert (sold["kind"], sold["open"], sold["position"]) == ("REPORT_ACCEPTED", "5", "2")
        (bought,) = say("--account 8 new E1A buy 2 1.50 --id 1")
        assert bought["kind"] == "REPORT_ACCEPTED"
        assert say("--account 8 new E1A buy 2 1.505", REFUSED)[0]["reason"] == "REASON_BAD_PRICE"
        assert say("--account 7 replace E1A 1 4 1.60")[0]["open"] == "2"
        assert [level["quantity"] for level in say("book E1A --depth 1")[0]["asks"]] == ["2"]
        assert [order["client_order_id"] for order in say("--account 7 open")[0]["orders"]] == ["1"]
        assert [(then["kind"], then["open"]) for then in bought["then"]] == [("REPORT_TRADED", "0")]
        assert {bought["side"], bought["then"][0]["side"], sold["side"]} == {"SIDE_BUY", "SIDE_SELL"}
        accepted, traded = say("--account 8 executions")
        assert (accepted["kind"], accepted["liquidity"], accepted["seq"]) == ("REPORT_ACCEPTED", "LIQUIDITY_NONE", 1)
        assert (traded["kind"], traded["liquidity"], traded["seq"]) == ("REPORT_TRADED", "LIQUIDITY_TAKER", 2)
        assert (traded["side"], traded["priority_kept"], traded["repeat"]) == ("SIDE_BUY", False, False)
        _, made, replaced = say("--account 7 executions")
        assert (made["side"], made["liquidity"]) == ("SIDE_SELL", "LIQUIDITY_MAKER")
        assert (replaced["kind"], replaced["priority_kept"]) == ("REPORT_REPLACED", False)

        refused = say("halt E1A", REFUSED)
        assert "UNAUTHENTICATED" in refused[0]["complaint"]
        desk = f"--operator-token-file {secret} "
        say(desk + "halt E1A")
        assert say("--account 7 new E1A buy 1 1.00", REFUSED)[0]["reason"] == "REASON_WRONG_STATE"
        assert say(desk + "halt E1A", REFUSED)[0]["reason"] == "REASON_NOTHING_TO_CHANGE"
        say(desk + "resume E1A")
        say(desk + "correct E1A 1 1 1.40")
        say(desk + "bust E1A 1")
        assert say(desk + "bust E1A 1", REFUSED)[0]["reason"] == "REASON_TOO_LATE"
        assert sorted(reply["engine"] for reply in say(desk + "--account 7 kill")) == [1, 2]  # each answers
        assert say("--account 7 open")[0] == {}
        assert len(say(desk + "--account 7 unkill")) == 2
        say(desk + "add-instrument NOVA 99 --tick 0.5 --lot 1 --price-min 1 --price-max 9 --state pre-open")
        (state,) = say("state NOVA")
        assert (state["trading_state"], state["engine"]) == ("pre-open", 2)
        assert "bids" not in state
        say(desk + "state NOVA closed")
        say(desk + "roll NOVA")
        say(desk + "delist NOVA")
        assert "NOT_FOUND" in say("state NOVA", REFUSED)[0]["complaint"]
        say("--account 7 new E2A buy 5 --type stop --stop-price 2.00 --id 20")
        assert say("--account 7 replace E2A 20 4 --stop-price 1.90")[0]["kind"] == "REPORT_REPLACED"
        assert say("--account 7 open")[0]["orders"][0]["stop_price"] == "1.90"
        assert say("--account 7 replace E2A 20 4", REFUSED)[0]["reason"] == "REASON_BAD_PRICE"
        say("--account 7 mass-cancel")
        venue.signal(1, signal.SIGKILL)  # a kill switch is thrown wherever it can be
        venue.processes[1].wait(10)
        dead, alive = say(desk + "--account 7 kill", REFUSED)
        assert (dead["reason"], "UNAVAILABLE" in dead["detail"], one in dead["detail"]) == (
            "REASON_UNAVAILABLE", True, True,
        )  # fmt: skip
        assert alive.keys() == {"engine", "position"}
        with process_of("--engine", "2", "--join", at) as (_, ready):
            at = str(ready["grpc"])
            assert "is it an engine?" in say("--account 7 open", REFUSED)[0]["complaint"]


def test_a_complaint_is_one_line() -> None:
    class Broken(grpc.RpcError):
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.INTERNAL

        def details(self) -> str:
            return "two\n  lines"

    assert orders.complaint(Broken()) == "INTERNAL: two lines"
