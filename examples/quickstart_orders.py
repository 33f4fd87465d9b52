"""An order, its report, its end: the shortest program that trades.

python run_cluster.py --serve                         # in another terminal; it shows an address
python -m examples.quickstart_orders HOST:PORT ALFA 120.00

Exit 0 when it is done; 1 if the venue would not, or nobody answers within ten seconds; 2 for wrong usage.
"""

import sys

from engine.client import BUY, ClientError, SyncClient


def trade(address: str, symbol: str, price: str) -> None:
    with SyncClient(address, account=4711, patience_s=10) as client:
        report = client.new(symbol, BUY, price=price, quantity=client.client.instrument(symbol).lot_size)
        print(report)
        order = client.order(symbol, report.client_order_id)
        if order is not None and order.live:
            print(client.cancel(symbol, report.client_order_id))
        for told in client.reports(timeout_s=0.5):  # what it traded before that, if it did
            if told.trade_id:
                print(told)


def main() -> int:
    if len(sys.argv) != 4:
        print("quickstart_orders: HOST:PORT SYMBOL PRICE", file=sys.stderr)
        return 2
    try:
        trade(*sys.argv[1:])
    except (ClientError, ValueError) as error:
        print(f"quickstart_orders: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
