"""What a workflow is made of, and replayed with: no clock, no random source, no threads, no I/O."""
