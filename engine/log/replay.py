"""What a log leads to: the state at its end, from the log alone.

    log     a snapshot in it, if one can be read       the venue, the epoch, the rules and the identity as they stood
            else its first identity                    the venue as it began
            else `founding`, if the caller has one     a log that is empty, or was begun before there were identities
    then    every record behind                        in order; commands only of the current epoch

A record is applied by the rules it was acknowledged under: those are this program's, or replaying ends with
StartRefused before the record. So it does where a record cannot be applied at all, unless a later record says that
somebody answers for going on without it (`python -m engine.log.skip`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from engine.core.rules import RULES, alike
from engine.core.venue import Venue
from engine.log.contract import LogDamaged, LogError
from engine.log.numbering import opening, traded
from engine.log.records import (
    Disconnected,
    Entered,
    Epoch,
    Group,
    Identity,
    RecordError,
    Skipped,
    decode,
    epoch_at,
    is_rare,
)
from engine.log.state import EngineState, StateError, founded, load
from proto.columns import Outcome
from proto.orders import GarbledError, read_batch

AT_ONCE: Final = 256  # records between two yields
WAY_OUT: Final = (
    "have the version that wrote them make a snapshot of the log's end (its `condense`), and start this version again"
)

logger = logging.getLogger(__name__)

Release = Callable[[int, int, Outcome], None]  # position, time, outcome
Opened = Callable[[int, int], None]  # epoch, time


class StartRefused(LogError):
    """The log is sound, and still nobody may go on from it like this; the message has the way out."""


class Inapplicable(StartRefused):
    """The record at `position` cannot be read, or not be applied."""

    def __init__(self, position: int, why: str) -> None:
        super().__init__(
            f"record {position} cannot be applied ({why}): if a newer version of this program wrote it, start that; "
            "else, to go on as if it were void, and to answer for it: "
            f"python -m engine.log.skip --data DIR --record {position} --who NAME --why TEXT"
        )
        self.position = position


class Records(Protocol):
    """What can be read like a log (engine/log/contract.py)."""

    def read(self, after: int) -> Iterator[tuple[int, bytes]]: ...


class Keeper(Records, Protocol):
    """A log that keeps snapshots."""

    def load_snapshot(self) -> tuple[int, bytes] | None: ...


def _unheard(epoch: int, time_ns: int) -> None:
    """Nobody asked to be told."""


def restore(log: Keeper, founding: Identity | None = None) -> tuple[int, EngineState]:
    """The state to replay from, and its position. Raises: LogError, StartRefused among them."""
    snapshot = log.load_snapshot()
    if snapshot is None:
        return 0, beginning(log, founding)
    try:
        return snapshot[0], load(snapshot[1])
    except StateError as e:
        why = f"the snapshot at position {snapshot[0]} cannot be read: {e}"
        logger.warning("%s; the whole log is read", why)
    try:
        return 0, beginning(log, founding)
    except LogDamaged as e:
        raise StartRefused(f"{why}, and {e}: {WAY_OUT}") from e


def beginning(log: Records, founding: Identity | None = None) -> EngineState:
    """The state before the first record. Cost: O(1), but for a log without an identity at its begin: O(records)."""
    for _, body in log.read(0):
        if is_rare(body) and isinstance(record := _readable(body), Epoch) and record.identity is not None:
            return founded(record.identity)
    if founding is None:
        raise StartRefused("the log does not say what it is the log of: start its engine once, so that it does")
    state = founded(founding)
    state.identity = None
    return state


def passed_over(log: Records, after: int) -> dict[int, Skipped]:
    """The records behind `after` that somebody answers for going on without. Cost: reading those records."""
    rare = (_readable(body) for _, body in log.read(after) if is_rare(body))
    return {record.position: record for record in rare if isinstance(record, Skipped)}


def replay(log: Records, state: EngineState, after: int, release: Release, opened: Opened = _unheard) -> Iterator[int]:
    """Apply to `state` what the log holds after that position; gives the position now and then, and at the end.

    Each outcome is released; when an epoch counts, `opened` is called with it and its time.
    Raises: LogDamaged, StartRefused.
    """
    position = after
    skipped = passed_over(log, after)
    sent: Counter[int] = Counter()  # commands, by account, under other rules
    busiest = 0
    for position, body in log.read(after):
        if position in skipped:
            said = skipped[position]
            logger.warning("record %d is passed over: %s (%s)", position, said.why, said.who)
            continue
        try:
            record = decode(body)
            if isinstance(record, Epoch):
                if record.previous == state.epoch:
                    state.epoch, state.rules = epoch_at(position, record), record.rules
                    state.identity = record.identity or state.identity
                    opened(state.epoch, record.time_ns)
                continue
            if isinstance(record, Skipped) or record.epoch != state.epoch:
                continue
            outcome = _apply(state.venue, position, record)
            if state.rules != RULES:
                busiest = max(busiest, _count(sent, record))
                venue = state.venue
                if after or not alike(state.rules, RULES, busiest, venue.retained, venue.trading.bounded):
                    raise StartRefused(
                        f"the records from {position} on were acknowledged under version {state.rules} of the rules, "
                        f"and this program has version {RULES}: {WAY_OUT}"
                    )
        except (RecordError, GarbledError) as e:
            raise Inapplicable(position, str(e)) from e
        except (AssertionError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
            raise Inapplicable(position, f"{type(e).__name__}: {e}") from e
        release(position, record.time_ns, outcome)
        if position % AT_ONCE == 0:
            yield position
    yield position


def counting(state: EngineState, release: Release) -> tuple[Release, Opened]:
    """What to replay with so that `state` counts, too, how far its streams have come. Cost: 30 ns a delta."""
    numbering, markets = state.numbering, state.venue.markets

    def opened(epoch: int, time_ns: int) -> None:
        numbering.begin()
        numbering.count(opening(traded(markets.values())))

    def counted(position: int, time_ns: int, outcome: Outcome) -> None:
        numbering.count(outcome.deltas)
        release(position, time_ns, outcome)

    return counted, opened


def _apply(venue: Venue, position: int, record: Group) -> Outcome:
    batches = []
    for part in record.parts:
        if isinstance(part, Entered):
            batches.append(read_batch(part.account, part.session, part.stp, part.commands))
            continue
        assert len(record.parts) == 1, "what stands alone shares a record"
        if isinstance(part, Disconnected):
            return venue.disconnect(position, record.time_ns, part.account, part.session)
        return venue.operate(position, record.time_ns, part)
    return venue.apply(position, record.time_ns, batches) if batches else venue.tick(position, record.time_ns)


def _count(sent: Counter[int], record: Group) -> int:
    """Count the commands of a record; those of its busiest account so far."""
    entered = [part for part in record.parts if isinstance(part, Entered)]
    for part in entered:
        sent[part.account] += len(read_batch(part.account, part.session, part.stp, part.commands))
    return max((sent[part.account] for part in entered), default=0)


def _readable(body: bytes) -> object:
    try:
        return decode(body)
    except RecordError:  # told when it is its turn
        return None
