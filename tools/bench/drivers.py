"""Matching engines of PyPI, each driven on a recorded flow, in an environment of their own (tools/bench/peers.txt).

    python drivers.py ENGINE FLOW LIMIT        one JSON object: messages a second, trades, a hash of them

Nothing of ours is imported here. FLOW is JSON: rows of [kind, side, ioc, quantity, order id, price], kind 0 new, 1
cancel, 2 modify (cancel, then enter again). What an engine lacks is done with what it has: an IOC order is entered and
its rest canceled. What it needs to know an order by (an object, an id of its own) is kept in a dict outside it.
"""

import gc
import hashlib
import importlib
import importlib.metadata
import json
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any


class Driver:
    """An engine, what it knows each live order by, and its trades: taker, maker, price, quantity, the flow's ids."""

    def __init__(self) -> None:
        self.own: dict[int, Any] = {}
        self.flow: dict[Any, int] = {}
        self.trades: list[tuple[int, int, int, int]] = []
        self.begin()

    def begin(self) -> None:
        raise NotImplementedError


class LightMatchingEngine(Driver):
    def begin(self) -> None:
        module: Any = importlib.import_module("lightmatchingengine.lightmatchingengine")
        self.engine = module.LightMatchingEngine()

    def new(self, side: int, ioc: int, quantity: int, order_id: int, price: int) -> None:
        order, trades = self.engine.add_order("X", price, quantity, 1 + side)
        self.own[order_id] = order.order_id
        self.flow[order.order_id] = order_id
        for trade in trades:
            if trade.order_id != order.order_id:
                self.trades.append((order_id, self.flow[trade.order_id], trade.trade_price, trade.trade_qty))
        if ioc and order.leaves_qty:
            self.engine.cancel_order(order.order_id, "X")

    def cancel(self, order_id: int) -> bool:
        own = self.own.pop(order_id, None)
        order = self.engine.order_books["X"].order_id_map.get(own) if own is not None else None
        return bool(order and order.leaves_qty and self.engine.cancel_order(own, "X"))


class PyOrderBook(Driver):
    def begin(self) -> None:
        orders: Any = importlib.import_module("pyorderbook.order")
        book: Any = importlib.import_module("pyorderbook.book")
        self.book = book.Book()
        self.make, self.sides = orders.Order, (orders.Side.BID, orders.Side.ASK)

    def new(self, side: int, ioc: int, quantity: int, order_id: int, price: int) -> None:
        order = self.make(self.sides[side], "X", price, quantity)
        self.own[order_id] = order
        self.flow[order.id] = order_id
        for trade in self.book.match(order).trades:
            maker = self.flow[trade.standing_order_id]
            self.trades.append((order_id, maker, int(trade.fill_price), trade.fill_quantity))
        if ioc and order.quantity:
            self.book.cancel(order)

    def cancel(self, order_id: int) -> bool:
        order = self.own.pop(order_id, None)
        if order is None or order.id not in self.book.order_map:
            return False
        self.book.cancel(order)
        return True


class OrderMatching(Driver):
    def begin(self) -> None:
        module: Any = importlib.import_module("order_matching.matching_engine")
        orders: Any = importlib.import_module("order_matching.order")
        enums: Any = importlib.import_module("order_matching.enums")
        importlib.import_module("loguru").logger.remove()
        self.engine = module.MatchingEngine(seed=1)
        self.make, self.sides = orders.LimitOrder, (enums.Side.BUY, enums.Side.SELL)
        self.batch: Any = importlib.import_module("order_matching.orders").Orders
        self.time = datetime(2026, 1, 1)
        self.entered = 0

    def new(self, side: int, ioc: int, quantity: int, order_id: int, price: int) -> None:
        self.time += timedelta(microseconds=1)
        self.entered += 1
        self.own[order_id] = own = f"{order_id} {self.entered}"
        order = self.make(
            side=self.sides[side], price=price, size=quantity, timestamp=self.time, order_id=own, trader_id="x"
        )
        self.engine.place(self.batch([order]))
        for trade in self.engine.match(self.time).trades:
            maker = int(trade.book_order_id.split()[0])
            self.trades.append((order_id, maker, int(trade.price), int(trade.size)))
        if ioc and order.size:
            self.engine.cancel_order(own)

    def cancel(self, order_id: int) -> bool:
        own = self.own.pop(order_id, None)
        if own is None or self.engine.unprocessed_orders.find_order_by_id(own) is None:
            return False
        self.engine.cancel_order(own)
        return True


class Liquibook(Driver):
    def begin(self) -> None:
        module: Any = importlib.import_module("liquibook")
        trades, flow = self.trades, self.flow

        class FillListener(module.OrderListener):  # type: ignore[misc]
            def on_accept(self, order: Any) -> None: ...

            def on_cancel(self, order: Any) -> None: ...

            def on_cancel_reject(self, order: Any, reason: Any) -> None: ...

            def on_fill(self, taker: Any, maker: Any, quantity: int, cost: int) -> None:
                maker.fill(quantity, cost, 0)
                taker.fill(quantity, cost, 0)
                trades.append((flow[taker.order_id_], flow[maker.order_id_], cost, quantity))

        self.listener = FillListener()
        self.book = module.DepthOrderBook("X")
        self.book.set_order_listener(self.listener)
        self.make, self.ioc = module.SimpleOrder, module.oc_immediate_or_cancel

    def new(self, side: int, ioc: int, quantity: int, order_id: int, price: int) -> None:
        conditions = self.ioc if ioc else 0
        order = self.make(side == 0, price, quantity, 0, conditions) if ioc else self.make(side == 0, price, quantity)
        self.flow[order.order_id_] = order_id
        if not ioc:
            self.own[order_id] = order
        self.book.add(order, conditions)

    def cancel(self, order_id: int) -> bool:
        order = self.own.pop(order_id, None)
        if order is None or not order.open_qty():
            return False
        self.book.cancel(order)
        return True


class LimitOrderBook(Driver):
    """It reports no trades."""

    def begin(self) -> None:
        module: Any = importlib.import_module("limit_order_book")
        self.book = module.LimitOrderBook()

    def new(self, side: int, ioc: int, quantity: int, order_id: int, price: int) -> None:
        (self.book.limit_sell if side else self.book.limit_buy)(order_id, quantity, price)
        if ioc and self.book.has(order_id):
            self.book.cancel(order_id)

    def cancel(self, order_id: int) -> bool:
        if not self.book.has(order_id):
            return False
        self.book.cancel(order_id)
        return True


ENGINES: dict[str, type[Any]] = {
    "order-matching": OrderMatching,
    "liquibook": Liquibook,
    "lightmatchingengine": LightMatchingEngine,
    "limit-order-book": LimitOrderBook,
    "pyorderbook": PyOrderBook,
}


def main() -> int:
    """Exit 0."""
    name, path, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    rows = [tuple(row) for row in json.loads(path.read_text())[:limit]]
    engine = ENGINES[name]()
    new, cancel = engine.new, engine.cancel
    gc.freeze()
    gc.disable()
    before = time.thread_time_ns()
    for kind, side, ioc, quantity, order_id, price in rows:
        if kind == 0:
            new(side, ioc, quantity, order_id, price)
        elif cancel(order_id) and kind == 2:
            new(side, 0, quantity, order_id, price)
    spent = time.thread_time_ns() - before
    trades = [list(map(int, trade)) for trade in engine.trades]
    print(json.dumps({
        "rate": len(rows) * 1e9 / spent, "trades": len(trades),
        "sha256": hashlib.sha256(json.dumps(trades).encode()).hexdigest(),
        "version": importlib.metadata.version(name),
    }))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
