"""Expressions: Jinja2, sandboxed, strict, typed, bounded, deterministic.

A text that is one ``{{ expression }}`` gives the expression's own value; any other text
with templates gives a string. What Jinja offers is cut down to an allow-list: no methods,
no attributes but the keys of mappings, no clock, no random source, ``{% if %}`` and
``{% for %}`` as the only statements. Every evaluation has a budget, so that none can hang
or bloat a workflow.

Jinja's ``NativeEnvironment`` was tried and rejected: it parses results again, so that the
string "1.10" becomes a number. Only its code generator is used here, which hands over the
pieces of a template as they are.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes

from pipeline_runner.core import filters
from pipeline_runner.core.budget import Budget, BudgetError
from pipeline_runner.core.environment import BUDGET, ENVIRONMENT, Missing
from pipeline_runner.core.secrets import SecretMisuse, SecretText
from pipeline_runner.core.values import ExpressionValueError, joined, plain
from pipeline_runner.core.values import text as text_of

_SHOWN = 100
# Jinja, and then Python, take nested expressions apart by recursion. What is nested deeper than
# this would fail or not by the stack that happens to be in use, so it always does.
_MAX_DEPTH = 100
_MAX_BRACKETS = 30
_MAX_BLOCKS = 15

_EXPRESSION_NODES = (
    nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.List, nodes.Tuple,
    nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.BinExpr, nodes.UnaryExpr,
    nodes.Compare, nodes.Operand, nodes.Concat, nodes.Test, nodes.Filter, nodes.Call,
)  # fmt: skip
_STATEMENT_NODES = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For)
_SENTENCES = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (r"unexpected char '&' at .*", '"&" is no operator: write "and"'),
        (r"expected token 'name', got '\|'", '"||" is no operator: write "or"'),
        (r"unexpected char '!' at .*", '"!" is no operator: write "not"'),
        (r"unexpected char '\?' at .*", '"?" is no operator: write "a if condition else b"'),
        (r"expected token '(end of [a-z ]+|,|\))', got '='", '"=" does not compare: write "=="'),
        (r"unexpected '='", '"=" does not compare: write "=="'),
        (r".*(unexpected|got) 'end of (print statement|statement block)'", "the expression ends too early"),
        (r"Unexpected end of template\..* closed is '(\w+)'\.", r'"{% \1 %}" is never closed'),
        (r"unexpected '}', expected '([)\]])'", r'a "\1" is missing'),
    )
)
_TOKENS = {
    '"end of print statement"': '"}}"',
    "end of template": "end of the text",
    '"end of statement block"': '"%}"',
    'token "name"': "a name",
}


class ExpressionError(Exception):
    """A template or expression cannot be parsed or evaluated.

    Attributes:
        message: What is wrong and what would be right.
        line: 1-based line inside the text, for mistakes found by parsing.
    """

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


class Reference:
    """A name used in an expression, with the keys that follow it as far as they are literal."""

    __slots__ = ("line", "path")

    def __init__(self, path: tuple[str, ...], line: int) -> None:
        self.path = path
        self.line = line

    def __repr__(self) -> str:
        return f"Reference({'.'.join(self.path)}, line {self.line})"


class _Compiled:
    """A template ready to be rendered."""

    __slots__ = ("_lone", "_template", "_text")

    def __init__(self, text: str, tree: nodes.Template, *, lone: bool) -> None:
        self._text = text
        self._lone = lone
        code = ENVIRONMENT.compile(_prepared(tree))
        self._template = jinja2.Template.from_code(ENVIRONMENT, code, ENVIRONMENT.globals)

    def render(self, names: Mapping[str, Any]) -> Any:
        budget = Budget()
        token = BUDGET.set(budget)
        try:
            with _told(self._text):
                pieces = budget.counted(
                    self._template.root_render_func(self._template.new_context(dict(names)))
                )
                return plain(next(pieces), budget) if self._lone else joined(pieces)
        finally:
            BUDGET.reset(token)


class _Path:
    """A lone name with the keys after it, such as ``{{ steps.build.output.id }}``.

    Most templates are no more than that. Looked up without code being generated for them,
    they cost a fifth when they are first seen, and half from then on (see ``bench/``).
    """

    __slots__ = ("_keys", "_root", "_text")

    def __init__(self, text: str, path: list[str]) -> None:
        self._text = text
        self._root, *self._keys = path

    def render(self, names: Mapping[str, Any]) -> Any:
        value = names[self._root] if self._root in names else Missing(name=self._root)
        with _told(self._text):
            for key in self._keys:
                value = ENVIRONMENT.getitem(value, key)
            return plain(value, Budget())


def _path(tree: nodes.Template) -> list[str] | None:
    """Return the names of a template that is one path; None: it is more."""
    node: nodes.Node = _output_values(tree)[0]
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


def _ready(text: str, tree: nodes.Template) -> _Path | _Compiled:
    lone = _is_lone(tree)
    path = _path(tree) if lone else None
    return _Compiled(text, tree, lone=lone) if path is None else _Path(text, path)


@contextmanager
def _told(text: str) -> Iterator[None]:
    """Turn whatever an evaluation raises into an :class:`ExpressionError`."""
    try:
        yield
    except (SecretMisuse, BudgetError, jinja2.TemplateError, ExpressionValueError) as error:
        raise ExpressionError(f"{error.args[0]}, in {_shown(text)}") from None
    except (TypeError, ValueError, ArithmeticError, LookupError, RecursionError) as error:
        raise ExpressionError(f"{error}, in {_shown(text)}") from None


def contains_template(text: str) -> bool:
    """Tell whether Jinja would do anything with this text."""
    return "{{" in text or "{%" in text or "{#" in text


def render(value: Any, names: Mapping[str, Any]) -> Any:
    """Render every template in JSON data; the keys of mappings are literal.

    Args:
        value: JSON data with templates in its strings.
        names: What the expressions see.

    Returns:
        JSON data; where secrets were used, with :class:`SecretText` in it.

    Raises:
        ExpressionError: A template cannot be evaluated.
    """
    if isinstance(value, str):
        return _template(value).render(names) if contains_template(value) else value
    if isinstance(value, dict):
        return {key: render(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [render(item, names) for item in value]
    return value


def render_text(text: str, names: Mapping[str, Any]) -> str:
    """Render a template whose result must be a text without secrets, such as a step's name.

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
    return _expression(expression).render(names)


def references(text: str, *, bare: bool = False) -> list[Reference]:
    """List the names that a template, or a bare expression, uses, with the keys after them.

    Raises:
        ExpressionError: The text cannot be parsed, or names what does not exist.
    """
    return list(_references(text, bare))


@lru_cache(maxsize=20_000)
def _references(text: str, bare: bool) -> tuple[Reference, ...]:
    tree = _parse_expression(text) if bare else _parse(text)
    found: list[Reference] = []
    _collect(tree, frozenset(["range"]), found)
    return tuple(found)


@lru_cache(maxsize=20_000)
def _template(text: str) -> _Path | _Compiled:
    return _ready(text, _parse(text))


@lru_cache(maxsize=5_000)
def _expression(text: str) -> _Path | _Compiled:
    return _ready(text, _parse_expression(text))


def _parse_expression(text: str) -> nodes.Template:
    tree = _parse("{{ " + text + "\n}}")
    if not _is_lone(tree):
        raise ExpressionError(f"one expression without braces was expected, not {_shown(text)}")
    return tree


def _parse(text: str) -> nodes.Template:
    try:
        _check_brackets(text)
        tree = ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise ExpressionError(_sentence(error.message or "syntax error"), error.lineno) from None
    except RecursionError:
        raise _too_deep() from None
    _check(tree)
    if _is_lone(tree):
        # White space around a lone expression does not make it text.
        tree.body = [nodes.Output([_output_values(tree)[0]], lineno=1)]
    return tree


def _too_deep(line: int = 1) -> ExpressionError:
    return ExpressionError(
        'the expression is nested too deeply: compute parts of it in a "set" step before this one', line
    )


def _check_brackets(text: str) -> None:
    """Refuse brackets in brackets in brackets, which the parser takes most of the stack for."""
    if sum(map(text.count, "([{")) <= _MAX_BRACKETS:
        return
    depth = 0
    for line, kind, value in ENVIRONMENT.lex(text):
        if kind == "operator":
            depth += (value in "([{") - (value in ")]}")
            if depth > _MAX_BRACKETS:
                raise _too_deep(line)


def _sentence(message: str) -> str:
    """Say what Jinja found wrong in words of the language: its tokens have names of their own."""
    for pattern, sentence in _SENTENCES:
        if found := pattern.fullmatch(message):
            return found.expand(sentence)
    text = message[0].lower() + message[1:].rstrip(".").replace("'", '"')
    for token, words in _TOKENS.items():
        text = text.replace(token, words)
    return text


def _output_values(tree: nodes.Template) -> list[nodes.Expr]:
    values: list[nodes.Expr] = []
    for part in tree.body:
        if not isinstance(part, nodes.Output):
            return []
        values += [
            node
            for node in part.nodes
            if not (isinstance(node, nodes.TemplateData) and not node.data.strip())
        ]
    return values


def _is_lone(tree: nodes.Template) -> bool:
    values = _output_values(tree)
    return len(values) == 1 and not isinstance(values[0], nodes.TemplateData)


def _nodes(tree: nodes.Template) -> Iterator[nodes.Node]:
    """Yield every node, without recursion; refuse what is nested too deeply for the rest."""
    waiting: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while waiting:
        node, depth, blocks = waiting.pop()
        blocks += isinstance(node, nodes.If | nodes.For)
        depth += len(node.elif_) if isinstance(node, nodes.If) else 0
        if depth > _MAX_DEPTH or blocks > _MAX_BLOCKS:
            raise _too_deep(node.lineno)
        yield node
        waiting += reversed([(child, depth + 1, blocks) for child in node.iter_child_nodes()])


def _check(tree: nodes.Template) -> None:
    """Refuse what is not on the allow-list."""
    for node in _nodes(tree):
        if isinstance(node, nodes.Call):
            called = node.node
            if not (isinstance(called, nodes.Name) and called.name in ENVIRONMENT.globals):
                raise ExpressionError(_call_message(called), node.lineno)
        elif isinstance(node, nodes.Filter):
            _known("filter", node.name, ENVIRONMENT.filters, node.lineno)
        elif isinstance(node, nodes.Test):
            _known("test", node.name, ENVIRONMENT.tests, node.lineno)
        elif isinstance(node, nodes.For) and node.recursive:
            raise ExpressionError("recursive loops are not available", node.lineno)
        elif not isinstance(node, _EXPRESSION_NODES + _STATEMENT_NODES):
            kind = type(node).__name__.lower()
            raise ExpressionError(
                f'"{kind}" is not available here: only {{% if %}} and {{% for %}} are', node.lineno
            )


def _call_message(called: nodes.Node) -> str:
    if isinstance(called, nodes.Getattr):
        return f'methods cannot be called: use a filter instead of ".{called.attr}()"'
    if isinstance(called, nodes.Name):
        reason = filters.NOT_DETERMINISTIC.get(called.name)
        return f'"{called.name}()" is not available: {reason or "the only function is range()"}'
    return "this cannot be called"


def _known(what: str, name: str, known: Mapping[str, object], line: int) -> None:
    if name in known and not name.startswith("_"):
        return
    reason = filters.NOT_DETERMINISTIC.get(name)
    close = get_close_matches(name, [n for n in known if not n.startswith("_")], n=1)
    hint = reason or (f'did you mean "{close[0]}"?' if close else f"see the reference for the {what}s")
    raise ExpressionError(f'there is no {what} "{name}": {hint}', line)


def _prepared(tree: nodes.Template) -> nodes.Template:
    """Make ``~`` join as templates do, and every turn of a loop count."""
    for parent in list(tree.find_all(nodes.Node)):
        if isinstance(parent, nodes.For):
            parent.body.insert(0, nodes.Output([nodes.Const("")]))
        for field, value in list(parent.iter_fields()):
            if isinstance(value, nodes.Concat):
                setattr(parent, field, _concat(value))
            elif isinstance(value, list):
                value[:] = [_concat(item) if isinstance(item, nodes.Concat) else item for item in value]
    return tree


def _concat(node: nodes.Concat) -> nodes.Filter:
    return nodes.Filter(nodes.List(node.nodes), "_concat", [], [], None, None, lineno=node.lineno)


def _public_text(value: Any, template: str) -> str:
    try:
        if isinstance(value, SecretText):
            raise SecretMisuse("a secret has no place here")
        return text_of(value)
    except (SecretMisuse, ExpressionValueError) as error:
        raise ExpressionError(f"{error.args[0]}, in {_shown(template)}") from None


def _shown(template: str) -> str:
    flat = " ".join(template.split())
    return f'"{flat[: _SHOWN - 1]}…"' if len(flat) > _SHOWN else f'"{flat}"'


def _collect(node: nodes.Node, bound: frozenset[str], found: list[Reference]) -> None:
    """Add the references below a node; ``bound`` names are a loop's own."""
    chain: list[str] = []
    base = node
    while isinstance(base, nodes.Getattr | nodes.Getitem):
        if isinstance(base, nodes.Getattr):
            chain.append(base.attr)
        elif isinstance(base.arg, nodes.Const) and isinstance(base.arg.value, str):
            chain.append(base.arg.value)
        else:
            # What stands before a computed key is a reference of its own, shorter.
            chain.clear()
            _collect(base.arg, bound, found)
        base = base.node
    if isinstance(base, nodes.Name):
        if base.ctx == "load" and base.name not in bound:
            found.append(Reference((base.name, *reversed(chain)), base.lineno))
        return
    if isinstance(base, nodes.For):
        _collect(base.iter, bound, found)
        names = frozenset(n.name for n in base.target.find_all(nodes.Name))
        names |= {base.target.name} if isinstance(base.target, nodes.Name) else frozenset()
        inner = bound | names | {"loop"}
        for child in [*base.body, *([base.test] if base.test else [])]:
            _collect(child, inner, found)
        for child in base.else_:
            _collect(child, bound, found)
        return
    for child in base.iter_child_nodes():
        _collect(child, bound, found)
