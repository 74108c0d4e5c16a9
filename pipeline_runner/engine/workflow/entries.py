"""The undo log, as the steps of a run write it."""

from typing import Any

from pipeline_runner.core.model import ChildCall, Compensation, Step
from pipeline_runner.core.secrets import SecretSpans
from pipeline_runner.core.state import Continuation, UndoEntry
from pipeline_runner.engine.workflow import calls
from pipeline_runner.engine.workflow.program import Program
from pipeline_runner.engine.workflow.scopes import Turn


class Entries:
    """Records steps in the undo log of a run, and completes their entries."""

    def __init__(self, program: Program, state: Continuation) -> None:
        """Write to a run's log. ``program`` knows what its undo templates read."""
        self._program = program
        self._state = state
        self._open = {entry.key: entry for entry in state.log.entries}
        """What the runs before have entered, by its key."""

    def register(
        self,
        turn: Turn,
        name: str,
        value: Any = None,
        places: SecretSpans | None = None,
        key: str | None = None,
    ) -> UndoEntry:
        """Record a step in the undo log before it is scheduled, if it can ever be undone.

        The entry contains only what the undo's templates read, because it travels with the log.
        """
        log, step = self._state.log, turn.step
        uses = self._program.undo_uses(log.pipeline, step.id)
        entry = UndoEntry(step=step.id, name=name, key=key or calls.idempotency_key(turn.path, log))
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
        # The steps of ``finally`` are never undone.
        if self._state.phase == "steps" and (isinstance(step.compensate, Compensation) or by_own_log):
            self._enter(entry)
        return entry

    def _enter(self, entry: UndoEntry) -> None:
        """Put an entry last, or in the place of the one of the same step that goes on in this run."""
        entries = self._state.log.entries
        before = self._open.pop(entry.key, None) if self._open else None
        if before is None or before.left or not any(one is before for one in entries):
            entries.append(entry)
        else:
            entries[next(k for k, one in enumerate(entries) if one is before)] = entry

    def taken_up(self, turn: Turn) -> UndoEntry | None:
        """Return the entry of a step that a run before has entered, and that goes on in this one."""
        return self._open.pop(calls.idempotency_key(turn.path, self._state.log), None) if self._open else None

    def drop_inside(self, turn: Turn, own: UndoEntry) -> None:
        """Drop the entries of the steps inside a step whose own entry replaces them."""
        entries = self._state.log.entries
        # They were entered after it, and many others may have been before it.
        start = next(k for k in range(len(entries), 0, -1) if entries[k - 1] is own)
        entries[start:] = [
            one for one in entries[start:] if one.left or not turn.path.holds(one.path or one.step)
        ]

    def drop(self, pivot: Step) -> None:
        """Forget what is to be undone: a point of no return has been passed. What an undo has left stays."""
        log = self._state.log
        log.entries[:] = [entry for entry in log.entries if entry.left]
        log.pivot = pivot.id

    def complete(self, entry: UndoEntry, output: Any) -> Any:
        """Record that a step has completed, and return its output."""
        entry.outcome = "completed"
        if "output" in self._program.undo_uses(self._state.log.pipeline, entry.step):
            entry.output = output
        return output
