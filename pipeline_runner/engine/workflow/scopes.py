"""The open scopes of a run: lists of steps, with their positions and the names that they see."""

from dataclasses import dataclass, replace
from typing import Any

from pipeline_runner.core.model import Step
from pipeline_runner.core.paths import Path
from pipeline_runner.core.state import Frame, StepResult
from pipeline_runner.engine.workflow.cancel import CancelScope


@dataclass(frozen=True, kw_only=True)
class Scope:
    """A list of steps that is running."""

    frame: Frame
    results: dict[str, StepResult]
    """The results of its steps, by id: a part of the run's state."""
    names: dict[str, Any]
    """The names that expressions see in it; ``steps`` grows with the results."""
    cancel: CancelScope
    path: Path | None = None
    """None: it is a pipeline's own list."""
    outermost: bool = True
    """Whether the run's main task does the work in it."""

    def path_of(self, step: Step) -> Path:
        """Return the path of the step that is next or under way."""
        path, first = self.whole(step), self.frame.first
        return path if first == 1 else path.attempt(first)

    def whole(self, step: Step) -> Path:
        """Return the path that all attempts and turns of a step have in common."""
        return Path.of(step.id) if self.path is None else self.path.inner(step.id)

    def inside(self, frame: Frame, path: Path | None) -> "Scope":
        """Return a scope of a step in this one, which sees everything that the step sees."""
        steps = {**self.names["steps"], **{key: result.names() for key, result in frame.results.items()}}
        return replace(
            self, frame=frame, results=frame.results, names={**self.names, "steps": steps}, path=path
        )


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One execution of a step: the only one, or one of the items or repetitions of its loop."""

    step: Step
    path: Path
    scope: Scope
    """The names that the step sees, and the frame for the scopes inside it."""


def is_loop(step: Step) -> bool:
    """Tell whether a step has several turns: items or repetitions."""
    return step.for_each is not None or step.until is not None


def next_step(frame: Frame) -> None:
    """Advance to the next step of a list, and close everything inside the previous one."""
    frame.position += 1
    frame.clear()
    frame.attempt = frame.first = frame.tried = 1
    frame.failed = None


def try_again(frame: Frame) -> None:
    """Go back to the beginning of a step, whose next attempt has a number that none has had."""
    frame.clear()
    frame.failed = None
    frame.first += max(frame.attempt, frame.tried)
    frame.attempt = frame.tried = 1
