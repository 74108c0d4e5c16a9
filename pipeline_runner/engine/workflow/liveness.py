"""Determines which outputs of steps are still read.

A run keeps only these, or long runs would outgrow their history.

Computed from the pipeline alone, once for each bundle in a process.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import msgspec

from pipeline_runner.core.expressions.parsing import ExpressionError, references, strings_in
from pipeline_runner.core.model import Block, Compensation, Parallel, Pipeline, Step, Switch, steps_of, walk
from pipeline_runner.core.state import Continuation, Frame, StepResult

_Reference = tuple[str, ...]
_ALL = ("steps",)
"""A use of ``steps`` as a whole, or with a computed id, may read any step."""


class Liveness:
    """What the templates of a pipeline read of the results of its steps."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Prepare. Nothing is computed yet."""
        self._pipeline = pipeline

    def is_read(self, step: Step) -> bool:
        """Tell whether anything in the pipeline may read the output of a step."""
        return self._read is None or step.id in self._read

    def prune(self, state: Continuation) -> None:
        """Drop what is no longer read from the state of a run that continues as new.

        For the pipeline's own list, only later steps count. Inner lists hold little, which is kept if
        anything reads it. Statuses and errors stay.
        """
        if self._read is None:
            return
        assert state.frame is not None
        position = state.frame.position if state.phase == "steps" else len(self._pipeline.steps)
        later = self._read_after(position)
        steps = state.log.steps
        for step_id, result in steps.items():
            if later is not None and step_id not in later:
                steps[step_id] = _without_output(result)
        self._prune_inside(state.frame, self._read)

    def _prune_inside(self, frame: Frame, read: frozenset[str]) -> None:
        for inside in frame.open.values():
            for step_id, result in inside.results.items():
                if step_id not in read:
                    inside.results[step_id] = _without_output(result)
            self._prune_inside(inside, read)

    @cached_property
    def _read(self) -> frozenset[str] | None:
        """The ids of all steps whose output is read at any time; None: any may be."""
        pipeline = self._pipeline
        named = _named([*heads(pipeline.output), *_heads_in((*pipeline.steps, *pipeline.finally_))])
        if named is None:
            return None
        before: set[str] = set()
        read = set(named)
        while read != before:
            before = set(read)
            for step in steps_of(pipeline):
                if step.id in read or step.until is not None or _undo_reads_output(step):
                    read.update(last.id for last in _last_steps(step))
        return frozenset(read)

    def _read_after(self, position: int) -> frozenset[str] | None:
        """Return the ids of steps of the pipeline's own list that are read from a position on."""
        pipeline = self._pipeline
        undone = (step.compensate for step in walk(pipeline.steps[:position]))
        undos = [head for undo in undone if isinstance(undo, Compensation) for head in heads(undo)]
        later = _heads_in((*pipeline.steps[position:], *pipeline.finally_))
        return _named([*heads(pipeline.output), *undos, *later])


def heads(value: Any) -> Iterator[_Reference]:
    """Yield the first three names of every reference in the templates of a part of a pipeline."""
    for text in strings_in(msgspec.to_builtins(value)):
        yield from _heads(text)


def _heads_in(steps: Iterable[Step]) -> Iterator[_Reference]:
    steps = tuple(steps)
    yield from heads(steps)
    for step in walk(steps):
        for expression in _expressions(step):
            yield from _heads(expression, bare=True)


def _expressions(step: Step) -> Iterator[str]:
    """Yield the bare expressions of a step."""
    if step.when is not None:
        yield step.when
    if isinstance(step.for_each, str):
        yield step.for_each
    if step.until is not None:
        yield step.until.condition
    if isinstance(step.action, Switch):
        yield from (arm.when for arm in step.action.arms if arm.when is not None)


def _heads(text: str, *, bare: bool = False) -> list[_Reference]:
    try:
        return [tuple(reference.path[:3]) for reference in references(text, bare=bare)]
    except ExpressionError:
        # The checker refuses it; at run time it is the step's own error.
        return []


def _named(found: Iterable[_Reference]) -> frozenset[str] | None:
    """Return the ids whose outputs the references read; None: any may be."""
    found = [path for path in found if path[0] == "steps"]
    if _ALL in found:
        return None
    return frozenset(path[1] for path in found if len(path) == 2 or path[2] == "output")


def _undo_reads_output(step: Step) -> bool:
    undo = step.compensate
    return isinstance(undo, Compensation) and any(
        path[0] == "step" and path[1:2] in ((), ("output",)) for path in heads(undo)
    )


def _last_steps(step: Step) -> Iterator[Step]:
    """Yield the steps whose outputs are the output of a step that contains them."""
    match step.action:
        case Block(steps=steps, output=msgspec.UNSET):
            yield steps[-1]
        case Parallel(branches=branches):
            yield from (branch.steps[-1] for branch in branches)
        case Switch(arms=arms):
            yield from (arm.steps[-1] for arm in arms)


def _without_output(result: StepResult) -> StepResult:
    return StepResult(status=result.status, error=result.error)
