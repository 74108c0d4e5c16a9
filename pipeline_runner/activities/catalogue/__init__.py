"""Which activities exist, and what is known of each."""
