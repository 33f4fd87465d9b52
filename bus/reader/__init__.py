"""The SDK of a reader: a venue's books, and all that happens to them (docs/reader.md)."""

from bus.access.asking import HistoryError as HistoryError
from bus.reader.events import Book as Book
from bus.reader.events import BookEvent as BookEvent
from bus.reader.events import BookState as BookState
from bus.reader.events import Comparison as Comparison
from bus.reader.events import Delta as Delta
from bus.reader.events import Doubted as Doubted
from bus.reader.events import Event as Event
from bus.reader.events import GapOpened as GapOpened
from bus.reader.events import GapRepaired as GapRepaired
from bus.reader.events import LedgerLine as LedgerLine
from bus.reader.events import Level as Level
from bus.reader.events import MissingSpan as MissingSpan
from bus.reader.events import Quote as Quote
from bus.reader.events import QuotesState as QuotesState
from bus.reader.events import Stream as Stream
from bus.reader.events import StreamState as StreamState
from bus.reader.events import Trade as Trade
from bus.reader.events import Trouble as Trouble
from bus.reader.events import Trusted as Trusted
from bus.reader.feed import Feed as Feed
from bus.reader.history import FeedUseError as FeedUseError
