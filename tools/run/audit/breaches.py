"""An audit of what a venue did, out of what it told: the deltas of its feeds, and the reports of its accounts.

Nothing is taken from an engine's word on how it stands. `FeedAudit` (feed.py) follows the deltas of one stream, event
by event; `ReportAudit` (reports.py) the drop copies of all accounts, beside what was received while the venue ran;
reconcile.py holds the one against the other. Pure: deltas and reports in, breaches out.

    rule         what it says
    CROSSED      while an instrument is open, its best bid is below its best offer at the end of each event
    PRIORITY     a trade meets the best price, and there the order that came first, or all of them by their size where
                 that is the rule; what is displayed comes before what is not
    LIFE         an order that entered is open, traded or canceled, lot for lot; nothing happens to one behind its end
    SIDES        a trade has one buyer and one seller, of one price and quantity, and the feed tells the same
    POSITIONS    all accounts together hold nothing
    BOOKS        what rests on the feed is what the reports leave open, and what an engine says is live
    KEPT         a report once received is in the drop copy, as it was
"""

from dataclasses import dataclass, field
from typing import Final

CROSSED: Final = "never crossed while open"
PRIORITY: Final = "price and time priority"
LIFE: Final = "every order accounted for"
SIDES: Final = "both sides of every trade"
POSITIONS: Final = "positions net to zero"
BOOKS: Final = "books as the reports leave them"
KEPT: Final = "what was acknowledged is there"
RULES: Final = (CROSSED, PRIORITY, LIFE, SIDES, POSITIONS, BOOKS, KEPT)  # in the order in which they are judged

TEXTS_MAX: Final = 8  # breaches of a rule that are told one by one


@dataclass(slots=True)
class Breaches:
    """How often each rule was broken, and the first of them in words."""

    counts: dict[str, int] = field(default_factory=dict)
    texts: dict[str, list[str]] = field(default_factory=dict)

    def add(self, rule: str, text: str) -> None:
        self.counts[rule] = self.counts.get(rule, 0) + 1
        texts = self.texts.setdefault(rule, [])
        if len(texts) < TEXTS_MAX:
            texts.append(text)

    def merge(self, other: "Breaches") -> None:
        for rule, count in other.counts.items():
            self.counts[rule] = self.counts.get(rule, 0) + count
            texts = self.texts.setdefault(rule, [])
            texts += other.texts[rule][: TEXTS_MAX - len(texts)]
