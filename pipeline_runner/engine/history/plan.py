"""The events that the steps of a pipeline leave in a history."""

from collections.abc import Iterable

import msgspec

from pipeline_runner.core import durations, model
from pipeline_runner.core.model import ActivityCall, Block, ChildCall, Fail, Parallel, Step, Wait


def pipeline_in(bundle: bytes) -> model.Pipeline | None:
    """Return the pipeline of a run from its bundle; None: it is encrypted, or missing."""
    try:
        found = model.decode(bundle)
    except msgspec.DecodeError:
        return None
    return found.pipelines[found.root]


def leaves_event(step: Step) -> bool:
    """Tell whether a step certainly leaves an event if its ``when`` holds and the run continues after it."""
    if any(not _must_leave(handler.steps) for handler in step.catch):
        return False
    match step.action:
        case ActivityCall() | ChildCall() | Fail():
            return True
        case Wait(duration=str(text)) if "{" not in text:
            return durations.parse(text) > 0
        case Block(steps=steps):
            return _must_leave(steps)
        case Parallel(branches=branches):
            return any(_must_leave(branch.steps) for branch in branches)
    return False


def _must_leave(steps: Iterable[Step]) -> bool:
    return any(step.when is None and step.for_each is None and leaves_event(step) for step in steps)


def catches(step: Step, kind: str | None) -> bool:
    """Tell whether a handler of a step accepts an error type; None: the type is not known."""
    return any(handler.types is None or kind is None or kind in handler.types for handler in step.catch)
