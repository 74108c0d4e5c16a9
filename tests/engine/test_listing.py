"""``list --problems``: open runs that need somebody."""

import asyncio
import uuid

from pipeline_runner.engine.listing import list_runs
from tests.conftest import Pipelines


async def test_runs_that_retry_or_wait_for_somebody_are_problems(pipelines: Pipelines) -> None:
    name = f"p-{uuid.uuid4().hex[:8]}"
    retrying = (
        f"name: {name}\nsteps:\n  - id: a\n    activity: effect.undo\n"
        "    with: {log: LOG, name: a, then: fail}\n    retry: {initial_interval: 100s, maximum_interval: 100s}\n"
    )
    waiting = f"name: {name}\nsteps:\n  - {{id: paid, wait: {{event: paid}}}}\n"
    going = f"name: {name}\nsteps:\n  - {{id: nap, wait: 100s}}\n"
    async with pipelines.worker():
        handles = [await pipelines.start(pipelines.bundle(text)) for text in (retrying, waiting, going)]

        async def problems() -> dict[str, str | None]:
            runs = await list_runs(pipelines.client, limit=9, pipeline=name, problems=True)
            return {run.run: run.problem for run in runs}

        expected = {
            handles[0].id: "a: attempt 2: a cannot be undone",
            handles[1].id: "paid: waiting for event paid",
        }
        async with asyncio.timeout(20):
            while await problems() != expected:
                await asyncio.sleep(0.1)
        every = await list_runs(pipelines.client, limit=9, pipeline=name)
        assert {run.run for run in every} == {handle.id for handle in handles}
        for handle in handles:
            await handle.terminate()
