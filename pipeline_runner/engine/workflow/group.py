"""Runs items of a loop, or branches, several at a time. The first one that fails may cancel the others."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
from temporalio import workflow

from pipeline_runner.core.errors import shortened
from pipeline_runner.core.state import Failure, Frame
from pipeline_runner.engine.workflow.cancel import CancelScope, Interrupted
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.scopes import Scope
from pipeline_runner.engine.workflow.step_errors import StepError, kept, restored

_NAMED = 10
"""How many of the other failures are named."""

_MESSAGE = 1_000
"""The maximum number of characters of the first error's message if there are others."""


class Group:
    """Runs a body for each key. A frame holds what is open, and what has completed."""

    def __init__(
        self,
        gate: Gate,
        scope: Scope,
        body: Callable[[str, Scope], Awaitable[Any]],
        *,
        fail_fast: bool,
        name_of: Callable[[str], str] = str,
        keep: bool = True,
    ) -> None:
        """Prepare a group.

        Args:
            gate: The run's.
            scope: The scope of the step that the group is a part of.
            body: Runs one of the keys, in its own scope, and returns its output.
            fail_fast: Whether the first failure cancels the others.
            name_of: Returns the name of a key in an error.
            keep: Whether anybody wants the outputs.
        """
        self._gate = gate
        self._scope = scope
        self._frame = scope.frame
        self._body = body
        self._fail_fast = fail_fast
        self._name_of = name_of
        self._keep = keep
        self._cancel = CancelScope(scope.cancel)
        self._waiting: list[str] = []
        """Keys that have not begun, or that the previous run of the chain has begun; the next one is last."""
        self._error: BaseException | None = None
        """The error that cancels the others."""
        self._tasks = 0
        self._ended = 0

    async def run(self, keys: Sequence[str], *, limit: int) -> dict[str, Any]:
        """Run everything that has not completed, with a limit on how many run at a time.

        Returns:
            The outputs by key, if they are kept.

        Raises:
            StepError: The first error, after all have ended. If others went on, it names those that failed.
            Interrupted: All have ended because the work is being cancelled.
        """
        frame = self._frame
        # What is open continues before others begin.
        if not frame.begun:
            # The state of an older version does not say so.
            frame.begun = len(frame.open) + len(frame.outputs) + len(frame.failures)
        self._waiting = [*keys[frame.begun :]][::-1]
        self._waiting += [key for key in keys if key in frame.open and key not in frame.failures][::-1]
        self._tasks = min(limit, len(self._waiting))
        try:
            if self._tasks > 1:
                await self._run_tasks()
            else:
                while self._waiting:
                    await self._gate.pass_(self._scope.cancel)
                    await self._run_next(outermost=self._scope.outermost)
        finally:
            self._cancel.close()
        if self._error is not None:
            self._scope.cancel.check()
            raise self._error
        if frame.first_failure is not None:
            self._scope.cancel.check()
            raise self._joined(frame.first_failure)
        return frame.outputs

    async def _run_tasks(self) -> None:
        self._gate.begin(self._tasks)
        tasks = [asyncio.create_task(self._work()) for _ in range(self._tasks)]
        await self._gate.wait_for(lambda: self._ended == self._tasks, outermost=self._scope.outermost)
        for task in tasks:
            # Anything other than a step's error or an interruption is an error in this package.
            await task

    async def _work(self) -> None:
        try:
            while self._waiting and self._error is None:
                await self._gate.pass_(self._cancel)
                if self._waiting and self._error is None:
                    await self._run_next(outermost=False)
        except (StepError, Interrupted) as error:
            if self._error is None:
                self._error = error
                await self._end_others()
        finally:
            self._ended += 1
            self._gate.end()

    async def _end_others(self) -> None:
        with self._gate.failing():
            await self._cancel.request(Interrupted("cancelled", "another one has failed"))
            await workflow.wait_condition(lambda: self._ended == self._tasks - 1)

    async def _run_next(self, *, outermost: bool) -> None:
        key = self._waiting.pop()
        frame = self._frame.open.get(key)
        if frame is None:
            frame = self._frame.open[key] = Frame()
            self._frame.begun += 1
        around = replace(self._scope, cancel=self._cancel, outermost=outermost)
        try:
            output = await self._body(key, around.inside(frame, around.path))
            if self._keep:
                self._frame.outputs[key] = output
        except StepError as error:
            if self._fail_fast or self._cancel.requested:
                raise
            self._frame.failures.append(key)
            if self._frame.first_failure is None:
                self._frame.first_failure = kept(error)
            # Its frame stays: somebody may resume the run.
            return
        del self._frame.open[key]

    def _joined(self, first: Failure) -> StepError:
        """Return the first error, with the names of the others that failed."""
        error, others = restored(first), self._frame.failures[1:]
        if not others:
            return error
        names = ", ".join(map(self._name_of, others[:_NAMED])) + (", …" if len(others) > _NAMED else "")
        message = f"{shortened(error.info.message, _MESSAGE)}; {len(others)} more failed: {names}"
        info = msgspec.structs.replace(error.info, message=message)
        return StepError(info, non_retryable=error.non_retryable, cause=error.cause)
