"""Everything that uses Temporal: the interpreter workflow, the worker, the client."""
