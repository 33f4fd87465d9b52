"""Order flow: recorded, replayed and made up."""
