"""One run of a pipeline: forward, undo, ``finally``, and the end.

Plain ``async``/``await``: one ``match`` on the step's kind, one short method each. The
phases are methods that run one after the other; a run that goes on by continue-as-new
enters at the phase and the position where it was.
"""

import asyncio
import base64
from datetime import datetime, timedelta
from typing import Any

import msgspec
from temporalio import workflow
from temporalio.api.failure.v1 import Failure
from temporalio.common import RawValue
from temporalio.converter import DefaultFailureConverter
from temporalio.exceptions import ApplicationError, CancelledError, FailureError

from pipeline_runner.core import durations, errors
from pipeline_runner.core.errors import ErrorInfo, error_names, shortened
from pipeline_runner.core.expressions import ExpressionError, evaluate, render, render_text
from pipeline_runner.core.model import ActivityCall, ChildCall, Compensation, Fail, SetValues, Step, Wait
from pipeline_runner.core.record import (
    Continuation,
    Envelope,
    Options,
    Report,
    ScopeLog,
    StepResult,
    UndoEntry,
    UndoRecord,
)
from pipeline_runner.core.secrets import Places, Secrets, seal
from pipeline_runner.engine import calls
from pipeline_runner.engine.interruption import Interrupted, Interruption
from pipeline_runner.engine.outcomes import Ending, of_failure
from pipeline_runner.engine.payloads import LIMIT, PayloadTooLargeError, decoded, encoded, measured
from pipeline_runner.engine.program import Program
from pipeline_runner.engine.undo import Undo

HARD_EVENTS = 40_000
"""Events after which a run that cannot go on in a new one (its state is too large) fails,
while there is room for its undo below the server's limit of 51,200."""

REPORT_BYTES = 200_000

CHILD_UNDONE = "pipeline_runner.child_undone"
"""The signal by which a cancelled child tells its parent what it has undone."""


class StepError(Exception):
    """A step failed. The message is the chain of step names, then the root cause."""

    def __init__(self, info: ErrorInfo, *, non_retryable: bool, cause: BaseException | None) -> None:
        super().__init__(info.message)
        self.info = info
        self.non_retryable = non_retryable
        self.cause = cause


class Run:
    """The state of one run, and what it does."""

    def __init__(
        self, program: Program, inputs: dict[str, Any], options: Options, interruption: Interruption
    ) -> None:
        """Start a run, or take up one that goes on.

        Args:
            program: The run's bundle.
            inputs: Its inputs, validated, with defaults.
            options: How it was started.
            interruption: What may end its forward work.
        """
        self._program = program
        self._pipeline = program.root
        self._as_child = options.child
        self._interruption = interruption
        self._current: str | None = None
        info = workflow.info()
        # Mutable through msgspec: what is in here survives continue-as-new.
        self._state = options.continued or Continuation(
            phase="steps",
            position=0,
            started_at=info.start_time.isoformat(),
            log=ScopeLog(pipeline=program.bundle.root, task_queue=info.task_queue, inputs=inputs),
        )
        self._log = self._state.log
        self._log.run = {
            "workflow_id": info.workflow_id,
            "run_id": info.first_execution_run_id,
            "pipeline": self._pipeline.name,
            "started_at": self._state.started_at,
        }
        self._cancelled_children: dict[str, Report] = {}
        self._cause: BaseException | None = None
        if self._state.failure is not None:
            self._cause = _revived(self._state.failure)
        self._names: dict[str, Any] = {
            "inputs": self._log.inputs,
            "steps": {key: result.names() for key, result in self._log.steps.items()},
            "run": self._log.run,
            "secrets": Secrets(self._pipeline.secrets),
        }

    async def execute(self) -> Any:
        """Run to the end, whatever happens.

        Returns:
            The pipeline's output, or an :class:`Envelope` for a parent.

        Raises:
            ApplicationError: The run failed; the report is its first detail.
            CancelledError: The run was cancelled, and is undone.
        """
        state = self._state
        if state.phase == "steps":
            await self._forward()
            self._interruption.close()
            self._enter("undo")
        self._interruption.close()
        if state.phase == "undo":
            if state.error is not None:
                await Undo(self._program, state, self._continue_if_due).scope(self._log)
            self._enter("finally")
        await self._finally()
        return await self._end()

    # Forward

    async def _forward(self) -> None:
        state = self._state
        try:
            limit = self._pipeline.timeout
            deadline = None if limit is None else asyncio.create_task(self._watch_deadline(limit))
            try:
                await self._steps()
                self._interruption.check()
                state.output = self._rendered_output()
                measured(f'the output of "{self._pipeline.name}"', encoded(self._result()))
                state.status = "completed"
            finally:
                if deadline is not None:
                    deadline.cancel()
        except Interrupted as interrupted:
            kind = errors.PIPELINE_TIMEOUT if interrupted.status == "timed_out" else errors.CANCELLED
            self._fail(StepError(_info(kind, str(interrupted)), non_retryable=False, cause=None))
            state.status = interrupted.status
        except StepError as error:
            self._fail(error)
        except ExpressionError as error:
            self._fail(_step_error(errors.EXPRESSION_ERROR, f"output: {error.message}"))
        except PayloadTooLargeError as error:
            self._fail(_step_error(errors.PAYLOAD_TOO_LARGE, str(error)))
        except Exception as error:  # noqa: BLE001
            # As in a step: nothing ends a run without its undo.
            workflow.logger.exception("%s", self._pipeline.name)
            self._fail(StepError(_info(type(error).__name__, str(error)), non_retryable=True, cause=error))

    def _fail(self, error: StepError) -> None:
        self._state.error = error.info
        self._state.status = "failed"
        self._state.non_retryable = error.non_retryable
        self._cause = error.cause

    async def _watch_deadline(self, limit: float) -> None:
        end = datetime.fromisoformat(self._state.started_at) + timedelta(seconds=limit)
        left = max((end - workflow.now()).total_seconds(), 0.001)
        await calls.timer(left, f"timeout of {self._pipeline.name}")
        during = f' during "{self._current}"' if self._current else ""
        message = f"{self._pipeline.name} was not done within {durations.spell(limit)}{during}"
        await self._interruption.request(Interrupted("timed_out", message))

    async def _steps(self) -> None:
        while self._state.position < len(self._pipeline.steps):
            self._interruption.check()
            self._continue_if_due()
            await self._step(self._pipeline.steps[self._state.position])
            self._state.position += 1

    async def _step(self, step: Step) -> None:
        """Run one step to its end and record its result.

        Raises:
            StepError: It failed.
            Interrupted: It was cut short, or ended while the run is being ended.
        """
        name = step.id
        self._current = step.id
        self._record(step, StepResult(status="running"))
        try:
            if step.when is not None and not self._holds(step.when):
                self._record(step, StepResult(status="skipped"))
                return
            if step.name is not None:
                name = render_text(step.name, self._names)
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
            self._current = None
        self._record(step, StepResult(status="completed", output=output))

    def _record(self, step: Step, result: StepResult) -> None:
        self._log.steps[step.id] = result
        self._names["steps"][step.id] = result.names()

    def _holds(self, condition: str) -> bool:
        value = evaluate(condition, self._names)
        if not isinstance(value, bool):
            raise ExpressionError(f"when must be true or false, and is {_shown(value)}: {condition}")
        return value

    def _named(self, step: Step, name: str, error: Exception) -> StepError:
        """Put the step's name in front of whatever went wrong in it."""
        match error:
            case StepError():
                failed = error
            case ExpressionError():
                failed = _step_error(errors.EXPRESSION_ERROR, error.message)
            case PayloadTooLargeError():
                failed = _step_error(errors.PAYLOAD_TOO_LARGE, str(error))
            case _:
                # Nothing may end a run without its undo, not even a mistake in this package.
                workflow.logger.exception("step %s", step.id)
                failed = StepError(_info(type(error).__name__, str(error)), non_retryable=False, cause=error)
        info = ErrorInfo(
            type=failed.info.type, message=shortened(f"{name}: {failed.info.message}"), step=step.id
        )
        return StepError(info, non_retryable=failed.non_retryable, cause=failed.cause)

    async def _act(self, step: Step, name: str) -> Any:
        match step.action:
            case ActivityCall() as call:
                return await self._activity(step, call, name)
            case ChildCall() as call:
                return await self._child(step, call, name)
            case SetValues(values=values):
                return self._without_secrets(render(values, self._names))
            case Wait() as wait:
                await self._wait(wait, name)
                return None
            case Fail(message=message, type=kind):
                raise _step_error(kind, render_text(message, self._names))

    async def _activity(self, step: Step, call: ActivityCall, name: str) -> Any:
        prepared = calls.prepare_activity(
            call,
            self._names,
            activity_id=step.id,
            summary=name,
            key=calls.idempotency_key(step.id),
            task_queue=self._log.task_queue,
        )
        entry = self._register(step, name, prepared.value, prepared.places)
        try:
            raw = await self._interruption.wait(prepared.start())
        except FailureError as error:
            raise self._ended(entry, of_failure(error, call), error) from None
        entry.outcome = "completed"
        output = decoded(raw)
        entry.output = output
        return output

    async def _child(self, step: Step, call: ChildCall, name: str) -> Any:
        prepared = calls.prepare_child(
            self._program,
            call,
            self._names,
            path=step.id,
            summary=name,
            task_queue=self._log.task_queue,
        )
        entry = self._register(step, name, prepared.value, [])
        attempt = 1
        while True:
            try:
                return await self._child_once(step, prepared, entry)
            except FailureError as error:
                ending = of_failure(error, call)
                if ending.report is None and prepared.workflow_id in self._cancelled_children:
                    self._adopt(self._cancelled_children.pop(prepared.workflow_id), f"{step.id}/")
                failed = self._ended(entry, ending, error)
                if not _may_retry(call, ending, attempt):
                    raise failed from None
            await self._interruption.wait(
                calls.timer(calls.backoff(call.retry, attempt) if call.retry else 0, f"retry of {name}")
            )
            attempt += 1
            entry.outcome = "uncertain"

    async def _child_once(self, step: Step, prepared: calls.PreparedChild, entry: UndoEntry) -> Any:
        self._interruption.check()
        handle = await prepared.start()
        if not prepared.call.wait_for_completion:
            entry.outcome = "completed"
            return None
        raw = await self._interruption.wait(handle)
        envelope = msgspec.json.decode(raw.payload.data, type=Envelope)
        entry.outcome = "completed"
        entry.output = envelope.output
        if step.compensate is None:
            entry.child = envelope.undo
        self._state.dirty |= envelope.dirty
        return envelope.output

    def _register(self, step: Step, name: str, value: Any, places: Places) -> UndoEntry:
        """Enter a step in the undo log, before it is scheduled."""
        entry = UndoEntry(
            step=step.id,
            name=name,
            key=calls.idempotency_key(step.id),
            input=value,
            secrets=places,
        )
        by_own_log = (
            step.compensate is None
            and isinstance(step.action, ChildCall)
            and step.action.parent_close_policy != "abandon"
            and self._program.undoable(step.action.pipeline)
        )
        if isinstance(step.compensate, Compensation) or by_own_log:
            self._log.entries.append(entry)
        return entry

    def _ended(self, entry: UndoEntry, ending: Ending, error: FailureError) -> StepError:
        entry.outcome = ending.outcome
        entry.error = ErrorInfo(type=ending.type, message=shortened(ending.message), step=entry.step)
        if ending.report is not None:
            self._adopt(ending.report, f"{entry.step}/")
        return StepError(_info(ending.type, ending.message), non_retryable=ending.non_retryable, cause=error)

    def _adopt(self, report: Report, prefix: str) -> None:
        Undo(self._program, self._state, self._continue_if_due).add(report, prefix)

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

    def _rendered_output(self) -> Any:
        return self._without_secrets(render(self._pipeline.output, self._names))

    @staticmethod
    def _without_secrets(value: Any) -> Any:
        plain, places = seal(value)
        if places:
            raise ExpressionError("a secret can only be passed to an activity, in its with or args")
        return plain

    # Finally

    async def _finally(self) -> None:
        state = self._state
        self._names["error"] = error_names(state.error)
        self._names["run"] = {**self._log.run, "status": state.status}
        for step in self._pipeline.steps:
            self._names["steps"].setdefault(step.id, StepResult(status="pending").names())
        while state.position < len(self._pipeline.finally_):
            self._continue_if_due()
            try:
                await self._step(self._pipeline.finally_[state.position])
            except StepError as error:
                state.finally_errors.append(error.info)
                if state.error is None:
                    self._fail(error)
            state.position += 1

    def _enter(self, phase: Any) -> None:
        self._state.phase = phase
        self._state.position = 0

    # The end, and going on in a new run

    async def _end(self) -> Any:
        state = self._state
        if state.error is None:
            return self._result()
        if state.status == "cancelled" and not state.dirty and workflow.cancellation_reason() is not None:
            await self._tell_parent()
            raise CancelledError(state.error.message)
        raise ApplicationError(
            state.error.message,
            msgspec.to_builtins(self.report(limit=REPORT_BYTES)),
            type=state.error.type,
            # A retry by the server would repeat a continued run from its middle, though it is undone.
            non_retryable=state.non_retryable or state.dirty or workflow.info().continued_run_id is not None,
        ) from self._cause

    async def _tell_parent(self) -> None:
        """Send the report to the parent: an end as cancelled has no room for it."""
        parent = workflow.info().parent
        if not self._as_child or parent is None or not self._state.records:
            return
        handle = workflow.get_external_workflow_handle(parent.workflow_id, run_id=parent.run_id)
        try:
            report = msgspec.to_builtins(self.report(limit=REPORT_BYTES))
            await handle.signal(CHILD_UNDONE, args=[workflow.info().workflow_id, report])
        except FailureError as error:
            workflow.logger.info("the parent has gone: %s", error.message)

    def child_undone(self, workflow_id: str, report: Report) -> None:
        """Take the report of a child that was cancelled and has undone itself."""
        self._cancelled_children[workflow_id] = report

    def _result(self) -> Any:
        state = self._state
        if not self._as_child:
            return state.output
        undo = self._program.undo_view(self._log) if self._log.entries else None
        return msgspec.to_builtins(Envelope(output=state.output, undo=undo, dirty=state.dirty))

    def report(self, limit: int | None = None) -> Report:
        """Return how the run stands; ``limit``: bytes of it that may be undo records."""
        state = self._state
        undo, omitted = _fitting(state.records, limit)
        return Report(
            pipeline=self._pipeline.name,
            status=state.status,
            dirty=state.dirty,
            error=state.error,
            undo=tuple(undo),
            omitted=omitted,
            finally_errors=tuple(state.finally_errors),
            steps={key: result.status for key, result in self._log.steps.items()},
        )

    def _continue_if_due(self) -> None:
        """Go on in a new run when the history of this one has grown long."""
        info = workflow.info()
        if not info.is_continue_as_new_suggested():
            return
        if self._cause is not None:
            self._state.failure = _preserved(self._cause)
        options = Options(child=self._as_child, continued=self._state)
        payloads = [encoded({}), self._program.payload, encoded(options)]
        if sum(payload.ByteSize() for payload in payloads) > LIMIT:
            if self._state.phase == "steps" and info.get_current_history_length() > HARD_EVENTS:
                raise PayloadTooLargeError(
                    "the run's results are too large to go on: pass references to them instead"
                )
            return
        workflow.continue_as_new(args=[RawValue(payload) for payload in payloads])


def _may_retry(call: ChildCall, ending: Ending, attempt: int) -> bool:
    retry = call.retry
    return (
        retry is not None
        and (not retry.maximum_attempts or attempt < retry.maximum_attempts)
        and ending.outcome == "failed"
        and not ending.non_retryable
        and ending.type not in (retry.non_retryable_error_types or ())
    )


def _info(kind: str, message: str) -> ErrorInfo:
    return ErrorInfo(type=kind, message=shortened(message))


def _step_error(kind: str, message: str) -> StepError:
    return StepError(_info(kind, message), non_retryable=True, cause=None)


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


def _fitting(records: list[UndoRecord], limit: int | None) -> tuple[list[UndoRecord], int]:
    """Leave out undos that went well until the rest fits; the failed ones matter most."""
    if limit is None or len(msgspec.json.encode(records)) <= limit:
        return records, 0
    bad = [record for record in records if record.state != "undone"]
    while bad and len(msgspec.json.encode(bad)) > limit:
        bad = bad[: len(bad) * 3 // 4]
    return bad, len(records) - len(bad)


def _preserved(cause: BaseException) -> bytes:
    failure = Failure()
    if isinstance(cause, Exception):
        DefaultFailureConverter().to_failure(cause, workflow.payload_converter(), failure)
    return base64.b64encode(failure.SerializeToString())


def _revived(data: bytes) -> BaseException:
    failure = Failure.FromString(base64.b64decode(data))
    return DefaultFailureConverter().from_failure(failure, workflow.payload_converter())
