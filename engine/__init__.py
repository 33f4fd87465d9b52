"""An engine: it owns instruments, takes orders for them, matches, and publishes what happened."""
