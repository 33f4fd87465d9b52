"""An order, its report, its end: the shortest program that trades.

python run_cluster.py --serve                         # in another terminal; it shows an address
python -m examples.quickstart_orders HOST:PORT ALFA 120.00
"""

import sys

from engine.client import BUY, RefusedError, SyncClient


def main(address: str, symbol: str, price: str) -> int:
    with SyncClient(address, account=4711) as client:
        try:
            report = client.new(symbol, BUY, price=price, quantity=client.client.instrument(symbol).lot_size)
        except RefusedError as error:
            print(error, file=sys.stderr)
            return 1
        print(report)
        order = client.order(symbol, report.client_order_id)
        if order is not None and order.live:
            print(client.cancel(symbol, report.client_order_id))
        for told in client.reports(timeout_s=0.5):  # what it traded before that, if it did
            if told.trade_id:
                print(told)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
