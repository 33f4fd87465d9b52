"""A market maker in sixty lines: a bid and an offer around a price, moved away from what is bought and sold.

    python -m examples.market_maker HOST:PORT ALFA 120.00 [SECONDS]

It quotes one lot on each side, two ticks from where it would like to trade, and leans against its position: each lot
that it holds moves both quotes a tick down. A fill is answered with new quotes. When it ends, or is cut off, the venue
cancels what it left (`cancel_on_disconnect`).

Exit 0 after SECONDS and on Ctrl-C; 1 if the venue would not, or nobody answers within ten seconds; 2 for wrong usage.
"""

import asyncio
import sys
from contextlib import suppress
from decimal import Decimal, InvalidOperation

from engine.client import BUY, SELL, TRADED, Client, ClientError, RefusedError, Report, Session

HALF_SPREAD_TICKS = 2


class Maker:
    """One instrument's quotes, and the position that they came to."""

    def __init__(self, session: Session, symbol: str, fair: str) -> None:
        self.session = session
        self.instrument = session.client.instrument(symbol)
        self.fair_ticks = int(Decimal(fair) / self.instrument.tick_size)
        self.position = 0  # lots
        self.quotes: dict[int, int] = {}  # side -> client order id

    async def quote(self) -> None:
        """Take away what stands and quote anew, around a price that leans against the position."""
        for target in self.quotes.values():
            with suppress(RefusedError):  # it is filled: its report is on the way
                await self.session.cancel(self.instrument.symbol, target)
        middle = self.fair_ticks - self.position
        for side, ticks in ((BUY, middle - HALF_SPREAD_TICKS), (SELL, middle + HALF_SPREAD_TICKS)):
            report = await self.session.new(self.instrument.symbol, side, price_ticks=ticks, quantity_lots=1)
            self.quotes[side] = report.client_order_id

    async def run(self) -> None:
        await self.quote()
        async for report in self.session:
            if report.kind == TRADED:
                self.filled(report)
                await self.quote()

    def filled(self, report: Report) -> None:
        self.position += report.row.quantity if report.side == BUY else -report.row.quantity
        print(f"{report.side} {report.quantity} @ {report.price}: holds {self.position} lots", flush=True)


async def make(address: str, symbol: str, fair: str, seconds: str = "inf") -> None:
    client = Client(address, account=4712, cancel_on_disconnect=True, patience_s=10)
    async with client.session() as session:
        try:
            async with asyncio.timeout(float(seconds) if seconds != "inf" else None):
                await Maker(session, symbol, fair).run()
        except TimeoutError:
            print("that was the time", flush=True)


def main() -> int:
    if len(sys.argv) not in (4, 5):
        print("market_maker: HOST:PORT SYMBOL PRICE [SECONDS]", file=sys.stderr)
        return 2
    try:
        asyncio.run(make(*sys.argv[1:]))
    except KeyboardInterrupt:
        pass
    except (ClientError, ValueError) as error:
        print(f"market_maker: {error}", file=sys.stderr)
        return 1
    except InvalidOperation:
        print(f"market_maker: {sys.argv[3]!r} is no price", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
