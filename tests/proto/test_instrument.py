"""Instruments that come and go while the venue runs: what machines tell each other of them, and two engines with a
fabric node as processes."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest

from bus.access.asking import Machine
from engine.client import Client, RefusedError
from proto import cluster, marketdata_pb2, marketdata_pb2_grpc
from proto import orders_pb2 as pb
from proto import orders_pb2_grpc as pb_grpc
from proto.columns import ACCEPTED, BUY, SELL, UNKNOWN_INSTRUMENT
from proto.instrument import FIFO, PRO_RATA, Instrument, ListingError, instrument_of, message_of
from proto.marketdata_pb2 import BOOK_VALID
from tests.bus.test_node import process_of
from tests.engine.test_process import Venue
from tests.engines import cluster_of
from tests.patience import patience

PATIENCE_S = patience(15.0)
GOLD = Instrument(
    99, "GOLD", 1, 2, Decimal("0.05"), Decimal(10), -5, 500, 9, 90, 3, 4, PRO_RATA, 7, "pre-open",
)  # fmt: skip


def test_an_instrument_is_told_with_all_its_rules() -> None:
    assert instrument_of(message_of(GOLD)) == GOLD
    plain = replace(GOLD, allocation=FIFO, state="open")
    assert instrument_of(message_of(plain)) == plain


def test_what_a_machine_of_an_earlier_version_leaves_out_is_as_in_a_file_that_leaves_it_out() -> None:
    earlier = marketdata_pb2.Instrument(
        id=99, symbol="GOLD", engine=1, channel=2, tick_size="0.05", lot_size="10", price_min=-5, price_max=500
    )
    assert instrument_of(earlier) == Instrument(99, "GOLD", 1, 2, Decimal("0.05"), Decimal(10), -5, 500)


@pytest.mark.parametrize(
    "change",
    [
        {"id": 0}, {"symbol": "gold"}, {"symbol": ""}, {"engine": 0}, {"channel": 0}, {"tick_size": "1e3"},
        {"tick_size": "0.0000000000001"}, {"lot_size": "0"}, {"price_min": 501}, {"price_max": 2**40},
        {"quantity_max": 2**40}, {"notional_max": 2**62},
        {"collar": 2**40}, {"band": 2**40}, {"allocation": "lottery"}, {"auction_reference": -(2**40)},
        {"first_state": "asleep"},
    ],
    ids=str,
)  # fmt: skip
def test_a_message_that_describes_no_instrument_is_refused(change: dict[str, Any]) -> None:
    message = message_of(GOLD)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(ListingError):
        instrument_of(message)


class Desk:
    """An operator and a reader of three machines."""

    def __init__(self, one: str, two: str, fabric: str) -> None:
        self.channels = {name: grpc.insecure_channel(at) for name, at in (("1", one), ("2", two), ("fabric", fabric))}

    def operator(self, engine: str) -> Any:
        return pb_grpc.OperatorStub(self.channels[engine])  # type: ignore[no-untyped-call]

    def market(self, machine: str) -> Any:
        return marketdata_pb2_grpc.MarketDataStub(self.channels[machine])  # type: ignore[no-untyped-call]

    def listed(self, machine: str) -> dict[str, marketdata_pb2.Instrument]:
        reply = self.market(machine).GetInstruments(marketdata_pb2.InstrumentsRequest(), timeout=patience(5))
        return {instrument.symbol: instrument for instrument in reply.instruments}

    def book(self, machine: str, symbol: str) -> marketdata_pb2.Book | None:
        asked = marketdata_pb2.BookRequest(symbol=symbol, depth=5)
        try:
            found: marketdata_pb2.Book = self.market(machine).GetBook(asked, timeout=patience(5))
        except grpc.RpcError as e:
            if e.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return found

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()


def until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def added(instrument: Instrument) -> pb.AddInstrumentRequest:
    return pb.AddInstrumentRequest(
        id=instrument.id, symbol=instrument.symbol, channel=instrument.channel,
        tick_size=str(instrument.tick_size), lot_size=str(instrument.lot_size),
        price_min=instrument.price_min, price_max=instrument.price_max, quantity_max=instrument.quantity_max,
        notional_max=instrument.notional_max, collar=instrument.collar, band=instrument.band,
        allocation=instrument.allocation, auction_reference=instrument.auction_reference, state=instrument.state,
    )  # fmt: skip


@pytest.mark.processes
def test_an_instrument_added_on_an_empty_channel_is_traded_and_seen_everywhere_until_it_is_delisted(
    tmp_path: Path,
) -> None:
    with Venue(tmp_path, 2) as venue:
        file = cluster_of(2)
        engines = tuple(replace(entry, channels=2) for entry in file.engines)
        (tmp_path / "cluster.toml").write_text(cluster.dumps(replace(file, engines=engines)))
        one, two = venue.start(1), venue.start(2)
        with process_of("--engine", "2", "--join", one, "--join", two) as (_, ready):
            fabric = str(ready["grpc"])
            desk = Desk(one, two, fabric)
            try:
                until(lambda: {"E1A", "E2A"} <= set(desk.listed("fabric")), "the fabric node knows the venue")
                reply = desk.operator("1").AddInstrument(added(GOLD), timeout=patience(5))
                assert (reply.reason, reply.detail) == (pb.REASON_NONE, "")
                assert desk.listed("1")["GOLD"].trading_state == "pre-open"

                def seen() -> bool:
                    book = desk.book("fabric", "GOLD")
                    return book is not None and book.state == BOOK_VALID and book.trading_state == "pre-open"

                until(seen, "the fabric node has its definition and its state")
                until(lambda: instrument_of(desk.listed("fabric")["GOLD"]) == GOLD, "and all its rules, a little later")

                asyncio.run(trade(two))  # of the other engine: it is passed on
                until(lambda: (book := desk.book("fabric", "GOLD")) and book.indication.volume, "the indication")
                joined = asyncio.run(snapshot(fabric))
                assert [(b.definition.symbol, b.indication) for b in joined.books if b.definition] == [
                    ("GOLD", (7, 2, 1))
                ]
                opened = pb.SetStateRequest(symbol="GOLD", state=pb.TRADING_STATE_OPEN)
                assert desk.operator("1").SetState(opened, timeout=patience(5)).reason == pb.REASON_NONE
                until(
                    lambda: (b := desk.book("fabric", "GOLD")) and b.trading_state == "open", "the fabric hears of it"
                )
                book = desk.book("fabric", "GOLD")
                assert book is not None
                assert (book.statistics.volume, book.statistics.vwap) == (2, "0.3500")
                assert not book.HasField("indication")

                claimed = desk.operator("2").AddInstrument(added(replace(GOLD, id=77)), timeout=patience(5))
                assert claimed.reason == pb.REASON_DUPLICATE_ID
                assert claimed.detail == "engine 1 has GOLD as instrument 99, and engine 2 claims 'GOLD' as 77"

                desk.operator("1").Delist(pb.DelistRequest(symbol="GOLD"), timeout=patience(5))
                until(lambda: "GOLD" not in desk.listed("fabric"), "the fabric node lists it no more")
                assert "GOLD" not in desk.listed("1")
                for machine in ("1", "fabric"):
                    assert desk.book(machine, "GOLD") is None
                asyncio.run(refused(two))

                venue.signal(1, 9)
                venue.processes[1].wait(10)
                again = Desk(venue.start(1), two, fabric)
                try:
                    assert "GOLD" not in again.listed("1")
                    silver = replace(GOLD, id=98, symbol="SILVER")
                    assert (
                        again.operator("1").AddInstrument(added(silver), timeout=patience(5)).reason == pb.REASON_NONE
                    )
                    until(lambda: "SILVER" in again.listed("fabric"), "an empty channel goes on in a new epoch")
                    until(lambda: (b := again.book("fabric", "SILVER")) and b.state == BOOK_VALID, "and is mirrored")
                finally:
                    again.close()
            finally:
                desk.close()


async def trade(entry: str) -> None:
    """Three lots wanted and two offered, at an engine whose client knew nothing of the instrument before."""
    client = Client([entry], 7, engine=2)
    async with client.session() as session:
        client.instruments.pop("GOLD", None)
        assert (await session.new("GOLD", BUY, "0.35", "30")).kind == ACCEPTED
        assert (await session.new("GOLD", SELL, "0.35", "20")).kind == ACCEPTED


async def refused(entry: str) -> None:
    async with Client([entry], 7, engine=2, instruments=[GOLD]).session() as session:
        with pytest.raises(RefusedError) as e:
            await session.new("GOLD", BUY, "0.35", "30")
        assert e.value.reason == UNKNOWN_INSTRUMENT


async def snapshot(target: str) -> Any:
    machine = Machine(target)
    try:
        return await machine.snapshot(1, 2)
    finally:
        await machine.close()
