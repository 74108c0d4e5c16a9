"""Heartbeats: what an attempt tells, and what it passes on from the one before."""

import asyncio
import dataclasses
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from pipeline_runner.activities.toolkit.heartbeat import heartbeating, remembered
from tests.conftest import Pipelines, result_of

STEPS = """
name: remember
steps:
  - {id: a, activity: test.remember, retry: {initial_interval: 10ms, maximum_attempts: 4}, compensate: none}
output: "{{ steps.a.output }}"
"""


def test_what_is_remembered_is_passed_on_from_the_first_heartbeat() -> None:
    """One without it would have the server forget it, and the attempt after this one not know."""
    told: list[tuple[Any, ...]] = []
    env = ActivityEnvironment()
    env.info = dataclasses.replace(env.info, heartbeat_details=[{"was": 1}])
    env.on_heartbeat = lambda *details: told.append(details)

    async def quiet() -> Any:
        async with heartbeating():
            await asyncio.sleep(0.05)
        return remembered()

    assert asyncio.run(env.run(quiet)) == {"was": 1}
    assert told == [({"was": 1},)]


async def test_every_attempt_knows_what_the_first_one_remembered(pipelines: Pipelines) -> None:
    """Two attempts in between say nothing of it, and fail."""

    @activity.defn(name="test.remember")
    async def remember() -> Any:
        async with heartbeating() as heart:
            if activity.info().attempt == 1:
                await heart.remember({"was": "there"})
            else:
                await asyncio.sleep(0.05)
            if activity.info().attempt < 4:
                raise ApplicationError("again", type="Again")
            return remembered()

    (pipelines.folder / "activities.yaml").write_text(
        "activities: {test.remember: {timeouts: {heartbeat: 10s}}}\n"
    )
    bundle = pipelines.bundle(STEPS)
    async with pipelines.worker(remember):
        assert await result_of(await pipelines.start(bundle)) == {"was": "there"}
