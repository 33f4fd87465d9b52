"""tools.orders: what people type, what is wrong with it, and one run against real engines."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from proto import orders_pb2 as pb
from proto.instrument import FIELDS
from tests.bus.test_node import process_of
from tests.engine.test_process import Venue
from tests.patience import patience
from tools.orders import command, options
from tools.orders.command import FINE, REFUSED, UNREACHABLE, USAGE, main
from tools.orders.options import EXAMPLES, parser

AT = ["--at", "127.0.0.1:1"]  # where nobody answers
ADD = [*AT, "add-instrument", "GOLD", "99", "--tick", "0.05", "--lot", "10", "--price-min", "1", "--price-max", "500"]
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
        assert options.wanting(args) == ""
        verbs.add(args.verb)
    entered: dict[str, str] = {}  # an order by its ids: each example's target is one that those before it made
    for line in said:
        args = parser().parse_args(["127.0.0.1:5001" if word == "HOST:PORT" else word for word in line])
        if args.verb in ("replace", "cancel"):
            assert entered[str(args.target)] == args.symbol
        if args.verb == "new":
            entered[str(args.id)] = args.symbol
    (known,) = (action.choices for action in parser()._actions if action.dest == "verb")
    assert verbs == {*(known or ())} - {"resume"}


WRONG: list[tuple[list[str], str]] = [
    ([], "the following arguments are required: VERB"),
    (["book", "ALFA"], "which machine? --at HOST:PORT, or its address in LOBMESH_AT"),
    (["--at", "nowhere", "book", "ALFA"], "'nowhere' is not HOST:PORT"),
    ([*AT, "frob"], "invalid choice: 'frob'"),
    ([*AT, "open"], "open needs --account"),
    ([*AT, "--account", "-1", "open"], "'-1' is no whole number"),
    ([*AT, "--account", "18446744073709551616", "open"], "is no whole number"),
    ([*AT, "--account", "7", "new", "ALFA"], "the following arguments are required: side, quantity"),
    ([*AT, "--account", "7", "new", "ALFA", "hold", "5", "100"], "invalid choice: 'hold'"),
    ([*AT, "--account", "7", "new", "alfa", "buy", "5", "100"], "'alfa' is not a symbol"),
    ([*AT, "--account", "7", "new", "ALFA", "buy", "five", "100"], "'five' is not a decimal number"),
    ([*AT, "--account", "7", "new", "ALFA", "buy", "5", "1O0"], "'1O0' is not a decimal number"),
    ([*AT, "--account", "7", "new", "ALFA", "buy", "5", "100", "--type", "lottery"], "invalid choice: 'lottery'"),
    ([*AT, "--account", "7", "cancel", "ALFA", "x"], "'x' is no whole number"),
    ([*AT, "--operator-token-file", "/", "halt", "ALFA"], "--operator-token-file: /: Is a directory\n"),
    ([*AT, "state", "ALFA", "asleep"], "invalid choice: 'asleep'"),
    ([*AT, "book", "ALFA", "--depth", "4294967296"], "is no whole number"),
    ([*AT, "--account", "7", "mass-cancel", ""], "'' is not a symbol"),
    ([*AT, "--account", "7", "new", "ALFA", "buy", "5", ""], "'' is not a decimal number"),
    (
        [*AT, "--account", "7", "new", "ALFA", "buy", "5", "1", "--expires-ns", "9223372036854775808"],
        "is no whole number from 0 to 9,223,372,036,854,775,807",
    ),
    ([*AT, "--account", "0", "open"], "open needs --account"),
    ([*AT, "kill"], "kill needs --account, a symbol, or --all"),
    ([*AT, "kill", "ALFA", "--all"], "kill --all is about every account and symbol"),
    ([*AT, "bust", "ALFA", "one"], "'one' is no whole number"),
    ([*AT, "add-instrument", "GOLD", "99", "--tick", "x"], "'x' is not a size"),
    ([*AT, "add-instrument", "GOLD", "99", "--tick", "0"], "'0' is not a size"),
    ([*ADD, "--price-min", "0.07"], "price '0.07' is not on a tick of 0.05"),
    ([*ADD, "--collar", "0.01"], "price '0.01' is not on a tick of 0.05"),
    ([*ADD, "--band", "-0.05", "--auction-reference", "5"], "not below 0"),
    ([*ADD, "--band", "0.05"], "--auction-reference is not within the price limits, as a --band needs it"),
    ([*ADD, "--auction-reference", "0.5"], "--auction-reference is not within the price limits"),
    ([*ADD, "--price-max", "0.5"], "--price-min 1 is above --price-max 0.5"),
    ([*ADD, "--quantity-max", "15"], "quantity '15' is not one lot of 10 or more"),
    ([*ADD, "--notional-max", "0.7"], "--notional-max 0.7 is not a multiple of 0.50"),
    ([*ADD, "--notional-max", "99999999999999999999"], "or too large"),
    ([*AT, "add-instrument", "GOLD", "99"], "required: --tick, --lot, --price-min, --price-max"),
    ([*AT, "--operator-token-file", "/nowhere", "roll", "ALFA"], "/nowhere"),
    ([*AT, "--operator-token-file", "/dev/null", "roll", "ALFA"], "no token"),
    ([*AT, "--operator-token-file", "/dev/zero", "roll", "ALFA"], "no token"),
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
    for words in (
        "--account 7 open",
        "--account 7 executions",
        "--account 7 new E1A buy 1 1",
        "instruments",
        "halt ALFA",
    ):
        assert main([*AT, *words.split()]) == UNREACHABLE
        err = capsys.readouterr().err
        assert err.startswith("orders: 127.0.0.1:1: nobody answers (")
        assert err.count("\n") == 1


def test_every_order_an_operator_can_give_is_put_into_its_call() -> None:
    def asked(*words: str) -> tuple[str, Any]:
        return command.asked_of_operator(parser().parse_args([*AT, *words]))

    assert asked("resume", "ALFA") == ("SetState", pb.SetStateRequest(symbol="ALFA", state=pb.TRADING_STATE_OPEN))
    assert asked("state", "ALFA", "pre-open")[1].state == pb.TRADING_STATE_PRE_OPEN
    assert asked("kill", "--all") == ("Kill", pb.KillRequest())
    assert asked("unkill", "ALFA") == ("Kill", pb.KillRequest(symbol="ALFA", lift=True))
    assert asked("correct", "ALFA", "12", "5", "-100.25") == (
        "CorrectTrade", pb.CorrectTradeRequest(symbol="ALFA", trade_id=12, quantity="5", price="-100.25"),
    )  # fmt: skip
    added = "add-instrument GOLD 99 --tick 0.05 --lot 10 --price-min -0.25 --price-max 25 --channel 2 --quantity-max 90"
    added += (
        " --notional-max 45 --collar 0.15 --band 0.2 --allocation pro-rata --auction-reference -0.15 --state pre-open"
    )
    assert asked(*added.split()) == (
        "AddInstrument",
        pb.AddInstrumentRequest(
            id=99, symbol="GOLD", channel=2, tick_size="0.05", lot_size="10", price_min=-5, price_max=500,
            quantity_max=9, notional_max=90, collar=3, band=4, allocation="pro-rata", auction_reference=-3,
            state="pre-open",
        ),
    )  # fmt: skip
    said = {field.name for field, _ in asked(*added.split())[1].ListFields()}
    assert said == {*FIELDS} - {"engine"}  # which is the one that is asked


@pytest.mark.processes
def test_a_day_at_two_engines_by_hand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "token"
    secret.write_text(TOKEN + "\n")

    def say(line: str, code: int = FINE) -> list[dict[str, Any]]:
        """What is printed on a line; it ends with that exit code."""
        capsys.readouterr()
        assert main(["--at", at, *line.split()]) == code, line
        out, err = capsys.readouterr()
        assert bool(err) == (code != FINE)
        assert all(line.startswith("orders: ") for line in err.splitlines())
        return [json.loads(told) for told in out.splitlines()] or ([{"complaint": err}] if err else [])

    with Venue(tmp_path, 2) as venue:
        options = ("--operator-token-file", str(secret))
        one, at = venue.start(1, *options), venue.start(2, *options)
        deadline = time.monotonic() + patience(10)
        while main(["--at", at, "--account", "7", "open"]) != FINE:  # an engine does not answer yet
            assert time.monotonic() < deadline
            time.sleep(0.02)
        (sold,) = say("--account 7 new E1A sell 5 1.50 --id 1")  # all at engine 2; E1A is engine 1's
        assert (sold["kind"], sold["open"], sold["position"]) == ("accepted", "5", 2)
        bought, taken = say("--account 8 new E1A buy 2 1.50 --id 1")
        assert (bought["kind"], bought["open"]) == ("accepted", "2")
        assert (taken["kind"], taken["price"], taken["open"], taken["liquidity"]) == ("traded", "1.50", "0", "taker")
        refused = say("--account 8 new E1A buy 2 1.505", REFUSED)[0]
        assert (refused["reason"], refused["detail"]) == (
            "bad-price", "price '1.505' is not on a tick of 0.01, or too far from zero",
        )  # fmt: skip
        assert "there are E1A, E1B, E2A, E2B" in say("--account 8 new NOPE buy 2 1.50", REFUSED)[0]["detail"]
        assert say("--account 7 replace E1A 1 4 1.60")[0]["open"] == "2"
        (book,) = say("book E1A --depth 1")
        assert book["asks"] == [{"price": "1.60", "quantity": "2", "orders": 1}]
        assert (book["last_price"], book["session"]["turnover"]) == ("1.50", "3.00")
        assert [(order["client_order_id"], order["type"]) for order in say("--account 7 open")] == [(1, "limit")]
        assert [bought["side"], taken["side"], sold["side"]] == ["buy", "buy", "sell"]
        accepted, traded = say("--account 8 executions")
        assert (accepted["kind"], accepted["liquidity"], accepted["seq"]) == ("accepted", "none", 1)
        assert (traded["kind"], traded["liquidity"], traded["seq"]) == ("traded", "taker", 2)
        assert (traded["side"], traded["priority_kept"], traded["repeat"]) == ("buy", False, False)
        assert {key: value for key, value in traded.items() if key != "command"} == taken
        _, made, replaced = say("--account 7 executions")
        assert (made["side"], made["liquidity"], made["price"], made["symbol"]) == ("sell", "maker", "1.50", "E1A")
        assert (replaced["kind"], replaced["priority_kept"]) == ("replaced", False)

        (halted,) = say("halt E1A", REFUSED)
        assert "UNAUTHENTICATED" in halted["complaint"]
        operator = f"--operator-token-file {secret} "
        say(operator + "halt E1A")
        assert say("--account 7 new E1A buy 1 1.00", REFUSED)[0]["reason"] == "wrong-state"
        assert say(operator + "halt E1A", REFUSED)[0]["reason"] == "nothing-to-change"
        say(operator + "resume E1A")
        say(operator + "correct E1A 1 1 1.40")
        say(operator + "bust E1A 1")
        assert say(operator + "bust E1A 1", REFUSED)[0]["reason"] == "too-late"
        assert sorted(reply["engine"] for reply in say(operator + "--account 7 kill")) == [1, 2]  # each answers
        assert say("--account 7 open") == []
        assert len(say(operator + "--account 7 unkill")) == 2
        say(operator + "add-instrument NOVA 99 --tick 0.5 --lot 1 --price-min 1 --price-max 9.5 --state pre-open")
        (listed,) = [line for line in say("instruments") if line["symbol"] == "NOVA"]
        assert (listed["price_min"], listed["price_max"], listed["quantity_max"]) == ("1.0", "9.5", None)
        (state,) = say("state NOVA")
        assert (state["trading_state"], state["engine"]) == ("pre-open", 2)
        assert "bids" not in state
        say(operator + "state NOVA closed")
        say(operator + "roll NOVA")
        say(operator + "delist NOVA")
        assert "there is no instrument 'NOVA': there are E1A" in say("state NOVA", REFUSED)[0]["complaint"]
        say("--account 7 new E2A buy 5 --type stop --stop-price 2.00 --id 20")
        assert say("--account 7 replace E2A 20 4 --stop-price 1.90")[0]["kind"] == "replaced"
        assert say("--account 7 open")[0]["stop_price"] == "1.90"
        assert say("--account 7 replace E2A 20 4", REFUSED)[0]["reason"] == "bad-price"
        say("--account 7 mass-cancel")
        venue.signal(1, signal.SIGKILL)  # a kill switch is thrown wherever it can be
        venue.processes[1].wait(10)
        dead, alive = say(operator + "--account 7 kill", REFUSED)
        assert (dead["reason"], "UNAVAILABLE" in dead["detail"], one in dead["detail"]) == (
            "unavailable", True, True,
        )  # fmt: skip
        assert (alive["engine"], alive["reason"]) == (2, "none")
        with process_of("--engine", "2", "--join", at) as (_, ready):
            at = str(ready["grpc"])  # a fabric node: it knows where the engines are
            assert say("--account 9 new E2A buy 1 1.00 --id 30")[0]["kind"] == "accepted"
            assert say("--account 9 cancel E2A 30")[0]["kind"] == "canceled"
            assert say(operator + "halt E2A")[0]["engine"] == 2
            say(operator + "add-instrument MARS 98 --tick 0.5 --lot 1 --price-min 1 --price-max 9")
            assert "engine 1 does not answer" in say("--account 9 open", REFUSED)[-1]["complaint"]
            monkeypatch.setenv("LOBMESH_AT", at)
            assert main(["state", "E2A"]) == FINE
            assert json.loads(capsys.readouterr().out)["trading_state"] == "halted"


@pytest.mark.processes
def test_it_ends_quietly_when_nobody_reads_and_when_it_is_interrupted(tmp_path: Path) -> None:
    def started(*words: str, out: int = subprocess.PIPE) -> "subprocess.Popen[str]":
        words = (sys.executable, "-m", "tools.orders", "--at", at, *words)
        return subprocess.Popen(words, stdout=out, stderr=subprocess.PIPE, text=True)

    with Venue(tmp_path, 1) as venue:
        at = venue.start(1)
        assert main(["--at", at, "--account", "7", "new", "E1A", "buy", "5", "1.50", "--id", "3"]) == FINE
        with started("book", "E1A") as told:
            assert told.stdout is not None
            told.stdout.close()
            assert told.stderr is not None
            assert (told.stderr.read(), told.wait(30)) == ("", 141)
        with started("--account", "7", "executions", "--follow") as followed:
            assert followed.stdout is not None
            assert json.loads(followed.stdout.readline())["client_order_id"] == 3
            followed.send_signal(signal.SIGINT)  # the way to end it
            out, err = followed.communicate(timeout=patience(30))
            assert (followed.returncode, out, err) == (FINE, "", "")
        with started("--account", "7", "open") as early:
            early.send_signal(signal.SIGINT)
            out, err = early.communicate(timeout=patience(30))
            assert (out, err) == ("", "")
            assert early.returncode in (130, -signal.SIGINT)  # the latter before any line of ours ran
        ours, theirs = pty.openpty()
        with started("--account", "7", "open", out=theirs) as shown:
            assert shown.wait(30) == FINE
        os.close(theirs)
        heading, row = os.read(ours, 65_536).decode().splitlines()
        os.close(ours)
        assert heading.split()[:4] == ["symbol", "side", "open", "price"]
        assert row.split()[:5] == ["E1A", "buy", "5", "1.50", "3"]
