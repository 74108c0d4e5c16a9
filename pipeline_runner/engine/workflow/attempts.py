"""Retries of a step that contains others: each attempt is undone before the next one begins."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from temporalio import workflow

from pipeline_runner.core.model import Retry
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.scopes import Turn
from pipeline_runner.engine.workflow.step_errors import StepError, kept, restored
from pipeline_runner.engine.workflow.undo import Undo
from pipeline_runner.engine.workflow.values import after


class Attempts:
    """Retries steps. The frame of the turn records the attempt, and whether it is being undone."""

    def __init__(self, undo: Undo, gate: Gate) -> None:
        """Prepare to run the attempts of one run's steps."""
        self._undo = undo
        self._gate = gate

    async def run(self, turn: Turn, retry: Retry, name: str, once: Callable[[Turn], Awaitable[Any]]) -> Any:
        """Run a step until it completes or is not retried.

        Args:
            turn: The step, with the path of its first attempt.
            retry: Its retry policy.
            name: Its name.
            once: Runs one attempt.

        Raises:
            StepError: The last attempt failed. Its steps are not undone yet.
            Interrupted: It was interrupted.
        """
        frame = turn.scope.frame
        while True:
            attempt = replace(turn, path=turn.path.attempt(frame.attempt))
            if frame.undoing is None:
                try:
                    return await once(attempt)
                except StepError as error:
                    self._begin_undo(turn, retry, error)
            await self._undo_attempt(attempt)
            await self._pause(turn, retry, name)
            frame.clear()
            frame.attempt += 1

    def _begin_undo(self, turn: Turn, retry: Retry, error: StepError) -> None:
        turn.scope.cancel.check()
        frame = turn.scope.frame
        if not calls.may_retry(retry, error.info.type, frame.attempt, final=error.non_retryable):
            raise error
        frame.clear()
        frame.undoing = kept(error)

    async def _undo_attempt(self, attempt: Turn) -> None:
        failure = attempt.scope.frame.undoing
        assert failure is not None
        await self._undo.within(attempt.path, failure.error, attempt.scope.cancel)
        if not self._undo.is_complete(attempt.path):
            workflow.logger.warning("%s: no further attempt, since its undo is not complete", attempt.path)
            raise restored(failure)

    async def _pause(self, turn: Turn, retry: Retry, name: str) -> None:
        frame = turn.scope.frame
        if frame.until is None:
            frame.until = after(calls.backoff(retry, frame.attempt))
        await self._gate.pause(turn.scope.cancel, frame.until, f"retry of {turn.path.titled(name)}")
