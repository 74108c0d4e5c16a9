"""Undo: what the log says was done, or may have been done, is undone in reverse order.

Runs shielded: nothing in here can be interrupted but by termination. A compensation that
fails for good is recorded and does not stop the others. An entry leaves the log when it
has been dealt with, so that a run can go on by continue-as-new at any point in between.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from temporalio import workflow
from temporalio.exceptions import FailureError

from pipeline_runner.core import errors
from pipeline_runner.core.errors import ErrorInfo, error_names, in_brackets, shortened
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import ActivityCall, ChildCall, Compensation, Step
from pipeline_runner.core.paths import ROOT, Path
from pipeline_runner.core.secrets import Secrets, unseal
from pipeline_runner.core.state import Continuation, Envelope, ScopeLog, UndoEntry, UndoRecord
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.cancel import CancelScope
from pipeline_runner.engine.workflow.outcomes import Ending, of_failure
from pipeline_runner.engine.workflow.payloads import PayloadTooLargeError
from pipeline_runner.engine.workflow.program import Program
from pipeline_runner.engine.workflow.work import Work

_DUE = {
    "completed": ("completed",),
    "uncertain": ("completed", "uncertain"),
    "started": ("completed", "uncertain", "failed"),
}


class _Failed(Exception):
    """One undo failed for good."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


class Undo:
    """Undoes one run's log and keeps the record of it."""

    def __init__(
        self,
        program: Program,
        state: Continuation,
        work: Work,
        pause: Callable[[CancelScope | None], Awaitable[None]],
    ) -> None:
        """Prepare the undo of a run.

        Args:
            program: The run's bundle.
            state: The run's state: why it is undone, and where every undo is recorded.
            work: What the run computes.
            pause: Called between two undos; the run may go on in a new one there.
        """
        self._program = program
        self._state = state
        self._work = work
        self._pause = pause
        self._shield = CancelScope()

    async def scope(self, log: ScopeLog, above: Path = ROOT) -> None:
        """Undo a log from its end to its start; ``above`` is the path of the child whose log it is."""
        while log.entries:
            await self._work.pause_if_due(self._shield)
            entry = log.entries[-1]
            await self._entry(log, entry, above, self._state.error)
            log.entries.pop()
            await self._pause(None)

    async def within(self, path: Path, why: ErrorInfo, cancel: CancelScope) -> None:
        """Undo what a step of this run has done, at whatever depth, before its error is handled.

        Raises:
            Interrupted: The work around it is to end; what is left stays in the log, and is undone with it.
        """
        log = self._state.log
        while True:
            cancel.check()
            entry = next((one for one in reversed(log.entries) if path.holds(path_of(one))), None)
            if entry is None:
                return
            await self._work.pause_if_due(cancel)
            await self._entry(log, entry, ROOT, why)
            # Branches beside it may have entered more meanwhile.
            log.entries[:] = [one for one in log.entries if one is not entry]
            await self._pause(cancel)

    def is_complete(self, path: Path) -> bool:
        """Tell whether all is undone that a step has done, at whatever depth, as far as it was undone."""
        return not any(
            record.state != "undone" and path.holds(Path.of_id(record.path)) for record in self._state.records
        )

    async def _entry(self, log: ScopeLog, entry: UndoEntry, above: Path, why: ErrorInfo | None) -> None:
        step = self._program.step(log.pipeline, entry.step)
        path = above.child(path_of(entry))
        if not isinstance(step.compensate, Compensation):
            await self._child_log(step, entry, path)
        elif entry.outcome in _DUE[step.compensate.after]:
            try:
                await self._compensate(step.compensate, self._names(log, entry, why), log, entry, path)
                self._work.begin_anew()
                self._record(path, entry, "undone")
            except _Failed as failed:
                self._record(path, entry, "failed", failed.info)
            except Exception as error:  # noqa: BLE001 - no undo may stop the others
                self._record(path, entry, "failed", _info(type(error).__name__, str(error), path))
        elif entry.outcome == "uncertain":
            reason = "its outcome is unknown, and its compensation runs only after: completed"
            self._record(path, entry, "not undone", _reason(entry, reason, path))

    async def _child_log(self, step: Step, entry: UndoEntry, path: Path) -> None:
        """Undo a child that has no compensation of its own."""
        if entry.child is not None:
            await self.scope(entry.child, path)
        elif (
            entry.outcome == "uncertain"
            and isinstance(step.action, ChildCall)
            and self._program.undoable(step.action.pipeline)
        ):
            reason = "the child ended without undoing itself, and what it had done is unknown"
            self._record(path, entry, "not undone", _reason(entry, reason, path))

    async def _compensate(
        self, how: Compensation, names: dict[str, Any], log: ScopeLog, entry: UndoEntry, path: Path
    ) -> None:
        try:
            if isinstance(how.action, ActivityCall):
                await self._activity(how.action, names, log, entry, path)
            else:
                await self._pipeline(how.action, names, log, entry, path)
        except ExpressionError as error:
            raise _Failed(_info(errors.EXPRESSION_ERROR, error.message, path)) from None
        except PayloadTooLargeError as error:
            raise _Failed(_info(errors.PAYLOAD_TOO_LARGE, str(error), path)) from None

    async def _activity(
        self, call: ActivityCall, names: dict[str, Any], log: ScopeLog, entry: UndoEntry, path: Path
    ) -> None:
        prepared = calls.prepare_activity(
            call,
            names,
            path=path.undo(),
            summary=f"undo {entry.name}",
            key=calls.idempotency_key(path.undo()),
            log=log,
            undone=entry.outcome,
        )
        try:
            await prepared.start()
        except FailureError as error:
            raise self._failed(of_failure(error, call), path) from None

    async def _pipeline(
        self, call: ChildCall, names: dict[str, Any], log: ScopeLog, entry: UndoEntry, path: Path
    ) -> None:
        prepared = calls.prepare_child(
            self._program,
            call,
            names,
            path=path.undo(),
            summary=f"undo {entry.name}",
            log=log,
            undone=entry.outcome,
        )

        async def run() -> None:
            handle = await prepared.start()
            if call.wait_for_completion:
                envelope = msgspec.json.decode((await handle).payload.data, type=Envelope)
                self.add(envelope.left, path.undo(), dirty=envelope.dirty)

        await calls.retried(
            call,
            f"undo {entry.name}",
            run,
            failed=lambda _, ending: self._failed(ending, path),
            pause=lambda timer: timer,
        )

    def _failed(self, ending: Ending, path: Path) -> _Failed:
        """Take over what a failed compensation undid of itself; return what is raised if it was the last."""
        if ending.report is not None:
            self.add(ending.report.undo, path.undo(), dirty=ending.report.dirty)
        return _Failed(_info(ending.type, ending.message, path))

    def _names(self, log: ScopeLog, entry: UndoEntry, why: ErrorInfo | None) -> dict[str, Any]:
        pipeline = self._program.bundle.pipelines[log.pipeline]
        return {
            "inputs": log.inputs,
            **entry.names,
            "steps": {
                **{key: result.names() for key, result in log.steps.items()},
                **entry.names.get("steps", {}),
            },
            "run": log.run,
            "secrets": Secrets(pipeline.secrets),
            "error": error_names(why),
            "step": {
                "input": unseal(entry.input, entry.secrets),
                "output": entry.output,
                "outcome": entry.outcome,
                "error": error_names(entry.error),
                "key": entry.key,
            },
        }

    def _record(self, path: Path, entry: UndoEntry, state: Any, error: ErrorInfo | None = None) -> None:
        if state != "undone":
            self._state.dirty = True
        level = logging.INFO if state == "undone" else logging.WARNING
        told = {"undone": "undone", "failed": "undo failed", "not undone": "not undone"}[state]
        workflow.logger.log(
            level, "%s: %s%s", told, path, f": {error.message}{in_brackets(error.type)}" if error else ""
        )
        record = UndoRecord(path=str(path), name=entry.name, outcome=entry.outcome, state=state, error=error)
        self._state.records.append(record)

    def add(self, undos: Iterable[UndoRecord], child: Path, *, dirty: bool) -> None:
        """Take over what became of a child's own undos; ``dirty``: the child has left something."""
        self._state.dirty |= dirty
        for record in undos:
            path = str(child.child(Path.of_id(record.path)))
            self._state.records.append(msgspec.structs.replace(record, path=path))


def path_of(entry: UndoEntry) -> Path:
    """Return the path of the step of an entry, in its own run."""
    return Path.parse(entry.path) if entry.path else Path.of(entry.step)


def _info(kind: str, message: str, path: Path) -> ErrorInfo:
    return ErrorInfo(type=kind, message=shortened(message), step=str(path))


def _reason(entry: UndoEntry, reason: str, path: Path) -> ErrorInfo:
    kind = entry.error.type if entry.error else errors.CANCELLED
    return _info(kind, reason, path)
