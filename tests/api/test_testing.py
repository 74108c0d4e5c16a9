"""What users test with; the fixtures are tested by the pages that show them."""

import time
from typing import Any

from temporalio import activity
from temporalio.client import Client

from pipeline_runner import Progress, Runner, load_text, worker
from pipeline_runner.activity import progress
from pipeline_runner.testing import activity_environment, dev_server
from tests.api.test_runs import World

DAY = """\
name: day
steps: [{id: night, wait: 1d}]
output: done
"""


async def test_a_server_of_ones_own_skips_time() -> None:
    with dev_server(time_skipping=True) as server:
        client = await server.connect()
        async with worker(client, [load_text(DAY)]):
            begun = time.monotonic()
            assert await (await Runner(client).start("day")).result() == "done"
        assert time.monotonic() - begun < 3600
        assert server.time_skipping


@activity.defn(name="mine.copy")
async def copy(given: dict[str, Any]) -> list[Any]:
    """Tell of progress, and return what the attempt before had told."""
    details = [*activity.info().heartbeat_details]
    if activity.info().attempt == 1:
        progress(1, 3, "bytes")
        raise RuntimeError("once")
    progress(2)
    return details


async def test_progress_is_shown_and_handed_to_the_next_attempt(client: Client, tmp_path: Any) -> None:
    world = World(client, tmp_path)
    text = "name: a\nsteps: [{id: b, activity: mine.copy, with: {}, compensate: none, retry: {initial_interval: 10ms}}]\noutput: '{{ steps.b.output }}'\n"
    pipeline = load_text(text, activities=[copy])
    async with world.worker(pipeline):
        run = await world.runner.start(pipeline)
        assert await run.result() == [{"done": 1, "total": 3, "unit": "bytes"}]
        events = [event async for event in run.events()]
    assert [(e.state, e.attempt) for e in events if isinstance(e, Progress)][-1] == ("completed", 2)


async def test_progress_in_a_unit_test_and_outside_of_any_activity() -> None:
    progress(1, 2)
    told: list[Any] = []
    environment = activity_environment(attempt=2)
    environment.on_heartbeat = lambda *details: told.extend(details)
    assert await environment.run(copy, {}) == []
    assert told == [{"done": 2, "total": None}]
