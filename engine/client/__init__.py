"""The SDK of order entry: `from engine.client import Client`."""

from engine.client.client import Client, OutcomeUnknownError, RefusedError, Report, Session

__all__ = ["Client", "OutcomeUnknownError", "RefusedError", "Report", "Session"]
