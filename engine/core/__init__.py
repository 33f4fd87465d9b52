"""The matching core: commands in, reports and deltas out. Pure: no clock, file, socket or random source."""
