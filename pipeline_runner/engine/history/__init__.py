"""The meaning of the events in a run's history."""
