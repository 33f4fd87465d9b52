"""The audit at the end of a run: the feeds as they were heard, and the drop copies of all accounts."""

import asyncio
from collections.abc import Mapping

from proto.columns import ACCEPTED, TRADED, ReportRow
from proto.instrument import PRO_RATA
from tools.flow.order_counts import Executed, OrderCounts
from tools.run import membership
from tools.run.audit.breaches import Breaches
from tools.run.audit.reconcile import Shown, reconcile, resting, shown
from tools.run.audit.reports import ReportAudit
from tools.run.drop_copies import UNREADABLE, CopiesTold, accounts_in, read
from tools.run.evidence import Audited, Other
from tools.run.feeds import Feeds, Stream
from tools.run.flows import Flows
from tools.run.machines import Machines


class Others:
    """The accounts that are none of the run's own, as their drop copies tell of them since it began."""

    def __init__(self, own: set[int], next_trades: Mapping[int, int], began_ns: int) -> None:
        self._own = own
        self._next_trades = next_trades
        self._began_ns = began_ns
        self._tally = OrderCounts()
        self._found: dict[int, Other] = {}

    @property
    def executed(self) -> dict[int, Executed]:
        return self._tally.executed

    def found(self) -> tuple[Other, ...]:
        return tuple(other for _, other in sorted(self._found.items()))

    def take(self, account: int, time_ns: int, row: ReportRow) -> None:
        if account in self._own:
            return
        trades = row.kind == TRADED and row.trade_id >= self._next_trades.get(row.instrument, 1)
        orders = row.kind == ACCEPTED and time_ns >= self._began_ns
        if trades:
            self._tally.report(0, account, row, 0)
        if (trades or orders) and account != membership.ACCOUNT:
            before = self._found.get(account, Other(account, 0, 0, 0))
            lots = row.quantity if trades else 0
            self._found[account] = Other(account, before.orders + orders, before.trades + trades, before.lots + lots)


class Audit:
    """`look` while all rests, then `finish` at leisure: what happens in between is not judged."""

    def __init__(self, machines: Machines, flows: Flows, feeds: Feeds) -> None:
        self._machines = machines
        self._flows = flows
        self._feeds = feeds
        self._shown: dict[Stream, list[Shown]] = {}
        self.told = CopiesTold()

    def look(self) -> None:
        """Keep the books as the feeds have them now."""
        self._shown = {stream: shown(watch.audit) for stream, watch in self._feeds.watches.items()}

    async def finish(self, until_ns: int, others: Others) -> Audited:
        """Ask every engine for every account, and hold all against all. `until_ns`: the venue's time, before `look`."""
        machines = self._machines
        homes = [place.id for place in machines.serving_engines()]
        accounts, unread = await self._accounts(homes)
        by_size = [i.id for i in machines.venue.instruments if i.allocation == PRO_RATA]
        reports = ReportAudit(self._flows.acknowledged(), by_size)

        def take(home: int, account: int, first_seq: int, time_ns: int, rows: list[ReportRow]) -> None:
            reports.take(home, account, first_seq, time_ns, rows)
            for row in rows:
                others.take(account, time_ns, row)

        targets = [place.asked.target for place in machines.serving_engines()]
        instruments = machines.venue.instruments
        self.told = await read(targets, homes, sorted(accounts), instruments, take, machines.patience.factor)
        return self._held_together(reports, homes, until_ns, unread)

    async def _accounts(self, homes: list[int]) -> tuple[set[int], list[str]]:
        """Everybody who entered anything, and the engines whose logs could not be read for it."""
        accounts, unread = set(self._flows.accounts), []
        for home in homes:
            try:
                accounts |= await asyncio.to_thread(accounts_in, self._machines.directory / f"engine-{home}")
            except UNREADABLE as e:
                unread.append(f"who traded at engine-{home}: its log could not be read ({e})")
        return accounts, unread

    def _held_together(self, reports: ReportAudit, homes: list[int], until_ns: int, unread: list[str]) -> Audited:
        told, venue = self.told, self._machines.venue
        judged = [home for home in homes if home not in told.missing]
        unheard = [*unread, *(f"the reports of engine-{home}, which did not give all" for home in told.missing)]
        unheard += [f"the orders {whose}, about which nobody answered" for whose in told.unasked]
        found = Breaches()
        trades = rests = 0
        received, unkept = reports.kept(judged)
        for breaches in (reports.breaches, unkept, *([reports.net()] if len(judged) == len(homes) else [])):
            found.merge(breaches)
        watches = self._feeds.watches
        for stream, watch in watches.items():
            found.merge(watch.audit.breaches)
            if stream[0] not in judged or unread or not watch.audit.following:
                continue
            found.merge(reconcile(watch.audit, reports, until_ns))
            trades += len(watch.audit.told)
            instruments = [i.id for i in venue.instruments if (i.engine, i.channel) == stream]
            on_feed = [each for each in self._shown.get(stream, []) if each.instrument in instruments]
            live = None if told.unasked else [each for each in told.live if each.instrument in instruments]
            found.merge(resting(on_feed, live, reports, until_ns, instruments))
            rests += len(on_feed)
        return Audited(
            breaches=found,
            events=sum(watch.audit.events for watch in watches.values()),
            executions=sum(watch.audit.executions for watch in watches.values()),
            by_size=sum(len(watch.audit.shares) for watch in watches.values()),
            orders=len(reports.orders),
            reports=reports.reports,
            trades=trades,
            resting=rests,
            received=received,
            unheard=tuple(f"not judged: {each}" for each in unheard),
            whole=reports.whole,
            unasked=frozenset(homes if unread else told.missing),
        )
