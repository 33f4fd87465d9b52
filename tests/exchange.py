"""Agents and a core in one process, with the judge's ear on what it publishes."""

from engine.core.commands import OperatorCommand, SetState
from proto.columns import NO_REASON, Commands, Outcome, ReportRow, report_rows
from proto.instrument import Instrument
from tests.audited import AuditedVenue
from tools.flow.traders import Agent, Command
from tools.run.day.watch import InstrumentDay


class Exchange:
    """Agents and a core in one process: each batch is applied at once, and every report delivered."""

    def __init__(self, agents: list[Agent], instruments: tuple[Instrument, ...]) -> None:
        self.audited = AuditedVenue(1, instruments)
        self.venue = self.audited.venue
        self.agents = {agent.account: agent for agent in agents}
        self.sent: list[Command] = []
        self.reports: list[ReportRow] = []
        self.position = 0
        self.now_s = self.began_s = 0.0

    def run(self, seconds: float, commands: int = 5, step_s: float = 0.1) -> None:
        for step in range(int(seconds / step_s)):
            for agent in self.agents.values():
                self.now_s = self.began_s + step * step_s
                self.send(agent, agent.act(self.now_s, commands))
        self.began_s += seconds

    def send(self, agent: Agent, sent: list[Command]) -> None:
        if not sent:
            return
        commands = Commands()
        for command in sent:
            commands.add(*command)
        commands.account, commands.stp = agent.account, agent.stp
        self.position += 1
        self.sent += sent
        self.hear(self.venue.apply(self.position, int(self.now_s * 1e9), [commands]))

    def enter(self, state: int, *instruments: int) -> None:
        """The operator puts instruments into a trading state, and the agents hear of it."""
        for instrument in instruments:
            self.operate(SetState(instrument, state))
        next(iter(self.agents.values())).news.enter(dict.fromkeys(instruments, state))

    @property
    def days(self) -> dict[int, InstrumentDay]:
        """Of the instruments, as they are heard since `watch`."""
        return {id: day for watch in self.audited.watches.values() for id, day in watch.days.items()}

    def watch(self) -> None:
        """Follow every instrument's day from here on, where nothing rests yet."""
        self.audited.watch_days()

    def operate(self, command: OperatorCommand) -> None:
        self.position += 1
        outcome = self.venue.operate(self.position, int(self.now_s * 1e9), command)
        assert outcome.refused == NO_REASON
        self.hear(outcome)

    def hear(self, outcome: Outcome) -> None:
        self.audited.hear(int(self.now_s * 1e9), outcome)
        for reports in outcome.reports:
            for row in report_rows(reports.rows):
                self.reports.append(row)
                self.agents[reports.account].report(row)
