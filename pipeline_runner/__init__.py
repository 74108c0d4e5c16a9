"""Pipeline Runner: YAML pipelines on Temporal, undone in reverse order when they fail.

This package imports nothing, so that every part can be imported on its own.
"""
