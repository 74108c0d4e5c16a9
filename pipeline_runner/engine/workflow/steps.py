"""The steps of a pipeline, one at a time: one ``match`` on the step's kind, one method each.

A step is entered in the undo log before it is scheduled, and what it came to is recorded
when it ends, so that the run can end at any ``await`` in here and be undone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import msgspec
from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from pipeline_runner.core import durations, errors
from pipeline_runner.core.errors import ErrorInfo, error_names, shortened
from pipeline_runner.core.expressions.evaluate import evaluate, render, render_text
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import (
    ActivityCall,
    Block,
    ChildCall,
    Compensation,
    Fail,
    Parallel,
    SetValues,
    Step,
    Wait,
)
from pipeline_runner.core.paths import Path
from pipeline_runner.core.secrets import SecretSpans, seal
from pipeline_runner.core.state import Continuation, Envelope, Frame, Report, StepResult, UndoEntry
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.cancel import Interrupted
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.group import Group
from pipeline_runner.engine.workflow.outcomes import Ending, of_failure
from pipeline_runner.engine.workflow.payloads import PayloadTooLargeError, decoded
from pipeline_runner.engine.workflow.program import Program
from pipeline_runner.engine.workflow.scopes import Scope, StepError, next_step
from pipeline_runner.engine.workflow.undo import Undo, path_of
from pipeline_runner.engine.workflow.work import Work

if TYPE_CHECKING:
    import asyncio

_HANDLER = "#catch"
"""The frame of a handler, among the open ones of a step. No branch has such a name."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One time that a step is run: once, or once for each item of its loop."""

    step: Step
    path: Path
    scope: Scope
    """What the step sees, and the frame for what is open in it."""


class Steps:
    """Runs the steps of one run, and keeps its state up to date."""

    def __init__(self, program: Program, state: Continuation, gate: Gate, undo: Undo, work: Work) -> None:
        """Prepare to run steps.

        Args:
            program: The run's bundle.
            state: The run's state, in which every step is recorded.
            gate: Where the run goes on in a new one.
            undo: Undoes what an error leaves that is handled.
            work: What the run computes.
        """
        self._program = program
        self._state = state
        self._gate = gate
        self._undo = undo
        self._work = work
        self.cancelled_children: dict[str, Report] = {}
        """Reports that children have sent which ended as cancelled, by workflow id."""
        self.current: str | None = None
        """Id of the step that was started last and is running."""

    async def sequence(self, steps: Sequence[Step], scope: Scope) -> None:
        """Run steps one after the other, from where the scope's frame says.

        Raises:
            StepError: One failed.
            Interrupted: One was cut short, or ended while the work is being ended.
        """
        frame = scope.frame
        while frame.position < len(steps):
            await self._gate.pass_(scope.cancel)
            await self.run(steps[frame.position], scope)
            next_step(frame)

    async def run(self, step: Step, scope: Scope) -> None:
        """Run one step to its end, its handlers included, and record its result.

        Raises:
            StepError: It failed.
            Interrupted: It was cut short, or ended while the run is being ended.
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
            # A step that fails while the run is being ended most likely does so because of it.
            cut_short = scope.cancel.requested
            status: Any = "cancelled" if cut_short else "failed"
            self._record(step, scope, StepResult(status=status, error=failed.info))
            scope.cancel.check()
            raise
        finally:
            self.current = None
        self._record(step, scope, result)

    def _record(self, step: Step, scope: Scope, result: StepResult) -> None:
        scope.results[step.id] = result
        scope.names["steps"][step.id] = result.names()

    async def _forward(self, step: Step, scope: Scope) -> StepResult:
        """Run a step; an error that one of its handlers knows is put into the scope's frame."""
        try:
            if step.for_each is not None:
                return StepResult(status="completed", output=await self._loop(step, scope))
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
            await self._undo.within(path, error, scope.cancel)
            # From here on the undo is over.
            scope.frame.open[_HANDLER] = Frame()
        handler = step.catch[index]
        frame = scope.frame.open[_HANDLER]
        inside = scope.inside(frame, path.handler(index))
        inside.names["error"] = error_names(error)
        await self.sequence(handler.steps, inside)
        try:
            output = without_secrets(render(handler.output, inside.names))
        except Exception as failure:  # noqa: BLE001 - named there, and never lost
            raise self._named(step, step.id, failure) from None
        return StepResult(status="caught", output=output, error=error)

    async def _loop(self, step: Step, scope: Scope) -> list[Any]:
        path = scope.path_of(step)
        try:
            items = self._items(step, scope)
        except Exception as failure:  # noqa: BLE001 - named there, and never lost
            raise self._named(step, step.id, failure) from None

        async def run(key: str, inside: Scope) -> Any:
            index = int(key)
            inside.names.update(item=items[index], index=index)
            result = await self._turn(Turn(step=step, path=path.item(index), scope=inside))
            return result.output

        keys = [str(index) for index in range(len(items))]
        outputs = await Group(self._gate, scope, run).run(keys, limit=step.max_concurrency or 1)
        return [outputs[key] for key in keys]

    def _items(self, step: Step, scope: Scope) -> list[Any]:
        given = step.for_each
        value = evaluate(given, scope.names) if isinstance(given, str) else render(given, scope.names)
        if not isinstance(value, list):
            raise ExpressionError(f"for_each must be a list, and is {_shown(value)}")
        return cast("list[Any]", without_secrets(value))

    async def _turn(self, turn: Turn) -> StepResult:
        """Run a step once.

        Raises:
            StepError: It failed; the message begins with its name.
        """
        step, names = turn.step, turn.scope.names
        name = step.id
        try:
            if step.when is not None and not self._holds(step.when, names):
                return StepResult(status="skipped")
            await self._work.pause_if_due(turn.scope.cancel)
            if step.name is not None:
                # In front of every error, and in every record of the report: the cause must fit in too.
                name = shortened(render_text(step.name, names), calls.SUMMARY)
            await self._work.pause_if_due(turn.scope.cancel)
            return StepResult(status="completed", output=await self._act(turn, name))
        except Interrupted:
            raise
        except Exception as error:  # noqa: BLE001 - named there, and never lost
            if step.for_each is not None:
                name = f"{name}[{names['index']}]"
            elif step.name is None and isinstance(step.action, Block | Parallel):
                name = ""
            raise self._named(step, name, error, turn.path) from None

    def _holds(self, condition: str, names: dict[str, Any]) -> bool:
        value = evaluate(condition, names)
        if not isinstance(value, bool):
            raise ExpressionError(f"when must be true or false, not {_shown(value)}: {condition}")
        return value

    def _named(self, step: Step, name: str, error: Exception, path: Path | None = None) -> StepError:
        """Put the step's name in front of whatever went wrong in it."""
        failed = self._classified(step, error)
        message = shortened(f"{name}: {failed.info.message}" if name else failed.info.message)
        workflow.logger.warning("%s failed: %s [%s]", step.id, failed.info.message, failed.info.type)
        info = ErrorInfo(type=failed.info.type, message=message, step=step.id)
        return StepError(info, non_retryable=failed.non_retryable, cause=failed.cause)

    def _classified(self, step: Step, error: Exception) -> StepError:
        match error:
            case StepError():
                return error
            case ExpressionError():
                return step_error(errors.EXPRESSION_ERROR, error.message)
            case PayloadTooLargeError():
                return step_error(errors.PAYLOAD_TOO_LARGE, str(error))
            case _:
                # Nothing may end a run without its undo, not even a mistake in this package.
                workflow.logger.exception("step %s", step.id)
                info = info_of(type(error).__name__, str(error))
                return StepError(info, non_retryable=False, cause=error)

    async def _act(self, turn: Turn, name: str) -> Any:
        match turn.step.action:
            case ActivityCall() as call:
                output = await self._activity(turn, call, name)
            case ChildCall() as call:
                output = await self._child(turn, call, name)
            case Block() | Parallel():
                return await self._nested(turn, name)
            case SetValues() | Wait() | Fail() as action:
                return await self._inside(turn, action, name)
        # Its end came with a new workflow task.
        self._work.begin_anew()
        return output

    async def _nested(self, turn: Turn, name: str) -> Any:
        """Run what holds other steps; its own compensation replaces theirs once it has completed."""
        if not isinstance(turn.step.compensate, Compensation):
            return await self._scopes(turn)
        entries = self._state.log.entries
        entry = next((one for one in entries if one.key == calls.idempotency_key(turn.path)), None)
        if entry is None:
            entry = self._register(turn, name)
            # Until then it is undone from the inside.
            entry.outcome = "failed"
        output = self._complete(entry, await self._scopes(turn))
        entries[:] = [one for one in entries if one is entry or not turn.path.holds(path_of(one))]
        return output

    async def _scopes(self, turn: Turn) -> Any:
        action = turn.step.action
        if isinstance(action, Block):
            return await self._block(turn, action)
        assert isinstance(action, Parallel)
        return await self._parallel(turn, action)

    async def _block(self, turn: Turn, block: Block) -> Any:
        scope = turn.scope.inside(turn.scope.frame.open.setdefault("steps", Frame()), turn.path)
        await self.sequence(block.steps, scope)
        if block.output is msgspec.UNSET:
            return scope.results[block.steps[-1].id].output
        return without_secrets(render(block.output, scope.names))

    async def _parallel(self, turn: Turn, parallel: Parallel) -> dict[str, Any]:
        branches = {branch.name: branch.steps for branch in parallel.branches}

        async def run(key: str, inside: Scope) -> Any:
            inside = replace(inside, path=turn.path.inner(key))
            await self.sequence(branches[key], inside)
            return inside.results[branches[key][-1].id].output

        limit = turn.step.max_concurrency or len(branches)
        return await Group(self._gate, turn.scope, run).run(list(branches), limit=limit)

    async def _inside(self, turn: Turn, action: SetValues | Wait | Fail, name: str) -> Any:
        """Do what the workflow does by itself."""
        entry, names = self._register(turn, name), turn.scope.names
        output = None
        try:
            match action:
                case SetValues(values=values):
                    output = without_secrets(render(values, names))
                case Wait():
                    await self._wait(turn, action, name)
                case Fail(message=message, type=kind):
                    raise step_error(kind, render_text(message, names))
        except Interrupted:
            raise
        except Exception as error:
            entry.outcome = "failed"
            entry.error = self._classified(turn.step, error).info
            raise
        return self._complete(entry, output)

    async def _activity(self, turn: Turn, call: ActivityCall, name: str) -> Any:
        key = calls.idempotency_key(turn.path)
        prepared = calls.prepare_activity(
            call,
            _with_key(turn.scope.names, key),
            path=turn.path,
            summary=name,
            key=key,
            log=self._state.log,
        )
        entry = self._register(turn, name, prepared.value, prepared.places, key)
        try:
            raw = await turn.scope.cancel.wait(prepared.start())
        except FailureError as error:
            ending = of_failure(error, call)
            if turn.scope.cancel.requested and isinstance(error.cause, ApplicationError):
                # The cancellation may have caused it in the middle of the work, whatever it says.
                ending = replace(ending, outcome="uncertain")
            raise self._end(entry, turn.path, ending, error) from None
        # Before it is decoded: whatever comes of that, the step is done.
        entry.outcome = "completed"
        return self._complete(entry, decoded(raw))

    async def _child(self, turn: Turn, call: ChildCall, name: str) -> Any:
        path, cancel = turn.path, turn.scope.cancel
        prepared = calls.prepare_child(
            self._program,
            call,
            _with_key(turn.scope.names, calls.idempotency_key(path)),
            path=path,
            summary=name,
            log=self._state.log,
            undone=self._state.log.undone,
        )
        entry = self._register(turn, name, prepared.value)

        def failed(error: FailureError, ending: Ending) -> StepError:
            if ending.report is None and prepared.workflow_id in self.cancelled_children:
                self._undo.add(self.cancelled_children.pop(prepared.workflow_id), path)
            return self._end(entry, path, ending, error)

        async def pause(timer: "asyncio.Task[None]") -> None:
            await cancel.wait(timer)
            # Before its outcome is open again: an interruption now finds nothing started.
            cancel.check()
            entry.outcome = "uncertain"

        return await calls.retried(
            call, name, lambda: self._child_once(turn, prepared, entry), failed=failed, pause=pause
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
        self._state.dirty |= envelope.dirty
        return self._complete(entry, envelope.output)

    def _register(
        self,
        turn: Turn,
        name: str,
        value: Any = None,
        places: SecretSpans | None = None,
        key: str | None = None,
    ) -> UndoEntry:
        """Enter a step in the undo log, before it is scheduled, if it is ever undone.

        The entry holds no more than the undo's templates read: it travels with the log.
        """
        log, step = self._state.log, turn.step
        uses = self._program.undo_uses(log.pipeline, step.id)
        entry = UndoEntry(step=step.id, name=name, key=key or calls.idempotency_key(turn.path))
        if str(turn.path) != step.id:
            entry.path = str(turn.path)
            entry.names = self._program.undo_names(log.pipeline, step.id, turn.scope.names)
        if "input" in uses:
            entry.input, entry.secrets = value, places or []
        by_own_log = (
            step.compensate is None
            and isinstance(step.action, ChildCall)
            and step.action.parent_close_policy != "abandon"
            and self._program.undoable(step.action.pipeline)
        )
        # What ``finally`` does is never undone.
        if self._state.phase == "steps" and (isinstance(step.compensate, Compensation) or by_own_log):
            log.entries.append(entry)
        return entry

    def _complete(self, entry: UndoEntry, output: Any) -> Any:
        entry.outcome = "completed"
        if "output" in self._program.undo_uses(self._state.log.pipeline, entry.step):
            entry.output = output
        return output

    def _end(self, entry: UndoEntry, path: Path, ending: Ending, error: FailureError) -> StepError:
        entry.outcome = ending.outcome
        entry.error = ErrorInfo(type=ending.type, message=shortened(ending.message), step=entry.step)
        if ending.report is not None:
            self._undo.add(ending.report, path)
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
                await turn.scope.cancel.wait(calls.timer(seconds, name))


def handler_of(step: Step, error: ErrorInfo) -> int | None:
    """Return the number of the handler for an error; None: there is none."""
    for index, handler in enumerate(step.catch):
        if handler.types is None or error.type in handler.types:
            return index
    return None


def _with_key(names: dict[str, Any], key: str) -> dict[str, Any]:
    """Return what a step's own input sees."""
    return {**names, "step": {"key": key}}


def without_secrets(value: Any) -> Any:
    """Return rendered data that is to stay in the workflow.

    Raises:
        ExpressionError: There is a secret in it.
    """
    plain, places = seal(value)
    if places:
        raise ExpressionError("a secret can only be passed to an activity, in its with or args")
    return plain


def _seconds(wait: Wait, names: dict[str, Any]) -> float:
    if wait.until is not None:
        return (_moment(render_text(wait.until, names)) - workflow.now()).total_seconds()
    try:
        return durations.parse(render_text(wait.duration or "", names))
    except durations.DurationError as error:
        raise ExpressionError(f"wait: {error}") from None


def info_of(kind: str, message: str) -> ErrorInfo:
    """Return an error of the run, its message cut to a length that histories can hold."""
    return ErrorInfo(type=kind, message=shortened(message))


def step_error(kind: str, message: str) -> StepError:
    """Return an error of the pipeline's own, which nothing retries."""
    return StepError(info_of(kind, message), non_retryable=True, cause=None)


def _shown(value: Any) -> str:
    shown = msgspec.json.encode(seal(value)[0]).decode()
    return shown if len(shown) <= 60 else shown[:59] + "…"


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ExpressionError(f'wait.until: "{text}" is not a time such as 2030-01-31T08:00:00Z') from None
    if moment.tzinfo is None:
        raise ExpressionError(f'wait.until: "{text}" has no time zone: add Z, or an offset such as +02:00')
    return moment
