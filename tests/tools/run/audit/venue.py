"""A venue in process, with the audit of all that it tells beside it."""

from collections.abc import Sequence

from bus.stream.sequencer import Sequencer
from engine.core.commands import OperatorCommand
from engine.core.venue import Venue
from proto import feed
from proto.cluster import PRO_RATA, STATES, Instrument
from proto.columns import Batch, Outcome, report_rows
from proto.feed import BookSnapshot, Snapshot, Status
from tests.flows import ENGINE, INSTRUMENTS
from tools.run.audit.books import reconcile, resting, shown
from tools.run.audit.breaches import Breaches
from tools.run.audit.feed import FeedAudit
from tools.run.audit.reports import ReportAudit


def empty_book(instrument: Instrument) -> BookSnapshot:
    status = Status(STATES.index(instrument.state) + 1, 0)
    return BookSnapshot(instrument.id, None, status, 0, 0, 0, 0, 1, None, None, [], [])


class AuditedVenue:
    """Every record goes in; `breaches` is what the audit has found, of everything."""

    def __init__(self, instruments: Sequence[Instrument] = INSTRUMENTS) -> None:
        self.venue = Venue(ENGINE, instruments)
        by_size = [each.id for each in instruments if each.allocation == PRO_RATA]
        channels = sorted({each.channel for each in instruments})
        self.feeds = {channel: FeedAudit(by_size) for channel in channels}
        self.reports = ReportAudit(by_size=by_size)
        self.position = 0
        self._sequencers = {
            channel: Sequencer(ENGINE, channel, incarnation=1, epoch=1, fresh=True, ring_frames=1)
            for channel in channels
        }
        for channel, audit in self.feeds.items():
            books = [empty_book(each) for each in instruments if each.channel == channel]
            audit.begin(Snapshot(ENGINE, channel, 1, 1, 0, 0, books))

    def apply(self, time_ns: int, batches: Sequence[Batch]) -> None:
        self.position += 1
        self.hear(time_ns, self.venue.apply(self.position, time_ns, batches))

    def disconnect(self, time_ns: int, account: int, session: int) -> None:
        self.position += 1
        self.hear(time_ns, self.venue.disconnect(self.position, time_ns, account, session))

    def tick(self, time_ns: int) -> None:
        self.position += 1
        self.hear(time_ns, self.venue.tick(self.position, time_ns))

    def operate(self, time_ns: int, command: OperatorCommand) -> None:
        self.position += 1
        self.hear(time_ns, self.venue.operate(self.position, time_ns, command))

    def live(self, account: int) -> list[tuple[int, int, int]]:
        """As tests/flows.py asks for it."""
        return [(order.client_order_id, order.instrument, order.flags) for order in self.venue.open_orders(account, 0)]

    def hear(self, time_ns: int, outcome: Outcome) -> None:
        for reports in outcome.reports:
            if reports.first_seq:
                rows = list(report_rows(reports.rows))
                self.reports.take(ENGINE, reports.account, reports.first_seq, time_ns, rows)
        for channel in outcome.deltas:
            sequencer = self._sequencers[channel.channel]
            sequencer.append(time_ns, channel.rows, channel.extras)
            for data in sequencer.take(time_ns, flush=True):
                frame = feed.decode(data)
                self.feeds[channel.channel].take(frame.rows, frame.times, frame.extras)

    def breaches(self) -> Breaches:
        out = Breaches()
        out.merge(self.reports.breaches)
        out.merge(self.reports.net())
        for audit in self.feeds.values():
            out.merge(audit.breaches)
            out.merge(reconcile(audit, self.reports, 1 << 62))
            out.merge(resting(shown(audit), None, self.reports, 1 << 62, audit.mirror.books))
        return out
