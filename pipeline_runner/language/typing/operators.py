"""The results of operators by the types of their operands, and their errors.

Each function knows only the operands' types: an error here may still be in doubt in its context
(:mod:`evaluation`).
"""

import msgspec
from jinja2 import nodes as jinja

from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.types import (
    ANY,
    ANY_LIST,
    ANY_MAP,
    BOOLEAN,
    NULL,
    NUMBER,
    STRING,
    List,
    Plain,
    Type,
    base,
    may_be,
    options,
    shown,
    words,
)
from pipeline_runner.language.typing.naming import named, plus_help

Operand = tuple[jinja.Expr, Type]
"""An expression, and the type of its value."""

_ORDERS = {"lt": "<", "lteq": "<=", "gt": ">", "gteq": ">="}
_NUMBERS = (NUMBER, BOOLEAN)


class Mistake(msgspec.Struct, frozen=True):
    """An operation that is not possible."""

    rule: str
    node: jinja.Expr
    """The node that it is about."""
    message: str
    help: str | None = None


def sign(node: jinja.UnaryExpr, kind: Type) -> Mistake | None:
    """Return what is wrong with the sign of a value."""
    if may_be(kind, _NUMBERS):
        return None
    return Mistake("operand-type", node, f"a sign requires a number, but {named(node.node)} is {words(kind)}")


def arithmetic(node: jinja.BinExpr, left: Type, right: Type) -> tuple[Type, Mistake | None]:
    """Return the type of an operator's result, and what is wrong with its operands."""
    if isinstance(node, jinja.Add):
        return _sum(node, left, right)
    for side, kind in ((node.left, left), (node.right, right)):
        if not may_be(kind, _NUMBERS):
            message = f'"{node.operator}" requires numbers, but {named(side)} is {words(kind)}'
            return NUMBER, Mistake("operand-type", side, message)
    return NUMBER, None


def _sum(node: jinja.Add, left: Type, right: Type) -> tuple[Type, Mistake | None]:
    alike: list[tuple[Type, tuple[Type, ...]]] = [
        (STRING, (STRING,)), (ANY_LIST, (ANY_LIST,)), (NUMBER, _NUMBERS),
    ]  # fmt: skip
    fitting = [result for result, kinds in alike if may_be(left, kinds) and may_be(right, kinds)]
    if fitting:
        return (fitting[0] if len(fitting) == 1 else ANY), None
    lost = not any(may_be(left, kinds) for _, kinds in alike)
    message = f'"+" cannot add {words(right)} to {words(left)}'
    return ANY, Mistake("operand-type", node.left if lost else node.right, message, plus_help(left, right))


def comparison(left: Operand, op: str, right: Operand) -> Mistake | None:
    """Return what is wrong with a comparison. ``op`` is Jinja's name of the operator."""
    if op in _ORDERS:
        return _order(left, op, right)
    return _membership(left, op, right) if op in ("in", "notin") else _equality(left, op, right)


def _order(left: Operand, op: str, right: Operand) -> Mistake | None:
    fits = (_NUMBERS, (STRING,), (ANY_LIST,))
    if any(may_be(left[1], kinds) and may_be(right[1], kinds) for kinds in fits):
        return None
    sides = f"{named(left[0])} is {words(left[1])} and {named(right[0])} is {words(right[1])}"
    return Mistake("not-comparable", left[0], f'"{_ORDERS[op]}" cannot compare these: {sides}')


def _membership(left: Operand, op: str, right: Operand) -> Mistake | None:
    (left_node, left_kind), (right_node, right_kind) = left, right
    if not may_be(right_kind, (ANY_LIST, ANY_MAP, STRING)):
        message = (
            f'"in" searches a list, a mapping or a string, but {named(right_node)} is {words(right_kind)}'
        )
        return Mistake("not-comparable", right_node, message)
    if base(right_kind) == STRING and not may_be(left_kind, (STRING,)):
        sides = f"{named(right_node)} for a string, but {named(left_node)} is {words(left_kind)}"
        return Mistake("not-comparable", left_node, f'"in" searches {sides}')
    if isinstance(right_kind, List) and isinstance(left_node, jinja.Const):
        return _equality(left, op, (right_node, right_kind.item))
    return None


def _equality(left: Operand, op: str, right: Operand) -> Mistake | None:
    """Return what is wrong with two values that can never be equal."""
    (left_node, left_kind), (right_node, right_kind) = left, right
    if NULL in (left_kind, right_kind) or ANY in (left_kind, right_kind):
        return None
    pairs = [(one, other) for one in options(left_kind) for other in options(right_kind)]
    if any(_may_be_equal(one, other) for one, other in pairs):
        return None
    always = "true" if op in ("ne", "notin") else "false"
    if base(left_kind) != base(right_kind):
        sides = f"{named(left_node)} is {words(left_kind)}, but {named(right_node)} is {words(right_kind)}"
        return Mistake("constant-comparison", left_node, f"this is always {always}: {sides}")
    constant, (other_node, other) = (
        (left_node, right) if isinstance(left_node, jinja.Const) else (right_node, left)
    )
    values = other.values if isinstance(other, Plain) else None
    text = constant.value if isinstance(constant, jinja.Const) else None
    what = named(other_node)
    fact = f"an element of {what.replace('this', 'this list')} is" if "in" in op else f"{what} is"
    if isinstance(other_node, jinja.Const):
        fact += f" not {named(constant)}"
    else:
        fact += f"{' one of' if values and len(values) > 1 else ''} {shown(values or ())}"
    near = did_you_mean(text, map(str, values)) if isinstance(text, str) and values else None
    return Mistake("constant-comparison", constant, f"this is always {always}: {fact}", near)


def _may_be_equal(one: Type, other: Type) -> bool:
    if not isinstance(one, Plain) or not isinstance(other, Plain):
        return type(one) is type(other) or Type in (type(one), type(other))
    numbers = ("number", "boolean")  # 1 == true
    if one.kind != other.kind:
        return one.kind in numbers and other.kind in numbers
    return one.values is None or other.values is None or bool(set(one.values) & set(other.values))
