"""The exit codes of ``run-pipeline``, as listed in the reference."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    """The run completed, or the command succeeded."""
    FAILED = 1
    """The run failed and is undone; the checker found errors; the requested object does not exist."""
    USAGE = 2
    """Wrong arguments, an invalid file or invalid inputs: nothing was started."""
    DIRTY = 3
    """Effects of the run remain, or may remain."""
    CANCELLED = 4
    """The run was cancelled and is undone."""
    UNREACHABLE = 5
    """The Temporal server cannot be reached."""
    INTERNAL = 70
    """An error in ``run-pipeline`` itself (``EX_SOFTWARE``)."""
    DETACHED = 130
    """The command ended before its run did, or before anything was started."""
