"""A trading day while it goes on: the plan carried out, halts seen and ended, the board filled, the evidence kept.

The states, indications and trades are those that the feed told; the mirrors' are noted by the poller.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from proto.feed import AUCTION, OPEN, STATE_NAMES
from proto.instrument import Instrument
from proto.snapshot import Snapshot
from tools.child import StartError
from tools.run.day.control import ControlError, MarketControl
from tools.run.day.plan import Agenda, Day
from tools.run.day.verdict import DayEvidence, closing_of, happened, statistics_row
from tools.run.day.watch import GATHERING, InstrumentDay
from tools.run.drop_copies import CopiesTold
from tools.run.feeds import Feeds
from tools.run.flows import Flows, within
from tools.run.live_view import Board, InstrumentRow
from tools.run.machines import START_S, Machines
from tools.run.polling import Poller

POLL_S: Final = 0.02
FINISH_S: Final = 10.0  # for the last commands
HALTED: Final = "halted"  # in words: an auction that the venue began by itself


class DayRun:
    """One day. `say` tells people what happens."""

    def __init__(
        self, day: Day, machines: Machines, flows: Flows, poller: Poller, board: Board, say: Callable[[str], None]
    ) -> None:
        self.day = day
        self.instruments = machines.venue.instruments
        self._machines = machines
        self._flows = flows
        self._poller = poller
        self._rows = dict(zip((i.id for i in self.instruments), board.instruments, strict=True))
        self._board = board
        self._say = say
        self._control = MarketControl(self._where)
        self._watched: dict[int, InstrumentDay] = {}
        self._began_ns = 0
        self._agenda = Agenda(day)
        self._shown: dict[int, int] = {}  # events said, by instrument
        self._states: dict[int, int] = {}  # as the traders were told

    async def prepare(self) -> None:
        """Close what an earlier day left open, roll, and let orders come. Raises: StartError."""
        try:
            async with asyncio.timeout(START_S * self._machines.patience.factor):
                await self._control.prepare(self.instruments)
        except (ControlError, TimeoutError) as e:
            raise StartError(f"the day could not begin: {e or 'an engine does not answer its operator'}") from None

    async def watch(self, feeds: Feeds, owners: Sequence[Snapshot]) -> None:
        """Follow every instrument from these books on, before anybody trades. Raises: StartError."""
        deadline = time.monotonic() + START_S * self._machines.patience.factor
        for owner in owners:
            while not feeds.hears(owner.engine, owner.channel, (owner.epoch, owner.last_seq)):
                if time.monotonic() > deadline:
                    raise StartError(f"the feed of engine-{owner.engine} is not heard to its end")
                await asyncio.sleep(POLL_S)
            for book in owner.books:
                day = self._watched[book.instrument] = InstrumentDay(owner.engine)
                day.begin(book, owner.time_ns)
                feeds.watches[owner.engine, owner.channel].days[book.instrument] = day
        self._poller.follow_states(self.instruments)
        self._states = {i.id: self._watched[i.id].state for i in self.instruments}

    @property
    def states(self) -> dict[int, int]:
        """The instruments' trading states, as the feed told them last."""
        return dict(self._states)

    def begin(self) -> None:
        """The day's time begins now."""
        self._began_ns = time.time_ns()
        self._say("pre-open: orders gather")

    def tick(self, now_s: float) -> None:
        """Do what is due, and take in what happened. Often."""
        self._board.phase = self.day.phase(now_s)
        for step in self._agenda.steps_due(now_s):
            for instrument in self.instruments:
                self._control.order(instrument, step.state)
            self._say(step.said)
        for shocked in self._agenda.shocks_due(now_s):
            self._flows.tell_jump(shocked, self.day.jump)
            self._say(self.day.shock_in_words(self.instruments))
        for instrument in self.instruments:
            self._follow(instrument, now_s)
        opening = self._agenda.openings_due(now_s)
        for instrument in self.instruments:
            if instrument.id in opening:
                self._control.order(instrument, OPEN)
        states = {id: watched.state for id, watched in self._watched.items()}
        changed = {id: state for id, state in states.items() if state != self._states[id]}
        if changed:
            self._states = states
            self._flows.tell_states(changed)

    def _follow(self, instrument: Instrument, now_s: float) -> None:
        """Say what is new about an instrument, and note a halt."""
        watched = self._watched[instrument.id]
        show(self._rows[instrument.id], watched)
        events = happened(instrument, watched)
        for event in events[self._shown.get(instrument.id, 0) :]:
            self._say(event.text)
            if event.what == "halt":
                self._agenda.halted(instrument.id, now_s)
        self._shown[instrument.id] = len(events)
        if all(closing_of(each) for each in self._watched.values()):
            closing = [(i, closing_of(self._watched[i.id])) for i in self.instruments]
            self._board.closing = [statistics_row(i, said) for i, said in closing if said is not None]

    async def finish(self, cut_short: bool) -> None:
        """Wait for the last commands where somebody is there to take them. Raises: ControlError."""
        if not cut_short:
            serving = [place.id for place in self._machines.serving_engines()]
            await within(
                self._control.finish([i for i in self.instruments if i.engine in serving]),
                FINISH_S * self._machines.patience.factor,
            )

    def evidence(self, now_s: float, cut_short: bool, troubled: bool, fresh: bool, told: CopiesTold) -> DayEvidence:
        """At rest. `fresh`: the venue had no orders before this run; `told`: what its engines said of accounts."""
        self.tick(now_s)
        away = {place.id for place in self._machines.engines.values() if not place.serving}
        lasting = self._flows.lasting
        return DayEvidence(
            day=self.day,
            instruments=self.instruments,
            watched=self._watched,
            began_ns=self._began_ns,
            looks=self._poller.states,
            live=[order for order in told.orders if order.account in lasting],
            lasting=lasting if fresh and not away else None,
            present=frozenset(place.name for place in self._machines.serving_fabrics()),
            unasked=list(told.unasked),
            away=frozenset(i.id for i in self.instruments if i.engine in away),
            cut_short=cut_short,
            troubled=troubled,
            patience=self._machines.patience.factor,
        )

    async def close(self) -> None:
        await self._control.close()

    def _where(self, engine: int) -> str:
        place = self._machines.engines.get(engine)
        return place.asked.target if place and place.serving else ""


def show(row: InstrumentRow, watched: InstrumentDay) -> None:
    """An instrument's phase and indication on the board."""
    phase = watched.phases[-1]
    row.phase = HALTED if phase.state == AUCTION and phase.reason else STATE_NAMES[phase.state]
    row.indication = watched.indication if phase.state in GATHERING else None
