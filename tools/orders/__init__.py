"""Orders by hand, and the operator's desk: a command line for people, one call each."""
