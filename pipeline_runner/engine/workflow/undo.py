"""Undo: everything that was done, or may have been done, is undone in reverse order of the log.

Undo is shielded: only a termination can interrupt it. A compensation that fails permanently is recorded
and does not stop the others. An entry leaves the log once it has been handled, so that a run can
continue as new at any point in between.
"""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Literal

import msgspec
from temporalio import workflow
from temporalio.exceptions import FailureError

from pipeline_runner.core import errors
from pipeline_runner.core.errors import ErrorInfo, error_names, in_brackets, shortened
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import ActivityCall, ChildCall, Compensation
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
    """An undo failed permanently."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message)
        self.info = info


class Undo:
    """Undoes the log of a run, and records the results."""

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
            state: The run's state: why it is undone, and the records of all undos.
            work: Counts the run's computation.
            pause: Called between two undos; the run may continue as new there.
        """
        self._program = program
        self._state = state
        self._work = work
        self._pause = pause
        self._shield = CancelScope()

    async def scope(self, log: ScopeLog, above: Path = ROOT) -> None:
        """Undo a log from its end to its start. ``above`` is the path of the child whose log it is."""
        position = len(log.entries)
        while position:
            position -= 1
            entry = log.entries[position]
            if entry.left:
                continue
            await self._work.pause_if_due(self._shield)
            entry.left = not await self._entry(log, entry, above, self._state.error)
            if not entry.left:
                del log.entries[position]
            await self._pause(None)
        if log.pivot is not None:
            path = str(above.child(Path.of(log.pivot)))
            self._state.records.append(
                UndoRecord(path=path, name=log.pivot, outcome="completed", state="pivot")
            )

    async def back(self, steps: Sequence[str]) -> None:
        """Undo these steps of the pipeline's own list, and all in them; nothing interrupts it."""
        for step in reversed(steps):
            await self.within(Path.of(step), None, self._shield)

    def keep(self, log: ScopeLog, above: Path = ROOT) -> None:
        """Record, in the order of an undo, what is left as it is; the log stays as it is, too."""
        self._state.kept = True
        # What a child has kept is in the report already, and so is what an error has left that was caught.
        for entry in (one for one in reversed(log.entries) if not (one.keeps or one.left)):
            path, how = above.child(path_of(entry)), due(self._program, log, entry)
            if entry.child is not None:
                self.keep(entry.child, path)
            elif how != "nothing":
                self._record(path, entry, "kept")

    async def within(self, path: Path, why: ErrorInfo | None, cancel: CancelScope) -> None:
        """Undo what a step of this run has done, at any depth, before its error is handled.

        Raises:
            Interrupted: The work around it is being cancelled. The rest stays in the log.
        """
        log = self._state.log
        while True:
            cancel.check()
            found = (
                one for one in reversed(log.entries) if not one.left and path.holds(one.path or one.step)
            )
            entry = next(found, None)
            if entry is None:
                return
            await self._work.pause_if_due(cancel)
            entry.left = not await self._entry(log, entry, ROOT, why)
            if not entry.left:
                # Parallel branches may have added more entries in the meantime.
                places = range(len(log.entries) - 1, -1, -1)
                del log.entries[next(k for k in places if log.entries[k] is entry)]
            await self._pause(cancel)

    def is_complete(self, path: Path) -> bool:
        """Tell whether everything that a step has done, at any depth, was undone as far as attempted."""
        return not any(record.state != "undone" and path.holds(record.path) for record in self._state.records)

    async def _entry(self, log: ScopeLog, entry: UndoEntry, above: Path, why: ErrorInfo | None) -> bool:
        """Undo what one entry stands for; return whether nothing is left of it."""
        path = above.child(path_of(entry))
        match due(self._program, log, entry):
            case "child":
                assert entry.child is not None
                await self.scope(entry.child, path)
                return not entry.child.entries
            case "compensate":
                return await self._compensated(log, entry, path, why)
            case "nothing":
                return entry.left_in is None
            case unknown:
                self._record(path, entry, "not undone", _reason(entry, NOT_UNDONE[unknown], path))
                return False

    async def _compensated(self, log: ScopeLog, entry: UndoEntry, path: Path, why: ErrorInfo | None) -> bool:
        how = self._program.step(log.pipeline, entry.step).compensate
        assert isinstance(how, Compensation)
        try:
            await self._compensate(how, names_of(self._program, log, entry, why), log, entry, path)
        except _Failed as failed:
            self._record(path, entry, "failed", failed.info)
        except Exception as error:  # noqa: BLE001 - no undo may stop the others
            self._record(path, entry, "failed", _info(type(error).__name__, str(error), path))
        else:
            self._work.begin_anew()
            self._record(path, entry, "undone")
            return True
        return False

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
            key=calls.idempotency_key(path_of(entry).undo(), log),
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
            path.undo().titled(entry.name),
            run,
            failed=lambda _, ending: self._failed(ending, path),
            pause=lambda timer: timer,
        )

    def _failed(self, ending: Ending, path: Path) -> _Failed:
        """Take over what a failed compensation has undone of itself.

        Return the error if it was the last attempt.
        """
        if ending.report is not None:
            self.add(ending.report.undo, path.undo(), dirty=ending.report.dirty)
        return _Failed(_info(ending.type, ending.message, path))

    def _record(self, path: Path, entry: UndoEntry, state: Any, error: ErrorInfo | None = None) -> None:
        as_asked = state in ("undone", "kept")
        self._state.dirty |= not as_asked
        level = logging.INFO if as_asked else logging.WARNING
        told = "undo failed" if state == "failed" else state
        workflow.logger.log(
            level, "%s: %s%s", told, path, f": {error.message}{in_brackets(error.type)}" if error else ""
        )
        record = UndoRecord(path=str(path), name=entry.name, outcome=entry.outcome, state=state, error=error)
        self._state.records.append(record)

    def add(self, undos: Iterable[UndoRecord], child: Path, *, dirty: bool) -> None:
        """Take over the records of a child's own undos. ``dirty``: effects of the child remain."""
        self._state.dirty |= dirty
        for record in undos:
            path = str(child.child(Path.of_id(record.path)))
            self._state.records.append(msgspec.structs.replace(record, path=path))


Due = Literal["child", "compensate", "kept child", "unknown child", "unknown", "nothing"]
"""How an entry is undone: by a child's own log, or a compensation; or why it is not."""

NOT_UNDONE = {
    "unknown": "its outcome is unknown, and its compensation runs only after: completed",
    "kept child": "the child has failed and keeps what it had done (on_failure: keep)",
    "unknown child": "the child ended without undoing itself, and what it had done is unknown",
}
"""Why what may be there is not undone."""


def due(program: Program, log: ScopeLog, entry: UndoEntry) -> Due:
    """Return how an entry of the undo log is undone."""
    step = program.step(log.pipeline, entry.step)
    if entry.child is not None:
        return "child"
    if not isinstance(step.compensate, Compensation):
        may_have_acted = (
            entry.outcome == "uncertain"
            and isinstance(step.action, ChildCall)
            and program.undoable(step.action.pipeline)
        )
        if may_have_acted:
            return "kept child" if entry.keeps else "unknown child"
        return "nothing"
    if entry.outcome in _DUE[step.compensate.after]:
        return "compensate"
    return "unknown" if entry.outcome == "uncertain" else "nothing"


def names_of(program: Program, log: ScopeLog, entry: UndoEntry, why: ErrorInfo | None) -> dict[str, Any]:
    """Return what the compensation of an entry sees."""
    steps = {key: result.names() for key, result in log.steps.items()}
    return {
        "inputs": log.inputs,
        **entry.names,
        "steps": {**steps, **entry.names.get("steps", {})},
        "run": log.run,
        "secrets": Secrets(program.bundle.pipelines[log.pipeline].secrets),
        "error": error_names(why),
        "step": {
            "input": unseal(entry.input, entry.secrets),
            "output": entry.output,
            "outcome": entry.outcome,
            "error": error_names(entry.error),
            "key": entry.key,
        },
    }


def path_of(entry: UndoEntry) -> Path:
    """Return the path of the step of an entry, in its own run."""
    return Path.parse(entry.path) if entry.path else Path.of(entry.step)


def _info(kind: str, message: str, path: Path) -> ErrorInfo:
    return ErrorInfo(type=kind, message=shortened(message), step=str(path))


def _reason(entry: UndoEntry, reason: str, path: Path) -> ErrorInfo:
    kind = entry.error.type if entry.error else errors.CANCELLED
    return _info(kind, reason, path)
