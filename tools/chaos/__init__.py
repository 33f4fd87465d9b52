"""Faults as plans: what becomes of a message or an answer. Pure."""
