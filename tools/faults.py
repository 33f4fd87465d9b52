"""A proxy that stands between a publisher and its subscribers and makes trouble: losses, repetitions, damage, silence.

    python -m tools.faults --upstream tcp://127.0.0.1:5555 --faults drop=0.02,dup=0.01,reorder=0.01 --seed 5
    python -m tools.faults --upstream tcp://127.0.0.1:5555 --script trouble.txt

TCP hides the loss of packets, so what a feed must survive is made at the level of messages. Each line is one upstream
publisher and one address to listen at, which is bound first and stays when the publisher changes. What a fault is, and
how it is written, says tools/chaos/plan.py.

With --market-data it stands before a machine's gRPC port as well and spoils snapshots (tools/chaos/answers.py); a
partition keeps calls from it, too.

On stdout: one JSON line when it listens, {"ready": true, "listen": {LINE: ENDPOINT, ...}, "market_data": {MACHINE:
HOST:PORT, ...}, ...}. On stdin, JSON lines: {"line": NAME, "upstream": ENDPOINT} moves a line to another publisher,
{"machine": NAME, "market_data": HOST:PORT} says where a machine is now, {"begin": true} makes this moment second 0 of
timed faults, {"report": true} asks for {"counts": {LINE: {"messages": N, KIND: N, ...}}, "answers": {MACHINE: {"calls":
N, "snapshots": N, KIND: N, ...}}}. SIGTERM or SIGINT ends it.
"""

from proto import program

if __name__ == "__main__":  # before the rest is loaded: an interrupt meanwhile is no traceback
    program.run("tools.faults", "faults")

import argparse
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import zmq

from bus.access.sockets import bind, connect
from proto.dial import TCP, Parser, wrong_address
from tools.chaos.answers import AnswerPlan, AnswerProxy
from tools.chaos.plan import (
    ANSWER_FAULTS,
    FaultError,
    FaultPlan,
    FaultSpec,
    answers_in_words,
    in_words,
    parse_answers,
)
from tools.chaos.script import with_script
from tools.child import ready, say

HIGH_WATER_MARK: Final = 8_192
SLOW_HIGH_WATER_MARK: Final = 64  # a slow reader lets messages wait at their publisher
IDLE_NS: Final = 250_000_000
BURST: Final = 500  # messages taken from one line before the others get their turn

EXAMPLES: Final = """examples:
  python -m tools.faults --upstream tcp://127.0.0.1:5555 --faults drop=0.02
  python -m tools.faults --upstream tcp://127.0.0.1:5555 --listen tcp://127.0.0.1:6000 --faults dup=0.1,reorder=0.1
  python -m tools.faults --upstream tcp://127.0.0.1:5555 --faults drop=0.01,partition=1@5:2,slow=200@10:5
  python -m tools.faults --upstream tcp://127.0.0.1:5555 --script trouble.txt
  python -m tools.faults --market-data 127.0.0.1:4001 --answers stale=0.2,cut=0.1
  python -m tools.faults --line engine-1 --line engine-2 --faults drop=0.05 --seed 5   (upstreams follow on stdin)
"""


class Relay:
    """One publisher's messages: from upstream, through the plan, to whoever listens."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", name: str, listen: str, plan: FaultPlan) -> None:
        self.name = name
        self.plan = plan
        self._context = context
        self._out = context.socket(zmq.XPUB)
        self._out.set_hwm(HIGH_WATER_MARK)
        try:
            self.endpoint = bind(self._out, listen)
        except zmq.ZMQError:
            self._out.close(linger=0)
            raise
        self.upstream: zmq.Socket[bytes] | None = None

    def connect(self, upstream: str) -> None:
        """Listen to this publisher from now on, and no more to the one before. Raises: zmq.ZMQError."""
        socket = self._context.socket(zmq.SUB)
        socket.set_hwm(SLOW_HIGH_WATER_MARK if self.plan.paced else HIGH_WATER_MARK)
        socket.setsockopt(zmq.RECONNECT_IVL, 20)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            connect(socket, upstream)
        except zmq.ZMQError:
            socket.close(linger=0)
            raise
        if self.upstream:
            self.upstream.close(linger=0)
        self.upstream = socket

    def pass_on(self, now_ns: int) -> None:
        """Move what has come in, at most a burst of it, and no faster than the plan has it."""
        assert self.upstream
        for _ in range(BURST):
            if self.plan.closed_until_ns > now_ns:
                return
            try:
                frame = self.upstream.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._send(self.plan.frame(frame, now_ns))

    def release(self, now_ns: int) -> None:
        """Send what has been held long enough; forget who subscribed, since upstream everything is asked for."""
        self._send(self.plan.due(now_ns))
        with contextlib.suppress(zmq.Again):
            while True:
                self._out.recv(zmq.NOBLOCK)

    def close(self) -> None:
        self._out.close(linger=2_000)
        if self.upstream:
            self.upstream.close(linger=0)

    def _send(self, frames: list[bytes]) -> None:
        for frame in frames:
            self._out.send(frame)


class Proxy:
    """All lines and machines, and the stdin that directs them."""

    def __init__(self, lines: dict[str, Relay], machines: dict[str, AnswerProxy]) -> None:
        self.lines = lines
        self.machines = machines
        self.stopped = False
        self._unread = b""

    def begin(self, now_ns: int) -> None:
        """This is second 0 of timed faults."""
        for line in self.lines.values():
            line.plan.begin(now_ns)
        for machine in self.machines.values():
            machine.begin(now_ns)

    def run(self) -> None:
        poller = zmq.Poller()
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        while not self.stopped:
            now_ns = time.monotonic_ns()
            for line in self.lines.values():
                if line.upstream:  # with no events it is left out
                    poller.register(line.upstream, zmq.POLLIN if line.plan.closed_until_ns <= now_ns else 0)
            ready = dict(poller.poll(self._wait_ms()))
            now_ns = time.monotonic_ns()
            for line in self.lines.values():
                if line.upstream in ready:
                    line.pass_on(now_ns)
                line.release(now_ns)
            if sys.stdin.fileno() in ready and not self._read_orders(poller):
                poller.unregister(sys.stdin.fileno())

    def _wait_ms(self) -> int:
        now_ns = time.monotonic_ns()
        due = [due_ns for line in self.lines.values() if (due_ns := line.plan.next_due_ns()) is not None]
        due += [opens_ns for line in self.lines.values() if (opens_ns := line.plan.closed_until_ns) > now_ns]
        return max(0, (min(due, default=now_ns + IDLE_NS) - now_ns) // 1_000_000 + 1)

    def _read_orders(self, poller: zmq.Poller) -> bool:
        """Follow what stdin says; False at its end."""
        read = os.read(sys.stdin.fileno(), 65_536)
        self._unread += read
        *orders, self._unread = self._unread.split(b"\n")
        for order in filter(None, orders):
            try:
                self._follow(json.loads(order), poller)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError, zmq.ZMQError) as e:
                print(f"faults: {order[:200]!r}: {type(e).__name__}: {e}", file=sys.stderr)
        return bool(read)

    def _follow(self, order: dict[str, Any], poller: zmq.Poller) -> None:
        if order.get("report"):
            counts = {name: line.plan.counts for name, line in self.lines.items()}
            answers = {name: machine.plan.counts for name, machine in self.machines.items()}
            say({"counts": counts} | ({"answers": answers} if answers else {}))
            return
        if order.get("begin"):
            self.begin(time.monotonic_ns())
            return
        if "machine" in order:
            target = str(order["market_data"])
            if wrong := wrong_address(target):
                raise ValueError(wrong)
            self.machines[order["machine"]].follow(target)
            return
        line = self.lines[order["line"]]
        if line.upstream in poller:
            poller.unregister(line.upstream)
        line.connect(str(order["upstream"]))


def parser() -> argparse.ArgumentParser:
    out = Parser(
        prog="python -m tools.faults",
        description="Stand between a publisher and its subscribers, and make trouble.",
        epilog=f"faults, by kind:\n{in_words()}\n{answers_in_words()}\n\n"
        "A partition keeps away the messages of each line, and the calls to each machine of --market-data.\n"
        "KIND=CHANCE holds always, KIND=CHANCE@SECONDS:FOR for a time; in a script one a line, # before a remark.\n"
        f"--answers KIND is snapshot-KIND of --faults.\n\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    many: Any = {"action": "append", "default": []}
    out.add_argument("--upstream", **many, metavar="[NAME=]ENDPOINT", help="a publisher (repeatable)")
    out.add_argument("--line", **many, metavar="NAME", help="a line whose publisher stdin will name (repeatable)")
    out.add_argument("--listen", **many, metavar="ENDPOINT", help="where to listen, line by line")
    out.add_argument("--faults", default="", metavar="SPEC", help="such as drop=0.02,partition=1@5:2; see below")
    out.add_argument("--script", type=Path, metavar="FILE", help="the same, and more of it, from a file")
    out.add_argument("--wait", action="store_true", help='timed faults begin when stdin says {"begin": true}')
    out.add_argument(
        "--market-data", **many, metavar="[NAME=]HOST:PORT", help="stand before this machine's gRPC port (repeatable)"
    )
    out.add_argument("--machine", **many, metavar="NAME", help="one whose gRPC port stdin will name (repeatable)")
    out.add_argument(
        "--answers",
        default="",
        metavar="SPEC",
        help=f"what their snapshots meet, as KIND=CHANCE: {', '.join(ANSWER_FAULTS)}",
    )
    out.add_argument("--seed", type=int, default=1, help="of the chances; default 1")
    return out


def main(argv: Sequence[str] | None = None) -> int:
    """Exit 0 when told to end, 2 for wrong usage, 3 when an address cannot be used, 74 when nothing can be written."""
    args = parser().parse_args(argv)
    try:
        spec = with_script(args.faults, args.script)
        if spec.timed:
            raise FaultError([f"{str(fault)!r}: this proxy meets messages, not processes" for fault in spec.timed])
        targets = _named(args.market_data, args.machine, "machine")
        upstreams = _upstreams(args.upstream, args.line, args.listen, bool(targets))
        _check_addresses(targets.values(), [*upstreams.values(), *args.listen])
        answers = (*spec.answers, *parse_answers(args.answers))
        if answers and not targets:
            raise FaultError(["no machine whose snapshots to meet: give --market-data HOST:PORT, or --machine NAME"])
    except FaultError as e:
        print(f"faults: {'; '.join(e.faults)}", file=sys.stderr)
        return 2
    plans = {name: AnswerPlan(answers, args.seed, name, spec.partitions) for name in targets}
    machines = {name: AnswerProxy(plan, args.seed) for name, plan in plans.items()}
    for name, target in targets.items():
        if target:
            machines[name].follow(target)
    return _serve(upstreams, args.listen, spec, args.seed, args.wait, machines)


def _upstreams(upstreams: Sequence[str], names: Sequence[str], listen: Sequence[str], alone: bool) -> dict[str, str]:
    """Each line's publisher, or nothing while it is not known; none is needed if there is something else to do."""
    lines = _named(upstreams, names, "line")
    if not lines and not alone:
        raise FaultError(["no line: give --upstream ENDPOINT, or --line NAME"])
    if len(listen) > len(lines):
        raise FaultError([f"{len(listen)} addresses to listen at for {len(lines)} lines"])
    return lines


def _check_addresses(machines: Iterable[str], feeds: Iterable[str]) -> None:
    """Raises: FaultError for what cannot be an address. Where a socket is no TCP one, ZeroMQ is left to say so."""
    wrong = [wrong_address(text, somebody=True) for text in machines if text]
    addresses = [re.sub(r"\*$", "0", text.removeprefix(TCP)) for text in feeds if text.startswith(TCP)]
    wrong += [wrong_address(text) for text in addresses]
    if told := [fault for fault in wrong if fault]:
        raise FaultError(told)


def _named(given: Sequence[str], names: Sequence[str], what: str) -> dict[str, str]:
    """Where each is, by its name or by its number; or nothing while it is not known."""
    found: dict[str, str] = {}
    for i, text in enumerate(given, 1):
        name, equals, where = text.rpartition("=")
        found[name if equals else f"{what}-{i}"] = where
    for name in names:
        found.setdefault(name, "")
    if len(found) != len(given) + len(names):
        raise FaultError([f"two {what}s have one name"])
    return found


def _serve(
    upstreams: dict[str, str],
    listen: Sequence[str],
    spec: FaultSpec,
    seed: int,
    wait: bool,
    machines: dict[str, AnswerProxy],
) -> int:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    lines: dict[str, Relay] = {}
    proxy = Proxy(lines, machines)
    try:
        endpoint = ""
        try:
            for i, (name, upstream) in enumerate(upstreams.items()):
                endpoint = listen[i] if i < len(listen) else "tcp://127.0.0.1:0"
                lines[name] = Relay(context, name, endpoint, FaultPlan(spec.messages, seed, name))
                endpoint = upstream
                if upstream:
                    lines[name].connect(upstream)
        except zmq.ZMQError as e:
            print(f"faults: {endpoint}: {zmq.strerror(e.errno or 0)}", file=sys.stderr)
            return 3

        def stop(number: int, frame: object) -> None:
            proxy.stopped = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        listening = {name: line.endpoint for name, line in lines.items()}
        if not wait:
            proxy.begin(time.monotonic_ns())
        try:
            serving = {name: machine.serve() for name, machine in machines.items()}
        except RuntimeError as e:
            print(f"faults: {e}", file=sys.stderr)
            return 3
        ready("faults", listen=listening, **({"market_data": serving} if serving else {}))
        proxy.run()
        return 0
    finally:
        for machine in machines.values():
            machine.close()
        for line in lines.values():
            line.close()
        context.term()
