"""Evaluates expressions: Jinja2, sandboxed, strict, typed, bounded, deterministic.

A string that is one ``{{ expression }}`` becomes the expression's own value. Any other string with
templates becomes a string. An allow-list limits what Jinja offers: no methods, no attributes but the
keys of mappings, no clock, no random source, ``{% if %}``, ``{% for %}`` and ``{% set %}`` as the only
statements. Every evaluation has a budget, so that none can hang a workflow or use up its memory.

Jinja's ``NativeEnvironment`` was tried and rejected: it parses results again, so that the string "1.10"
becomes a number. Only its code generator is used here, which passes on the parts of a template
unchanged.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes

from pipeline_runner.core.expressions.budget import BudgetError, current, shared
from pipeline_runner.core.expressions.environment import ENVIRONMENT, Missing
from pipeline_runner.core.expressions.parsing import (
    ExpressionError,
    Parsed,
    allowed,
    contains_template,
    output_values,
    shown,
)
from pipeline_runner.core.expressions.values import ExpressionValueError, joined, kind_of, plain
from pipeline_runner.core.expressions.values import text as text_of
from pipeline_runner.core.secrets import SecretMisuse, SecretText


class _Compiled:
    """A template that is ready to be rendered."""

    __slots__ = ("_lone", "_template", "_text")

    def __init__(self, text: str, tree: nodes.Template, *, lone: bool) -> None:
        self._text = text
        self._lone = lone
        code = ENVIRONMENT.compile(_prepared(tree))
        self._template = jinja2.Template.from_code(ENVIRONMENT, code, ENVIRONMENT.globals)

    def render(self, names: Mapping[str, Any]) -> Any:
        with _as_expression_errors(self._text):
            pieces = self._template.root_render_func(self._template.new_context(dict(names)))
            return plain(next(pieces), current()) if self._lone else joined(pieces)


class _Path:
    """A single name with its keys, such as ``{{ steps.build.output.id }}``.

    Most templates are such paths. Looking them up without generating code takes a fifth of the time at
    first, and half from then on (see ``bench/``).
    """

    __slots__ = ("_keys", "_root", "_text")

    def __init__(self, text: str, path: list[str]) -> None:
        self._text = text
        self._root, *self._keys = path

    def render(self, names: Mapping[str, Any]) -> Any:
        value = names[self._root] if self._root in names else Missing(name=self._root)
        with _as_expression_errors(self._text):
            for key in self._keys:
                value = ENVIRONMENT.getitem(value, key)
            return plain(value, current())


def _path(tree: nodes.Template) -> list[str] | None:
    """Return the names of a template that is one path; None: it is not."""
    node: nodes.Node = output_values(tree)[0]
    path: list[str] = []
    while True:
        match node:
            case nodes.Name(name=name) if name not in ENVIRONMENT.globals:
                return [name, *reversed(path)]
            case nodes.Getattr(attr=key) | nodes.Getitem(arg=nodes.Const(value=str(key))):
                path.append(key)
                node = node.node
            case _:
                return None


def _ready(text: str, parsed: Parsed) -> _Path | _Compiled:
    path = _path(parsed.tree) if parsed.lone else None
    return _Compiled(text, parsed.tree, lone=parsed.lone) if path is None else _Path(text, path)


_VALUES: tuple[Any, ...] = (True, 1, 1.5, "", [], (), {}, None)
_EXAMPLES = {type(value).__name__: value for value in _VALUES}
_TYPE = re.compile(rf"'({'|'.join(_EXAMPLES)})'(?: object)?")


@contextmanager
def _as_expression_errors(text: str) -> Iterator[None]:
    """Turn every error of an evaluation into an :class:`ExpressionError`."""
    try:
        yield
    except (SecretMisuse, BudgetError, jinja2.TemplateError, ExpressionValueError) as error:
        raise ExpressionError(f"{error.args[0]}, in {shown(text)}") from None
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError) as error:
        raise ExpressionError(f"{_TYPE.sub(_words, str(error))}, in {shown(text)}") from None


def _words(name: re.Match[str]) -> str:
    """Return a type in Python's messages in the words of the language."""
    return kind_of(_EXAMPLES[name[1]])


def render(value: Any, names: Mapping[str, Any]) -> Any:
    """Render every template in JSON data. The keys of mappings are literal.

    All of them share one budget: see :mod:`pipeline_runner.core.expressions.budget`.

    Args:
        value: JSON data with templates in its strings.
        names: The names that the expressions can use.

    Returns:
        JSON data, with :class:`SecretText` where secrets were used.

    Raises:
        ExpressionError: A template cannot be evaluated.
    """
    with shared():
        return _render(value, names)


def _render(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        return _template(value).render(names) if contains_template(value) else value
    if isinstance(value, dict):
        return {key: _render(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_render(item, names) for item in value]
    return value


def render_text(text: str, names: Mapping[str, Any]) -> str:
    """Render a template whose result must be a string without secrets, such as a step's name.

    Raises:
        ExpressionError: It cannot be evaluated, or is null or a secret.
    """
    value = render(text, names)
    return value if isinstance(value, str) else _public_text(value, text)


def evaluate(expression: str, names: Mapping[str, Any]) -> Any:
    """Evaluate a bare expression, such as ``when``.

    Raises:
        ExpressionError: It cannot be parsed or evaluated.
    """
    with shared():
        return _expression(expression).render(names)


@lru_cache(maxsize=20_000)
def _template(text: str) -> _Path | _Compiled:
    return _ready(text, allowed(text))


@lru_cache(maxsize=5_000)
def _expression(text: str) -> _Path | _Compiled:
    return _ready(text, allowed(text, bare=True))


def _prepared(tree: nodes.Template) -> nodes.Template:
    """Make ``~`` join as templates do, ``if`` require ``else``, and loops, comparisons and slices count."""
    for parent in reversed(list(tree.find_all(nodes.Node))):  # inner nodes first
        _replace_fields(parent)
        if isinstance(parent, nodes.Assign):
            parent.node = _filter("_kept", parent.node)
        elif isinstance(parent, nodes.For):
            parent.iter = _filter("_each", parent.iter, nodes.Const(_cost_of_turn(parent)))
    _replace_fields(tree)
    return tree


def _replace_fields(parent: nodes.Node) -> None:
    for field, value in list(parent.iter_fields()):
        if isinstance(value, nodes.Node):
            setattr(parent, field, _replaced(value))
        elif isinstance(value, list):
            value[:] = [_replaced(item) for item in value]


def _replaced(node: Any) -> Any:
    match node:
        case nodes.Concat():
            return _filter("_concat", nodes.List(node.nodes))
        case nodes.Compare():
            operators = nodes.Const(" ".join(operand.op for operand in node.ops))
            return _filter(
                "_compare", nodes.List([node.expr, *(operand.expr for operand in node.ops)]), operators
            )
        case nodes.Getitem(arg=nodes.Slice() as part):
            bounds = [bound or nodes.Const(None) for bound in (part.start, part.stop, part.step)]
            return _filter("_slice", node.node, *bounds)
        case nodes.CondExpr(expr2=None):
            node.expr2 = _filter("_no_else", nodes.Const(None))
    return node


def _cost_of_turn(loop: nodes.For) -> int:
    """Return the cost of one iteration of a loop, which depends on the size of its body."""
    inner = [*loop.body, *([loop.test] if loop.test else [])]
    return 1 + sum(1 for part in inner for _ in part.find_all(nodes.Node)) // 2


def _filter(name: str, value: Any, *arguments: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(value, name, list(arguments), [], None, None, lineno=value.lineno)


def _public_text(value: Any, template: str) -> str:
    try:
        if isinstance(value, SecretText):
            raise SecretMisuse("a secret is not allowed here")
        return text_of(value)
    except (SecretMisuse, ExpressionValueError) as error:
        raise ExpressionError(f"{error.args[0]}, in {shown(template)}") from None
