"""From what the core did to the feed; alone in `engine` it meets `bus`."""
