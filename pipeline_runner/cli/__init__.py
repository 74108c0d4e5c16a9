"""The command ``run-pipeline``: one sub-command per file, rendering, the live view."""
