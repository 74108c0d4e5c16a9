"""Which activities exist, and what is known about each."""
