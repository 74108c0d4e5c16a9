"""Parses the string of a template or an expression into a tree, or reports what is wrong with it.

The grammar is Jinja's, limited by an allow-list: no methods, no clock, no random source, ``{% if %}``,
``{% for %}`` and ``{% set %}`` as the only statements. :mod:`fast_path` parses strings with only literal
text and paths. Jinja parses the rest, and its errors are translated into the words of the language.
"""

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Literal, NamedTuple

import jinja2
from jinja2 import nodes

from pipeline_runner.core.expressions import fast_path, filters
from pipeline_runner.core.expressions.environment import ENVIRONMENT
from pipeline_runner.core.expressions.fast_path import Reference
from pipeline_runner.core.scope import NAMES
from pipeline_runner.core.suggest import did_you_mean

_SHOWN = 100
# Jinja, and then Python, handle nested expressions by recursion. Deeper nesting would fail depending on the
# stack in use, so it always fails.
_MAX_DEPTH = 100
_MAX_BRACKETS = 30
_MAX_BLOCKS = 15

_EXPRESSION_NODES = (
    nodes.Const, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.List, nodes.Tuple,
    nodes.Dict, nodes.Pair, nodes.Keyword, nodes.CondExpr, nodes.BinExpr, nodes.UnaryExpr,
    nodes.Compare, nodes.Operand, nodes.Concat, nodes.Test, nodes.Filter, nodes.Call,
)  # fmt: skip
_ALWAYS_RIGHT = frozenset([nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Output, nodes.TemplateData])
"""Most nodes have these types. Whatever they contain is on the allow-list."""
_NAMES_OF_JINJA = frozenset(["loop", *ENVIRONMENT.globals])
_CHARACTER = re.compile(r"unexpected char .* at (\d+)$")
_LONG_NUMBER = re.compile(r"\d[\d_]{600,}")
_FILTERS_INSTEAD = {
    "len": "length", "size": "length", "str": "string", "sorted": "sort", "reversed": "reverse",
    "strip": "trim", "update": "combine", "loads": "fromjson", "dumps": "tojson",
}  # fmt: skip
_STATEMENT_NODES = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Assign)
_ONLY = "only {% if %}, {% for %} and {% set %} are"
_SET_HELP = "write {% set NAME = VALUE %}"
_WORDS: dict[type, str] = {
    nodes.FilterBlock: "filter",
    nodes.CallBlock: "call",
    nodes.FromImport: "from",
}
"""How strings spell the names of other nodes."""
_SENTENCES = (
    (r"unexpected char [\"']['\"][\"'] at .*", "a string is not closed: its closing quote is missing"),
    (r"unexpected char '&' at .*", '"&" is not an operator: write "and"'),
    (r"expected token 'name', got '\|'", '"||" is not an operator: write "or"'),
    (r"unexpected char '!' at .*", '"!" is not an operator: write "not"'),
    (r"unexpected char '\?' at .*", '"?" is not an operator: write "a if condition else b"'),
    (r"expected token '(end of [a-z ]+|,|\))', got '='", '"=" does not compare: write "=="'),
    (r"unexpected '='", '"=" does not compare: write "=="'),
    (r".*(unexpected|got) 'end of (print statement|statement block)'", "the expression ends too early"),
    (r"Unexpected end of template\..* closed is '(\w+)'\.", r'"{% \1 %}" is never closed'),
    (r"unexpected '}', expected '([)\]])'", r'a "\1" is missing'),
    (
        r"expected token ':', got '}'",
        'a "{" in an expression begins a mapping, {KEY: VALUE}: a template has two braces on each side',
    ),
    (r"unexpected '}'", 'a single "}" is not allowed here: a template ends with "}}"'),
    (r"unexpected '\.'", 'a name is missing before ".": for literal braces, write "{{ \'{{\' }}"'),
    (r"Missing end of comment tag", '"{#" begins a comment: for a literal one, write "{{ \'{#\' }}"'),
    (r"expected token 'end of statement block', got 'if'", 'write "{% elif … %}" for another condition'),
    (r"can't assign to '.*'", f"only a name can be set: {_SET_HELP}"),
    (
        r"Encountered unknown tag '(end\w*|else|elif)'\. Jinja was looking .* to be closed is '(\w+)'\.",
        r'there is no "{% \1 %}": "{% \2 %}" is closed by "{% end\2 %}"',
    ),
    (r"Encountered unknown tag '(end\w+|else|elif)'\.", r'"{% \1 %}" has no matching statement before it'),
    (
        r"Encountered unknown tag '(\w+)'\..*",
        rf'"\1" is not available here: {_ONLY}',
    ),
)
"""Patterns of Jinja's messages, compiled when they are needed, with our messages."""
_TOKENS = {
    '"end of print statement"': '"}}"',
    "end of template": "end of the string",
    '"end of statement block"': '"%}"',
    'token "name"': "a name",
}


Kind = Literal["syntax", "filter", "test", "function", "nondeterminism", "number"]


class ExpressionError(Exception):
    """A template or expression cannot be parsed or evaluated.

    Attributes:
        message: What is wrong, and what would be correct.
        offset: 0-based offset in the string, in characters, for errors found by parsing.
        kind: The kind of error.
        word: The name that it is about, at or after the offset; empty: the token there.
    """

    def __init__(self, message: str, offset: int = 0, kind: Kind = "syntax", word: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.kind = kind
        self.word = word


def contains_template(text: str) -> bool:
    """Tell whether Jinja would change this string."""
    return "{" in text and ("{{" in text or "{%" in text or "{#" in text)


class Parsed(NamedTuple):
    """A template that could be parsed."""

    tree: nodes.Template
    """The positions of its nodes are offsets in the string (see :mod:`environment`); those of a bare
    expression are larger by three. The tree of a single expression contains nothing else."""
    lone: bool
    """Whether it is one expression, apart from white space around it."""
    references: list[Reference]
    """In the order of the string."""
    problems: list[ExpressionError]
    """What is not on the allow-list."""


def parse(text: str, *, bare: bool = False) -> Parsed:
    """Parse a template, or a bare expression.

    Raises:
        ExpressionError: The string cannot be parsed.
    """
    if bare:
        text = f"{{{{ {text}\n}}}}"
    if paths := fast_path.parse(text):
        return Parsed(*paths, [])
    tree = _parse(text)
    looked_at = [node for node in _nodes(tree) if type(node) not in _ALWAYS_RIGHT]
    problems = [problem for node in looked_at for problem in _problems(node)]
    return Parsed(tree, is_lone(tree), sorted(references_in(tree), key=attrgetter("offset")), problems)


def strings_in(value: object) -> Iterator[str]:
    """Yield every string in a value, in order, but not the keys of mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from strings_in(item)


def references(text: str, *, bare: bool = False) -> list[Reference]:
    """Return the names that a template, or a bare expression, uses, with the keys after them.

    Raises:
        ExpressionError: The string cannot be parsed, or uses a name that does not exist.
    """
    return list(_references(text, bare))


@lru_cache(maxsize=20_000)
def _references(text: str, bare: bool) -> tuple[Reference, ...]:
    return tuple(allowed(text, bare=bare).references)


def references_in(tree: nodes.Node) -> list[Reference]:
    """Return the names that a tree of :func:`parse`, or a part of it, uses, with the keys after them."""
    found: list[Reference] = []
    _collect(tree, frozenset(["range"]), found)
    return found


def allowed(text: str, *, bare: bool = False) -> Parsed:
    """Parse a template, or a bare expression, that must be correct.

    Raises:
        ExpressionError: The string cannot be parsed, or contains something that is not on the allow-list.
    """
    parsed = parse(text, bare=bare)
    for problem in parsed.problems:
        raise problem
    if bare and not parsed.lone:
        raise not_one(text)
    return parsed


def not_one(text: str) -> ExpressionError:
    """Return the error for a string that should be one bare expression."""
    return ExpressionError(f"write one expression without braces, not {shown(text)}")


def _parse(text: str) -> nodes.Template:
    try:
        _check_brackets(text)
        tree = ENVIRONMENT.parse(text)
    except jinja2.TemplateSyntaxError as error:
        message = error.message or "syntax error"
        place = _CHARACTER.search(message)
        raise ExpressionError(_sentence(message), int(place[1]) if place else error.lineno - 1) from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:  # Python's own, about a number with thousands of digits
        place = _LONG_NUMBER.search(text)
        raise ExpressionError("a number has too many digits", place.start() if place else 0) from None
    if is_lone(tree):
        # White space around a single expression does not make it a string.
        (value,) = output_values(tree)
        tree.body = [nodes.Output([value], lineno=value.lineno, environment=ENVIRONMENT)]
    return tree


def _too_deep(place: int = 1) -> ExpressionError:
    return ExpressionError(
        'the expression is nested too deeply: compute parts of it in a "set" step before this one', place - 1
    )


def _check_brackets(text: str) -> None:
    """Refuse deeply nested brackets, for which the parser uses most of the stack."""
    if sum(map(text.count, "([{")) <= _MAX_BRACKETS:
        return
    depth = 0
    for place, kind, value in ENVIRONMENT.tokens(text):
        if kind == "operator":
            depth += (value in "([{") - (value in ")]}")
            if depth > _MAX_BRACKETS:
                raise _too_deep(place)


def _sentence(message: str) -> str:
    """Return Jinja's message in the words of the language: Jinja's tokens have names of their own."""
    for pattern, sentence in _SENTENCES:
        if found := re.fullmatch(pattern, message):
            return found.expand(sentence)
    text = message[0].lower() + message[1:].rstrip(".").replace("'", '"')
    for token, words in _TOKENS.items():
        text = text.replace(token, words)
    return text


def output_values(tree: nodes.Template) -> list[nodes.Expr]:
    """Return the expressions and strings of a template without statements, apart from white space."""
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


def is_lone(tree: nodes.Template) -> bool:
    """Tell whether a template is one expression, apart from white space around it."""
    values = output_values(tree)
    return len(values) == 1 and not isinstance(values[0], nodes.TemplateData)


def _nodes(tree: nodes.Template) -> Iterator[nodes.Node]:
    """Yield every node, without recursion. Refuse nesting that is too deep for the rest of the code."""
    waiting: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    while waiting:
        node, depth, blocks = waiting.pop()
        blocks += isinstance(node, (nodes.If, nodes.For))
        depth += len(node.elif_) if isinstance(node, nodes.If) else 0
        if depth > _MAX_DEPTH or blocks > _MAX_BLOCKS:
            raise _too_deep(node.lineno or 1)
        yield node
        waiting += reversed([(child, depth + 1, blocks) for child in node.iter_child_nodes()])


def _problems(node: nodes.Node) -> Iterator[ExpressionError]:
    """Yield why a node is not on the allow-list."""
    place = (node.lineno or 1) - 1  # an operand of a comparison has none
    if isinstance(node, nodes.Const):
        if isinstance(node.value, float) and not math.isfinite(node.value):
            yield ExpressionError("this number is too large", place, "number")
    elif isinstance(node, nodes.Call):
        called = node.node
        if not (isinstance(called, nodes.Name) and called.name in ENVIRONMENT.globals):
            yield _no_function(called)
    elif isinstance(node, nodes.Filter):
        yield from _unknown("filter", node.name, ENVIRONMENT.filters, place)
    elif isinstance(node, nodes.Test):
        yield from _unknown("test", node.name, ENVIRONMENT.tests, place)
    elif isinstance(node, nodes.For | nodes.Assign | nodes.AssignBlock | nodes.NSRef):
        yield from _of_statement(node)
    elif not isinstance(node, _EXPRESSION_NODES + _STATEMENT_NODES):
        kind = _WORDS.get(type(node), type(node).__name__.lower())
        yield ExpressionError(f'"{kind}" is not available here: {_ONLY}', place, word=kind)


def _of_statement(
    node: nodes.For | nodes.Assign | nodes.AssignBlock | nodes.NSRef,
) -> Iterator[ExpressionError]:
    match node:
        case nodes.For():
            if node.recursive:
                yield ExpressionError("recursive loops are not available", node.lineno - 1)
            yield from _of_variables(node.target, _NAMES_OF_JINJA)
        case nodes.Assign(target=nodes.Name()):
            yield from _of_variables(node.target, NAMES | _NAMES_OF_JINJA)
        case nodes.Assign() | nodes.AssignBlock():  # the target of the first may be an "NSRef"
            message = f'"set" takes one name and one value: {_SET_HELP}'
            yield ExpressionError(message, node.lineno - 1, word="set")


def _of_variables(target: nodes.Node, taken: frozenset[str]) -> Iterator[ExpressionError]:
    """Yield what is wrong with the names that a statement gives to values."""
    for node in [target, *target.find_all(nodes.Name)]:
        if not isinstance(node, nodes.Name):
            continue
        if node.name in taken:
            message = f'"{node.name}" is a name of the language: choose another for the variable'
            yield ExpressionError(message, node.lineno - 1, word=node.name)
        # Jinja makes variables of Python of them, which are one if they look alike.
        elif (usual := unicodedata.normalize("NFKC", node.name)) != node.name:
            message = f'the name "{node.name}" has compatibility characters: write "{usual}"'
            yield ExpressionError(message, node.lineno - 1, word=node.name)


def _no_function(called: nodes.Node) -> ExpressionError:
    place = called.lineno - 1
    if isinstance(called, nodes.Getattr):
        instead = _instead(called.attr)
        help_ = f'use the filter "{instead}"' if instead else f'use a filter instead of ".{called.attr}()"'
        message = f"methods cannot be called: {help_}"
        return ExpressionError(message, place, "function", called.attr)
    if isinstance(called, nodes.Name):
        reason = filters.NOT_DETERMINISTIC.get(called.name)
        instead = _instead(called.name)
        help_ = f'use the filter "{instead}"' if instead else "the only function is range()"
        message = f'"{called.name}()" is not available: {reason or help_}'
        kind: Kind = "nondeterminism" if reason else "function"
        return ExpressionError(message, place, kind, called.name)
    return ExpressionError("this cannot be called", place, "function")


def _instead(name: str) -> str | None:
    """Return the filter that replaces a function or a method of Python."""
    return name if name in filters.FILTERS else _FILTERS_INSTEAD.get(name)


def _unknown(
    what: Literal["filter", "test"], name: str, known: Mapping[str, object], place: int
) -> Iterator[ExpressionError]:
    if name in known and not name.startswith("_"):
        return
    reason = filters.NOT_DETERMINISTIC.get(name)
    near = did_you_mean(name, [n for n in known if not n.startswith("_")])
    hint = reason or near or f"see the reference for the {what}s"
    kind: Kind = "nondeterminism" if reason else what
    yield ExpressionError(f'there is no {what} "{name}": {hint}', place, kind, name)


def shown(template: str) -> str:
    """Return a template for a message: on one line, in quotes, not too long."""
    flat = " ".join(template.split())
    return f'"{flat[: _SHOWN - 1]}…"' if len(flat) > _SHOWN else f'"{flat}"'


def assigned(statement: nodes.Node) -> frozenset[str]:
    """Return the names that the statements after one see because of it: a loop keeps its own to itself."""
    match statement:
        case nodes.Assign(target=nodes.Name(name=name)):
            return frozenset([name])
        case nodes.If():
            parts = [*statement.body, *statement.elif_, *statement.else_]
            return frozenset[str]().union(*map(assigned, parts))
    return frozenset()


def branches(statement: nodes.If) -> list[Sequence[nodes.Node]]:
    """Return the statements after ``if``, those of each ``elif`` with its condition, those after ``else``."""
    return [statement.body, *[[one] for one in statement.elif_], statement.else_]


def _collect_body(parts: Sequence[nodes.Node], bound: frozenset[str], found: list[Reference]) -> None:
    for part in parts:
        _collect(part, bound, found)
        bound |= assigned(part)


def _collect(node: nodes.Node, bound: frozenset[str], found: list[Reference]) -> None:
    """Add the references below a node. ``bound`` names are variables of loops and of ``set``."""
    chain: list[str] = []
    base = node
    while isinstance(base, nodes.Getattr | nodes.Getitem):
        if isinstance(base, nodes.Getattr):
            chain.append(base.attr)
        elif isinstance(base.arg, nodes.Const) and isinstance(base.arg.value, str):
            chain.append(base.arg.value)
        else:
            # What precedes a computed key is a separate, shorter reference.
            chain.clear()
            _collect(base.arg, bound, found)
        base = base.node
    if isinstance(base, nodes.Name):
        if base.ctx == "load" and base.name not in bound:
            found.append(Reference((base.name, *reversed(chain)), base.lineno - 1))
        return
    if isinstance(base, nodes.For):
        _collect(base.iter, bound, found)
        names = frozenset(n.name for n in base.target.find_all(nodes.Name))
        names |= {base.target.name} if isinstance(base.target, nodes.Name) else frozenset()
        inner = bound | names | {"loop"}
        if base.test:
            _collect(base.test, inner, found)
        _collect_body(base.body, inner, found)
        _collect_body(base.else_, bound, found)
        return
    if isinstance(base, nodes.If):
        _collect(base.test, bound, found)
        for body in branches(base):
            _collect_body(body, bound, found)
        return
    _collect_body([*base.iter_child_nodes()], bound, found)
