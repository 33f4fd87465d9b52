"""Programs for people: listen, replay, measure, disturb."""
