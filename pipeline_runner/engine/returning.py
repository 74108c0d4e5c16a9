"""What the server gave a worker that was stopping goes back to the server.

The SDK drops its polls when a worker stops. A task that the server hands out at that moment reaches
nobody, yet counts as started until it times out, which takes an activity minutes. Therefore a worker
that has stopped looks at the runs that it served last, and fails such attempts: the server retries them.
"""

import asyncio
import logging
import threading
import time
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client, WorkflowExecutionDescription
from temporalio.converter import ActivitySerializationContext
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from pipeline_runner.core import errors

_RUNS = 200
"""How many runs a worker looks at: those that it served last."""
_SETTLED = 0.2
"""Seconds after which the server has handed out nothing more to polls that were dropped."""
_LONGEST = 5.0
"""Seconds that all of this may take."""
_SOON = 10.0
"""An attempt that times out within so many seconds is left to the server."""
_OPEN = (
    PendingActivityState.PENDING_ACTIVITY_STATE_STARTED,
    PendingActivityState.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED,
)

_log = logging.getLogger(__name__)


class Served(Interceptor):
    """The open runs that a worker served last, and the attempts that others complete for it."""

    def __init__(self, identity: str | None = None) -> None:
        """Note what one worker does.

        Args:
            identity: The worker's own, which no other worker has; None: there is no such thing, and
                nothing is given back.
        """
        self._identity = identity
        self._runs: dict[tuple[str, str], None] = {}
        self._elsewhere: set[tuple[str, str]] = set()
        self._lock = threading.Lock()  # workflows run in threads

    def note(self, workflow_id: str, run_id: str, *, ended: bool = False) -> None:
        """Note that the worker has served a run just now."""
        with self._lock:
            self._runs.pop((workflow_id, run_id), None)
            if not ended:
                self._runs[workflow_id, run_id] = None
            if len(self._runs) > _RUNS:
                del self._runs[next(iter(self._runs))]

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        """Put this into the chain."""
        return _Noting(next, self)

    def completed_elsewhere(self, run_id: str, activity_id: str) -> None:
        """Note that an activity goes on outside of the worker."""
        self._elsewhere.add((run_id, activity_id))

    async def give_back(self, client: Client) -> None:
        """Fail the attempts that nobody runs, after the worker has stopped."""
        if self._identity is None or not self._runs:
            return
        await asyncio.sleep(_SETTLED)
        try:
            async with asyncio.timeout(_LONGEST):
                await asyncio.gather(*(self._give_back(client, *run) for run in self._runs))
        except TimeoutError:
            _log.warning("the worker stopped before it knew whether the server had given it more activities")

    async def _give_back(self, client: Client, workflow_id: str, run_id: str) -> None:
        try:
            run = await client.get_workflow_handle(workflow_id, run_id=run_id).describe()
            for pending in run.raw_description.pending_activities:
                if self._is_lost(run_id, pending):
                    await self._fail(client, run, pending)
        except RPCError as error:
            if error.status != RPCStatusCode.NOT_FOUND:  # it, or the activity, has ended in the meantime
                _log.warning("cannot look for lost activities of %s: %s", workflow_id, error)

    def _is_lost(self, run_id: str, pending: PendingActivityInfo) -> bool:
        return (
            pending.state in _OPEN
            and pending.last_worker_identity == self._identity
            and (run_id, pending.activity_id) not in self._elsewhere
            and not _times_out_soon(pending)
        )

    async def _fail(
        self, client: Client, run: WorkflowExecutionDescription, lost: PendingActivityInfo
    ) -> None:
        context = ActivitySerializationContext(
            namespace=client.namespace,
            workflow_id=run.id,
            workflow_type=run.workflow_type,
            activity_type=lost.activity_type.name,
            activity_id=lost.activity_id,
            activity_task_queue=lost.activity_options.task_queue.name,
            is_local=False,
        )
        handle = client.get_async_activity_handle(
            workflow_id=run.id, run_id=run.run_id, activity_id=lost.activity_id
        )
        # Whether the attempt began is not proved: its report may have been lost instead of its task.
        stopped = ApplicationError("the worker was stopped", errors.UNCERTAIN, type=errors.WORKER_SHUTDOWN)
        await handle.with_context(context).fail(stopped)
        _log.info("%s: returned %s to the server", run.id, lost.activity_type.name)


class _Noting(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, served: Served) -> None:  # noqa: A002
        super().__init__(next)
        self._served = served

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        info = activity.info()
        if info.is_local or info.workflow_id is None or info.workflow_run_id is None:
            return await super().execute_activity(input)
        self._served.note(info.workflow_id, info.workflow_run_id)
        try:
            return await super().execute_activity(input)
        except activity._CompleteAsyncError:  # noqa: SLF001 - what raise_complete_async raises
            self._served.completed_elsewhere(info.workflow_run_id, info.activity_id)
            raise


def _times_out_soon(pending: PendingActivityInfo) -> bool:
    """Tell whether an attempt may be another by the time that it is failed, which names no attempt."""
    options = pending.activity_options
    limits = [
        limit.ToTimedelta()
        for limit in (options.start_to_close_timeout, options.heartbeat_timeout)
        if limit.ToTimedelta()
    ]
    age = time.time() - pending.last_started_time.ToMicroseconds() / 1e6
    return bool(limits) and age + _SOON > min(limits, default=timedelta()).total_seconds()
