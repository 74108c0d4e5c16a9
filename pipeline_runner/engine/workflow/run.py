"""One run of a pipeline: forward, undo, ``finally``, and the end.

The phases are methods that run one after the other. A continued run enters the phase and the position
where the previous run stopped.
"""

import logging
from typing import Any

import msgspec
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, CancelledError, FailureError

from pipeline_runner.core import errors
from pipeline_runner.core.errors import error_names
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.paths import Path
from pipeline_runner.core.secrets import Secrets
from pipeline_runner.core.state import (
    REPORT_MEMO,
    Continuation,
    Envelope,
    Frame,
    Options,
    Report,
    ScopeLog,
    StepResult,
    Stop,
    UndoRecord,
)
from pipeline_runner.engine.workflow import calls, senders
from pipeline_runner.engine.workflow.asking import Asking
from pipeline_runner.engine.workflow.cancel import CancelScope, Interrupted
from pipeline_runner.engine.workflow.deadline import Deadline
from pipeline_runner.engine.workflow.ending import bound, cancelled_with, preserved, revived
from pipeline_runner.engine.workflow.gate import Gate
from pipeline_runner.engine.workflow.payloads import LIMIT, PayloadTooLargeError, encoded, measured
from pipeline_runner.engine.workflow.program import Program
from pipeline_runner.engine.workflow.scopes import Scope, next_step
from pipeline_runner.engine.workflow.step_errors import StepError, info_of, step_error
from pipeline_runner.engine.workflow.steps import Steps
from pipeline_runner.engine.workflow.undo import Undo
from pipeline_runner.engine.workflow.values import plain
from pipeline_runner.engine.workflow.work import Work

REPORT_BYTES = 200_000
_FINALLY = 50
"""The maximum number of failed finally steps that a failed run's report names."""

CHILD_UNDONE = "pipeline_runner.child_undone"
"""The signal with which a cancelled child reports to its parent what it has undone."""


class Run:
    """The state of one run, and its phases."""

    def __init__(
        self, program: Program, inputs: dict[str, Any], options: Options, cancel: CancelScope
    ) -> None:
        """Start a run, or continue one.

        Args:
            program: The run's bundle.
            inputs: Its inputs, validated, with defaults.
            options: The options of its start.
            cancel: The scope that can cancel its forward work.
        """
        self._program = program
        self._pipeline = program.root
        self._as_child = options.child
        self._cancel = cancel
        info = workflow.info()
        # Mutable through msgspec: this state survives continue-as-new.
        self._state = options.continued or Continuation(
            phase="steps",
            started_at=info.start_time.isoformat(),
            log=ScopeLog(
                pipeline=program.bundle.root,
                task_queue=info.task_queue,
                directory=options.directory,
                undone=options.undone,
                starter=_starter(options) if program.asks_for_starter else None,
                inputs=inputs,
            ),
        )
        self._log = self._state.log
        self._frame = self._state.frame or Frame(position=self._state.position)
        self._state.frame = self._frame
        # A run that undoes another one, or resumes it, keeps the identity of that one, and so all keys.
        if not self._log.run:
            self._log.run = {
                "workflow_id": info.workflow_id,
                "run_id": info.first_execution_run_id,
                "pipeline": self._pipeline.name,
                "started_at": self._state.started_at,
            }
        self._cause: BaseException | None = None
        if self._state.failure is not None:
            self._cause = revived(self._state.failure)
        self._names: dict[str, Any] = {
            "inputs": self._log.inputs,
            "steps": {key: result.names() for key, result in self._log.steps.items()},
            "run": self._log.run,
            "secrets": Secrets(self._pipeline.secrets),
        }
        self._gate = Gate(self._go_on, cancel)
        self._work = Work()
        self._undo = Undo(program, self._state, self._work, self._gate.pass_)
        self._steps = Steps(program, self._state, self._gate, self._undo, self._work)
        self.events = self._steps.events
        """Takes what signals and updates bring for the run's steps."""
        self.approvals = self._steps.approvals
        """Takes the answers of people."""
        self._deadline = Deadline(self._pipeline, self._state, self._steps, cancel)
        self.asking = Asking(
            self._pipeline, self._state, self._steps, self._undo, self._steps.waits, self._deadline
        )
        """Takes what people decide about steps that have failed."""

    @property
    def state(self) -> Continuation:
        """All that the run remembers."""
        return self._state

    @property
    def bundle(self) -> bytes:
        """The run's bundle, encoded."""
        return self._program.data

    async def execute(self) -> Any:
        """Run to the end, whatever happens.

        Returns:
            The pipeline's output, or an :class:`Envelope` for a parent.

        Raises:
            ApplicationError: The run failed. The report is its first detail.
            CancelledError: The run was cancelled, and is undone. The report is a detail of its end.
        """
        state = self._state
        if state.phase == "steps":
            if await self._undo_first():
                await self._forward()
            self._cancel.close()
            self._enter("undo")
        self._cancel.close()
        if state.phase == "undo":
            if state.error is not None or state.by_hand:
                await self._undo_or_keep()
            if state.by_hand:
                return self._end_of_undo()
            self._enter("finally")
        await self._finally()
        if self._as_child and self._finally_alone_failed():
            # For its parent it has failed, and a child that failed has undone itself.
            await self._undo_or_keep()
        return await self._end()

    async def _undo_or_keep(self) -> None:
        kept = self._pipeline.on_failure == "keep" and self._state.status != "cancelled"
        if (kept or self._state.undo_first is not None) and not self._state.by_hand:
            self._undo.keep(self._log)
        else:
            await self._undo.scope(self._log)

    async def _undo_first(self) -> bool:
        """Undo what a resumed run does once more; return whether all of it is undone."""
        state, first = self._state, self._state.undo_first
        if first is None:
            return True
        again = [step.id for step in self._pipeline.steps[first:]]
        try:
            await self._undo.back(again)
        except PayloadTooLargeError as error:
            self._fail(step_error(errors.PAYLOAD_TOO_LARGE, str(error)))
            return False
        # What errors have left that were caught before those steps is not in the way.
        bad = [
            record
            for record in state.records
            if record.state in ("failed", "not undone") and Path.of_id(record.path).head in again
        ]
        if bad:
            message = f"the run cannot be resumed there: {bad[0].path} was not undone"
            self._fail(step_error(errors.UNDO_FAILED, message))
            return False
        state.undo_first = None
        return True

    # Forward

    async def _forward(self) -> None:
        state = self._state
        try:
            try:
                await self.asking.run(self._scope())
                await self._work.pause_if_due(self._cancel)
                self._cancel.check()
                state.output = plain(self._pipeline.output, self._names)
                measured(f'the output of "{self._pipeline.name}"', encoded(self._result()))
                state.status = "completed"
            finally:
                self._deadline.stop()
        except Interrupted as interrupted:
            kind = errors.PIPELINE_TIMEOUT if interrupted.status == "timed_out" else errors.CANCELLED
            self._fail(StepError(info_of(kind, str(interrupted)), non_retryable=False, cause=None))
            state.status = interrupted.status
        except StepError as error:
            self._fail(error)
        except ExpressionError as error:
            self._fail(step_error(errors.EXPRESSION_ERROR, f"output: {error.message}"))
        except PayloadTooLargeError as error:
            self._fail(step_error(errors.PAYLOAD_TOO_LARGE, str(error)))
        except Exception as error:  # noqa: BLE001
            # As in a step: nothing ends a run without its undo.
            workflow.logger.exception("%s", self._pipeline.name)
            self._fail(StepError(info_of(type(error).__name__, str(error)), non_retryable=True, cause=error))

    def _fail(self, error: StepError) -> None:
        self._state.error = error.info
        self._state.status = "failed"
        self._state.non_retryable = error.non_retryable
        self._cause = error.cause

    def _scope(self) -> Scope:
        """Return the scope of the pipeline's own list that is running."""
        return Scope(frame=self._frame, results=self._log.steps, names=self._names, cancel=self._cancel)

    # Finally

    async def _finally(self) -> None:
        state = self._state
        # It does not see its own failure, in whichever run of the chain it continues.
        own = self._finally_alone_failed()
        self._names["error"] = error_names(None if own else state.error)
        self._names["run"] = {**self._log.run, "status": "completed" if own else state.status}
        for step in self._pipeline.steps:
            self._names["steps"].setdefault(step.id, StepResult(status="pending").names())
        while self._frame.position < len(self._pipeline.finally_):
            await self._gate.pass_()
            try:
                await self._steps.run(self._pipeline.finally_[self._frame.position], self._scope())
            except StepError as error:
                state.finally_errors.append(error.info)
                if state.error is None:
                    self._fail(error)
            next_step(self._frame)

    def _finally_alone_failed(self) -> bool:
        return self._state.finally_errors[:1] == [self._state.error]

    def _enter(self, phase: Any) -> None:
        if self._state.phase == "steps" and self._state.error is not None:
            self._state.stopped = Stop(frame=self._frame, records=len(self._state.records))
        self._state.phase = phase
        self._frame = self._state.frame = Frame()

    # The end, and continue-as-new

    async def _end(self) -> Any:
        state = self._state
        if state.error is None:
            workflow.logger.info("completed")
            if state.dirty and not self._as_child:
                # Its end is its output. The report about effects of handled errors goes beside it.
                workflow.upsert_memo({REPORT_MEMO: msgspec.to_builtins(self.report(limit=REPORT_BYTES))})
            return self._result()
        level = logging.INFO if state.status == "cancelled" else logging.WARNING
        dirty = ", dirty" if state.dirty else ""
        workflow.logger.log(
            level, "%s%s: %s [%s]", state.status, dirty, state.error.message, state.error.type
        )
        if state.status == "cancelled" and not state.dirty and workflow.cancellation_reason() is not None:
            await self._tell_parent()
            cancelled_with(msgspec.to_builtins(self.report(limit=REPORT_BYTES)))
            raise CancelledError(state.error.message)
        error = ApplicationError(
            state.error.message,
            msgspec.to_builtins(self.report(limit=REPORT_BYTES)),
            type=state.error.type,
            # A retry by the server would repeat a continued run from its middle, although it is undone. A
            # parent's own loop starts a new child, and is allowed.
            non_retryable=state.non_retryable
            or state.dirty
            or state.kept
            or self._log.pivot is not None
            or (not self._as_child and workflow.info().continued_run_id is not None),
        )
        raise bound(error, self._cause)

    def _end_of_undo(self) -> Any:
        """End a run that has undone another one by hand."""
        state = self._state
        state.status, state.error = "completed", None
        if not state.dirty:
            workflow.logger.info("everything is undone")
            return msgspec.to_builtins(self.report(limit=REPORT_BYTES))
        bad = [record for record in state.records if record.state in ("failed", "not undone")]
        first = bad[0].error
        message = f"{len(bad)} of {len(state.records)} undos failed; the first: {bad[0].path}"
        state.status = "failed"
        state.error = info_of(errors.UNDO_FAILED, f"{message}: {first.message}" if first else message)
        report = msgspec.to_builtins(self.report(limit=REPORT_BYTES))
        error = ApplicationError(state.error.message, report, type=state.error.type, non_retryable=True)
        raise bound(error, None)

    async def _tell_parent(self) -> None:
        """Send the report to the parent, whose SDK may not read the details of a cancelled end."""
        parent = workflow.info().parent
        if not self._as_child or parent is None or not self._state.records:
            return
        handle = workflow.get_external_workflow_handle(parent.workflow_id, run_id=parent.run_id)
        try:
            report = msgspec.to_builtins(self.report(limit=REPORT_BYTES))
            await handle.signal(CHILD_UNDONE, args=[workflow.info().workflow_id, report])
        except FailureError as error:
            workflow.logger.info("the parent has gone: %s", error.message)

    def _result(self) -> Any:
        state = self._state
        if not self._as_child:
            return state.output
        undo = self._program.undo_view(self._log) if self._log.entries or self._log.pivot else None
        envelope = Envelope(output=state.output, undo=undo, dirty=state.dirty)
        room = LIMIT - encoded(envelope).ByteSize()
        bad = [record for record in state.records if record.state != "undone"]
        envelope.left, _ = _fitting(bad, min(room, REPORT_BYTES))
        return msgspec.to_builtins(envelope)

    def child_undone(self, workflow_id: str, report: Report) -> None:
        """Receive the report of a child that was cancelled and has undone itself."""
        self._steps.cancelled_children[workflow_id] = report

    def report(self, limit: int | None = None) -> Report:
        """Return the current report of the run.

        ``limit`` is the maximum size of its undo records in bytes.
        """
        state = self._state
        undo, omitted = _fitting(state.records, limit)
        return Report(
            pipeline=self._pipeline.name,
            status=state.status,
            dirty=state.dirty,
            kept=state.kept,
            error=state.error,
            undo=tuple(undo),
            omitted=omitted,
            finally_errors=tuple(state.finally_errors if limit is None else state.finally_errors[:_FINALLY]),
            steps=_steps({key: result.status for key, result in self._log.steps.items()}, limit),
        )

    def _go_on(self) -> None:
        """Continue as new, unless the state is too large for that."""
        if self._cause is not None:
            self._state.failure = preserved(self._cause)
        self._program.liveness(self._log.pipeline).prune(self._state)
        options = Options(child=self._as_child, continued=self._state)
        payloads = [encoded({}), self._program.payload, encoded(options)]
        if sum(payload.ByteSize() for payload in payloads) > LIMIT:
            if self._state.phase == "steps" and calls.history_is_full():
                raise PayloadTooLargeError(
                    "the run's results are too large to continue: pass references instead"
                )
            return
        workflow.continue_as_new(args=[RawValue(payload) for payload in payloads])


def _starter(options: Options) -> str:
    """Return who started the outermost run: only a parent knows it better than the server."""
    own = workflow.info().parent is None
    return senders.starter() if own else options.starter or ""


def _fitting(records: list[UndoRecord], limit: int | None) -> tuple[list[UndoRecord], int]:
    """Omit successful undos until the rest fits; the failed ones matter most."""
    if limit is None or len(msgspec.json.encode(records)) <= limit:
        return records, 0
    bad = [record for record in records if record.state != "undone"]
    while bad and len(msgspec.json.encode(bad)) > limit:
        bad = bad[: len(bad) * 3 // 4]
    return bad, len(records) - len(bad)


def _steps(statuses: dict[str, str], limit: int | None) -> dict[str, str]:
    """Omit completed steps, then any steps, until the rest fits."""
    others = {key: status for key, status in statuses.items() if status != "completed"}
    for kept in (statuses, others):
        if limit is None or len(msgspec.json.encode(kept)) <= limit:
            return kept
    return {}
