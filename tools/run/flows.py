"""What goes through a running cluster: traders or recorded flow, and readers who come and go, each a process of its
own."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from tools.child import Child, Children, StartError
from tools.findings import Finding
from tools.flow.acknowledged import ReportSpan, spans_of
from tools.flow.order_counts import Counted, added
from tools.flow.traders import FIRST_ACCOUNT
from tools.run.evidence import LateJoinersFound, Seen
from tools.run.machines import START_S, Machines

OPENING_S: Final = 60.0  # for the traders' opening ladders
DRAIN_S: Final = 15.0  # for the last answers
JOINERS_S: Final = 0.3  # between one reader's leaving and the next one's coming

Answer = TypeVar("Answer")


class Flows:
    """The processes that send, what they said last, and the late joiners beside them."""

    def __init__(self, machines: Machines, children: Children) -> None:
        self.children: list[Child] = []
        self.joiners: Child | None = None
        self.findings: list[Finding] = []  # of replayed flow
        self.seconds = 0.0  # that the longest replay took; 0: nothing was replayed
        self.lasting: dict[int, int] = {}  # live orders without an end that traders reported last, by account
        self._machines = machines
        self._processes = children
        self._tallies: dict[str, dict[str, Any]] = {}
        self._done: dict[str, asyncio.Event] = {}
        self._reported: dict[str, asyncio.Event] = {}
        self._joiners_said: dict[str, Any] = {}
        self._acknowledged: dict[tuple[int, int], list[ReportSpan]] = {}
        self.accounts: set[int] = set()  # those that send
        self._readers: list[asyncio.Task[None]] = []

    @property
    def _drain_s(self) -> float:
        return DRAIN_S * self._machines.patience.factor

    @property
    def done(self) -> bool:
        """Whether every flow has come to its end."""
        return all(done.is_set() for done in self._done.values())

    def counted(self) -> Counted:
        """All tallies as one, as they were last said."""
        return added([Counted.from_json(tally) for tally in self._tallies.values()])

    async def start_traders(self, traders: int, rate: int, seed: int, first_id: int, states: Mapping[int, int]) -> int:
        """Until their opening ladders are answered; how many orders that took. `states`: the instruments', if not open.

        Raises: StartError.
        """
        arguments = ["--cluster", str(self._machines.cluster_file), "--traders", str(traders), "--rate", str(rate)]
        arguments += ["--seed", str(seed), "--first-id", str(first_id), *self._machines.joins()]
        child = await self._start("traders", "tools.flow.trade", arguments)
        self.tell_states(states)
        self.accounts.update(range(FIRST_ACCOUNT, FIRST_ACCOUNT + traders))
        line = await within(child.line(), OPENING_S * self._machines.patience.factor)
        if line is None or "opened" not in line:
            raise StartError(f"the traders could not open:\n{child.complaints()}")
        self._tallies[child.name] = line["tally"]
        self._follow(child)
        return int(line["opened"])

    async def start_replays(self, files: Sequence[Path], checks: Sequence[Path], rate: int) -> None:
        """One for each file, on the venue's instruments in their order; they wait for `go`. Raises: StartError."""
        starts = []
        for i, path in enumerate(files):
            symbol = self._machines.venue.instruments[i].symbol
            arguments = [str(path), "--symbol", symbol, "--account", str(FIRST_ACCOUNT + i), "--rate", str(rate)]
            arguments += ["--check", str(checks[i])] if checks else []
            self.accounts.add(FIRST_ACCOUNT + i)
            arguments += self._machines.joins()
            starts.append(self._start(f"replay-{i + 1}", "tools.flow.replay_flow", arguments))
        for child in await asyncio.gather(*starts):
            self._follow(child)

    async def start_late_joiners(self) -> None:
        """Raises: StartError."""
        machines = [place.asked.target for place in self._machines.fabrics.values()]
        arguments = [*machines, "--every", str(JOINERS_S)]
        self.joiners = await self._processes.start(
            self._machines.child("late-joiners", "tools.run.late_joiners", arguments)
        )
        await self.joiners.wait_ready(START_S)
        self._readers.append(asyncio.create_task(self._hear_joiners(self.joiners)))

    def tell_states(self, states: Mapping[int, int]) -> None:
        """Say in which trading states instruments are."""
        self._tell({"states": states})

    def tell_jump(self, instrument: int, ticks: int) -> None:
        """Say that an instrument is worth so much more."""
        self._tell({"jump": {instrument: ticks}})

    def go(self) -> None:
        self._tell({"go": True})

    def tell_machines(self) -> None:
        """Say where the machines are now."""
        self._tell({"machines": self._machines.targets()})

    async def stop(self) -> None:
        """Nothing more is sent; wait for the last answers."""
        self._tell({"stop": True})
        await within(asyncio.gather(*(done.wait() for done in self._done.values())), self._drain_s)
        if self.joiners:
            await self.joiners.stop()

    async def report(self) -> None:
        """Wait for a last tally of each flow."""
        self._tell({"report": True})
        await within(asyncio.gather(*(told.wait() for told in self._reported.values())), self._drain_s)

    async def close(self) -> None:
        """Listen no more; the processes are the caller's to end."""
        for task in self._readers:
            task.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def seen_by_late_joiners(self) -> list[Seen]:
        counters = self._joiners_said.get("counters", {})
        return [Seen("late-joiners", 0, counters, gone=True)] if counters else []

    def late_joiners_found(self) -> LateJoinersFound | None:
        said = self._joiners_said
        if not said:
            return None
        return LateJoinersFound(said["came"], said["streams"], said["verified"], tuple(said["differing"]))

    def acknowledged(self) -> dict[tuple[int, int], list[ReportSpan]]:
        """What the flows' accounts were told, as they reported it; by home and account."""
        return dict(self._acknowledged)

    def _tell(self, message: dict[str, Any]) -> None:
        for child in self.children:
            child.tell(message)

    async def _start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        child = await self._processes.start(self._machines.child(name, module, arguments))
        self.children.append(child)
        await child.wait_ready(START_S)
        return child

    def _follow(self, child: Child) -> None:
        self._done[child.name] = asyncio.Event()
        self._reported[child.name] = asyncio.Event()
        self._readers.append(asyncio.create_task(self._hear(child)))

    async def _hear(self, child: Child) -> None:
        """Keep what a flow says; it is done when it says so, or has ended."""
        done, reported = self._done[child.name], self._reported[child.name]
        try:
            while (line := await child.line()) is not None:
                if "tally" in line:
                    self._tallies[child.name] = line["tally"]
                if "acknowledged" in line:
                    self._acknowledged |= spans_of(line["acknowledged"])
                if "lasting" in line:
                    self.lasting = {int(account): orders for account, orders in line["lasting"].items()}
                if "finding" in line:
                    self.findings.append(Finding(**line["finding"] | {"details": tuple(line["finding"]["details"])}))
                if line.get("done"):
                    self.seconds = max(self.seconds, line.get("seconds", 0.0))
                    done.set()
                if line.get("reported"):
                    reported.set()
        finally:
            done.set()
            reported.set()

    async def _hear_joiners(self, child: Child) -> None:
        while (line := await child.line()) is not None:
            self._joiners_said = line


async def within(what: Awaitable[Answer], seconds: float) -> Answer | None:
    """Its result, or None when that takes longer."""
    try:
        async with asyncio.timeout(seconds):
            return await what
    except TimeoutError:
        return None
