"""What a worker may run: the activities whose names match its patterns, and no others."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from pipeline_runner.core import errors


def is_allowed(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether an activity's name matches one of some patterns, such as ``file.*``."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


class Allowing(Interceptor):
    """Refuses activities before anything of them is looked at, and before secrets are put in."""

    def __init__(self, patterns: Sequence[str], always: str) -> None:
        """Allow what matches.

        Args:
            patterns: Of names of activities, with ``*``, ``?`` and ``[…]``.
            always: An activity of the worker's own, which matches nothing and is allowed.
        """
        self._patterns = tuple(patterns)
        self._always = always

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Put the check into the chain."""
        return _Check(next, self._patterns, self._always)


class _Check(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, patterns: Sequence[str], always: str) -> None:  # noqa: A002
        super().__init__(next)
        self._patterns = patterns
        self._always = always

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        name = activity.info().activity_type
        if name != self._always and not is_allowed(name, self._patterns):
            raise ApplicationError(
                f'this worker does not allow "{name}": it allows only {", ".join(self._patterns)}',
                type=errors.NOT_ALLOWED,
                non_retryable=True,
            )
        return await super().execute_activity(input)
