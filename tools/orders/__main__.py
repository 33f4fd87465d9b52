"""`python -m tools.orders` (tools/orders/command.py)."""

from proto import program

if __name__ == "__main__":
    program.run("tools.orders.command", "orders")
