"""The market-data fabric: sequenced streams out, mirrors and recovery in."""
