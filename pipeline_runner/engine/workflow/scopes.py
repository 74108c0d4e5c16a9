"""The scopes of a run that are open: lists of steps, where each has come to, and what it sees."""

from dataclasses import dataclass, replace
from typing import Any

from pipeline_runner.core.model import Step
from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import Frame, StepResult
from pipeline_runner.engine.workflow.cancel import CancelScope


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A list of steps that is under way."""

    frame: Frame
    results: dict[str, StepResult]
    """Of its steps, by id: a part of the run's state."""
    names: dict[str, Any]
    """What expressions see in here; ``steps`` grows with the results."""
    cancel: CancelScope
    path: Path | None = None
    """None: it is a pipeline's own list."""
    outermost: bool = True
    """Whether the run's main task does the work in here."""

    def path_of(self, step: Step) -> Path:
        """Return the path of one of its steps."""
        return Path.of(step.id) if self.path is None else self.path.inner(step.id)

    def inside(self, frame: Frame, path: Path | None) -> "Scope":
        """Return a scope of a step in here, which sees all that the step sees."""
        steps = {**self.names["steps"], **{key: result.names() for key, result in frame.results.items()}}
        return replace(
            self, frame=frame, results=frame.results, names={**self.names, "steps": steps}, path=path
        )


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One time that a step is run: once, or once for each item or repetition of its loop."""

    step: Step
    path: Path
    scope: Scope
    """What the step sees, and the frame for what is open in it."""


def is_loop(step: Step) -> bool:
    """Tell whether a step has turns: items or repetitions."""
    return step.for_each is not None or step.until is not None


def next_step(frame: Frame) -> None:
    """Go on to the next step of a list: nothing of the one before is open."""
    frame.position += 1
    frame.clear()
    frame.attempt, frame.failed = 1, None
