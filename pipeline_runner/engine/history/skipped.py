"""Which steps of a run were skipped, told from its history alone.

A step whose ``when`` is false leaves no event. Its pipeline travels in the run's first
event, though, and steps run in order: where a later step has begun, one before it that
would have left an event, and has not, was skipped.
"""

import msgspec
from temporalio.api.history.v1 import WorkflowExecutionStartedEventAttributes

from pipeline_runner.core import durations, model
from pipeline_runner.core.model import ActivityCall, ChildCall, Fail, Step, Wait
from pipeline_runner.core.paths import Path


class Outline:
    """The steps of one run that may be skipped, until they are known to be or not."""

    def __init__(self, pipeline: model.Pipeline) -> None:
        """Begin with a run that has done nothing yet."""
        # Timers go by the names of their steps.
        self._order = {step.name: place for place, step in enumerate(pipeline.steps) if step.name}
        self._order |= {step.id: place for place, step in enumerate(pipeline.steps)}
        self._open = {step.id: step for step in pipeline.steps if _tells(step)}
        # What comes after a failed step is not known to be skipped, so these count at a good end only.
        self._last = {step.id: step for step in pipeline.finally_ if _tells(step)}

    def begun(self, trace: str) -> list[Step]:
        """Take what a step has left in the history; return the steps before it that were skipped.

        Args:
            trace: The step's id, or, of a timer, its name.
        """
        if trace not in self._order:
            # Something inside of a step.
            trace = Path.of_id(trace).levels[0].segments[0].name
        seen = next((step for step in self._open.values() if trace in (step.id, step.name)), None)
        place = self._order.get(trace)
        self._open.pop(trace if seen is None else seen.id, None)
        self._last.pop(trace, None)
        return [] if place is None else self._skipped(place)

    def completed(self) -> list[Step]:
        """Take the run's good end; return the further steps that were skipped."""
        return [*self._skipped(len(self._order)), *self._last.values()]

    def _skipped(self, place: int) -> list[Step]:
        found = [step for step in self._open.values() if self._order[step.id] < place]
        for step in found:
            del self._open[step.id]
        return found


def outline_of(started: WorkflowExecutionStartedEventAttributes) -> Outline | None:
    """Return the outline of a run from its first event; None where that has no pipeline to be read.

    That is so where a worker gives the pipeline by its name, where a codec has encrypted it, and
    where the run goes on from one that was not seen.
    """
    payloads = started.input.payloads
    if len(payloads) < 2 or started.continued_execution_run_id:
        return None
    try:
        bundle = model.decode(payloads[1].data)
    except msgspec.DecodeError:
        return None
    return Outline(bundle.pipelines[bundle.root])


def _tells(step: Step) -> bool:
    """Tell whether a step may be skipped, and leaves an event for sure if it is not."""
    if step.when is None:
        return False
    match step.action:
        case ActivityCall() | ChildCall() | Fail():
            return True
        case Wait(duration=str(text)) if "{" not in text and "{" not in (step.name or ""):
            return durations.parse(text) > 0
    return False
