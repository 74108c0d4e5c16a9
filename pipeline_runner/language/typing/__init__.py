"""The types of values, as far as they can be known before a run."""
