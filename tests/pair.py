"""The engine and the slow obvious matcher side by side: the same records go into both, and what they say is compared.

Beside that, a `Witness` listens, and a mirror of each channel must show the same book.
"""

from collections.abc import Sequence

from bus.stream.mirror import Mirror
from bus.stream.sequencer import Sequencer
from engine.core.commands import OperatorCommand
from engine.core.limits import LIMITS, Limits
from engine.core.venue import Venue
from proto import feed
from proto.columns import (
    Batch,
    Outcome,
    delta_rows,
    report_rows,
)
from proto.feed import DELETE, MODIFY, OP_MASK
from tests.flows import ENGINE, INSTRUMENTS
from tests.oracle import CALLS, Delta, Oracle, Said
from tests.witness import Witness


class Pair:
    """The engine, the oracle, a mirror of each channel, and a witness."""

    def __init__(self, limits: Limits = LIMITS) -> None:
        self.venue = Venue(ENGINE, INSTRUMENTS, limits=limits)
        self.oracle = Oracle(ENGINE, INSTRUMENTS, limits)
        self.wires = {1: Wire(1), 2: Wire(2)}
        self.witness = Witness(self.oracle)
        self.position = 0

    def apply(self, time_ns: int, batches: Sequence[Batch]) -> None:
        self.position += 1
        outcome = self.venue.apply(self.position, time_ns, batches)
        self.compare(time_ns, outcome, self.oracle.apply(time_ns, batches))

    def disconnect(self, time_ns: int, account: int, session: int) -> None:
        self.position += 1
        outcome = self.venue.disconnect(self.position, time_ns, account, session)
        self.compare(time_ns, outcome, self.oracle.disconnect(time_ns, account, session))

    def tick(self, time_ns: int) -> None:
        self.position += 1
        self.compare(time_ns, self.venue.tick(self.position, time_ns), self.oracle.tick(time_ns))

    def operate(self, time_ns: int, command: OperatorCommand) -> None:
        self.position += 1
        outcome = self.venue.operate(self.position, time_ns, command)
        self.compare(time_ns, outcome, self.oracle.operate(time_ns, command))

    def live(self, account: int) -> list[tuple[int, int, int]]:
        return self.oracle.names(account)

    def compare(self, time_ns: int, outcome: Outcome, said: Said) -> None:
        heard = heard_from(outcome)
        assert heard == said
        self.venue.check()
        self.witness.hear(heard)
        for channel in outcome.deltas:
            self.wires[channel.channel].carry(time_ns, channel.rows, channel.extras)
        for wire in self.wires.values():
            wire.mirror.check()
        for id, market in self.oracle.markets.items():
            mirror = self.wires[market.definition.channel].mirror.books.get(id)
            for side in (0, 1):
                assert self.oracle.shown(id, side) == (list(mirror.orders(side)) if mirror else [])
                assert self.oracle.levels(id, side) == (mirror.levels(side) if mirror else [])
                assert self.oracle.levels(id, side) == list(self.venue.books[id].levels(side, 0)), "level totals"
            if mirror and mirror.state:
                assert mirror.state == market.state
                assert market.state not in CALLS or tuple(mirror.indication or (0, 0, 0)) == market.indicated
            if mirror:
                assert list(mirror.statistics or [0] * 7) == market.statistics


class Wire:
    """A channel from the sequencer to a mirror, every byte of it."""

    def __init__(self, channel: int) -> None:
        self.mirror = Mirror()
        self._sequencer = Sequencer(ENGINE, channel, incarnation=1, epoch=1, fresh=True, ring_frames=1)

    def carry(self, time_ns: int, rows: list[int], extras: list[list[int | str]]) -> None:
        self._sequencer.append(time_ns, rows, extras)
        for data in self._sequencer.take(time_ns, flush=True):
            frame = feed.decode(data)
            self.mirror.apply(frame.rows, frame.extras, frame.instruments)
        assert not self.mirror.held, "an event did not end with its record"


def heard_from(outcome: Outcome) -> Said:
    """An outcome in the oracle's terms."""
    heard = Said(refused=outcome.refused)
    for reports in outcome.reports:
        rows = list(report_rows(reports.rows))
        if reports.first_seq:
            assert reports.account not in heard.reports, "an account's reports came in two parts"
            heard.reports[reports.account] = list(enumerate(rows, reports.first_seq))
        else:
            heard.repeats[reports.account] = rows
    for channel in outcome.deltas:
        heard.deltas[channel.channel] = [on_the_wire(row, channel.extras) for row in delta_rows(channel.rows)]
    return heard


def on_the_wire(row: tuple[int, int, int, int, int, int], extras: list[list[int | str]]) -> Delta:
    """A delta without what its frame does not carry: a reader knows an order's price, and what is left of it."""
    op, instrument, order_id, price, quantity, trade_id = row
    code = op & OP_MASK
    if code in feed.TOLD:
        return op, instrument, *extras[order_id][: 5 if code == feed.DEFINITION else None]
    if code == DELETE:
        return op, instrument, order_id, 0, 0, 0
    if code == MODIFY:
        return op, instrument, order_id, 0, quantity, 0
    return op, instrument, order_id, price, quantity, trade_id
