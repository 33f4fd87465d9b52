"""The best bid and offer of one book, a line for each change, and what the book is worth.

    python -m examples.best_bid_offer HOST:PORT ALFA

Exit 0 on Ctrl-C, and when whoever reads has seen enough; 2 for wrong usage.
"""

import sys
from collections.abc import Iterator

from bus.reader import Book, BookEvent, BookState, Feed


def line(book: Book) -> str:
    """`119.90 x 5 | 120.10 x 2`, and the state where it is not valid."""
    bid, ask = [f"{side[0].price} x {side[0].quantity}" if side else "-" for side in (book.bids, book.asks)]
    return f"{book.symbol}  {bid} | {ask}" + ("" if book.valid else f"  {book.state}")


def lines(feed: Feed, symbol: str) -> Iterator[str]:
    """A line whenever it is another than the one before."""
    shown = ""
    for event in feed.events([symbol]):
        if isinstance(event, BookEvent | BookState):
            now = line(feed.book(symbol, depth=1))
            if now != shown:
                yield now
                shown = now


def main() -> int:
    if len(sys.argv) != 3:
        print("best_bid_offer: HOST:PORT SYMBOL", file=sys.stderr)
        return 2
    try:
        with Feed([sys.argv[1]]) as feed:
            for each in lines(feed, sys.argv[2]):
                print(each, flush=True)
    except ValueError as error:
        print(f"best_bid_offer: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, BrokenPipeError):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
