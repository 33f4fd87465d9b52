"""A venue in process, with the audit of all that it tells beside it."""

from collections.abc import Sequence

from bus.stream.actions import Applied
from bus.stream.sequencer import Sequencer
from engine.core.commands import OperatorCommand
from engine.core.venue import Venue
from proto import feed
from proto.columns import Batch, Outcome, report_rows
from proto.feed import Extra, Row, Status
from proto.instrument import FIFO, PRO_RATA, STATES, Instrument
from proto.snapshot import BookSnapshot, Snapshot
from tools.run.audit.breaches import Breaches
from tools.run.audit.reconcile import reconcile, resting, shown
from tools.run.audit.reports import ReportAudit
from tools.run.day.watch import InstrumentDay
from tools.run.feeds import StreamWatch

END_NS = 1 << 62  # of everything


def empty_book(instrument: Instrument) -> BookSnapshot:
    status = Status(STATES.index(instrument.state) + 1, 0)
    return BookSnapshot(instrument.id, None, status, 0, 0, 0, 0, 1, None, None, [], [])


class HeardInstrument:
    """One instrument on a stream of its own, delta by delta, and the judge's ear on it. A delta's extra has index 0."""

    def __init__(self, state: int, allocation: str = FIFO, engine: int = 1) -> None:
        book = BookSnapshot(1, None, Status(state, 0), 0, 0, 0, 0, 1, None, None, [], [])
        self.watch = StreamWatch(lambda instrument: allocation)
        self.watch.passed_over(lambda: Snapshot(engine, 1, 1, 1, 0, 0, [book]))
        self.day = self.watch.days[1] = InstrumentDay(engine)
        self.day.begin(book, 0)

    def take(self, row: Row, extra: Extra | None = None, time_ns: int = 0) -> None:
        self.watch.audit.take([row], [(0, time_ns)], [] if extra is None else [extra])


class AuditedVenue:
    """Every record goes in; `breaches` is what the audit has found, of everything."""

    def __init__(self, engine: int, instruments: Sequence[Instrument], added: Sequence[Instrument] = ()) -> None:
        self.venue = Venue(engine, instruments)
        by_size = [each.id for each in instruments if each.allocation == PRO_RATA]
        rules = {each.id: each.allocation for each in (*instruments, *added)}
        channels = sorted({each.channel for each in instruments})
        self.watches = {channel: StreamWatch(lambda instrument: rules[instrument]) for channel in channels}
        self.reports = ReportAudit(by_size=by_size)
        self.position = 0
        self._sequencers = {
            channel: Sequencer(engine, channel, incarnation=1, epoch=1, fresh=True, ring_frames=1)
            for channel in channels
        }
        for channel in channels:
            books = [empty_book(each) for each in instruments if each.channel == channel]
            self._begin(channel, Snapshot(engine, channel, 1, 1, 0, 0, books))

    def _begin(self, channel: int, snapshot: Snapshot) -> None:
        self.watches[channel].passed_over(lambda: snapshot)

    def watch_days(self) -> None:
        """Follow every instrument's day from here on, where nothing rests yet."""
        for watch in self.watches.values():
            for instrument, book in watch.audit.mirror.books.items():
                watch.days[instrument] = InstrumentDay(self.venue.engine)
                watch.days[instrument].begin(book.snapshot(), 0)

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
                self.reports.take(self.venue.engine, reports.account, reports.first_seq, time_ns, rows)
        for channel in outcome.deltas:
            sequencer = self._sequencers[channel.channel]
            sequencer.append(time_ns, channel.rows, channel.extras)
            for data in sequencer.take(time_ns, flush=True):
                frame = feed.decode(data)
                first = frame.header.first_seq
                applied = Applied(1, first, frame.next_seq - 1, frame.rows, frame.times, frame.extras)
                self.watches[channel.channel].applied(applied, _unseen)

    def breaches(self) -> Breaches:
        """All that the audit has found by now."""
        out = Breaches()
        out.merge(self.reports.breaches)
        out.merge(self.reports.net())
        for audit in (watch.audit for watch in self.watches.values()):
            out.merge(audit.breaches)
            out.merge(reconcile(audit, self.reports, END_NS))
            out.merge(resting(shown(audit), None, self.reports, END_NS, audit.mirror.books))
        return out


def _unseen() -> Snapshot:
    raise AssertionError("a delta was passed over")
