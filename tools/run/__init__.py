"""A run of a whole venue, and who judges it."""
