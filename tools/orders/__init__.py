"""Orders by hand, and what an operator may say: a command line for people, one call each."""
