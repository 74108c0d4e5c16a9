"""A parsed pipeline file as the checks see it: its scopes and steps, its names, and every template.

Everything here tolerates errors in the file: parts with a wrong shape are skipped, because the
structure check has reported them.
"""

import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipeline_runner.activities.catalogue.entries import Catalogue
from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.core.expressions import parsing
from pipeline_runner.core.expressions.fast_path import Reference
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.scope import Place, roots
from pipeline_runner.core.suggest import meant
from pipeline_runner.language.table.collections import Field
from pipeline_runner.language.table.fields import ARM, CATCH, COMPENSATION, PIPELINE, STEP
from pipeline_runner.language.table.shapes import Mode
from pipeline_runner.language.types import ANY, Type
from pipeline_runner.language.yaml.nodes import (
    Entry,
    MappingNode,
    Node,
    Scalar,
    SequenceNode,
    Source,
    Span,
    made,
)
from pipeline_runner.language.yaml.positions import part_of

if TYPE_CHECKING:
    from jinja2 import nodes as jinja


_LOOP_NAMES = {"for_each": ("item", "index"), "until": ("last", "index")}
_BRACES = len("{{ ")
"""The difference between the offsets in the tree of a bare expression and those in its string."""

_TOKEN = re.compile(r"\w+|[^\w\s]+")

ScopeKind = Literal["steps", "finally", "block", "branch", "arm", "catch"]


class Scope:
    """A list of steps that run one after the other: a pipeline's, a block's, a branch's."""

    def __init__(self, kind: ScopeKind, owner: "Step | None" = None, name: str = "") -> None:
        self.kind = kind
        self.owner = owner
        """The step that it is a part of; None for a pipeline's own ``steps`` and ``finally``."""
        self.name = name
        """Of a branch; of an arm its number."""
        self.after: Scope | None = None
        """The scope that runs before it: ``steps`` before ``finally``."""
        self.steps: list[Step] = []

    def around(self) -> "tuple[Scope | None, int]":
        """Return the enclosing scope, whose steps are visible too, and how many of them run earlier."""
        if self.owner:
            return self.owner.scope, self.owner.index
        return self.after, len(self.after.steps) if self.after else 0


class Step:
    """A step, anywhere in the file."""

    def __init__(self, node: MappingNode, scope: Scope, place: Place) -> None:
        self.node = node
        self.scope = scope
        self.index = len(scope.steps)
        """The index in its scope."""
        self.place = place
        """STEP, FINALLY or CATCH."""
        self.id = node.text("id") or ""
        self.kind = STEP.kind(node)
        """The key that decides what it does; None: that is not clear."""
        self.in_loop: bool = not _LOOP_NAMES.keys().isdisjoint(node.by_name) or (
            scope.owner is not None and scope.owner.in_loop
        )
        """Whether it, or a step around it, has ``for_each`` or ``until``."""
        self.in_finally: bool = scope.owner.in_finally if scope.owner else scope.kind == "finally"
        """Whether it is in ``finally``, at any depth."""
        self.inner: list[Scope] = []
        """The scopes of a block, of branches or arms, and of handlers."""
        self.compensation = node.mapping("compensate")
        """The mapping that declares how the step is undone."""

    @property
    def around(self) -> Iterator["Step"]:
        """Yield the steps around this one, innermost first."""
        step = self.scope.owner
        while step:
            yield step
            step = step.scope.owner

    def body(self, kind: ScopeKind) -> list[Scope]:
        """Return the scopes of one kind."""
        return [scope for scope in self.inner if scope.kind == kind]


class Use:
    """A string with templates, or a bare expression, and its place."""

    __slots__ = (
        "_before", "_scope", "bare", "errors", "is_lone", "key", "node", "place", "references", "step",
        "takes_secrets", "text", "tree",
    )  # fmt: skip

    def __init__(
        self,
        node: Scalar,
        mode: Mode,
        *,
        place: Place,
        key: str,
        step: Step | None,
        scope: Scope,
        before: int,
        takes_secrets: bool = False,
    ) -> None:
        self.node = node
        self.place = place
        self.key = key
        """Of the step, its compensation, or the pipeline: ``with``, ``when``, …; of arms ``switch``."""
        self.step = step
        """The step that it belongs to; None at the top level."""
        self.takes_secrets = takes_secrets
        self.bare = mode is Mode.EXPRESSION
        self.text = str(node.value) if isinstance(node.value, str) else node.text.lower()
        self._scope = scope
        self._before = before
        self.tree: jinja.Template | None
        """None if there are errors."""
        self.is_lone: bool
        """Whether it is one expression, whose value keeps its type."""
        self.references: list[Reference]
        self.errors: list[ExpressionError]
        self.tree, self.is_lone, self.references, self.errors = _parsed(self.text, self.bare)

    @property
    def scopes(self) -> list[Scope]:
        """Its scope, and those around it, innermost first."""
        found = []
        scope: Scope | None = self._scope
        while scope:
            found.append(scope)
            scope, _ = scope.around()
        return found

    @property
    def visible(self) -> Iterator[Step]:
        """Yield the visible steps: the earlier ones in its scope and in the scopes around it."""
        scope: Scope | None = self._scope
        before = self._before
        while scope:
            yield from scope.steps[:before]
            scope, before = scope.around()

    def sees(self, step: Step) -> bool:
        """Tell whether a step is visible."""
        scope: Scope | None = self._scope
        before = self._before
        while scope:
            if step.scope is scope:
                return step.index < before
            scope, before = scope.around()
        return False

    @property
    def roots(self) -> frozenset[str]:
        """The names that exist here."""
        known = roots(self.place, in_input=self.step is not None and self.key in ("with", "args"))
        if self.step is None or not self.step.in_loop:
            return known
        names = [_LOOP_NAMES[kind] for step in self.loops for kind in _LOOP_NAMES if kind in step.node]
        return known.union(*names)

    @property
    def loops(self) -> list[Step]:
        """The steps whose elements are ``item`` here, or whose repetitions have ``last``, innermost first."""
        if self.step is None or not self.step.in_loop:
            return []
        # An element is chosen before the step runs; a handler belongs to the whole loop.
        own = self.key != "for_each" and not (self._scope.kind == "catch" and self._scope.owner is self.step)
        found = [self.step] if own else []
        scope = self.step.scope
        while scope.owner:
            found += [scope.owner] if scope.kind != "catch" else []
            scope = scope.owner.scope
        return [step for step in found if not _LOOP_NAMES.keys().isdisjoint(step.node.by_name)]

    def span(self, source: Source, reference: Reference, depth: int = 0) -> Span:
        """Return the position of the key at a depth of a reference's path; 0: its name."""
        start = self._offset(reference.offset)
        for before, key in zip(reference.path, reference.path[1 : depth + 1], strict=False):
            start = max(self.text.find(key, start + len(before)), start)
        return part_of(source, self.node, start, start + len(reference.path[depth]))

    def at(self, source: Source, offset: int, word: str = "") -> Span:
        """Return the position of a word: the first at or after an offset in the tree."""
        start = self._offset(offset)
        if word and (found := self.text.find(word, start)) >= 0:
            return part_of(source, self.node, found, found + len(word))
        token = _TOKEN.match(self.text, start)
        return part_of(source, self.node, start, token.end() if token else start + 1)

    def _offset(self, offset: int) -> int:
        return min(max(0, offset - _BRACES if self.bare else offset), max(0, len(self.text) - 1))


class DeclaredUse(Use):
    """A template in an undo of the catalogue. It is not in the file: its step is reported instead."""

    __slots__ = ()

    def span(self, source: Source, reference: Reference, depth: int = 0) -> Span:
        """Return the position of the step's activity."""
        return self.node.span

    def at(self, source: Source, offset: int, word: str = "") -> Span:
        """Return the position of the step's activity."""
        return self.node.span


class Call:
    """An activity or a child pipeline that a step, or its compensation, calls."""

    def __init__(
        self,
        node: MappingNode,
        step: Step,
        kind: str,
        catalogue: Catalogue,
        *,
        compensates: bool,
        declared: Undo | None = None,
    ) -> None:
        self.node = node
        """The mapping with ``activity`` or ``pipeline``, and ``with``."""
        self.given = node.mapping("with")
        """The input by name."""
        self.step = step
        self.kind = kind
        self.name = node.text(kind)
        """The activity's name, or the child's path."""
        self.activity = catalogue.get(self.name) if kind == "activity" and self.name else None
        """The catalogue's entry of the activity."""
        self.compensates = compensates
        self.declared = declared
        """The undo of the catalogue that it belongs to; None: the step declares it itself."""
        self.parts: list[MappingNode] | None = None
        """The mappings that may set its limits, once they have been looked up (:mod:`policies`)."""
        self.said: dict[str, dict[str, tuple[Node, int]]] = {}
        """The settings in these mappings, by group, once they have been looked up."""

    @property
    def span(self) -> Span:
        """The position of the name."""
        value = self.node.get(self.kind)
        return value.span if value else self.node.span

    @property
    def input_span(self) -> Span:
        """The position of the input: the key ``with``, or else the name."""
        entry = self.node.entry("with")
        return entry.key.span if entry else self.span


class Document:
    """A pipeline file whose YAML is valid."""

    def __init__(
        self, source: Source, root: MappingNode, path: Path, catalogue: Catalogue, *, complete: bool
    ) -> None:
        self.source = source
        self.root = root
        self.path = path
        self.catalogue = catalogue
        self.complete = complete
        """Whether the catalogue is complete: its own file has no errors."""
        self.children: dict[str, Document] = {}
        """The children that could be read, by their paths in the file."""
        self.output_type: Type = ANY
        """The type of the pipeline's own output, once the file is checked."""

    @cached_property
    def scopes(self) -> tuple[Scope, Scope]:
        """The scopes of ``steps`` and of ``finally``."""
        first, last = Scope("steps"), Scope("finally")
        last.after = first
        _fill(first, self.root.get("steps"), Place.STEP)
        _fill(last, self.root.get("finally"), Place.FINALLY)
        return first, last

    @cached_property
    def steps(self) -> list[Step]:
        """Every step of the file, in its order; those of ``finally`` last."""
        return [step for scope in self.scopes for step in _below(scope)]

    @cached_property
    def ids(self) -> dict[str, Step]:
        """The steps by id. Of several steps with the same id, the first one."""
        return {step.id: step for step in reversed(self.steps) if step.id}

    @cached_property
    def inputs(self) -> dict[str, Node]:
        """The declared inputs with their schemas."""
        return self._names("inputs")

    def needed(self, given: MappingNode | None) -> list[str]:
        """Return the inputs without a default that are neither given nor meant by a misspelled name."""
        names = given.by_name if given else {}
        missing = [
            name
            for name, schema in self.inputs.items()
            if not (isinstance(schema, MappingNode) and "default" in schema) and name not in names
        ]
        misspelt = meant((name for name in names if name not in self.inputs), self.inputs) if missing else ()
        return [name for name in missing if name not in misspelt]

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
                calls.append(Call(step.node, step, step.kind, self.catalogue, compensates=False))
            if undo := step.compensation:
                kinds = [kind for kind in COMPENSATION.kinds if kind in undo]
                if len(kinds) == 1:
                    calls.append(Call(undo, step, kinds[0], self.catalogue, compensates=True))
        return calls

    @cached_property
    def declared(self) -> list[Call]:
        """The undos that the catalogue declares for steps that declare none, in the steps' order."""
        found = []
        for step in self.steps:
            if undo := declared_undo(step, self.catalogue):
                name = step.node.get("activity")
                node = made(_of_undo(undo, step, self.catalogue), name.span if name else step.node.span)
                if isinstance(node, MappingNode):
                    found.append(
                        Call(node, step, "activity", self.catalogue, compensates=True, declared=undo)
                    )
        return found

    @cached_property
    def declared_uses(self) -> list[Use]:
        """The templates of the undos that the catalogue declares."""
        return [use for call in self.declared for use in _call_uses(call.step, call.node, DeclaredUse)]

    @cached_property
    def uses(self) -> list[Use]:
        """Every template and expression of the file."""
        return [*self._top_level_uses(), *chain.from_iterable(map(_step_uses, self.steps))]

    @cached_property
    def _use_at(self) -> dict[tuple[int, int, bool], Use]:
        return {
            (id(use.node), id(use.step), use.place is Place.COMPENSATION): use
            for use in (*self.uses, *self.declared_uses)
        }

    def use_at(self, node: Scalar, step: Step | None, *, compensates: bool = False) -> Use | None:
        """Return the template at a node of a step, or of its compensation; None: it is not a template."""
        return self._use_at.get((id(node), id(step), compensates))

    def forget(self) -> None:
        """Drop cached results, which would fill the memory when many files are checked.

        They are computed again if needed.
        """
        for name in ("uses", "_use_at", "calls", "declared", "declared_uses"):
            self.__dict__.pop(name, None)

    def _names(self, key: str) -> dict[str, Node]:
        mapping = self.root.mapping(key)
        return {entry.name: entry.value for entry in mapping} if mapping else {}

    def _top_level_uses(self) -> Iterator[Use]:
        scope = self.scopes[0]
        for key, place in (
            ("output", Place.OUTPUT), ("workflow_id", Place.START), ("search_attributes", Place.START),
        ):  # fmt: skip
            if value := self.root.get(key):
                before = len(scope.steps) if place is Place.OUTPUT else 0
                for node, mode in _texts(PIPELINE.fields[key], value):
                    yield Use(node, mode, place=place, key=key, step=None, scope=scope, before=before)


_Parsed = tuple["jinja.Template | None", bool, list[Reference], list[ExpressionError]]


@lru_cache(maxsize=1000)
def _parsed(text: str, bare: bool) -> _Parsed:
    """Parse a string, with a cache: files repeat strings, and nobody here changes a tree."""
    try:
        parsed = parsing.parse(text, bare=bare)
    except ExpressionError as error:
        return None, False, [], [error.with_traceback(None)]
    errors = parsed.problems
    if bare and not errors and not parsed.lone:
        errors = [parsing.not_one(text)]
    return (None, False, [], errors) if errors else (parsed.tree, parsed.lone, parsed.references, [])


def _fill(scope: Scope, value: Node | None, place: Place) -> None:
    """Create the steps of a scope, and the scopes in them."""
    for node in value.items if isinstance(value, SequenceNode) else ():
        if not isinstance(node, MappingNode):
            continue
        step = Step(node, scope, place)
        scope.steps.append(step)
        if "steps" in node:
            _add(step, Scope("block", step), node.get("steps"), place)
        for entry in node.mapping("parallel") or ():
            _add(step, Scope("branch", step, entry.name), entry.value, place)
        for number, arm in enumerate(node.items("switch")):
            if isinstance(arm, MappingNode):
                _add(step, Scope("arm", step, str(number)), arm.get("steps"), place)
        for handler in node.items("catch"):
            if isinstance(handler, MappingNode):
                _add(step, Scope("catch", step), handler.get("steps"), Place.CATCH)


def _add(step: Step, scope: Scope, value: Node | None, place: Place) -> None:
    step.inner.append(scope)
    _fill(scope, value, place)


def _below(scope: Scope) -> Iterator[Step]:
    for step in scope.steps:
        yield step
        for inner in step.inner:
            yield from _below(inner)


def _step_uses(step: Step) -> list[Use]:
    found: list[Use] = []
    fields = STEP.templated(step.node)
    for name, entry in step.node.by_name.items():
        if name not in fields or name in ("compensate", "catch", "switch"):
            continue
        secret = step.kind == "activity" and name in ("with", "args")
        inside = next(iter(step.body("block")), None) if name == "output" else None
        found += _uses(step, fields[name], entry, step.place, inside, takes_secrets=secret)
    handlers = [handler for handler in step.node.items("catch") if isinstance(handler, MappingNode)]
    for handler, scope in zip(handlers, step.body("catch"), strict=True):
        if output := handler.entry("output"):
            found += _uses(step, CATCH.fields["output"], output, Place.CATCH, scope)
    for arm in step.node.items("switch"):
        if isinstance(arm, MappingNode) and (when := arm.entry("when")):
            found += _uses(step, ARM.fields["when"], when, step.place, key="switch")
    if undo := step.compensation:
        found += _call_uses(step, undo, Use)
    return found


def _call_uses(step: Step, undo: MappingNode, kind: type[Use]) -> Iterator[Use]:
    """Yield the templates in a step's undo."""
    fields = COMPENSATION.templated(undo)
    for name, entry in undo.by_name.items():
        if name in fields:
            secret = "activity" in undo and name in ("with", "args")
            yield from _uses(step, fields[name], entry, Place.COMPENSATION, takes_secrets=secret, kind=kind)


def declared_undo(step: Step, catalogue: Catalogue) -> Undo | None:
    """Return the undo that the catalogue declares for a step and that applies; None: there is none."""
    if step.kind != "activity" or step.in_finally or "compensate" in step.node:
        return None
    activity = catalogue.get(step.node.text("activity") or "")
    undo = activity.undo if activity else None
    if not isinstance(undo, Undo):
        return None
    if undo.given is None:
        return undo
    given = step.node.mapping("with")
    value = given.get(undo.given) if given else None
    return None if value is None or (isinstance(value, Scalar) and value.value is None) else undo


def _of_undo(undo: Undo, step: Step, catalogue: Catalogue) -> dict[str, Any]:
    """Return an undo as a step would declare it, without its limits, whose precedence is lower."""
    queue = (
        undo.task_queue
        or step.node.text("task_queue")
        or catalogue[step.node.text("activity") or ""].task_queue
    )
    parts = {
        "activity": undo.activity,
        "with": undo.input,
        "args": undo.args,
        "after": undo.after,
        "task_queue": queue,
    }
    return {key: value for key, value in parts.items() if value is not None}


def _uses(
    step: Step,
    field: Field,
    entry: Entry,
    place: Place,
    inside: Scope | None = None,
    *,
    takes_secrets: bool = False,
    kind: type[Use] = Use,
    key: str | None = None,
) -> list[Use]:
    """Create the uses in one entry. ``inside`` is the scope that has run before it is evaluated."""
    scope = inside or step.scope
    before = len(inside.steps) if inside else step.index
    return [
        kind(
            node, mode, place=place, key=key or entry.name, step=step, scope=scope, before=before,
            takes_secrets=takes_secrets,
        )
        for node, mode in _texts(field, entry.value)
    ]  # fmt: skip


def _texts(field: Field, value: Node) -> list[tuple[Scalar, Mode]]:
    # A string with a missing brace is not a template, but may be meant as one.
    return [
        (scalar, mode)
        for scalar, mode in field.shape.templates(value)
        if mode is Mode.EXPRESSION or "}" in scalar.text or parsing.contains_template(scalar.text)
    ]
