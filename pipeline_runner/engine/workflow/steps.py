"""The steps of a pipeline, one at a time: one ``match`` on the step's kind, one method each.

A step is entered in the undo log before it is scheduled, and what it came to is recorded
when it ends, so that the run can end at any ``await`` in here and be undone.
"""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from temporalio import workflow
from temporalio.exceptions import ApplicationError, FailureError

from pipeline_runner.core import durations, errors
from pipeline_runner.core.errors import ErrorInfo, shortened
from pipeline_runner.core.expressions.evaluate import evaluate, render, render_text
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import ActivityCall, ChildCall, Compensation, Fail, SetValues, Step, Wait
from pipeline_runner.core.paths import Path
from pipeline_runner.core.secrets import SecretSpans, seal
from pipeline_runner.core.state import Continuation, Envelope, Report, StepResult, UndoEntry
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.interruption import Interrupted, Interruption
from pipeline_runner.engine.workflow.outcomes import Ending, of_failure
from pipeline_runner.engine.workflow.payloads import PayloadTooLargeError, decoded
from pipeline_runner.engine.workflow.program import Program
from pipeline_runner.engine.workflow.undo import Undo
from pipeline_runner.engine.workflow.work import Work

if TYPE_CHECKING:
    import asyncio


class StepError(Exception):
    """A step failed. The message is the chain of step names, then the root cause."""

    def __init__(self, info: ErrorInfo, *, non_retryable: bool, cause: BaseException | None) -> None:
        super().__init__(info.message)
        self.info = info
        self.non_retryable = non_retryable
        self.cause = cause


class Steps:
    """Runs single steps of one run, and keeps its state up to date."""

    def __init__(
        self,
        program: Program,
        state: Continuation,
        names: dict[str, Any],
        interruption: Interruption,
        undo: Undo,
        work: Work,
    ) -> None:
        """Prepare to run steps.

        Args:
            program: The run's bundle.
            state: The run's state, in which every step is recorded.
            names: What expressions see; its ``steps`` grow with the results.
            interruption: What may end the forward work.
            undo: Where the undos of a child that has undone itself are entered.
            work: What the run computes.
        """
        self._program = program
        self._state = state
        self._names = names
        self._interruption = interruption
        self._undo = undo
        self._work = work
        self.cancelled_children: dict[str, Report] = {}
        """Reports that children have sent which ended as cancelled, by workflow id."""
        self.current: str | None = None
        """Id of the step that is running."""

    async def run(self, step: Step) -> None:
        """Run one step to its end and record its result.

        Raises:
            StepError: It failed.
            Interrupted: It was cut short, or ended while the run is being ended.
        """
        name = step.id
        await self._work.pause_if_due()
        self.current = step.id
        self._record(step, StepResult(status="running"))
        try:
            if step.when is not None and not self._holds(step.when):
                self._record(step, StepResult(status="skipped"))
                return
            await self._work.pause_if_due()
            if step.name is not None:
                # In front of every error, and in every record of the report: the cause must fit in too.
                name = shortened(render_text(step.name, self._names), calls.SUMMARY)
            await self._work.pause_if_due()
            output = await self._act(step, name)
        except Interrupted:
            self._record(step, StepResult(status="cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - named there, and never lost
            failed = self._named(step, name, error)
            # A step that fails while the run is being ended most likely does so because of it.
            cut_short = self._interruption.requested
            status: Any = "cancelled" if cut_short else "failed"
            self._record(step, StepResult(status=status, error=failed.info))
            self._interruption.check()
            raise failed from None
        finally:
            self.current = None
        self._record(step, StepResult(status="completed", output=output))

    def _record(self, step: Step, result: StepResult) -> None:
        self._state.log.steps[step.id] = result
        self._names["steps"][step.id] = result.names()

    def _holds(self, condition: str) -> bool:
        value = evaluate(condition, self._names)
        if not isinstance(value, bool):
            raise ExpressionError(f"when must be true or false, and is {_shown(value)}: {condition}")
        return value

    def _named(self, step: Step, name: str, error: Exception) -> StepError:
        """Put the step's name in front of whatever went wrong in it."""
        failed = self._classified(step, error)
        message = shortened(f"{name}: {failed.info.message}")
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

    async def _act(self, step: Step, name: str) -> Any:
        match step.action:
            case ActivityCall() as call:
                output = await self._activity(step, call, name)
            case ChildCall() as call:
                output = await self._child(step, call, name)
            case SetValues() | Wait() | Fail() as action:
                return await self._inside(step, action, name)
        # Its end came with a new workflow task.
        self._work.begin_anew()
        return output

    async def _inside(self, step: Step, action: SetValues | Wait | Fail, name: str) -> Any:
        """Do what the workflow does by itself."""
        entry = self._register(step, name)
        output = None
        try:
            match action:
                case SetValues(values=values):
                    output = without_secrets(render(values, self._names))
                case Wait():
                    await self._wait(action, name)
                case Fail(message=message, type=kind):
                    raise step_error(kind, render_text(message, self._names))
        except Interrupted:
            raise
        except Exception as error:
            entry.outcome = "failed"
            entry.error = self._classified(step, error).info
            raise
        return self._complete(entry, output)

    async def _activity(self, step: Step, call: ActivityCall, name: str) -> Any:
        path = Path.of(step.id)
        key = calls.idempotency_key(path)
        prepared = calls.prepare_activity(
            call,
            self._names_with(key),
            path=path,
            summary=name,
            key=key,
            log=self._state.log,
        )
        entry = self._register(step, name, prepared.value, prepared.places, key)
        try:
            raw = await self._interruption.wait(prepared.start())
        except FailureError as error:
            ending = of_failure(error, call)
            if self._interruption.requested and isinstance(error.cause, ApplicationError):
                # The cancellation may have caused it in the middle of the work, whatever it says.
                ending = replace(ending, outcome="uncertain")
            raise self._end(entry, ending, error) from None
        # Before it is decoded: whatever comes of that, the step is done.
        entry.outcome = "completed"
        return self._complete(entry, decoded(raw))

    async def _child(self, step: Step, call: ChildCall, name: str) -> Any:
        path = Path.of(step.id)
        prepared = calls.prepare_child(
            self._program,
            call,
            self._names_with(calls.idempotency_key(path)),
            path=path,
            summary=name,
            log=self._state.log,
            undone=self._state.log.undone,
        )
        entry = self._register(step, name, prepared.value)

        def failed(error: FailureError, ending: Ending) -> StepError:
            if ending.report is None and prepared.workflow_id in self.cancelled_children:
                self._undo.add(self.cancelled_children.pop(prepared.workflow_id), path)
            return self._end(entry, ending, error)

        async def pause(timer: "asyncio.Task[None]") -> None:
            await self._interruption.wait(timer)
            # Before its outcome is open again: an interruption now finds nothing started.
            self._interruption.check()
            entry.outcome = "uncertain"

        return await calls.retried(
            call, name, lambda: self._child_once(step, prepared, entry), failed=failed, pause=pause
        )

    async def _child_once(self, step: Step, prepared: calls.PreparedChild, entry: UndoEntry) -> Any:
        self._interruption.check()
        handle = await prepared.start()
        if not prepared.call.wait_for_completion:
            entry.outcome = "completed"
            return None
        abandoned = prepared.call.parent_close_policy == "abandon"
        raw = await self._interruption.wait(handle, None if abandoned else handle.id)
        envelope = msgspec.json.decode(raw.payload.data, type=Envelope)
        if step.compensate is None:
            entry.child = envelope.undo
        self._state.dirty |= envelope.dirty
        return self._complete(entry, envelope.output)

    def _names_with(self, key: str) -> dict[str, Any]:
        """Return what a step's own input sees."""
        return {**self._names, "step": {"key": key}}

    def _register(
        self,
        step: Step,
        name: str,
        value: Any = None,
        places: SecretSpans | None = None,
        key: str | None = None,
    ) -> UndoEntry:
        """Enter a step in the undo log, before it is scheduled, if it is ever undone.

        The entry holds no more than the undo's templates read: it travels with the log.
        """
        log = self._state.log
        uses = self._program.undo_uses(log.pipeline, step.id)
        entry = UndoEntry(step=step.id, name=name, key=key or calls.idempotency_key(Path.of(step.id)))
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

    def _end(self, entry: UndoEntry, ending: Ending, error: FailureError) -> StepError:
        entry.outcome = ending.outcome
        entry.error = ErrorInfo(type=ending.type, message=shortened(ending.message), step=entry.step)
        if ending.report is not None:
            self._undo.add(ending.report, Path.of(entry.step))
        return StepError(
            info_of(ending.type, ending.message), non_retryable=ending.non_retryable, cause=error
        )

    async def _wait(self, wait: Wait, name: str) -> None:
        if wait.until is not None:
            seconds = (_moment(render_text(wait.until, self._names)) - workflow.now()).total_seconds()
        else:
            try:
                seconds = durations.parse(render_text(wait.duration or "", self._names))
            except durations.DurationError as error:
                raise ExpressionError(f"wait: {error}") from None
        if seconds > 0:
            await self._interruption.wait(calls.timer(seconds, name))


def without_secrets(value: Any) -> Any:
    """Return rendered data that is to stay in the workflow.

    Raises:
        ExpressionError: There is a secret in it.
    """
    plain, places = seal(value)
    if places:
        raise ExpressionError("a secret can only be passed to an activity, in its with or args")
    return plain


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
        raise ExpressionError(f'wait.until: "{text}" is no time such as 2030-01-31T08:00:00Z') from None
    if moment.tzinfo is None:
        raise ExpressionError(f'wait.until: "{text}" has no time zone: add Z, or an offset such as +02:00')
    return moment
