"""The types of all values of a file, as far as they can be known before a run.

Types come from the schemas of inputs and activities, from literals, and from the outputs of children.
They are propagated through steps, loops and expressions (:mod:`evaluation`).
"""

from collections.abc import Iterator

from jinja2 import nodes as jinja

from pipeline_runner.core.scope import OWN_KEYS, Place
from pipeline_runner.language import flow
from pipeline_runner.language.document import Document, Scope, Step, Use
from pipeline_runner.language.types import (
    ANY,
    ERROR,
    NULL,
    STRING,
    List,
    Map,
    Plain,
    Type,
    of_catalogue,
    of_schema,
    of_value,
    options,
    union,
)
from pipeline_runner.language.typing.evaluation import Evaluation, Problem
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, SequenceNode, plain

_OUTCOME = Plain("string", ("completed", "uncertain", "failed"))


class Inference:
    """What is known about the types in one file."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._outputs: dict[int, Type] = {}
        self._uses: dict[int, tuple[Type, list[Problem]]] = {}
        self._undone: dict[int, Type] = {}
        self._singles: dict[int, Type] = {}
        self._complete = False
        self.inputs = Map({name: of_schema(plain(node)) for name, node in document.inputs.items()}, "some")
        # In the order in which they run, so that inferring one step's type never recurses through all steps
        # before it.
        for scope in document.scopes:
            for step in _as_they_end(scope):
                self._outputs[id(step)] = self._output(step)
        self._complete = True

    def of(self, use: Use) -> Type:
        """Return the type of the result of a template or an expression."""
        return self._judged(use)[0]

    def problems(self, use: Use) -> list[Problem]:
        """Return the problems of an expression."""
        return self._judged(use)[1]

    def inserted(self, use: Use) -> list[tuple[jinja.Expr, Type]]:
        """Return the expressions whose values become parts of a string, with their types."""
        return Evaluation(self, use, []).insertions() if use.tree else []

    def output(self, step: Step) -> Type:
        """Return the type of a step's output, if it ran."""
        return self._outputs.get(id(step), ANY)

    def output_of(self, name: str, use: Use) -> Type | None:
        """Return the type of a step's output; None: the template does not see the step."""
        step = self._document.ids.get(name)
        return self.output(step) if step and use.sees(step) else None

    @property
    def pipeline_output(self) -> Type:
        """The type of the pipeline's own output."""
        value = self._document.root.get("output")
        return self.value(value, None) if value else NULL

    def value(self, node: Node, step: Step | None, *, compensates: bool = False) -> Type:
        """Return the type of a value that may contain templates."""
        if isinstance(node, Scalar):
            use = self._document.use_at(node, step, compensates=compensates)
            return self.of(use) if use else of_value(node.value)
        if isinstance(node, SequenceNode):
            return List(union([self.value(item, step, compensates=compensates) for item in node.items]))
        values = {
            name: self.value(entry.value, step, compensates=compensates)
            for name, entry in node.by_name.items()
        }
        return Map(values, "none")

    def input_of(self, step: Step) -> Type:
        """Return the type of a step's input for its activity or child."""
        given = step.node.get("with") or step.node.get("args")
        kind = self.value(given, step) if given else ANY
        activity = self._document.catalogue.get(step.node.text("activity") or "")
        if not isinstance(kind, Map) or activity is None or activity.input is None:
            return ANY if isinstance(kind, Plain) else kind
        # One message about a missing parameter is enough.
        needed = dict.fromkeys(activity.input.get("required", ()), ANY)
        return Map(
            {**kind.keys, **{name: one for name, one in needed.items() if name not in kind.keys}}, "none"
        )

    def step_of(self, use: Use) -> Type:
        """Return the type of ``step`` for a template."""
        if use.step is None or use.place is not Place.COMPENSATION:
            return Map(dict.fromkeys(OWN_KEYS, STRING), "none")
        return self.undone(use.step)

    def undone(self, step: Step) -> Type:
        """Return the type of ``step`` in a step's compensation."""
        if id(step) not in self._undone:
            output = self.output(step)
            if "for_each" in step.node:  # each element is undone separately
                output = union([kind.item if isinstance(kind, List) else ANY for kind in options(output)])
            keys = {"input": self.input_of(step), "output": output, "outcome": _OUTCOME}
            self._undone[id(step)] = Map({**keys, "error": ERROR, "key": STRING}, "none")
        return self._undone[id(step)]

    def element(self, step: Step) -> Type:
        """Return the type of the elements of a step with ``for_each``."""
        node = step.node.get("for_each")
        each = ANY
        if isinstance(node, Scalar):
            use = self._document.use_at(node, step)
            each = self.of(use) if use else ANY
        elif node:
            each = self.value(node, step)
        return union([kind.item if isinstance(kind, List) else ANY for kind in options(each)])

    def single(self, step: Step) -> Type:
        """Return the type of a step's output, or that of a loop, if no error of it was caught."""
        return self._singles.get(id(step), ANY)

    def _judged(self, use: Use) -> tuple[Type, list[Problem]]:
        judged = self._uses.get(id(use))
        if judged is None:
            found: list[Problem] = []
            kind = ANY
            if use.tree is not None:
                kind = Evaluation(self, use, found).result(use.tree)
            judged = kind, found
            # A step's output may be made of "last", which is that output: it is not known at first.
            if self._complete or all(one.path[0] != "last" for one in use.references):
                self._uses[id(use)] = judged
        return judged

    def _output(self, step: Step) -> Type:
        kind = self._own_output(step)
        if "for_each" in step.node:
            kind = List(union([kind, NULL]) if "when" in step.node else kind)
        self._singles[id(step)] = kind
        caught = [
            self.value(value, step) if (value := handler.get("output")) else NULL
            for handler, scope in flow.handlers(step)
            if not flow.ends_in_failure(scope)
        ]
        return union([kind, *caught])

    def _own_output(self, step: Step) -> Type:
        node = step.node
        match step.kind:
            case "activity":
                activity = self._document.catalogue.get(node.text("activity") or "")
                return of_catalogue(activity.output) if activity else ANY
            case "pipeline":
                child = self._document.children.get(node.text("pipeline") or "")
                waits = node.get("wait_for_completion")
                if isinstance(waits, Scalar) and waits.value is False:
                    return NULL
                return child.output_type if child else ANY
            case "set":
                values = node.get("set")
                return self.value(values, step) if values else ANY
            case "wait":
                return _payload(node.mapping("wait"))
            case "approval":
                return self._approval(step, node.mapping("approval"))
        return self._scopes_output(step)

    def _scopes_output(self, step: Step) -> Type:
        match step.kind:
            case "steps" if output := step.node.get("output"):
                return self.value(output, step)
            case "steps":
                return self._last(step.body("block")[0])
            case "switch":
                ends = [self._last(scope) for scope in step.body("arm") if not flow.ends_in_failure(scope)]
                return union(ends if flow.has_default(step) else [*ends, NULL])
            case "parallel":
                return Map({scope.name: self._last(scope) for scope in step.body("branch")}, "none")
        return ANY

    def _approval(self, step: Step, node: MappingNode | None) -> Type:
        payload = _payload(node, ANY)
        approvals = node.get("approvals") if node else None
        several = approvals is not None and plain(approvals) != 1
        by: Type = List(STRING) if several else STRING
        if node and node.text("on_timeout") == "approve":  # by nobody
            by = union([by, NULL])
            default = node.get("payload")
            payload = union([payload, self.value(default, step) if default else NULL])
        return Map({"by": by, "at": STRING, "payload": payload}, "none")

    def _last(self, scope: Scope) -> Type:
        return self.output(scope.steps[-1]) if scope.steps else ANY


def _payload(node: MappingNode | None, without: Type = NULL) -> Type:
    """Return the type of the payload of an event or an approval. ``without``: the type without a schema."""
    if node is None:
        return without
    schema = node.get("schema")
    return of_schema(plain(schema)) if schema else ANY if "event" in node else without


def _as_they_end(scope: Scope) -> Iterator[Step]:
    for step in scope.steps:
        for inner in step.inner:
            yield from _as_they_end(inner)
        yield step
