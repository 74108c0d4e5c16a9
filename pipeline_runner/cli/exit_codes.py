"""Exit codes of ``run-pipeline``, as the language reference lists them."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    """Completed; or, of commands that only ask or tell, answered."""
    FAILED = 1
    """The run failed and is undone; mistakes were found; no answer."""
    USAGE = 2
    """Wrong words, an invalid file or invalid inputs: nothing was started."""
    DIRTY = 3
    """Something that was done is left, or may be."""
    CANCELLED = 4
    """The run was cancelled and is undone."""
    UNREACHABLE = 5
    """The Temporal server cannot be reached."""
    INTERNAL = 70
    """An error in ``run-pipeline`` itself (``EX_SOFTWARE``)."""
    DETACHED = 130
    """The command was left before its run had ended, or before anything was started."""
