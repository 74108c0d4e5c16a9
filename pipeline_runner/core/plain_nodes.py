"""The nodes of Jinja's trees, made without their constructors.

These take ten times as long, to check what is known of plain expressions (:mod:`plain_expressions`).
"""

from typing import Any, Protocol, TypeVar

from jinja2 import nodes

from pipeline_runner.core.environment import ENVIRONMENT

_N = TypeVar("_N", bound=nodes.Node)
_F = TypeVar("_F", nodes.Filter, nodes.Test)


class _New(Protocol):
    def __call__(self, kind: type[_N], /) -> _N: ...


new: _New = object.__new__
"""Make a node without fields."""


def placed(node: _N, place: int | None) -> _N:
    """Put a node at a place, 1-based; it needs its fields besides."""
    node.lineno = place  # type: ignore[assignment]  # Jinja has operands without one, too
    node.environment = ENVIRONMENT
    return node


def name_node(name: str, place: int) -> nodes.Expr:
    """Return the node of a name."""
    node = new(nodes.Name)
    node.name = name
    node.ctx = "load"
    node.lineno = place
    node.environment = ENVIRONMENT
    return node


def constant(value: Any, place: int) -> nodes.Expr:
    """Return the node of a constant."""
    node = new(nodes.Const)
    node.value = value
    return placed(node, place)


def key_of(inner: nodes.Expr, key: str, place: int) -> nodes.Expr:
    """Return the node of a key behind a dot."""
    node = new(nodes.Getattr)
    node.node = inner
    node.attr = key
    node.ctx = "load"
    node.lineno = place
    node.environment = ENVIRONMENT
    return node


def item_of(inner: nodes.Expr, index: nodes.Expr, place: int) -> nodes.Expr:
    """Return the node of a key or an index in brackets."""
    node = new(nodes.Getitem)
    node.node = inner
    node.arg = index
    node.ctx = "load"
    return placed(node, place)


def unary(kind: type[nodes.UnaryExpr], place: int, inner: nodes.Expr) -> nodes.Expr:
    """Return the node of an operator with one operand."""
    node = new(kind)
    node.node = inner
    return placed(node, place)


def binary(kind: type[nodes.BinExpr], place: int, left: nodes.Expr, right: nodes.Expr) -> nodes.Expr:
    """Return the node of an operator with two operands."""
    node = new(kind)
    node.left = left
    node.right = right
    return placed(node, place)


def operand(operator: str, inner: nodes.Expr) -> nodes.Operand:
    """Return the node of one comparison: its operator and its right side."""
    node = new(nodes.Operand)
    node.op = operator
    node.expr = inner
    return placed(node, None)


def with_arguments(
    kind: type[_F],
    place: int,
    inner: nodes.Expr,
    name: str,
    args: list[nodes.Expr],
    keywords: list[Any],
) -> _F:
    """Return the node of a filter or a test."""
    node = new(kind)
    node.node = inner
    node.name = name
    node.args = args
    node.kwargs = keywords
    node.dyn_args = node.dyn_kwargs = None
    return placed(node, place)


def text_data(text: str, place: int) -> nodes.Expr:
    """Return the node of text between expressions."""
    node = new(nodes.TemplateData)
    node.data = text
    return placed(node, place)


def template(parts: list[nodes.Expr]) -> nodes.Template:
    """Return the tree of a template with these parts."""
    output = new(nodes.Output)
    output.nodes = parts
    tree = new(nodes.Template)
    tree.body = [placed(output, parts[0].lineno)]
    return placed(tree, 1)
