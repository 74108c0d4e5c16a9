"""The language in one table: every key and the shape of its value."""
