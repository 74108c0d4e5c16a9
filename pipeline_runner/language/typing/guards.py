"""The names that an expression uses, and what conditions have ensured before."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec
from jinja2 import nodes as jinja

from pipeline_runner.core.expressions.fast_path import Reference
from pipeline_runner.core.expressions.parsing import assigned, branches, references_in
from pipeline_runner.language.types import NULL
from pipeline_runner.language.typing.signatures import TAKES

Fact = object
"""A condition in a form in which equivalent spellings are equal."""


class Known(msgspec.Struct, frozen=True):
    """What is known at a place."""

    facts: frozenset[Fact] = frozenset()
    """The conditions that are true there."""
    asked: frozenset[tuple[str, ...]] = frozenset()
    """The paths that conditions have read, whatever their results."""
    set_from: Mapping[str, frozenset[tuple[str, ...]]] = {}
    """The paths that the value of a variable was made of."""

    set_if: Mapping[str, frozenset[Fact]] = {}
    """The conditions with which a variable is set, where there are any."""

    def asks(self, *path: str) -> bool:
        """Tell whether a condition has read a path, or a part of it."""
        return any(one[: len(path)] == path for one in self.asked)

    def also(self, test: jinja.Node, *, holds: bool) -> "Known":
        """Return what is also known where a condition is true, or false."""
        facts = self.facts | frozenset(_facts(test, holds=holds))
        return Known(facts, self.asked | self._paths(test), self.set_from, self.set_if)

    def sets(self, name: str, value: jinja.Node) -> "Known":
        """Return what is known once a variable has a value."""
        always = {other: facts for other, facts in self.set_if.items() if other != name}
        return Known(self.facts, self.asked, {**self.set_from, name: self._paths(value)}, always)

    def sets_if(self, names: Iterable[str], test: jinja.Node, *, holds: bool) -> "Known":
        """Return what is known once variables have a value where a condition is true, or false."""
        facts = frozenset(_facts(test, holds=holds))
        return msgspec.structs.replace(self, set_if={**self.set_if, **dict.fromkeys(names, facts)})

    def may_lack(self, name: str) -> bool:
        """Tell whether a variable may not be set."""
        return name in self.set_if and not self.set_if[name] <= self.facts and not self.asks(name)

    def _paths(self, node: jinja.Node) -> frozenset[tuple[str, ...]]:
        paths = frozenset(reference.path for reference in references_in(node))
        return paths.union(*(self.set_from.get(path[0], ()) for path in paths))

    def joined(self, other: "Known") -> "Known":
        """Return what is known in both."""
        return Known(
            self.facts | other.facts,
            self.asked | other.asked,
            {**self.set_from, **other.set_from},
            {**self.set_if, **other.set_if},
        )

    def implies(self, condition: jinja.Node) -> bool:
        """Tell whether a condition is certainly true."""
        match condition:
            case jinja.And(left=left, right=right):
                return self.implies(left) and self.implies(right)
            case jinja.Or(left=left, right=right) if self.implies(left) or self.implies(right):
                return True
        return set(_facts(condition, holds=True)) <= self.facts


class Look(msgspec.Struct, frozen=True):
    """A name that is read without ``default`` and outside of tests."""

    reference: Reference
    known: Known
    needed: bool
    """Whether null would be an error there, as in a string."""
    unset: bool = False
    """Whether it is a variable that may not be set."""


def looks(tree: jinja.Template, *, lone: bool) -> Iterator[Look]:
    """Yield the names that are not before ``default`` or a test."""
    yield from _body(tree.body, Known(), frozenset(["range"]), needed=not lone)


def expression_of(condition: jinja.Template) -> jinja.Node | None:
    """Return the expression of a bare condition."""
    match condition.body:
        case [jinja.Output(nodes=[expression])]:
            return expression
    return None


_Part = tuple[jinja.Node | None, Known, bool]
"""A part of an expression, what is known there, and whether null would be an error there."""


def _below(node: jinja.Node, known: Known, bound: frozenset[str], *, needed: bool = False) -> Iterator[Look]:
    if isinstance(node, jinja.For):
        yield from _loop(node, known, bound)
    elif isinstance(node, jinja.If):
        yield from _branches(node, known, bound)
    elif _is_path(node):
        yield from _path(node, known, bound, needed=needed)
    else:
        parts = _of_condition(node, known, needed=needed) or _of_filter(node, known)
        for part, there, is_needed in parts or _of_operation(node, known, needed=needed):
            if part is not None:
                yield from _below(part, there, bound, needed=is_needed)


def _body(
    parts: Sequence[jinja.Node], known: Known, bound: frozenset[str], *, needed: bool = True
) -> Iterator[Look]:
    for part in parts:
        yield from _below(part, known, bound, needed=needed)
        if isinstance(part, jinja.Assign) and isinstance(part.target, jinja.Name):
            known = known.sets(part.target.name, part.node)
        elif isinstance(part, jinja.If) and not part.elif_:
            yes, no = (_set_in(branch) - bound for branch in (part.body, part.else_))
            known = known.sets_if(yes - no, part.test, holds=True).sets_if(no - yes, part.test, holds=False)
        bound |= assigned(part)


def _set_in(parts: Sequence[jinja.Node]) -> frozenset[str]:
    return frozenset[str]().union(*map(assigned, parts))


def _branches(node: jinja.If, known: Known, bound: frozenset[str]) -> Iterator[Look]:
    yield from _below(node.test, known, bound)
    yield from _body(node.body, known.also(node.test, holds=True), bound)
    no = known.also(node.test, holds=False)
    for branch in branches(node)[1:]:
        yield from _body(branch, no, bound)


def _of_condition(node: jinja.Node, known: Known, *, needed: bool) -> list[_Part]:
    match node:
        case jinja.CondExpr(test=test, expr1=first, expr2=second):
            yes, no = known.also(test, holds=True), known.also(test, holds=False)
            return [(test, known, False), (first, yes, needed), (second, no, needed)]
        case jinja.And(left=left, right=right):
            return [(left, known, needed), (right, known.also(left, holds=True), needed)]
        case jinja.Or(left=left, right=right):
            return [(left, known, False), (right, known.also(left, holds=False), needed)]
    return []


def _of_filter(node: jinja.Node, known: Known) -> list[_Part]:
    if not isinstance(node, jinja.Filter | jinja.Test):
        return []
    parts: list[_Part] = [(child, known, False) for child in [*node.args, *node.kwargs]]
    if isinstance(node, jinja.Filter) and node.name not in ("d", "default"):
        # Some accept null, and numbers may have a replacement for it.
        takes_null = NULL in TAKES.get(node.name, (NULL,)) or (node.name in ("int", "float") and parts)
        parts.append((node.node, known, not takes_null))
    elif isinstance(node.node, jinja.Filter | jinja.Concat | jinja.BinExpr):
        parts.append((node.node, known, False))  # they have failed before "default" is evaluated
    return parts or [(None, known, False)]


def _of_operation(node: jinja.Node, known: Known, *, needed: bool) -> list[_Part]:
    match node:
        case jinja.Assign(node=value):
            return [(value, known, False)]
        case jinja.Output(nodes=parts):
            return [(part, known, needed) for part in parts]
        case jinja.Compare(expr=left, ops=operands):
            orders = any(operand.op not in ("eq", "ne", "in", "notin") for operand in operands)
            others = [(one.expr, known, one.op not in ("eq", "ne")) for one in operands]
            return [(left, known, orders), *others]
    needed = isinstance(node, jinja.Concat | jinja.BinExpr | jinja.Getattr | jinja.Getitem)
    return [(child, known, needed) for child in node.iter_child_nodes()]


def _loop(node: jinja.For, known: Known, bound: frozenset[str]) -> Iterator[Look]:
    yield from _below(node.iter, known, bound, needed=True)
    names = [node.target.name] if isinstance(node.target, jinja.Name) else []
    inside = bound.union(names, (name.name for name in node.target.find_all(jinja.Name)), ["loop"])
    there = known
    if node.test:
        yield from _below(node.test, known, inside)
        there = known.also(node.test, holds=True)
    yield from _body(node.body, there, inside)
    yield from _body(node.else_, known, bound)


def _path(node: jinja.Node, known: Known, bound: frozenset[str], *, needed: bool) -> Iterator[Look]:
    keys = 0
    base: jinja.Node = node
    while isinstance(base, jinja.Getattr | jinja.Getitem):
        if isinstance(base, jinja.Getitem):
            yield from _below(base.arg, known, bound)
        base, keys = base.node, keys + 1
    assert isinstance(base, jinja.Name)
    if base.name in bound:
        if known.may_lack(base.name):
            yield Look(Reference((base.name,), base.lineno - 1), known, True, True)
    else:
        # The value of a key in the path is not null, or the keys after it could not be read.
        *_, reference = references_in(node)
        yield Look(reference, known, needed or len(reference.path) <= keys)


def _is_path(node: jinja.Node) -> bool:
    while isinstance(node, jinja.Getattr | jinja.Getitem):
        node = node.node
    return isinstance(node, jinja.Name)


def _facts(test: jinja.Node, *, holds: bool) -> Iterator[Fact]:
    """Yield what is true if a condition is true, or if it is false."""
    match test:
        case jinja.Not(node=inner):
            yield from _facts(inner, holds=not holds)
        case jinja.And(left=left, right=right) if holds:
            yield from _facts(left, holds=True)
            yield from _facts(right, holds=True)
        case jinja.Or(left=left, right=right) if not holds:
            yield from _facts(left, holds=False)
            yield from _facts(right, holds=False)
        case jinja.Compare(expr=left, ops=[jinja.Operand(op="ne", expr=right)]):
            yield from _facts(jinja.Compare(left, [jinja.Operand("eq", right)]), holds=not holds)
        case jinja.Compare(expr=jinja.Const() as left, ops=[jinja.Operand(op="eq", expr=right)]):
            yield holds, _form(jinja.Compare(right, [jinja.Operand("eq", left)]))
        case _:
            yield holds, _form(test)


def _form(value: object) -> object:
    match value:
        case jinja.Getattr(node=node, attr=key) | jinja.Getitem(node=node, arg=jinja.Const(value=str(key))):
            return "key", _form(node), key
        case jinja.Node():
            return type(value).__name__, tuple((name, _form(field)) for name, field in value.iter_fields())
        case list() | tuple():
            return tuple(map(_form, value))
    return type(value).__name__, value


def fact(condition: jinja.Node, *, holds: bool = True) -> Fact:
    """Return a condition that is true, or false, as a fact."""
    (found,) = _facts(condition, holds=holds)
    return found
