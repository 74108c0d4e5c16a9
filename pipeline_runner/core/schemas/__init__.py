"""JSON Schema: what is checked of it, in bounded time."""
