"""What time it is, as far as a clock is to be believed."""
