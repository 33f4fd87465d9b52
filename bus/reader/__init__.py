"""The SDK of a reader: books and events of the feed."""
