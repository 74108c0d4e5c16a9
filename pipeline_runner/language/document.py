"""A parsed pipeline file as the checks see it: its steps, names, and every template in it.

Everything here puts up with a file that is full of mistakes: what is not of the right
shape is left out, because the structure check has reported it.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pipeline_runner.activities.catalogue import Catalogue
from pipeline_runner.activities.catalogue import Entry as Activity
from pipeline_runner.core import expressions
from pipeline_runner.core.scope import Place
from pipeline_runner.language.containers import Field
from pipeline_runner.language.fields import COMPENSATION, PIPELINE, STEP
from pipeline_runner.language.nodes import Mapping, Node, Scalar, Sequence, Source, Span
from pipeline_runner.language.shapes import Mode


class Step:
    """A step of ``steps`` or ``finally``."""

    def __init__(self, node: Mapping, place: Place, index: int) -> None:
        self.node = node
        self.place = place
        """STEP or FINALLY."""
        self.index = index
        """Among all the steps of the file, those of ``finally`` last."""
        self.id = node.text("id") or ""
        kinds = [kind for kind in STEP.kinds if kind in node]
        self.kind = kinds[0] if len(kinds) == 1 else None
        """The key that says what it does, None if that is not clear."""

    @property
    def compensation(self) -> Mapping | None:
        """The mapping that says how the step is undone."""
        return self.node.mapping("compensate")


class Use:
    """A text with templates in it, or a bare expression, and where it stands."""

    def __init__(
        self, node: Scalar, mode: Mode, place: Place, *, step: Step | None, takes_secrets: bool = False
    ) -> None:
        self.node = node
        self.place = place
        self.step = step
        """The step it belongs to, None at the top level."""
        self.takes_secrets = takes_secrets
        self.bare = mode is Mode.EXPRESSION
        self.text = str(node.value) if isinstance(node.value, str) else node.text.lower()
        self.references: list[expressions.Reference] = []
        self.error: expressions.ExpressionError | None = None
        try:
            self.references = expressions.references(self.text, bare=self.bare)
        except expressions.ExpressionError as error:
            self.error = error


class Call:
    """An activity or a child pipeline that a step, or its compensation, calls."""

    def __init__(self, node: Mapping, step: Step, kind: str, *, compensates: bool) -> None:
        self.node = node
        """The mapping with ``activity`` or ``pipeline``, and ``with``."""
        self.step = step
        self.kind = kind
        self.compensates = compensates

    @property
    def name(self) -> str | None:
        """The activity's name, or the child's path."""
        return self.node.text(self.kind)

    @property
    def span(self) -> Span:
        """Where the name stands."""
        value = self.node.get(self.kind)
        return value.span if value else self.node.span


class Document:
    """A pipeline file whose YAML is sound."""

    def __init__(
        self, source: Source, root: Mapping, path: Path, catalogue: Catalogue, *, complete: bool
    ) -> None:
        self.source = source
        self.root = root
        self.path = path
        self.catalogue = catalogue
        self.complete = complete
        """Whether the catalogue has all that it is meant to have: its own file has no errors."""

    @cached_property
    def steps(self) -> list[Step]:
        """The steps, then those of ``finally``."""
        own = [(node, Place.STEP) for node in self.root.items("steps")]
        last = [(node, Place.FINALLY) for node in self.root.items("finally")]
        mappings = [(node, place) for node, place in own + last if isinstance(node, Mapping)]
        return [Step(node, place, index) for index, (node, place) in enumerate(mappings)]

    @cached_property
    def ids(self) -> list[str]:
        """The ids of :attr:`steps`, empty where a step has none."""
        return [step.id for step in self.steps]

    @cached_property
    def step_count(self) -> int:
        """How many of :attr:`steps` are not in ``finally``."""
        return sum(step.place is Place.STEP for step in self.steps)

    @cached_property
    def inputs(self) -> dict[str, Node]:
        """The declared inputs with their schemas."""
        return self._names("inputs")

    @cached_property
    def policies(self) -> dict[str, Node]:
        """The policies by name."""
        return self._names("policies")

    @cached_property
    def secrets(self) -> frozenset[str]:
        """The declared names of secrets."""
        return frozenset(node.text for node in self.root.items("secrets") if isinstance(node, Scalar))

    @cached_property
    def calls(self) -> list[Call]:
        """Every call, in the order of the file's steps."""
        calls = []
        for step in self.steps:
            if step.kind in ("activity", "pipeline"):
                calls.append(Call(step.node, step, step.kind, compensates=False))
            if undo := step.compensation:
                kinds = [kind for kind in COMPENSATION.kinds if kind in undo]
                calls += [Call(undo, step, kind, compensates=True) for kind in kinds if len(kinds) == 1]
        return calls

    @cached_property
    def uses(self) -> list[Use]:
        """Every template and expression of the file."""
        return [*self._top_level_uses(), *(use for step in self.steps for use in _step_uses(step))]

    def activity(self, call: Call) -> Activity | None:
        """Return what is known of the activity that a call names."""
        return self.catalogue.get(call.name) if call.kind == "activity" and call.name else None

    def _names(self, key: str) -> dict[str, Node]:
        mapping = self.root.mapping(key)
        return {entry.name: entry.value for entry in mapping} if mapping else {}

    def _top_level_uses(self) -> Iterator[Use]:
        for key, place in (("output", Place.OUTPUT), ("workflow_id", Place.WORKFLOW_ID)):
            if value := self.root.get(key):
                yield from _uses(PIPELINE.fields[key], value, place, None)


def every_id(node: Node) -> Iterator[Scalar]:
    """Yield the ids of all steps below a list of steps, those in blocks and branches included."""
    for step in node.items if isinstance(node, Sequence) else ():
        if not isinstance(step, Mapping):
            continue
        if isinstance(identifier := step.get("id"), Scalar):
            yield identifier
        branches = step.mapping("parallel")
        handlers = [handler for handler in step.items("catch") if isinstance(handler, Mapping)]
        lists = [step.get("steps"), *(entry.value for entry in branches or ())]
        for inner in [*lists, *(handler.get("steps") for handler in handlers)]:
            if inner:
                yield from every_id(inner)


def _step_uses(step: Step) -> Iterator[Use]:
    fields = STEP.fields(step.node)
    for entry in step.node:
        if entry.name in fields and entry.name not in ("compensate", "catch"):
            secret = step.kind == "activity" and entry.name in ("with", "args")
            yield from _uses(fields[entry.name], entry.value, step.place, step, takes_secrets=secret)
    if undo := step.compensation:
        fields = COMPENSATION.fields(undo)
        for entry in undo:
            if entry.name in fields:
                secret = "activity" in undo and entry.name in ("with", "args")
                place = Place.COMPENSATION
                yield from _uses(fields[entry.name], entry.value, place, step, takes_secrets=secret)


def _uses(
    field: Field, value: Node, place: Place, step: Step | None, *, takes_secrets: bool = False
) -> Iterator[Use]:
    for scalar, mode in field.shape.templates(value):
        if mode is Mode.EXPRESSION or expressions.contains_template(scalar.text):
            yield Use(scalar, mode, place, step=step, takes_secrets=takes_secrets)
