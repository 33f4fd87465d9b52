"""The command log, the only authority: records, where they are kept, and how a venue is rebuilt from them."""
