"""cluster.toml edited between two starts: each key is told and logged from now on, or stops the start; what was
acknowledged stays as it was."""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import fields, replace
from decimal import Decimal
from typing import Any

import pytest

from engine.core.commands import AddInstrument, Delist, OperatorCommand
from engine.core.rules import RULES
from engine.core.venue import RETAINED
from engine.log import edits
from engine.log.edits import Effect
from engine.log.memory import Disk, MemoryLog
from engine.log.records import Entered, Epoch, Group, Identity, Part, decode, encode, identity_of
from engine.log.replay import StartRefused, replay, restore
from engine.log.state import dump, founded
from engine.node import Engine
from proto.cluster import Account, Cluster, EngineEntry, VenueEntry
from proto.columns import (
    ACCEPTED,
    CANCEL,
    CANCELED,
    NEW,
    PRICE_OUT_OF_LIMITS,
    REFUSED,
    STP_NONE,
    Batch,
    Outcome,
    ReportRow,
    delta_rows,
    report_rows,
)
from proto.feed import DEFINITION, OP_MASK
from proto.instrument import Instrument
from proto.orders import write_batch
from tests.engines import Engines, cluster_of

CLUSTER = replace(cluster_of(2, (7, 8)), name="test")
E1A, E1B = CLUSTER.instruments_of(1)
KEYS: dict[type, dict[str, Effect]] = {
    Instrument: edits.INSTRUMENT, Account: edits.ACCOUNT, EngineEntry: edits.ENGINE, VenueEntry: edits.VENUE,
}  # fmt: skip

# What each key is edited to. (An instrument's allocation: that of E1B, which has no live orders.)
EDITED: dict[type, dict[str, Any]] = {
    Instrument: {
        "id": 12, "symbol": "NOVA", "engine": 2, "channel": 2, "tick_size": Decimal("0.05"), "lot_size": Decimal(10),
        "price_min": 98, "price_max": 102, "quantity_max": 50, "notional_max": 5_000, "collar": 3, "band": 4,
        "allocation": "pro-rata", "auction_reference": 100, "state": "auction",
    },
    Account: {"id": 9, "name": "maker"},
    EngineEntry: {"id": 3, "grpc": "127.0.0.1:4001", "feed": "tcp://127.0.0.1:4002", "channels": 2},
    VenueEntry: {"name": "other"},
}  # fmt: skip
EVERY = [(kind, field.name) for kind in KEYS for field in fields(kind)]


def edited(kind: type, key: str) -> Cluster:
    """The file with one key of one table edited."""
    change = {key: EDITED[kind][key]}
    if kind is VenueEntry:
        return replace(CLUSTER, **change)
    if kind is Account:
        return replace(CLUSTER, accounts=(replace(CLUSTER.accounts[0], **change), *CLUSTER.accounts[1:]))
    if kind is EngineEntry:
        return replace(CLUSTER, engines=(replace(CLUSTER.engines[0], **change), *CLUSTER.engines[1:]))
    which = E1B if key == "allocation" else E1A
    instruments = tuple(replace(i, **change) if i is which else i for i in CLUSTER.instruments)
    return replace(CLUSTER, instruments=instruments)


class Life:
    """An engine on a disk, without its services: what is said to it is logged, then applied."""

    def __init__(self, disk: Disk, cluster: Cluster = CLUSTER, engine: int = 1, name: str = "") -> None:
        self.log = MemoryLog(disk)
        self.engine = Engine(cluster, engine, self.log, where=lambda engine: None, name=name, clock_ns=lambda: 1_000)
        try:
            for _ in self.engine.replay():
                pass
            self.replayed = self.engine.venue.digest()
            self.epoch = self.engine.begin().epoch
        finally:
            if not hasattr(self, "epoch"):
                self.log.close()
        for position, command in enumerate(self.engine._edits, self.epoch + 1):
            self.engine.venue.operate(position, self.engine.begun.time_ns, command)

    @property
    def identity(self) -> Identity | None:
        """What this epoch's record has of the file."""
        record = decode(dict(self.log.read(self.epoch - 1))[self.epoch])
        assert isinstance(record, Epoch)
        assert record.rules == RULES
        return record.identity

    def say(self, part: Part) -> list[ReportRow]:
        venue = self.engine.venue
        position = self.log.append(self.log.position, [encode(Group(self.epoch, 2_000, [part]))])
        if isinstance(part, Entered):
            batch = Batch(part.account, 0, STP_NONE, *self._columns)
            outcome = venue.apply(position, 2_000, [batch])
        else:
            assert isinstance(part, OperatorCommand)
            outcome = venue.operate(position, 2_000, part)
            assert not outcome.refused
        return [row for told in outcome.reports for row in report_rows(told.rows)]

    def order(self, op: int, id: int, side: int = 0, price: int = 0, quantity: int = 0, target: int = 0) -> ReportRow:
        self._columns = [op], [id], [E1A.id], [side], [price], [quantity], [target]
        return self.say(Entered(7, 0, STP_NONE, write_batch(Batch(7, 0, STP_NONE, *self._columns))))[0]

    def end(self) -> str:
        self.log.close()
        return self.engine.venue.digest()

    def changed(self) -> list[OperatorCommand]:
        return self.engine._edits


def traded() -> tuple[Disk, str]:
    """A log with trades and resting orders, some of which an edit would put out of the limits; and its state."""
    disk = Disk()
    life = Life(disk)
    for id, (side, price, quantity) in enumerate(((0, 95, 5), (0, 99, 5), (1, 99, 3), (1, 105, 60), (0, 100, 2)), 1):
        assert life.order(NEW, id, side, price, quantity).kind == ACCEPTED
    return disk, life.end()


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [line for message in messages for line in message.splitlines()]


def digest_at(disk: Disk, position: int) -> str:
    """The state that the log says it was in at a position, whatever came behind."""
    log = MemoryLog(disk)
    after, state = restore(log)

    class Begin:
        def read(self, after: int) -> Iterator[tuple[int, bytes]]:
            return (row for row in log.read(after) if row[0] <= position)

    for _ in replay(Begin(), state, after, lambda position, time_ns, outcome: None):
        pass
    log.close()
    return state.venue.digest()


@pytest.mark.parametrize("kind", KEYS)
def test_every_key_of_the_file_has_a_decision(kind: type) -> None:
    assert set(KEYS[kind]) == {field.name for field in fields(kind)}


@pytest.mark.parametrize(("kind", "key"), EVERY, ids=lambda value: getattr(value, "__name__", value))
def test_an_edited_key_is_told_and_logged_from_now_on_or_refused(
    kind: type, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    disk, before = traded()
    count, cluster, effect = len(disk.bodies), edited(kind, key), KEYS[kind][key]
    if effect is Effect.IDENTIFIES:
        with pytest.raises(StartRefused, match=r": (trade it|write|name|start)") as refused:
            Life(disk, cluster, engine=3 if (kind, key) == (EngineEntry, "id") else 1)
        assert len(disk.bodies) == count  # nothing was logged, and the file as it was is good again
        assert "\n" not in str(refused.value)
        assert Life(disk).replayed == before
        return
    caplog.clear()
    life = Life(disk, cluster)
    assert life.replayed == before
    (line, *_) = told(caplog)
    assert key in line or f"account {EDITED[kind][key]}" in line
    assert life.identity is not None
    assert (life.identity.instruments, life.identity.accounts) == (cluster.instruments_of(1), cluster.accounts)
    assert life.identity.engine == cluster.engine(1)
    assert bool(life.changed()) == (effect is Effect.CHANGES)
    if kind is Instrument:
        now = life.engine.venue.markets[E1B.id if key == "allocation" else E1A.id].instrument
        value = getattr(now, key)
        assert (value == EDITED[kind][key]) == (effect is Effect.CHANGES)
    elif kind is Account:
        assert life.engine.venue.operations.allowed == {account.id: account.name for account in cluster.accounts}
    after = life.end()
    assert digest_at(disk, count) == before  # what was acknowledged is as it was
    caplog.clear()
    again = Life(disk, cluster)
    assert (again.replayed, told(caplog), again.identity) == (after, [], None)  # told and logged once


def test_orders_outside_narrower_limits_stay_and_can_be_canceled() -> None:
    disk, _ = traded()
    instruments = tuple(replace(i, price_min=98, price_max=102) if i == E1A else i for i in CLUSTER.instruments)
    life = Life(disk, replace(CLUSTER, instruments=instruments))
    assert [order.price for order in life.engine.venue.open_orders(7)] == [95, 99, 105, 100]
    life.engine.venue.check()
    refused = life.order(NEW, 10, 0, 97, 1)
    assert (refused.kind, refused.reason) == (REFUSED, PRICE_OUT_OF_LIMITS)
    assert life.order(CANCEL, 11, target=1).kind == CANCELED
    assert life.order(NEW, 12, 0, 102, 1).kind == ACCEPTED


def test_allocation_does_not_change_under_live_orders_nor_a_band_come_without_a_price() -> None:
    disk, _ = traded()
    instruments = tuple(replace(i, allocation="pro-rata") if i == E1A else i for i in CLUSTER.instruments)
    with pytest.raises(StartRefused, match=r'allocation = "fifo" -> "pro-rata" while orders are live: cancel them'):
        Life(disk, replace(CLUSTER, instruments=instruments))
    instruments = tuple(replace(i, band=5, auction_reference=50) if i == E1B else i for i in CLUSTER.instruments)
    with pytest.raises(StartRefused, match=r"E1B .instrument 11.: band = 5 needs a price that it is about"):
        Life(disk, replace(CLUSTER, instruments=instruments))


def test_an_instrument_newly_in_the_file_is_added_and_one_that_is_gone_stays(caplog: pytest.LogCaptureFixture) -> None:
    disk, _ = traded()
    new = replace(E1B, id=12, symbol="NOVA")
    life = Life(disk, replace(CLUSTER, instruments=(E1A, new)))
    assert told(caplog) == [
        "cluster file: NOVA (instrument 12) is traded from now on",
        "cluster file: E1B (instrument 11) is gone from the file and stays: tools.orders delist E1B ends it",
    ]
    assert [market.instrument for market in life.engine.venue.markets.values()] == [E1A, E1B, new]
    life.end()
    caplog.clear()
    there_again = Life(disk)
    assert told(caplog) == [
        "cluster file: NOVA (instrument 12) is gone from the file and stays: tools.orders delist NOVA ends it"
    ]
    assert there_again.changed() == []


def test_an_instrument_that_comes_back_into_the_file_edited_is_edited(caplog: pytest.LogCaptureFixture) -> None:
    disk, _ = traded()
    others = tuple(instrument for instrument in CLUSTER.instruments if instrument is not E1A)
    for _ in range(2):  # it stays remembered, and is told each time
        life = Life(disk, replace(CLUSTER, instruments=others))
        assert told(caplog) == [
            "cluster file: E1A (instrument 10) is gone from the file and stays: tools.orders delist E1A ends it"
        ]
        before = life.end()
        caplog.clear()
    life = Life(disk, replace(CLUSTER, instruments=(replace(E1A, price_max=500), *others)))
    assert told(caplog) == ["cluster file: E1A (instrument 10): price_max = 100000 -> 500 from now on"]
    assert life.replayed == before
    assert life.engine.venue.markets[E1A.id].instrument.price_max == 500


@pytest.mark.parametrize("gone_before", [False, True])
@pytest.mark.parametrize(
    ("moved", "why"),
    [
        ({"engine": 2}, r"E1A \(instrument 10\): engine = 1 -> 2 cannot be: trade it under another id and symbol"),
        ({"engine": 2, "id": 77}, r"E1A \(instrument 10\): it is instrument 77 of engine 2 in the file, which cannot"),
        ({"engine": 2, "symbol": "NOVA"}, r"E1A \(instrument 10\): engine = 1 -> 2 cannot be"),
    ],
)
def test_what_is_traded_here_is_not_moved_to_another_engine_under_whatever_name(
    moved: dict[str, Any], why: str, gone_before: bool
) -> None:
    disk, before = traded()
    others = tuple(instrument for instrument in CLUSTER.instruments if instrument is not E1A)
    if gone_before:
        before = Life(disk, replace(CLUSTER, instruments=others)).end()
    with pytest.raises(StartRefused, match=why):
        Life(disk, replace(CLUSTER, instruments=(*others, replace(E1A, **moved))))
    assert Life(disk).replayed == before


def test_what_an_operator_added_and_the_file_has_at_another_engine_stays_and_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk, _ = traded()
    life = Life(disk)
    life.say(AddInstrument.of(replace(E1A, id=12, symbol="NOVA")))
    life.end()
    caplog.clear()
    Life(disk, replace(CLUSTER, instruments=(*CLUSTER.instruments, replace(E1A, id=13, symbol="NOVA", engine=2))))
    assert told(caplog) == [
        "cluster file: NOVA (instrument 12) stays, an operator added it, and the file has NOVA (instrument 13) of "
        "engine 2: tools.orders delist NOVA ends it"
    ]


def test_a_symbol_that_was_delisted_is_not_used_again() -> None:
    disk, _ = traded()
    life = Life(disk)
    life.say(Delist(E1B.id))
    life.end()
    with pytest.raises(StartRefused, match=r"55 \(E1B\) of the file is 11 in the log, and was delisted: write another"):
        Life(disk, replace(CLUSTER, instruments=(E1A, replace(E1B, id=55))))


def test_what_an_operator_did_stays_and_a_conflict_with_an_edit_is_told(caplog: pytest.LogCaptureFixture) -> None:
    disk, _ = traded()
    life = Life(disk)
    life.say(AddInstrument.of(replace(E1A, id=12, symbol="NOVA", price_max=500)))
    life.say(Delist(E1B.id))
    life.end()
    caplog.clear()
    nova = replace(E1A, id=12, symbol="NOVA", price_max=400, collar=0)
    later = Life(disk, replace(CLUSTER, instruments=(E1A, replace(E1B, collar=9), nova)))
    assert told(caplog) == [
        "cluster file: E1B (instrument 11) was delisted: the edit has no effect",
        "cluster file: NOVA (instrument 12): price_max stays 500, an operator set it: write that to edit it again",
    ]
    assert later.changed() == []
    later.end()
    with pytest.raises(StartRefused, match=r'NOVA .* tick_size = "0.01" -> "0.05" cannot be: trade it under another'):
        Life(disk, replace(CLUSTER, instruments=(E1A, replace(nova, tick_size=Decimal("0.05")))))


@pytest.mark.parametrize(
    ("before", "now", "lines"),
    [
        ((7, 8), (8, 9, 10), [
            "may trade from now on: account 9, 10",
            "may trade no more: account 7; orders stay until an operator cancels them",
        ]),
        ((7,), (), ["every account may trade from now on"]),
        ((), (7, 8), ["may trade from now on, and no others: account 7, 8"]),
    ],
)  # fmt: skip
def test_accounts_that_come_and_go_are_told(
    before: tuple[int, ...], now: tuple[int, ...], lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    disk = Disk()
    Life(disk, replace(CLUSTER, accounts=tuple(map(Account, before)))).end()
    life = Life(disk, replace(CLUSTER, accounts=tuple(map(Account, now))))
    assert told(caplog) == [f"cluster file: {line}" for line in lines]
    assert list(life.engine.venue.operations.allowed) == list(now)


def test_a_log_is_not_taken_up_under_another_name(caplog: pytest.LogCaptureFixture) -> None:
    disk, _ = traded()
    with pytest.raises(StartRefused, match="of engine-1, and not of other: start it with --name engine-1"):
        Life(disk, name="other")


def test_a_log_of_before_there_were_identities_takes_one_from_the_file_once(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk()
    disk.bodies = [encode(Epoch(0, "earlier", 1)), encode(Epoch(1, "earlier", 2))]
    life = Life(disk)
    assert life.identity is not None
    assert told(caplog) == ["the log says from now on whose it is: engine-1 of the venue test"]
    assert life.order(NEW, 1, 0, 95, 5).kind == ACCEPTED
    before = life.end()
    caplog.clear()
    narrower = tuple(replace(i, price_max=90) if i == E1A else i for i in CLUSTER.instruments)
    later = Life(disk, replace(CLUSTER, instruments=narrower))
    assert later.replayed == before
    assert told(caplog) == ["cluster file: E1A (instrument 10): price_max = 100000 -> 90 from now on"]


def test_what_was_logged_before_there_were_identities_is_replayed_without_the_edit_that_came_with_them() -> None:
    """It has a snapshot, whose definitions are those of then; later it is replayed from its begin."""
    disk, _ = traded()
    earlier = Epoch(0, "earlier", 1)
    bodies = [encode(earlier), *disk.bodies[1:]]
    wide = founded(identity_of(CLUSTER, 1, "engine-1", RETAINED))
    old = Disk()
    old.bodies = list(bodies)
    log = MemoryLog(old)
    for _ in replay(log, wide, 0, lambda position, time_ns, outcome: None):
        pass
    wide.identity = None
    log.save_snapshot(log.position, dump(wide))
    log.close()
    count, before = len(old.bodies), wide.venue.digest()
    narrower = tuple(replace(i, price_max=90) if i == E1A else i for i in CLUSTER.instruments)
    life = Life(old, replace(CLUSTER, instruments=narrower))
    assert life.engine.venue.markets[E1A.id].instrument.price_max == 90
    after = life.end()
    old.snapshots.clear()
    assert digest_at(old, count) == before
    assert Life(old, replace(CLUSTER, instruments=narrower)).replayed == after


def test_a_snapshot_of_another_engine_is_not_taken_up_where_the_log_has_no_identity() -> None:
    disk, _ = traded()
    state = founded(identity_of(CLUSTER, 1, "engine-1", RETAINED))
    disk.bodies[0] = encode(Epoch(0, "earlier", 1))
    log = MemoryLog(disk)
    for _ in replay(log, state, 0, lambda position, time_ns, outcome: None):
        pass
    state.identity = None
    log.save_snapshot(log.position, dump(state))
    log.close()
    with pytest.raises(StartRefused, match="this is the log of engine 1, and not of engine 2: name its own directory"):
        Life(disk, engine=2)


def test_an_edit_takes_effect_when_the_engine_serves_as_it_will_in_every_replay() -> None:
    async def test() -> None:
        async with Engines(1, accounts=(7, 8)) as engines:
            stream = await engines.session()
            await stream.new(1, 10, 0, 95, 5)
            await stream.next(1)
            await engines.down(1)
            new = replace(E1B, id=12, symbol="NOVA")
            edited_ = (replace(engines.cluster.instruments[0], price_min=97), engines.cluster.instruments[1], new)
            engines.cluster = replace(engines.cluster, instruments=edited_, accounts=(Account(7), Account(9)))
            heard: list[int] = []
            await engines.up(1)
            stream = await engines.session(account=9)
            await stream.new(1, 10, 0, 96, 5)
            await stream.new(2, 12, 0, 96, 5)
            assert [(r[2], r[7]) for r in await stream.next(2)] == [(REFUSED, PRICE_OUT_OF_LIMITS), (ACCEPTED, 0)]
            await engines[1].committer.settled()
            live = engines[1].venue.digest()
            assert engines[1].venue.markets[10].instrument.told.price_min == 97
            await engines.down(1)
            log = MemoryLog(engines.disks[1])
            after, state = restore(log)

            def hear(position: int, time_ns: int, outcome: Outcome) -> None:
                heard.extend(row.op & OP_MASK for deltas in outcome.deltas for row in delta_rows(deltas.rows))

            for _ in replay(log, state, after, hear):
                pass
            assert state.venue.digest() == live
            assert heard.count(DEFINITION) == 2
            log.close()

    asyncio.run(test())
