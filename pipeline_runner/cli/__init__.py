"""The command ``run-pipeline``: a module per sub-command, formatting, the live view."""
