"""Contracts: every byte that crosses a process."""
