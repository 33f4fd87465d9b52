"""Order entry: the door, sessions, calls, and the links to other engines."""
