"""The parts of JSON Schema that are checked, in bounded time."""
