"""The base of the interceptors that act before each activity of a worker."""

from typing import Any

from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor


class BeforeActivities(Interceptor):
    """Calls :meth:`before` in each activity, before anything else looks at it."""

    async def before(self, input: ExecuteActivityInput) -> None:  # noqa: A002
        """Prepare the activity, or raise the error with which it fails."""
        raise NotImplementedError

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Return the next interceptor with this one before it."""
        return _Before(next, self)


class _Before(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, owner: BeforeActivities) -> None:  # noqa: A002
        super().__init__(next)
        self._owner = owner

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        await self._owner.before(input)
        return await super().execute_activity(input)
