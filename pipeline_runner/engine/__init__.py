"""Temporal: the interpreter workflow, undo, worker, client and the embedded server."""
