"""What would be undone if a step failed, from the file alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from pipeline_runner.core.model import (
    Block,
    Bundle,
    ChildCall,
    Compensation,
    Parallel,
    Pipeline,
    Step,
    Switch,
)
from pipeline_runner.core.paths import ROOT, Path


class Undone(msgspec.Struct, frozen=True, kw_only=True):
    """One step that would be undone."""

    step: str
    """Its path, without the numbers of items and attempts."""
    by: str
    """The activity or the pipeline that undoes it."""
    condition: str | None = None
    """When it is undone, if it depends on something that a file does not tell."""


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen if a step failed."""

    step: str
    """The path of the step."""
    undone: tuple[Undone, ...]
    """In the order of the undo."""
    caught_by: str | None = None
    """The path of the step whose handler takes any error of it; None: the run fails."""
    may_be_caught_by: tuple[str, ...] = ()
    """Paths of steps whose handlers take some errors of it: then only what is inside them is undone."""
    pivot: str | None = None
    """The point of no return before it: that step and those before it are not undone."""
    keeps: bool = False
    """The pipeline says ``on_failure: keep``: nothing is undone."""


def previews(bundle: Bundle) -> Iterator[Preview]:
    """Yield what would happen for every step of a pipeline, in the order of the file."""
    pipeline = bundle.pipelines[bundle.root]
    for path, around in _steps(pipeline.steps, None, ()):
        yield _preview(bundle, pipeline, path, around)


def _steps(
    steps: Sequence[Step], above: Path | None, around: tuple[tuple[Path, Step], ...]
) -> Iterator[tuple[Path, tuple[tuple[Path, Step], ...]]]:
    """Yield the path of every step, with the steps around it; outermost first, itself last."""
    for step in steps:
        path = _inside(above, step)
        chain = (*around, (path, step))
        yield path, chain
        for scope, inner in _scopes(step, path):
            yield from _steps(inner, scope, chain)
        for number, handler in enumerate(step.catch):
            # An error in a handler is not one that its own step catches.
            yield from _steps(handler.steps, path.handler(number), (*around, (path, _without_handlers(step))))


def _without_handlers(step: Step) -> Step:
    """Return a step without its handlers."""
    return msgspec.structs.replace(step, catch=())


def _inside(above: Path | None, step: Step) -> Path:
    return Path.of(step.id) if above is None else above.inner(step.id)


def _scopes(step: Step, path: Path) -> Iterator[tuple[Path, Sequence[Step]]]:
    match step.action:
        case Block(steps=steps):
            yield path, steps
        case Switch(arms=arms):
            yield from ((path.arm(number), arm.steps) for number, arm in enumerate(arms))
        case Parallel(branches=branches):
            yield from ((path.inner(branch.name), branch.steps) for branch in branches)


def _preview(
    bundle: Bundle, pipeline: Pipeline, path: Path, around: tuple[tuple[Path, Step], ...]
) -> Preview:
    catching = [(where, step) for where, step in reversed(around) if step.catch]
    takes_all = [any(handler.types is None for handler in step.catch) for _, step in catching]
    certain = takes_all.index(True) if True in takes_all else None
    caught_by = None if certain is None else str(catching[certain][0])
    found = _Collecting(bundle, path).until(pipeline.steps)
    if caught_by is not None:
        inside = catching[certain or 0][0]
        entries = [one for one in found.entries if inside.holds(one.path)]
    else:
        entries = found.entries
    keeps = caught_by is None and pipeline.on_failure == "keep"
    return Preview(
        step=str(path),
        undone=() if keeps else tuple(one.undone for one in reversed(entries)),
        caught_by=caught_by,
        may_be_caught_by=tuple(str(where) for where, _ in catching[:certain]),
        pivot=found.pivot,
        keeps=keeps,
    )


@dataclass(frozen=True, kw_only=True)
class _Entry:
    path: Path
    undone: Undone


class _Collecting:
    """Collects the undo log that a run has when one of its steps fails."""

    def __init__(self, bundle: Bundle, failing: Path) -> None:
        self._bundle = bundle
        self._failing = failing
        self.entries: list[_Entry] = []
        self.pivot: str | None = None

    def until(self, steps: Sequence[Step]) -> "_Collecting":
        """Collect from the pipeline's own list."""
        self._list(steps, None, ROOT, None)
        return self

    def _list(self, steps: Sequence[Step], above: Path | None, child: Path, condition: str | None) -> bool:
        """Collect from a list of steps; return whether the failing step is in it."""
        for step in steps:
            path = _inside(above, step)
            full = child.child(path) if child != ROOT else path
            if self._failing == full:
                self._add(step, full, _IF_UNCERTAIN, failing=True)
                return True
            if full.holds(self._failing):
                return self._into(step, path, child, condition)
            self._completed(step, path, child, condition)
            if step.pivot and above is None and child == ROOT:
                self.entries.clear()
                self.pivot = step.id
        return False

    def _into(self, step: Step, path: Path, child: Path, condition: str | None) -> bool:
        """Collect from a step that the failing one is inside of."""
        inside = _both(condition, _ITEMS if step.for_each is not None or step.until is not None else None)
        scopes = [*_scopes(step, path)]
        holding = [one for one in scopes if one[0].holds(self._failing) or one[0] == path]
        if not isinstance(step.action, Switch):
            for scope, steps in scopes:
                if (scope, steps) not in holding:
                    self._list(steps, scope, child, _both(condition, _BESIDE))
        for scope, steps in holding:
            if self._list(steps, scope, child, inside):
                return True
        for number, handler in enumerate(step.catch):
            if path.handler(number).holds(self._failing):
                # What it has caught is undone already.
                self.entries = [one for one in self.entries if not path.holds(one.path)]
                return self._list(handler.steps, path.handler(number), child, condition)
        return True

    def _completed(self, step: Step, path: Path, child: Path, condition: str | None) -> None:
        """Collect what a step leaves in the log that has completed."""
        full = child.child(path) if child != ROOT else path
        condition = _both(condition, _WHEN if step.when is not None else None)
        if step.for_each is not None:
            condition = _both(condition, _EACH)
        elif step.until is not None:
            condition = _both(condition, _EVERY)
        if step.compensate is not None:
            self._add(step, full, condition)
        elif isinstance(step.action, ChildCall):
            if step.action.parent_close_policy != "abandon":
                self._list(self._bundle.pipelines[step.action.pipeline].steps, None, full, condition)
        else:
            for scope, steps in _scopes(step, path):
                chosen = _ARM if isinstance(step.action, Switch) else None
                self._list(steps, scope, child, _both(condition, chosen))

    def _add(self, step: Step, path: Path, condition: str | None, *, failing: bool = False) -> None:
        how = step.compensate
        if not isinstance(how, Compensation) or (failing and how.after == "completed"):
            return
        if failing and (how.after == "started" or isinstance(step.action, Block | Switch | Parallel)):
            if how.after != "started":
                return  # it is undone from the inside
            condition = None
        call = how.action
        by = self._bundle.pipelines[call.pipeline].name if isinstance(call, ChildCall) else call.name
        self.entries.append(_Entry(path=path, undone=Undone(step=str(path), by=by, condition=condition)))


_IF_UNCERTAIN = "if it may have taken effect"
_BESIDE = "as far as its branch has come"
_ITEMS = "in this and the other items or repetitions"
_EACH = "for each item"
_EVERY = "for each repetition"
_WHEN = "unless it was skipped"
_ARM = "if its arm has run"


def _both(one: str | None, other: str | None) -> str | None:
    return ", ".join(part for part in (one, other) if part) or None
