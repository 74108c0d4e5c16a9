"""What an author's own worker brings along is served beside what pipelines need."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.plugin import SimplePlugin
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from tests.conftest import Pipelines, result_of
from tests.engine.texts import pipeline, step


class Shop:
    """Activities as methods, with what they share."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    @activity.defn(name="shop.sync")
    def sync(self, name: str) -> list[str]:
        return [self.prefix + name, threading.current_thread().name.partition("_")[0]]

    @activity.defn(name="shop.later")
    async def later(self, name: str) -> str:
        return self.prefix + name


class Seeing(Interceptor):
    """Notes which activities begin, with the arguments."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        seen = self.seen

        class Noting(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
                seen.append((activity.info().activity_type, *input.args))
                return await super().execute_activity(input)

        return Noting(next)


@workflow.defn(name="own-workflow", sandboxed=False)
class Own:
    """A workflow in Python, on the worker of pipelines."""

    @workflow.run
    async def run(self, name: str) -> str:
        return f"own {name}"


async def test_own_settings_are_added_to_those_of_pipelines(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hunter2-correct-horse")
    shop, seeing = Shop("my "), Seeing()
    bundle = pipelines.bundle(
        pipeline(
            step(pipelines, "shop.sync", "args: [a]").replace("id: o", "id: a"),
            step(pipelines, "shop.later", "args: ['{{ secrets.TOKEN }}']").replace("id: o", "id: b"),
            "output: ['{{ steps.a.output }}', '{{ steps.b.output }}']\n",
            head="secrets: [TOKEN]\n",
        )
    )
    with ThreadPoolExecutor(100, thread_name_prefix="mine") as executor:
        own: dict[str, Any] = {
            "interceptors": [seeing],
            "workflows": [Own],
            "activity_executor": executor,
            "plugins": [SimplePlugin("own")],
        }
        async with pipelines.worker(shop.sync, shop.later, **own):
            output = await result_of(await pipelines.start(bundle))
            other = await pipelines.client.execute_workflow(
                "own-workflow", "x", id=f"{pipelines.queue}-own", task_queue=pipelines.queue
            )
    assert output == [["my a", "mine"], "my ***"]
    assert seeing.seen == [("shop.sync", "a"), ("shop.later", "hunter2-correct-horse")]
    assert other == "own x"
