"""Deltas to measure the feed with: what the venue publishes for a flow, and what a recorded exchange day would be.

An event is its time and its flat rows (DELTA_WIDTH ints each, the last with END).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from engine.core.venue import Venue
from proto.columns import DELTA_WIDTH, ENGINE_SHIFT
from proto.feed import ADD, CANCEL, DELETE, END, EXECUTE, OP_MASK, SELL, TRADE
from tools.bench import flows
from tools.bench.core import read
from tools.bench.flows import INSTRUMENT, Flow
from tools.flow import messages as flow

START_NS: Final = 1_790_000_000_000_000_000  # nanoseconds since the epoch: times on the wire should be as long as real
RECORD_NS: Final = 250_000  # between the log records of a busy engine
NAMES: Final = {ADD: "add", CANCEL: "cancel", DELETE: "delete", EXECUTE: "execute", TRADE: "trade"}


class Event(NamedTuple):
    """All deltas of one command, or of one log record: they share a time."""

    time_ns: int
    rows: list[int]


def of_flow(recorded: Flow, batch: int = flows.BATCH) -> Iterator[Event]:
    """What the venue publishes for a flow that comes in batches: one event time a batch, as one log record has one."""
    venue = Venue(INSTRUMENT.engine, [INSTRUMENT])
    for i, commands in enumerate(flows.batches(recorded.rows, batch), 1):
        time_ns = START_NS + i * RECORD_NS
        for changed in venue.apply(i, time_ns, [read(commands)]).deltas:
            yield Event(time_ns, changed.rows)


def of_lobster(path: Path, engine: int = INSTRUMENT.engine) -> Iterator[Event]:
    """A recorded day as the feed of this venue would have brought it: every message an event with its own time,
    executions of one aggressor one event. Orders are numbered as an engine numbers them, in order of arrival: the
    day's own ids are those of a whole market, of which this is one instrument."""
    messages = list(flow.read_messages(path))
    entered = dict.fromkeys(message.order_id for message in messages if message.kind == flow.SUBMITTED)
    before = sorted({message.order_id for message in messages}.difference(entered))
    ids = {known: (engine << ENGINE_SHIFT) + i for i, known in enumerate([*before, *entered], 1)}
    trade_id = 0
    rows: list[int] = []
    key: tuple[int, int] | None = None
    time_ns = 0
    for message in messages:
        if message.kind >= flow.CROSSED:
            continue
        executed = message.kind in (flow.EXECUTED, flow.EXECUTED_HIDDEN)
        at = (message.time_ns, message.direction) if executed else None
        if rows and (at is None or at != key):
            yield _whole(time_ns, rows)
            rows = []
        key, time_ns = at, START_NS + message.time_ns
        side = SELL if message.direction < 0 else 0
        if executed:
            trade_id += 1
        order_id = ids[message.order_id]
        if message.kind == flow.SUBMITTED:
            rows += (ADD | side, INSTRUMENT.id, order_id, message.price, message.size, 0)
        elif message.kind == flow.REDUCED:
            rows += (CANCEL | side, INSTRUMENT.id, order_id, message.price, message.size, 0)
        elif message.kind == flow.DELETED:
            rows += (DELETE | side, INSTRUMENT.id, order_id, message.price, message.size, 0)
        elif message.kind == flow.EXECUTED:
            rows += (EXECUTE | side, INSTRUMENT.id, order_id, message.price, message.size, trade_id)
        else:
            rows += (TRADE | side, INSTRUMENT.id, 0, message.price, message.size, trade_id)
    if rows:
        yield _whole(time_ns, rows)


def logged(events: Sequence[Event], commit_ns: int) -> list[Event]:
    """The same events with the times an engine would have logged: what arrives while one record is being made
    durable, which takes `commit_ns`, shares the time of the next."""
    found = []
    free_ns = time_ns = 0
    for event in events:
        if event.time_ns > time_ns:  # it is not part of the record that waits
            time_ns = max(event.time_ns, free_ns)
            free_ns = time_ns + commit_ns
        found.append(Event(time_ns, event.rows))
    return found


def _whole(time_ns: int, rows: list[int]) -> Event:
    rows[-DELTA_WIDTH] |= END
    return Event(time_ns, rows)


class Cut(NamedTuple):
    """Exactly so many deltas, with what a frame needs to know of them."""

    times: list[tuple[int, int]]
    instruments: list[tuple[int, int]]
    rows: list[int]


def cut(events: Sequence[Event], size: int) -> list[Cut]:
    """The deltas of the events in frames of exactly `size`; what does not fill the last one is left out."""
    cuts = []
    times: list[tuple[int, int]] = []
    rows: list[int] = []
    sequence = 1
    last_ns = events[0].time_ns
    for event in events:
        for at in range(0, len(event.rows), DELTA_WIDTH):
            if not rows:
                times = [(0, last_ns)] if at else [(0, event.time_ns)]
            elif at == 0 and event.time_ns != last_ns:
                times.append((len(rows) // DELTA_WIDTH, event.time_ns))
            last_ns = event.time_ns
            rows += event.rows[at : at + DELTA_WIDTH]
            if len(rows) == size * DELTA_WIDTH:
                cuts.append(Cut(times, [(INSTRUMENT.id, sequence)], rows))
                sequence += size
                rows = []
    return cuts


def spoken(row: Sequence[int]) -> dict[str, object]:
    """A delta as a naive feed would say it: a map with names."""
    op, instrument, order_id, price, quantity, trade_id = row
    return {
        "type": NAMES.get(op & OP_MASK, "modify"),
        "symbol": INSTRUMENT.symbol,
        "instrument": instrument,
        "side": "sell" if op & SELL else "buy",
        "order_id": order_id,
        "price": price,
        "quantity": quantity,
        "trade_id": trade_id,
    }
