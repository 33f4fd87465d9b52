"""The drop copies of every account of a venue, its open orders, and who has an account: read when all is at rest."""

import asyncio
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import grpc

from engine.client import Client, ClientError
from engine.log.contract import LogError
from engine.log.records import Entered, Group, RecordError, decode
from engine.log.view import SqliteLogView
from proto import connect
from proto import orders_pb2 as pb
from proto.columns import ReportRow
from proto.instrument import Instrument
from proto.orders import report_columns
from tools.run.audit.reconcile import Live

AT_ONCE: Final = 4  # accounts
ASK_S: Final = 10.0  # for an account's open orders
REPORTS_S: Final = 60.0  # for all its reports: an engine keeps 65,536 of each account
REPLY_MAX: Final = 64 << 20

Take = Callable[[int, int, int, int, list[ReportRow]], None]


@dataclass(slots=True)
class OpenOrder:
    """An order that is live as its home says; `force` as in proto TimeInForce."""

    account: int
    symbol: str
    client_order_id: int
    force: int


@dataclass(slots=True)
class CopiesTold:
    """What the engines said of accounts. `unasked` says about what nobody answered; `homes` who answered for each."""

    orders: list[OpenOrder] = field(default_factory=list)
    live: list[Live] = field(default_factory=list)
    unasked: dict[str, None] = field(default_factory=dict)
    missing: dict[int, None] = field(default_factory=dict)  # engines that did not give the reports of some account


async def read(
    targets: Sequence[str],
    homes: Iterable[int],
    accounts: Iterable[int],
    instruments: Sequence[Instrument],
    take: Take,
    patience: float,
) -> CopiesTold:
    """Every account's open orders, then all of its reports that are kept, through any of these engines.

    Reports go to `take` as (home, account, first number, time, rows), in order for each home and account.
    """
    some = asyncio.Semaphore(AT_ONCE)
    out = CopiesTold()
    of = frozenset(homes)
    known = {instrument.symbol: instrument for instrument in instruments}

    async def about(account: int) -> None:
        async with some:
            try:
                async with asyncio.timeout(ASK_S * patience):
                    reply = await Client(list(targets), account, instruments=instruments).open_orders()
            except (ClientError, TimeoutError):
                out.unasked[f"of account {account}"] = None
            else:
                out.unasked.update((f"at engine-{engine}", None) for engine in reply.engines_missing)
                for each in reply.orders:
                    if each.symbol not in known:
                        continue  # somebody has added it
                    out.orders.append(OpenOrder(account, each.symbol, each.client_order_id, each.time_in_force))
                    instrument = known[each.symbol]
                    lots = int(Decimal(each.open) / instrument.lot_size)
                    out.live.append(Live(each.order_id, instrument.id, lots, each.visible, each.expires_ns))
            answered: set[int] = set()
            began = account % len(targets)
            for target in (*targets[began:], *targets[:began]):  # one may not reach a home that another reaches
                if of <= answered:
                    break
                try:
                    async with asyncio.timeout(REPORTS_S * patience):
                        given = await _reports(target, account, of - answered)
                except (grpc.aio.AioRpcError, TimeoutError):
                    continue
                for home, batches in given.items():
                    for batch in batches:
                        rows = list(map(ReportRow._make, zip(*report_columns(batch), strict=True)))
                        take(home, account, batch.first_seq, batch.time_ns, rows)
                answered |= given.keys()
            out.missing.update(dict.fromkeys(of - answered))

    if targets:
        await asyncio.gather(*(about(account) for account in accounts))
    return out


async def _reports(target: str, account: int, homes: Set[int]) -> dict[int, list[pb.ReportBatch]]:
    """All kept reports of an account, to where they stood when it was asked, of those of these homes that answered."""
    async with connect.channel(target, reply_max=REPLY_MAX) as channel:
        ends = {home: last for home, last in (await _ends(channel, account)).items() if home in homes}
        given: dict[int, list[pb.ReportBatch]] = {home: [] for home in ends}
        left = {home for home, last in ends.items() if last}
        if not left:
            return given
        request = pb.ExecutionsRequest(account=account, cursors=[pb.Cursor(home=home) for home in ends])
        executions: Any = channel.unary_stream("/lobmesh.v1.Orders/Executions")
        call = executions(request.SerializeToString())
        async for data in call:
            batch = pb.ReportBatch.FromString(data)
            if batch.home not in ends or not batch.first_seq:
                continue
            given[batch.home].append(batch)
            if batch.first_seq + len(batch.kind) > ends[batch.home]:
                left.discard(batch.home)
            if not left:
                break
        call.cancel()
        return given


async def _ends(channel: grpc.aio.Channel, account: int) -> dict[int, int]:
    """The last report of each home by now: where a session that begins now would go on."""
    session: Any = channel.stream_stream("/lobmesh.v1.Orders/Session")
    call = session()
    try:
        await call.write(pb.SessionRequest(hello=pb.Hello(account=account)).SerializeToString())
        reply = pb.SessionReply.FromString(await call.read())
        return {cursor.home: cursor.last_seq for cursor in reply.welcome.cursors}
    finally:
        call.cancel()


def accounts_in(directory: Path) -> set[int]:
    """Everybody who ever entered a command there. Reads the log that an engine has open. O(records).

    Raises: OSError, LogError, RecordError when it cannot be read.
    """
    view = SqliteLogView(directory)
    try:
        found: set[int] = set()
        for _, body in view.read(view.dropped):
            record = decode(body)
            if isinstance(record, Group):
                found.update(part.account for part in record.parts if isinstance(part, Entered))
        return found
    finally:
        view.close()


UNREADABLE: Final = (OSError, LogError, RecordError)
