"""A trading day: its plan, its operator, its judge."""
