"""The steps of a pipeline, one at a time: one ``match`` on the step's kind, one method each.

A step is recorded in the undo log before it is scheduled, and its outcome is recorded when it ends, so
that the run can end at any ``await`` in here and be undone.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec
from temporalio import workflow
from temporalio.exceptions import ApplicationError, ChildWorkflowError, FailureError

from pipeline_runner.core import durations
from pipeline_runner.core.errors import ErrorInfo, error_names, shortened
from pipeline_runner.core.expressions.evaluate import render_text
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import (
    ActivityCall,
    Approval,
    Block,
    ChildCall,
    Event,
    Fail,
    Parallel,
    SetValues,
    Step,
    Switch,
    Wait,
)
from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import Continuation, Envelope, Frame, Report, StepResult, UndoEntry
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.approvals import Approvals
from pipeline_runner.engine.workflow.attempts import Attempts
from pipeline_runner.engine.workflow.cancel import Interrupted
from pipeline_runner.engine.workflow.entries import Entries
from pipeline_runner.engine.workflow.events import Events
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.loops import Loops
from pipeline_runner.engine.workflow.nesting import Nested, Nesting
from pipeline_runner.engine.workflow.outcomes import Ending, keeps, of_failure
from pipeline_runner.engine.workflow.payloads import decoded
from pipeline_runner.engine.workflow.program import Program
from pipeline_runner.engine.workflow.scopes import Scope, Turn, is_loop, next_step
from pipeline_runner.engine.workflow.step_errors import (
    StepError,
    classified,
    handler_of,
    info_of,
    named,
    step_error,
    title_of,
)
from pipeline_runner.engine.workflow.undo import Undo
from pipeline_runner.engine.workflow.values import holds, plain
from pipeline_runner.engine.workflow.waiting import Waits
from pipeline_runner.engine.workflow.work import Work

if TYPE_CHECKING:
    import asyncio

_HANDLER = "#catch"
"""The frame of a handler among the open ones of a step. No branch has this name."""


class Steps:
    """Runs the steps of one run, and keeps its state up to date."""

    def __init__(self, program: Program, state: Continuation, gate: Gate, undo: Undo, work: Work) -> None:
        """Prepare to run steps.

        Args:
            program: The run's bundle.
            state: The run's state, in which every step is recorded.
            gate: Where the run continues as new.
            undo: Undoes what an error leaves that is handled.
            work: Counts the run's computation.
        """
        self._program = program
        self._state = state
        self._gate = gate
        self._undo = undo
        self._work = work
        self._entries = Entries(program, state)
        self._loops = Loops(self._turn, gate, work, program.liveness(state.log.pipeline))
        attempts = Attempts(undo, gate)
        self._nested = Nested(self.sequence, gate, self._entries, attempts)
        self.waits = Waits(state, gate)
        self.events = Events(program, state, self.waits)
        self.approvals = Approvals(program, state, self.waits)
        self.cancelled_children: dict[str, Report] = {}
        """Reports of children that ended as cancelled, by workflow id."""
        self.current: str | None = None
        """Id of the running step that was started last."""

    async def sequence(self, steps: Sequence[Step], scope: Scope) -> None:
        """Run steps one after the other, from the position in the scope's frame.

        Raises:
            StepError: One failed.
            Interrupted: One was interrupted, or ended while the work is being cancelled.
        """
        frame = scope.frame
        while frame.position < len(steps):
            await self._gate.pass_(scope.cancel)
            await self.run(steps[frame.position], scope)
            next_step(frame)

    async def run(self, step: Step, scope: Scope) -> None:
        """Run one step to its end, including its handlers, and record its result.

        Raises:
            StepError: It failed.
            Interrupted: It was interrupted, or ended while the run is being cancelled.
        """
        self._work.count_step()
        await self._work.pause_if_due(scope.cancel)
        self.current = step.id
        self._record(step, scope, StepResult(status="running"))
        try:
            if scope.frame.failed is None:
                result = await self._forward(step, scope)
            if scope.frame.failed is not None:
                result = await self._handle(step, scope, scope.frame.failed)
        except Interrupted:
            self._record(step, scope, StepResult(status="cancelled"))
            raise
        except StepError as failed:
            # A step that fails while the run is being cancelled most likely does so because of it.
            cut_short = scope.cancel.requested
            status: Any = "cancelled" if cut_short else "failed"
            self._record(step, scope, StepResult(status=status, error=failed.info))
            scope.cancel.check()
            raise
        finally:
            self.current = None
        self._record(step, scope, result)
        if step.pivot and result.status == "completed":
            self._entries.drop(step)

    def skip(self, step: Step, scope: Scope) -> None:
        """Record that a step that has failed is left out."""
        self._record(step, scope, StepResult(status="skipped"))

    def _record(self, step: Step, scope: Scope, result: StepResult) -> None:
        scope.results[step.id] = result
        scope.names["steps"][step.id] = result.names()

    async def _forward(self, step: Step, scope: Scope) -> StepResult:
        """Run a step. An error that one of its handlers accepts is stored in the scope's frame."""
        try:
            if is_loop(step):
                return StepResult(status="completed", output=await self._loops.run(step, scope))
            turn = Turn(step=step, path=scope.path_of(step), scope=scope)
            return await self._turn(turn)
        except StepError as failed:
            if scope.cancel.requested or handler_of(step, failed.info) is None:
                raise
            scope.frame.failed = failed.info
            return StepResult(status="failed")

    async def _handle(self, step: Step, scope: Scope, error: ErrorInfo) -> StepResult:
        """Undo what an error has left of a step, then run its handler."""
        path = scope.path_of(step)
        index = handler_of(step, error)
        assert index is not None
        if _HANDLER not in scope.frame.open:
            scope.frame.open.clear()
            await self._undo.within(scope.whole(step), error, scope.cancel)
            # From here on the undo has ended.
            scope.frame.open[_HANDLER] = Frame()
        handler = step.catch[index]
        frame = scope.frame.open[_HANDLER]
        inside = scope.inside(frame, path.handler(index))
        inside.names["error"] = error_names(error)
        try:
            await self.sequence(handler.steps, inside)
            output = plain(handler.output, inside.names)
        except Interrupted:
            raise
        except StepError as failed:
            raise named(step, title_of(step, scope.names), failed) from None
        except Exception as failure:  # noqa: BLE001 - it becomes a step's error, and is never lost
            raise named(step, step.id, failure) from None
        return StepResult(status="caught", output=output, error=error)

    async def _turn(self, turn: Turn) -> StepResult:
        """Run a step once.

        Raises:
            StepError: It failed. The message begins with its name.
        """
        step, names = turn.step, turn.scope.names
        name = step.id
        try:
            if step.when is not None and not holds("when", step.when, names):
                return StepResult(status="skipped")
            await self._work.pause_if_due(turn.scope.cancel)
            if step.name is not None:
                # In front of every error, and in every record of the report: the cause must fit too.
                name = shortened(render_text(step.name, names), calls.SUMMARY)
            await self._work.pause_if_due(turn.scope.cancel)
            return StepResult(status="completed", output=await self._act(turn, name))
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - it becomes a step's error, and is never lost
            if is_loop(step):
                name = f"{name}[{names['index']}]"
            elif step.name is None and isinstance(step.action, Nesting):
                name = ""
            raise named(step, name, error) from None

    async def _act(self, turn: Turn, name: str) -> Any:
        match turn.step.action:
            case ActivityCall() as call:
                output = await self._activity(turn, call, name)
            case ChildCall() as call:
                output = await self._child(turn, call, name)
            case Block() | Switch() | Parallel() as action:
                return await self._nested.run(turn, action, name)
            case SetValues() | Wait() | Event() | Approval() | Fail() as action:
                return await self._inside(turn, action, name)
        # Its end came with a new workflow task.
        self._work.begin_anew()
        return output

    async def _inside(self, turn: Turn, action: SetValues | Wait | Event | Approval | Fail, name: str) -> Any:
        """Perform an action of the workflow itself."""
        # A wait may have begun in a run before.
        entry = self._entries.taken_up(turn) or self._entries.register(turn, name)
        names = turn.scope.names
        output = None
        if isinstance(action, Event | Approval) and turn.path == turn.scope.path_of(turn.step):
            self._record(turn.step, turn.scope, StepResult(status="waiting"))
        try:
            match action:
                case SetValues(values=values):
                    output = plain(values, names)
                case Wait():
                    await self._wait(turn, action, name)
                case Event():
                    output = await self.events.wait(turn, action, name)
                case Approval():
                    output = await self.approvals.wait(turn, action, name)
                case Fail(message=message, type=kind):
                    raise step_error(kind, render_text(message, names))
        except Interrupted:
            raise
        except Exception as error:
            entry.outcome = "failed"
            entry.error = classified(turn.step, error).info
            raise
        return self._entries.complete(entry, output)

    async def _activity(self, turn: Turn, call: ActivityCall, name: str) -> Any:
        key = calls.idempotency_key(turn.path, self._state.log)
        prepared = calls.prepare_activity(
            call,
            _with_key(turn.scope.names, key),
            path=turn.path,
            summary=name,
            key=key,
            log=self._state.log,
        )
        entry = self._entries.register(turn, name, prepared.value, prepared.places, key)
        try:
            raw = await turn.scope.cancel.wait(prepared.start())
        except FailureError as error:
            ending = of_failure(error, call)
            if turn.scope.cancel.requested and isinstance(error.cause, ApplicationError):
                # The cancellation may have caused it in the middle of the work, whatever the error says.
                ending = replace(ending, outcome="uncertain")
            raise self._end(entry, turn.path, ending, error) from None
        # Before it is decoded: whatever happens then, the step is done.
        entry.outcome = "completed"
        return self._entries.complete(entry, decoded(raw))

    async def _child(self, turn: Turn, call: ChildCall, name: str) -> Any:
        path, cancel = turn.path, turn.scope.cancel
        prepared = calls.prepare_child(
            self._program,
            call,
            _with_key(turn.scope.names, calls.idempotency_key(path, self._state.log)),
            path=path,
            summary=name,
            log=self._state.log,
            undone=self._state.log.undone,
            resumed=self._state.children.pop(str(path), None),
        )
        entry = self._entries.register(turn, name, prepared.value)

        def failed(error: FailureError, ending: Ending) -> StepError:
            if ending.report is None and prepared.workflow_id in self.cancelled_children:
                report = self.cancelled_children.pop(prepared.workflow_id)
                self._undo.add(report.undo, path, dirty=report.dirty)
            return self._end(entry, path, ending, error)

        async def pause(timer: "asyncio.Task[None]") -> None:
            await cancel.wait(timer)
            # Before its outcome is open again: an interruption now finds nothing started.
            cancel.check()
            entry.outcome = "uncertain"

        return await calls.retried(
            call,
            path.titled(name),
            lambda: self._child_once(turn, prepared, entry),
            failed=failed,
            pause=pause,
        )

    async def _child_once(self, turn: Turn, prepared: calls.PreparedChild, entry: UndoEntry) -> Any:
        turn.scope.cancel.check()
        handle = await prepared.start()
        if not prepared.call.wait_for_completion:
            entry.outcome = "completed"
            return None
        abandoned = prepared.call.parent_close_policy == "abandon"
        raw = await turn.scope.cancel.wait(handle, None if abandoned else handle.id)
        envelope = msgspec.json.decode(raw.payload.data, type=Envelope)
        if turn.step.compensate is None:
            entry.child = envelope.undo
        self._undo.add(envelope.left, turn.path, dirty=envelope.dirty)
        return self._entries.complete(entry, envelope.output)

    def _end(self, entry: UndoEntry, path: Path, ending: Ending, error: FailureError) -> StepError:
        entry.outcome = ending.outcome
        entry.error = ErrorInfo(type=ending.type, message=shortened(ending.message), step=entry.step)
        if ending.report is not None:
            entry.keeps = keeps(ending.report)
            self._undo.add(ending.report.undo, path, dirty=ending.report.dirty)
            if ending.report.dirty and isinstance(error, ChildWorkflowError):
                entry.left_in = (error.workflow_id, error.run_id)
        return StepError(
            info_of(ending.type, ending.message), non_retryable=ending.non_retryable, cause=error
        )

    async def _wait(self, turn: Turn, wait: Wait, name: str) -> None:
        frame = turn.scope.frame
        if frame.until is not None:
            seconds = (datetime.fromisoformat(frame.until) - workflow.now()).total_seconds()
        else:
            seconds = _seconds(wait, turn.scope.names)
            frame.until = (workflow.now() + timedelta(seconds=seconds)).isoformat()
        if seconds > 0:
            with self._gate.stopped():
                await turn.scope.cancel.wait(calls.timer(seconds, turn.path.titled(name)))


def _with_key(names: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the names that a step's own input sees."""
    return {**names, "step": {"key": key}}


def _seconds(wait: Wait, names: dict[str, Any]) -> float:
    if wait.until is not None:
        return (_moment(render_text(wait.until, names)) - workflow.now()).total_seconds()
    try:
        return durations.parse(render_text(wait.duration or "", names))
    except durations.DurationError as error:
        raise ExpressionError(f"wait: {error}") from None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ExpressionError(f'wait.until: "{text}" is not a time such as 2030-01-31T08:00:00Z') from None
    if moment.tzinfo is None:
        raise ExpressionError(f'wait.until: "{text}" has no time zone: add Z, or an offset such as +02:00')
    return moment
