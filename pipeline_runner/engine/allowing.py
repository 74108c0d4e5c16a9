"""Limits a worker to activities whose names match its patterns."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ExecuteActivityInput

from pipeline_runner.core import errors
from pipeline_runner.engine.before import BeforeActivities


def is_allowed(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether an activity's name matches one of the patterns, such as ``file.*``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Allowing(BeforeActivities):
    """Refuses activities before their input is read and secrets are inserted."""

    def __init__(self, patterns: Sequence[str], always: str) -> None:
        """Allow activities whose names match.

        Args:
            patterns: Patterns of names, with ``*``, ``?`` and ``[…]``.
            always: One of the worker's own activities, which is allowed although no pattern matches it.
        """
        self._patterns = tuple(patterns)
        self._always = always

    async def before(self, input: ExecuteActivityInput) -> None:  # noqa: A002
        """Refuse the activity unless its name matches."""
        name = activity.info().activity_type
        if name != self._always and not is_allowed(name, self._patterns):
            raise ApplicationError(
                f'this worker does not allow "{name}": it allows only {", ".join(self._patterns)}',
                type=errors.NOT_ALLOWED,
                non_retryable=True,
            )
