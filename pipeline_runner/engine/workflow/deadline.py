"""The deadline of a run: a timer in the workflow, so that what is late is undone."""

import asyncio
from datetime import datetime, timedelta

from temporalio import workflow

from pipeline_runner.core import durations
from pipeline_runner.core.model import Pipeline
from pipeline_runner.core.state import Continuation
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.cancel import CancelScope, Interrupted
from pipeline_runner.engine.workflow.steps import Steps


class Deadline:
    """Ends the work of a run when its time is over. While the run is held, the time stands still."""

    def __init__(self, pipeline: Pipeline, state: Continuation, steps: Steps, cancel: CancelScope) -> None:
        """Prepare the deadline of a run; without a ``timeout`` there is none."""
        self._pipeline = pipeline
        self._state = state
        self._steps = steps
        self._cancel = cancel
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Let the time run."""
        if self._pipeline.timeout is not None:
            self._task = asyncio.create_task(self._watch(self._pipeline.timeout))

    def stop(self) -> None:
        """Stop the time, or the watch at the end of the work."""
        if self._task is not None:
            self._task.cancel()

    async def _watch(self, limit: float) -> None:
        end = datetime.fromisoformat(self._state.started_at) + timedelta(seconds=limit + self._state.held)
        left = max((end - workflow.now()).total_seconds(), 0.001)
        await calls.timer(left, f"timeout of {self._pipeline.name}")
        during = f' during "{self._steps.current}"' if self._steps.current else ""
        message = f"{self._pipeline.name} did not complete within {durations.spell(limit)}{during}"
        await self._cancel.request(Interrupted("timed_out", message))
