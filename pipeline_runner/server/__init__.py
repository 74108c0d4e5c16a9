"""The embedded Temporal server: started on demand, shared, ended with its last user."""
