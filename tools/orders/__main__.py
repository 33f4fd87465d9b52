"""`python -m tools.orders` (tools/orders/desk.py)."""

from proto import program

if __name__ == "__main__":
    program.run("tools.orders.desk", "orders")
