"""Which names an expression looks into without making sure that they are there."""

from collections.abc import Iterator

from jinja2 import nodes as jinja

from pipeline_runner.core.expressions import Reference, references_in

Guards = frozenset[tuple[str, ...]]
"""The first two keys of paths that a condition has looked at."""


def unguarded(tree: jinja.Node) -> Iterator[Reference]:
    """Yield the references that are not in front of ``default`` or a test, nor behind a condition on them."""
    yield from _below(tree, frozenset())


def _below(node: jinja.Node, guards: Guards) -> Iterator[Reference]:
    inner: list[jinja.Node]
    match node:
        case jinja.Filter(name="default" | "d"):
            inner = [*node.args, *(keyword.value for keyword in node.kwargs)]
        case jinja.Test():
            inner = list(node.args)
        case jinja.CondExpr(test=test, expr1=first, expr2=second):
            yield from _below(test, guards)
            guards, inner = guards | _heads(test), [first, *([second] if second else [])]
        case jinja.And(left=left, right=right) | jinja.Or(left=left, right=right):
            yield from _below(left, guards)
            guards, inner = guards | _heads(left), [right]
        case jinja.If(test=test):
            yield from _below(test, guards)
            guards, inner = guards | _heads(test), [*node.body, *node.elif_, *node.else_]
        case jinja.Getattr() | jinja.Getitem() | jinja.Name() if _is_path(node):
            for reference in references_in(node):
                if reference.path[:2] not in guards:
                    yield reference
            return
        case _:
            inner = list(node.iter_child_nodes())
    for child in inner:
        yield from _below(child, guards)


def _is_path(node: jinja.Node) -> bool:
    while isinstance(node, jinja.Getattr | jinja.Getitem):
        node = node.node
    return isinstance(node, jinja.Name)


def _heads(node: jinja.Node) -> Guards:
    return frozenset(reference.path[:2] for reference in references_in(node))
