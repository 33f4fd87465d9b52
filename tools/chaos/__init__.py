"""Faults as plans: what becomes of a message, decided from a seed, and of an answer on its way."""
