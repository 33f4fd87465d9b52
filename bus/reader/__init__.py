"""The SDK of a reader: a venue's books, and all that happens to them (docs/reader.md)."""

from bus.access.asking import HistoryError
from bus.reader.events import (
    Book,
    BookEvent,
    BookState,
    Comparison,
    Delta,
    Doubted,
    Event,
    GapOpened,
    GapRepaired,
    LedgerLine,
    Level,
    MissingSpan,
    Quote,
    QuotesState,
    Stream,
    StreamState,
    Trade,
    Trouble,
    Trusted,
)
from bus.reader.feed import Feed
from bus.reader.history import FeedUseError

__all__ = [
    "Book",
    "BookEvent",
    "BookState",
    "Comparison",
    "Delta",
    "Doubted",
    "Event",
    "Feed",
    "FeedUseError",
    "GapOpened",
    "GapRepaired",
    "HistoryError",
    "LedgerLine",
    "Level",
    "MissingSpan",
    "Quote",
    "QuotesState",
    "Stream",
    "StreamState",
    "Trade",
    "Trouble",
    "Trusted",
]
