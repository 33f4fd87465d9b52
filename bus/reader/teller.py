"""What the readers of streams do, told as events; and what their books are, as people want them.

Nothing here knows where frames come from: a feed on sockets tells through this, and so does one that is played from a
recording.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Final, Protocol, assert_never

from bus.reader.events import (
    Book,
    BookEvent,
    BookState,
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
    TickAndLot,
    Trouble,
    Trusted,
)
from bus.reader.history import Past
from bus.reader.inbox import Untold
from bus.stream import actions
from bus.stream.actions import Action, AskRange, AskSnapshot, Lagged, Standing, State, Withdrawn
from bus.stream.conflation import Quoted, QuoteReader
from bus.stream.feed_client import FeedClient
from bus.stream.levels import by_order
from bus.stream.mirror import BUY_SIDE, SELL_SIDE, MirrorBook
from proto import feed
from proto.feed import Definition

WHOLE: Final = (Decimal(1), Decimal(1))  # ticks and lots, while their sizes are not known
WORDS: Final = {
    Standing.UNKNOWN: "unknown",
    Standing.VALID: "valid",
    Standing.DOUBTFUL: "doubtful",
    Standing.STALE: "stale",
}
STREAM: Final = 0  # in place of an instrument: whether all books of a stream are known to be right


class EventSink(Protocol):
    """Whoever is told: `symbol` is the book it is about, "" if it concerns all of a stream; `span` is as for Inbox."""

    def __call__(self, event: Event, stream: tuple[int, int], symbol: str = "", span: Untold | None = None) -> None: ...


class Teller:
    """Tells of streams, and shows their books.

    clients   the readers, by engine and channel; they may come and go
    quotes    the readers of conflated quotes, alike
    """

    def __init__(
        self,
        clients: Mapping[tuple[int, int], FeedClient],
        quotes: Mapping[tuple[int, int], QuoteReader],
        told: EventSink,
        clock_ns: Callable[[], int],
    ) -> None:
        self._clients = clients
        self._quotes = quotes
        self._told = told
        self._clock_ns = clock_ns
        self._states: dict[tuple[int, int], dict[int, str]] = {}  # by stream: what each book's was said to be
        self._sizes: dict[Definition, TickAndLot] = {}

    # What there is to see

    def book(self, symbol: str, depth: int = 0) -> Book:
        """The book as it stands, `depth` levels a side (0: all). Cost: O(orders in them)."""
        withdrawn: tuple[FeedClient, int, MirrorBook] | None = None
        for client in self._clients.values():
            for name, book in client.mirror.books.items():
                if book.symbol == symbol:
                    if book.definition is not None:
                        return self._shown(client, name, book, depth)
                    withdrawn = (client, name, book)
        return Book(symbol, "unknown") if withdrawn is None else self._shown(*withdrawn, depth)

    def streams(self) -> list[Stream]:
        """Where each stream stands, by engine and channel."""
        return [self._stream(client) for _, client in sorted(self._clients.items())]

    def _stream(self, client: FeedClient) -> Stream:
        stream = (client.engine, client.channel)
        lag_ns = client.age_ns(client.heard_ns) if client.epoch else None
        if client.state is State.LAGGED and stream in self._quotes:
            lag_ns = self._quotes[stream].late_ns  # of what is read instead
        return Stream(
            *stream,
            client.state.value,
            *client.position,
            None if lag_ns is None else lag_ns / 1e6,
            len(client.mirror.books),
            client.counters.gaps,
            len(client.ledger.open),
            client.counters.as_dict(),
        )

    def ledger(self) -> list[LedgerLine]:
        """Every gap that is open, and the last closed ones, by stream, oldest first."""
        return [
            LedgerLine(
                *stream, gap.epoch, gap.first, gap.last, gap.cause, gap.how, gap.took_ns / 1e6, gap.late, gap.ranged,
                gap.snapshotted, gap.abandoned, gap.missing, gap.source,
            )
            for stream, client in sorted(self._clients.items())
            for gap in (*client.ledger.closed, *client.ledger.open)
        ]  # fmt: skip

    def states(self) -> Iterator[tuple[tuple[int, int], BookState]]:
        """What was told of every book, for who comes late."""
        for stream, client in sorted(self._clients.items()):
            for name, state in self._states.get(stream, {}).items():
                if name in client.mirror.books:
                    yield stream, BookState(client.mirror.books[name].symbol, state, "unknown")

    # What happens

    def on_action(self, client: FeedClient, action: Action) -> None:
        """A reader has done this."""
        stream = (client.engine, client.channel)
        if isinstance(action, actions.Applied):
            self._applied(client, action)
        elif isinstance(action, actions.StateChanged):
            change = (action.after.value, action.before.value, action.reason)
            self._told(StreamState(*stream, *change), stream)
        elif isinstance(action, actions.GapOpened):
            gap = action.gap
            doubtful = [name for name in client.mirror.books if client.standing(name) is not Standing.VALID]
            symbols = tuple([client.mirror.books[name].symbol for name in doubtful])
            self._told(GapOpened(*stream, gap.epoch, gap.first, gap.last, gap.cause, symbols), stream)
        elif isinstance(action, actions.GapRepaired):
            gap = action.gap
            repaired = GapRepaired(*stream, gap.epoch, gap.first, gap.last, gap.how, gap.took_ns / 1e6, gap.source)
            self._told(repaired, stream)
        elif isinstance(action, actions.MissingSpan):
            self._told(MissingSpan(*stream, action.epoch, action.first, action.last, "snapshot"), stream)
        elif isinstance(action, actions.Doubted):
            symbol = self._name(client, action.instrument)
            self._told(Doubted(symbol, *stream, action.reason), stream, symbol)
        elif isinstance(action, actions.Trusted):
            symbol = self._name(client, action.instrument)
            self._told(Trusted(symbol, *stream), stream, symbol)
        elif isinstance(action, actions.Alarm):
            self._told(Trouble(action.text, *stream), stream)
        elif not isinstance(action, AskRange | AskSnapshot | Withdrawn | Lagged):  # of which nobody is told
            assert_never(action)

    def on_heard(self, client: FeedClient) -> None:
        """Tell the states of books that have changed, after all else that an input brought."""
        stream = (client.engine, client.channel)
        told = self._states.setdefault(stream, {})
        books = client.mirror.books
        fine = client.state is State.LIVE and not client.doubted
        if fine and told.get(STREAM) == f"{len(books)}":
            return
        for name, book in books.items():
            state, before = self._state(client, name), told.get(name, "unknown")
            if state != before:
                told[name] = state
                symbol = book.symbol
                self._told(BookState(symbol, state, before), stream, symbol)
        told[STREAM] = f"{len(books)}" if fine else ""  # all is well, and stays so while it is LIVE

    def on_quote(self, reader: QuoteReader, quoted: Quoted | actions.StateChanged) -> None:
        """A reader of quotes has one, or has come to another state."""
        stream = (reader.engine, reader.channel)
        client = self._clients.get(stream)
        if client is None:
            return
        self._states.setdefault(stream, {})[STREAM] = ""
        self.on_heard(client)
        if isinstance(quoted, actions.StateChanged):
            change = (quoted.after.value, quoted.before.value, quoted.reason)
            self._told(QuotesState(*stream, *change), stream)
        elif client.state is State.LAGGED and quoted.quote.instrument in client.mirror.books:
            book = client.mirror.books[quoted.quote.instrument]
            event = self._quote(book.symbol, quoted, self._sizes_of(book))
            self._told(event, stream, event.symbol)

    def _applied(self, client: FeedClient, applied: actions.Applied) -> None:
        stream, books = (client.engine, client.channel), client.mirror.books
        names = {row[1] for row in applied.rows}
        past = Past({name: (books[name].symbol, self._sizes_of(books[name])) for name in names}, applied.first)
        span: Untold | None = None
        for event in past.take(applied):
            if isinstance(event, BookEvent):
                span = (*stream, event.epoch, event.deltas[0].sequence, event.sequence)  # of its trades, too
            self._told(event, stream, event.symbol, span)

    # Books

    def _shown(self, client: FeedClient, name: int, book: MirrorBook, depth: int) -> Book:
        state, tick, lot = self._state(client, name), *self._sizes_of(book)
        if state == "conflated":
            return self._conflated(book, self._quotes[client.engine, client.channel])
        traded = book.last_trade_id > 0
        return Book(
            book.symbol,
            state,
            client.age_ns(self._clock_ns()) / 1e9,
            *client.position,
            book.sequence,
            feed.STATE_NAMES[book.state],
            book.last_price * tick if traded else None,
            book.last_quantity * lot if traded else None,
            _levels(book, BUY_SIDE, depth, tick, lot),
            _levels(book, SELL_SIDE, depth, tick, lot),
        )

    def _conflated(self, book: MirrorBook, reader: QuoteReader) -> Book:
        quoted = reader.quotes[book.instrument]
        quote = self._quote(book.symbol, quoted, self._sizes_of(book))
        price, quantity = quote.last or (None, None)
        return Book(
            quote.symbol,
            "conflated",
            reader.age_ns(self._clock_ns()) / 1e9,
            quote.epoch,
            quote.sequence,
            quoted.quote.instrument_seq,
            quote.trading_state,
            price,
            quantity,
            (Level(*quote.bid),) if quote.bid else (),
            (Level(*quote.ask),) if quote.ask else (),
        )

    def _quote(self, symbol: str, quoted: Quoted, sizes: TickAndLot) -> Quote:
        quote, (tick, lot) = quoted.quote, sizes
        bid = (quote.bid_price * tick, quote.bid_quantity * lot, quote.bid_count) if quote.bid_count else None
        ask = (quote.ask_price * tick, quote.ask_quantity * lot, quote.ask_count) if quote.ask_count else None
        last = (quote.last_price * tick, quote.last_quantity * lot) if quote.last_trade_id else None
        state = feed.STATE_NAMES[quote.state]
        return Quote(symbol, quoted.epoch, quoted.sequence, quote.time_ns, bid, ask, last, state)

    def _state(self, client: FeedClient, name: int) -> str:
        """A book's state in words."""
        if client.state is not State.LAGGED:
            return WORDS[client.standing(name)]
        reader = self._quotes.get((client.engine, client.channel))
        quoted = reader is not None and reader.state is State.LIVE and name in reader.quotes
        return "conflated" if quoted else "lagged"

    def _sizes_of(self, book: MirrorBook) -> TickAndLot:
        definition = book.definition
        if definition is None:
            return WHOLE
        found = self._sizes.get(definition)
        if found is None:
            found = self._sizes[definition] = (Decimal(definition.tick_size), Decimal(definition.lot_size))
        return found

    def _name(self, client: FeedClient, instrument: int) -> str:
        book = client.mirror.books.get(instrument)
        return book.symbol if book is not None else str(instrument)


def _levels(book: MirrorBook, side: int, depth: int, tick: Decimal, lot: Decimal) -> tuple[Level, ...]:
    return tuple(
        [
            Level(price * tick, quantity * lot, count, tuple([(order_id, left * lot) for order_id, left in orders]))
            for price, quantity, count, orders in by_order(book.queues(side), depth)
        ]
    )
