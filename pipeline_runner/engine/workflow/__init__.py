"""The workflow: everything that is replayed. No clock, no random source, no threads, no I/O."""
