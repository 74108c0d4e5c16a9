"""Long loops and many branches: how much a run does in one go, and how much it holds."""

from collections import Counter

import pytest
from temporalio import workflow

from pipeline_runner.engine.workflow import work
from tests.conftest import Pipelines, result_of


def pipeline(steps: str, rest: str = "") -> str:
    return f"version: 1\nname: p\nsteps:\n{steps}{rest}"


async def test_a_loop_of_branches_that_only_compute_pauses_often(
    pipelines: Pipelines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many branches there are, a workflow task has time for no more than a pause allows."""
    steps: Counter[int] = Counter()
    count_step = work.Work.count_step

    def counted(self: work.Work) -> None:
        steps[workflow.info().get_current_history_length()] += 1
        count_step(self)

    monkeypatch.setattr(work.Work, "count_step", counted)
    monkeypatch.setattr(work, "PAUSE_AFTER", 50 * work.UNITS_OF_STEP)
    text = pipeline(
        """
  - id: each
    for_each: "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]"
    max_concurrency: 10
    steps:
      - id: inner
        for_each: "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]"
        steps: [{id: one, set: {x: 1}}, {id: two, set: {x: "{{ item }}"}}]
"""
    )
    async with pipelines.worker():
        handle = await pipelines.start(pipelines.bundle(text))
        await result_of(handle)
    assert sum(steps.values()) == 1 + 20 * (1 + 10 * 2)
    assert len(steps) >= 5
    # Each branch may go on by a step after its turn has come.
    assert max(steps.values()) <= 50 + 10
