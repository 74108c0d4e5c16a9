"""How long the embedded server keeps the history of a run that has ended."""

import os

from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client

from pipeline_runner.core import durations

VARIABLE = "RUN_PIPELINE_RETENTION"
DEFAULT = "30d"
_LEAST = 3600.0
"""Seconds. The server does not accept less."""


def chosen() -> int:
    """Return the seconds for which runs are kept.

    Raises:
        ValueError: The variable is not a duration, or is under an hour.
    """
    text = os.environ.get(VARIABLE) or DEFAULT
    try:
        seconds = durations.parse(text)
    except ValueError as error:
        raise ValueError(f"{VARIABLE}: {error}") from None
    if seconds < _LEAST:
        raise ValueError(f'{VARIABLE}: runs are kept for at least an hour, not "{text}"')
    return int(seconds)


async def keep_runs(client: Client, seconds: int) -> None:
    """Make the server keep ended runs for so long. Repeating this changes nothing.

    Raises:
        RPCError: The server refuses.
    """
    service, name = client.workflow_service, client.namespace
    described = await service.describe_namespace(DescribeNamespaceRequest(namespace=name))
    if described.config.workflow_execution_retention_ttl.seconds != seconds:
        config = NamespaceConfig(workflow_execution_retention_ttl=Duration(seconds=seconds))
        await service.update_namespace(UpdateNamespaceRequest(namespace=name, config=config))
