"""What a service has around its pipelines: traces, metrics, versions of workers."""

import asyncio
import socket
import urllib.request
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.api.workflowservice.v1 import SetWorkerDeploymentCurrentVersionRequest
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig
from temporalio.service import RPCError
from temporalio.worker import WorkerDeploymentConfig

from pipeline_runner import RunFailed, Runner, load_text
from pipeline_runner.server.devserver import DevServer
from pipeline_runner.testing import Server
from tests.api.test_runs import GREET, World


@pytest.fixture
def world(client: Client, tmp_path: Path) -> World:
    return World(client, tmp_path)


async def test_a_trace_leads_from_the_caller_to_every_activity(world: World) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests")
    config = world.client.config()
    config["interceptors"] = [*config["interceptors"], TracingInterceptor(tracer)]
    traced = World(Client(**config), world.log.parent)
    async with traced.worker():
        with tracer.start_as_current_span("request"):
            run = await traced.runner.start(traced.pipeline("a", "b fail"))
        with pytest.raises(RunFailed):
            await run.result()
    spans = exporter.get_finished_spans()
    assert len({span.context.trace_id for span in spans}) == 1
    ended = [
        (span.name, span.status.status_code.name) for span in spans if span.name.startswith("RunActivity")
    ]
    assert ended == [
        ("RunActivity:effect.do", "UNSET"),
        ("RunActivity:effect.do", "ERROR"),
        ("RunActivity:effect.undo", "UNSET"),
    ]


async def test_metrics_are_told_by_pipeline_and_activity(server: DevServer, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    metrics = PrometheusConfig(bind_address=f"127.0.0.1:{port}")
    runtime = Runtime(telemetry=TelemetryConfig(metrics=metrics))
    world = World(await Server(server.address, time_skipping=False).connect(runtime=runtime), tmp_path)
    pipeline = world.pipeline("a", "b fail")
    async with world.worker():
        with pytest.raises(RunFailed):
            await (await world.runner.start(pipeline)).result()
        page = await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{port}/metrics")
        lines = page.read().decode().splitlines()
    (failed,) = (line for line in lines if line.startswith("temporal_workflow_failed{"))
    assert f'workflow_type="{pipeline.name}"' in failed
    assert any(
        line.startswith("temporal_activity_execution_failed{") and 'activity_type="effect.do"' in line
        for line in lines
    )


@pytest.mark.parametrize("behaviour", [VersioningBehavior.PINNED, VersioningBehavior.AUTO_UPGRADE])
async def test_a_run_belongs_to_a_version_of_its_workers(world: World, behaviour: VersioningBehavior) -> None:
    version = WorkerDeploymentVersion(deployment_name=world.queue, build_id="1")
    config = WorkerDeploymentConfig(
        version=version, use_worker_versioning=True, default_versioning_behavior=behaviour
    )
    async with world.worker(load_text(GREET), deployment_config=config):
        await make_current(world.client, version)
        run = await Runner(world.client, task_queue=world.queue).start("greet", {"of": "Ada"})
        assert (await asyncio.wait_for(run.result(), 30))["text"] == "Hello, Ada"
    described = await world.client.get_workflow_handle(run.workflow_id).describe()
    versioning = described.raw_description.workflow_execution_info.versioning_info
    assert versioning.deployment_version.build_id == "1"
    assert versioning.behavior == behaviour.value


async def make_current(client: Client, version: WorkerDeploymentVersion) -> None:
    """Have new runs go to a version, once the server has heard of its worker."""
    request = SetWorkerDeploymentCurrentVersionRequest(
        namespace=client.namespace, deployment_name=version.deployment_name, build_id=version.build_id
    )
    for _ in range(100):
        try:
            await client.workflow_service.set_worker_deployment_current_version(request)
        except RPCError:
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError("the server has not heard of the worker's version")
