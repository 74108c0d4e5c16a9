"""The ``dns`` family: record sets, looked up and changed."""
