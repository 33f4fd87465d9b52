"""What the feed's listener is made of."""
