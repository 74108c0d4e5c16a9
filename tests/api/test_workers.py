"""Workers of programs: their own workers with the plugin, and those that the package makes."""

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import Any

import pydantic
import pytest
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor, Replayer, Worker

import pipeline_runner
from pipeline_runner import (
    InvalidPipeline,
    PipelinePlugin,
    RunFailed,
    Runner,
    UsageError,
    load_text,
)
from pipeline_runner.testing import replayer
from tests.api.test_runs import GREET, World
from tests.codecs import UpsideDown


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
    async def run(self, name: str) -> Any:
        return await workflow.execute_activity(
            "shop.sync", name, start_to_close_timeout=timedelta(seconds=10)
        )


BUY = """\
name: buy
secrets: [TOKEN]
steps:
  - {id: a, activity: shop.sync, args: [a], compensate: none}
  - {id: b, activity: shop.later, args: ["{{ secrets.TOKEN }}"], compensate: none}
output: ["{{ steps.a.output }}", "{{ steps.b.output }}"]
"""


def vault(name: str) -> str | None:
    """Have one secret."""
    assert threading.current_thread() is not threading.main_thread()
    return "hunter2-correct-horse" if name == "TOKEN" else None


@pytest.fixture
def world(client: Client, tmp_path: Any) -> World:
    return World(client, tmp_path)


@pytest.mark.parametrize("own", [True, False], ids=["plugin", "worker"])
async def test_own_workflows_interceptors_and_executors_are_served_beside_pipelines(
    world: World, own: bool
) -> None:
    shop, seeing = Shop("my "), Seeing()
    pipeline = load_text(BUY, activities=[shop.sync, shop.later])
    with ThreadPoolExecutor(100, thread_name_prefix="mine") as executor:
        settings: dict[str, Any] = {
            "workflows": [Own],
            "interceptors": [seeing],
            "activity_executor": executor,
            "task_queue": world.queue,
        }
        worker = (
            Worker(world.client, plugins=[PipelinePlugin([pipeline], secrets=vault)], **settings)
            if own
            else pipeline_runner.worker(world.client, [pipeline], secrets=vault, **settings)
        )
        async with worker:
            loaded = await (await world.runner.start(pipeline)).result()
            named = await (await world.runner.start("buy")).result()
            other = await world.client.execute_workflow(
                "own-workflow", "x", id=f"{world.queue}-own", task_queue=world.queue
            )
    assert loaded == named == [["my a", "mine"], "my ***"]
    assert seeing.seen[:2] == [("shop.sync", "a"), ("shop.later", "hunter2-correct-horse")]
    assert other == ["my x", "mine"]


async def test_the_activities_of_the_worker_win_over_those_of_pipelines(world: World) -> None:
    pipeline = load_text(
        BUY.replace("{{ secrets.TOKEN }}", "b"), activities=[Shop("1 ").sync, Shop("1 ").later]
    )
    plugin = PipelinePlugin([pipeline], activities=[Shop("2 ").later], secrets=vault)
    async with Worker(world.client, task_queue=world.queue, activities=[Shop("3 ").sync], plugins=[plugin]):
        run = await world.runner.start(pipeline)
        assert await run.result() == [["3 a", "activity"], "2 b"]


async def test_a_plugin_serves_several_workers(world: World) -> None:
    plugin = PipelinePlugin([load_text(GREET)])
    async with (
        Worker(world.client, task_queue=world.queue, plugins=[plugin]),
        Worker(world.client, task_queue=f"{world.queue}-2", plugins=[plugin]),
    ):
        for queue in (world.queue, f"{world.queue}-2"):
            run = await Runner(world.client, task_queue=queue).start("greet", {"of": "Ada"})
            assert (await run.result())["text"] == "Hello, Ada"


def test_what_cannot_be_served_is_refused(client: Client) -> None:
    with pytest.raises(InvalidPipeline, match="unknown-key"):
        PipelinePlugin([load_text("name: a\nsteps: [{id: b, sets: {c: 1}}]\n")])
    with pytest.raises(UsageError, match='<string> and <string> are both named "greet"'):
        PipelinePlugin([load_text(GREET), load_text(GREET)])
    with pytest.raises(UsageError, match="there is no Python module"):
        PipelinePlugin(activities=["no_such_module"])
    with pytest.raises(UsageError, match="is not an activity: decorate it"):
        PipelinePlugin(activities=[print])
    with pytest.raises(UsageError, match=r'two activities are named "shop.sync"'):
        PipelinePlugin(activities=[Shop("1").sync, Shop("2").sync])
    with pytest.raises(TypeError, match="was it decorated with"):
        Worker(client, task_queue="a", activities=[print], plugins=[PipelinePlugin()])


async def test_settings_of_the_worker_stay_as_they_are(client: Client) -> None:
    chosen = {"max_heartbeat_throttle_interval": timedelta(seconds=7), "max_concurrent_activities": 3}
    made = Worker(client, task_queue="a", plugins=[PipelinePlugin()], **chosen)  # type: ignore[arg-type]
    config = made.config(active_config=True)
    assert config["max_heartbeat_throttle_interval"] == timedelta(seconds=7)
    assert config["sticky_queue_schedule_to_start_timeout"] == timedelta(seconds=1)
    assert config["activity_executor"]._max_workers == 3  # type: ignore[union-attr]


async def test_allowed_activities_alone_run(world: World) -> None:
    pipeline = load_text(BUY, activities=[Shop("").sync, Shop("").later])
    served = PipelinePlugin([pipeline], allow=["shop.l*"], secrets=vault)
    async with Worker(world.client, task_queue=world.queue, plugins=[served]):
        run = await world.runner.start(pipeline)
        with pytest.raises(RunFailed, match=r'this worker does not allow "shop\.sync"'):
            await run.result()


async def test_a_secret_that_the_vault_lacks_comes_from_the_environment(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "another-correct-horse")
    asked: list[str] = []
    shop = Shop("")
    pipeline = load_text(BUY, activities=[shop.sync, shop.later])
    seeing = Seeing()
    async with world.worker(pipeline, secrets=asked.append, interceptors=[seeing]):
        await (await world.runner.start(pipeline)).result()
    assert asked == ["TOKEN"]
    assert seeing.seen[1] == ("shop.later", "another-correct-horse")


async def test_a_vault_that_is_away_fails_the_attempt_and_the_next_one_asks_again(world: World) -> None:
    asked: list[str] = []

    def flaky(name: str) -> str:
        asked.append(name)
        if len(asked) == 1:
            raise ConnectionError("the vault is sealed")
        return "hunter2-correct-horse"

    shop = Shop("")
    pipeline = load_text(BUY, activities=[shop.sync, shop.later])
    async with world.worker(pipeline, secrets=flaky):
        assert (await (await world.runner.start(pipeline)).result())[1] == "***"
    assert asked == ["TOKEN", "TOKEN"]


async def test_a_vault_that_has_no_string_is_told(world: World) -> None:
    pipeline = load_text(
        BUY + "defaults: {retry: {maximum_attempts: 1}}\n", activities=[Shop("").sync, Shop("").later]
    )
    number: Any = lambda _: 3  # noqa: E731
    async with world.worker(pipeline, secrets=number):
        with pytest.raises(RunFailed, match='the vault returned int for the secret "TOKEN", not a string'):
            await (await world.runner.start(pipeline)).result()


async def test_nothing_begins_after_a_vault_that_took_too_long(world: World) -> None:
    begun = threading.Event()
    go_on = threading.Event()

    @activity.defn(name="shop.later")
    async def later(name: str) -> None:
        begun.set()

    def slow(name: str) -> str:
        assert go_on.wait(30)
        return "hunter2-correct-horse"

    text = BUY + "defaults: {retry: {maximum_attempts: 1}, timeouts: {start_to_close: 500ms}}\n"
    pipeline = load_text(text, activities=[Shop("").sync, later])
    async with world.worker(pipeline, secrets=slow):
        with pytest.raises(RunFailed) as caught:
            await (await world.runner.start(pipeline)).result()
        go_on.set()
    assert caught.value.type == "StartToCloseTimeout"
    assert not begun.is_set()


async def test_runs_by_name_need_their_secrets_before_anything_is_done(world: World) -> None:
    shop = Shop("")
    pipeline = load_text(BUY.replace("TOKEN", "NO_SUCH_TOKEN"), activities=[shop.sync, shop.later])
    async with world.worker(pipeline, secrets=vault):
        with pytest.raises(RunFailed, match='the worker has no secret "NO_SUCH_TOKEN"') as caught:
            await (await world.runner.start("buy")).result()
    assert caught.value.report.steps == {}


async def test_a_codec_encodes_all_that_the_server_has(world: World) -> None:
    config = world.client.config()
    config["data_converter"] = dataclasses.replace(pydantic_data_converter, payload_codec=UpsideDown())
    encoding = Client(**config)
    async with pipeline_runner.worker(encoding, [load_text(GREET)], task_queue=world.queue):
        run = await Runner(encoding, task_queue=world.queue).start(load_text(GREET), {"of": "Ada"})
        assert (await run.result())["text"] == "Hello, Ada"
        failing = await Runner(encoding, task_queue=world.queue).start("greet", {"off": "Ada"})
        with pytest.raises(RunFailed) as caught:
            await failing.result()
    assert caught.value.type == "InvalidInputs"
    without = await world.runner.get(run.workflow_id)
    with pytest.raises(ValueError, match="is encoded: connect with the data converter"):
        await without.result()
    report = await without.report()
    assert report.status == "completed"


async def test_runs_of_the_facade_replay(world: World) -> None:
    async with world.worker():
        run = await world.runner.start(world.pipeline("a", "b fail"))
        with pytest.raises(RunFailed):
            await run.result()
    history = await world.client.get_workflow_handle(run.workflow_id).fetch_history()
    own = Replayer(workflows=[Own], plugins=[PipelinePlugin()])
    assert (await own.replay_workflow(history)).replay_failure is None
    await replayer().replay_workflow(history)


class Parcel(pydantic.BaseModel):
    weight: int = pydantic.Field(gt=0)
    sent: date = date(2026, 1, 2)


@activity.defn(name="mine.weigh")
async def weigh(parcel: Parcel) -> Parcel:
    """Double a weight."""
    assert isinstance(parcel, Parcel)
    return parcel.model_copy(update={"weight": parcel.weight * 2})


@pytest.mark.parametrize(
    "converter", [DataConverter.default, pydantic_data_converter], ids=["default", "pydantic"]
)
async def test_activities_take_and_return_pydantic_models(world: World, converter: DataConverter) -> None:
    config = world.client.config()
    config["data_converter"] = converter
    connected = Client(**config)
    text = "name: a\nsteps: [{id: b, activity: mine.weigh, with: {weight: WEIGHT}, compensate: none}]\noutput: '{{ steps.b.output }}'\n"
    good = load_text(text.replace("WEIGHT", "2"), activities=[weigh])
    async with pipeline_runner.worker(connected, [good], task_queue=world.queue):
        run = await Runner(connected, task_queue=world.queue).start(good)
        assert await run.result(Parcel) == Parcel(weight=4)
    bad = load_text(text.replace("WEIGHT", "0"), activities=[weigh])
    assert [d.rule for d in bad.diagnostics] == ["bad-value"]
