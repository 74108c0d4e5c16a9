"""Removes records for undo that are no longer needed.

A record of the file family names its run, and the run's server. A worker removes records that are older
than the retention time (see ``retention.py``) and whose run its server no longer knows: such a run is
not open, and cannot be undone by hand either. The worker checks this when it starts and a few times a
day, only for records of its own server.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from temporalio import activity
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import ExecuteActivityInput

from pipeline_runner.activities.files import old_records
from pipeline_runner.activities.toolkit.context import Origin, set_origin
from pipeline_runner.engine import retention
from pipeline_runner.engine.before import BeforeActivities

EVERY = 6 * 3600.0
"""Seconds between two checks of a store, by any worker."""
_PAUSE = 60.0
"""Seconds until a server is asked again for its id after it did not answer."""

_log = logging.getLogger(__name__)


class Namespace:
    """The namespace of a client, with its id, which no other server has."""

    def __init__(self, client: Client) -> None:
        """Use this client to ask for the id."""
        self.client = client
        self._id: str | None = None
        self._ask_again = 0.0

    async def id(self) -> str | None:
        """Return the namespace's id; None: the server does not answer now."""
        if self._id is None and time.monotonic() >= self._ask_again:
            request = DescribeNamespaceRequest(namespace=self.client.namespace)
            try:
                described = await self.client.workflow_service.describe_namespace(request)
            except RPCError as error:
                _log.warning("old undo records will not be removed: %s", error)
                self._ask_again = time.monotonic() + _PAUSE
            else:
                self._id = described.namespace_info.id
        return self._id


class OriginInterceptor(BeforeActivities):
    """Tells activities their run, for what they keep for its undo."""

    def __init__(self, namespace: Namespace) -> None:
        """Set runs of this namespace."""
        self._namespace = namespace

    async def before(self, input: ExecuteActivityInput) -> None:  # noqa: A002
        """Set the run of the activity."""
        info = activity.info()
        if not info.is_local and info.workflow_id is not None and info.workflow_run_id is not None:
            server = await self._namespace.id()
            set_origin(Origin(server=server, workflow_id=info.workflow_id, run_id=info.workflow_run_id))


def sweeping(namespace: Namespace) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Return a context that removes old records while a worker runs."""

    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        task = asyncio.create_task(_sweep_now_and_then(namespace))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return context


async def _sweep_now_and_then(namespace: Namespace) -> None:
    while True:
        try:
            for store in await asyncio.to_thread(old_records.due_stores, EVERY):
                await sweep(namespace, store)
        except (OSError, RPCError, ValueError) as error:
            _log.warning("old undo records were not removed: %s", error)
        await asyncio.sleep(EVERY)


async def sweep(namespace: Namespace, store: str) -> None:
    """Remove the records of a store whose runs can no longer be undone.

    Raises:
        OSError: The store cannot be read or written.
        ValueError: The variable for the retention time has another value.
    """
    age, server = retention.chosen(), await namespace.id()
    known: dict[Origin, bool] = {}
    for record in await asyncio.to_thread(old_records.older_than, store, float(age)):
        if record.origin is None or server is None or record.origin.server != server:
            continue  # another server may know its run
        if record.origin not in known:
            known[record.origin] = await _can_be_undone(namespace.client, record.origin)
        if not known[record.origin]:
            await asyncio.to_thread(record.remove)


async def _can_be_undone(client: Client, origin: Origin) -> bool:
    """Tell whether a server still knows a run, or the run in which it continues."""
    try:
        if await _describe(client, origin.workflow_id, origin.run_id) is not None:
            return True
        latest = await _describe(client, origin.workflow_id, None)
    except RPCError as error:
        _log.warning("cannot look up the run %s: %s", origin.workflow_id, error)
        return True
    if latest is None:
        return False
    # A run that has continued as new may be the one: the server forgets its first parts earlier.
    first = latest.raw_description.workflow_execution_info.first_run_id
    return latest.status == WorkflowExecutionStatus.RUNNING or first != latest.run_id


async def _describe(
    client: Client, workflow_id: str, run_id: str | None
) -> WorkflowExecutionDescription | None:
    try:
        return await client.get_workflow_handle(workflow_id, run_id=run_id).describe()
    except RPCError as error:
        if error.status == RPCStatusCode.NOT_FOUND:
            return None
        raise
