"""A file of recorded flow: the commands that it becomes, and what a venue made of them.

One object for both ways of replaying: a core in process (tools/replay.py) and a cluster over gRPC, by hand
(tools/replay.py --cluster) or as part of a run (tools/flow/replay_flow.py). Pure but for reading the file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proto.columns import DUPLICATE_ID, STP_NONE, Batch, ReportRow
from tools.flow import lobster, lobster_check, workload
from tools.flow.lobster import FlowStep, Levels
from tools.flow.lobster_check import Checker
from tools.flow.messages import FlowError, WorkloadRow, is_lobster, read_books, read_messages, read_workload

DETAIL: Final = "row "  # how a line about one difference begins


class UsedBeforeError(Exception):
    """The account has used the file's ids before: the venue answers from then, or refuses them."""

    def __init__(self, account: int) -> None:
        super().__init__(f"account {account} has used these client order ids before; replay under another --account")


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a venue made of a file.

    `holds` is None where there was nothing to hold it to. `lines` are for a reader, and so are `details`, one for each
    of the first differences; `figures` for a program.
    """

    holds: bool | None
    lines: list[str]
    details: list[str]
    figures: dict[str, object]


class RecordedFlow:
    """One file, on its way through one venue.

    flow = RecordedFlow(path, None, account)     raises FlowError
    for batch in flow.batches(1, 256): ...   send them, in order
    flow.reported(row)                       each report of the account, in order; raises UsedBeforeError
    flow.event(bids, asks)                   with books to check: ten levels after each event of the instrument
    flow.outcome()                           once, at the end; raises workload.AnswerError
    """

    def __init__(
        self,
        path: Path,
        account: int,
        rows: Sequence[WorkloadRow] = (),
        messages: int = 0,
        steps: Sequence[FlowStep] = (),
    ) -> None:
        """A workload's rows, or the steps of so many of LOBSTER's messages; see `read`."""
        self.path = path
        self.account = account
        self.messages = messages or len(rows)
        self.steps = steps
        self.checker = Checker(steps) if steps else None
        self._rows = rows
        self._reports: list[ReportRow] = []
        self._heard = False

    @staticmethod
    def read(path: Path, check: Path | None, account: int) -> "RecordedFlow":
        """A file's flow, with the books of another to check. Raises: FlowError."""
        if is_lobster(path):
            messages = list(read_messages(path))
            books = list(read_books(check)) if check else []
            if check and len(books) != len(messages):
                raise FlowError(str(check), 0, f"has {len(books):,} books for {len(messages):,} messages")
            flow = RecordedFlow(path, account, messages=len(messages), steps=list(lobster.plan(messages, books)))
        elif check:
            raise FlowError(str(check), 0, f"has no book to check {path.name} with; see --answers")
        else:
            flow = RecordedFlow(path, account, read_workload(path))
        if not flow.messages:
            raise FlowError(str(path), 0, "has no message")
        return flow

    @property
    def checked(self) -> bool:
        """Whether there are books to compare with."""
        return any(step.book is not None for step in self.steps[-1:])

    @property
    def commands(self) -> int:
        """How many there are in all."""
        return sum(len(step.commands) + len(step.after) for step in self.steps) or self.messages

    def batches(self, instrument: int, size: int) -> Iterator[Batch]:
        """All commands, `size` at a time."""
        if self.checker is None:
            yield from workload.batches(self._rows, self.account, instrument, size)
            return
        commands = [command for step in self.steps for command in (*step.commands, *step.after)]
        for start in range(0, len(commands), size):
            part = commands[start : start + size]
            op, own, *others = map(list, zip(*part, strict=True))
            yield Batch(self.account, 0, STP_NONE, op, own, [instrument] * len(part), *others)

    def reported(self, row: ReportRow) -> None:
        if row.reason == DUPLICATE_ID:
            raise UsedBeforeError(self.account)
        self._heard = True
        if self.checker:
            self.checker.reported(row)
        else:
            self._reports.append(row)

    def event(self, bids: Levels, asks: Levels) -> None:
        if self.checker:
            self.checker.event(bids, asks)

    def outcome(self) -> Replayed:
        if not self._heard:  # a session does not tell again what it told before
            raise UsedBeforeError(self.account)
        if self.checker is None:
            answers = workload.answers(self._rows, self._reports)
            lines = [
                f"{answers.trades:,} trades, {answers.resting:,} orders resting at the end",
                f"SHA-256 of the answers {answers.sha256}",
            ]
            return Replayed(None, lines, [], answers._asdict())
        verdict = self.checker.verdict()
        said = lobster_check.summary(verdict)
        details = [line for line in said if line.startswith(DETAIL)]
        lines = [line for line in said if not line.startswith(DETAIL)]
        return Replayed(verdict.holds(), lines, details, lobster_check.figures(verdict))
