"""The embedded Temporal server: it starts on demand, is shared, and stops with its last user."""
