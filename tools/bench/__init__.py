"""What the venue costs, beside what the same work costs without it."""
