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
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeVar

import jinja2
from jinja2 import nodes

from pipeline_runner.core import filters
from pipeline_runner.core.budget import Budget, BudgetError
from pipeline_runner.core.environment import BUDGET, ENVIRONMENT, Missing
from pipeline_runner.core.secrets import SecretMisuse, SecretText
from pipeline_runner.core.suggest import did_you_mean
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
_CHARACTER = re.compile(r"unexpected char .* at (\d+)$")
_INSERTED = re.compile(r"\{\{([^{}]*)\}\}")
_PATH = re.compile(r"[ \t\n]*([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*|\[\d{1,9}\])*)[ \t\n]*", re.ASCII)
_KEY = re.compile(r"\.(\w+)|\[(\d+)\]", re.ASCII)
_LONG_NUMBER = re.compile(r"\d[\d_]{600,}")
_OPENING = re.compile(r"\{[{%#]")
_RESERVED = frozenset(
    ["and", "else", "false", "if", "in", "is", "none", "not", "or", "range", "true", "False", "None", "True"]
)
_FILTERS_INSTEAD = {
    "len": "length", "size": "length", "str": "string", "sorted": "sort", "reversed": "reverse",
    "strip": "trim", "update": "combine", "loads": "fromjson", "dumps": "tojson",
}  # fmt: skip
_STATEMENT_NODES = (nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For)
_WORDS: dict[type, str] = {
    nodes.Assign: "set",
    nodes.AssignBlock: "set",
    nodes.FilterBlock: "filter",
    nodes.CallBlock: "call",
    nodes.FromImport: "from",
}
"""What a text has for a node of another name."""
_SENTENCES = tuple(
    (re.compile(pattern), sentence)
    for pattern, sentence in (
        (r"unexpected char [\"']['\"][\"'] at .*", "a text is not closed: its second quote is missing"),
        (r"unexpected char '&' at .*", '"&" is no operator: write "and"'),
        (r"expected token 'name', got '\|'", '"||" is no operator: write "or"'),
        (r"unexpected char '!' at .*", '"!" is no operator: write "not"'),
        (r"unexpected char '\?' at .*", '"?" is no operator: write "a if condition else b"'),
        (r"expected token '(end of [a-z ]+|,|\))', got '='", '"=" does not compare: write "=="'),
        (r"unexpected '='", '"=" does not compare: write "=="'),
        (r".*(unexpected|got) 'end of (print statement|statement block)'", "the expression ends too early"),
        (r"Unexpected end of template\..* closed is '(\w+)'\.", r'"{% \1 %}" is never closed'),
        (r"unexpected '}', expected '([)\]])'", r'a "\1" is missing'),
        (r"unexpected '}'", 'a "}" stands alone: a template ends with "}}"'),
        (r"unexpected '\.'", 'a name is missing before ".": for braces in the text, write "{{ \'{{\' }}"'),
        (r"Missing end of comment tag", '"{#" begins a comment: for it in the text, write "{{ \'{#\' }}"'),
        (r"expected token 'end of statement block', got 'if'", 'another condition is "{% elif … %}"'),
        (
            r"Encountered unknown tag '(end\w*|else|elif)'\. Jinja was looking .* to be closed is '(\w+)'\.",
            r'there is no "{% \1 %}": "{% \2 %}" is closed by "{% end\2 %}"',
        ),
        (r"Encountered unknown tag '(end\w+|else|elif)'\.", r'"{% \1 %}" belongs to nothing before it'),
        (
            r"Encountered unknown tag '(\w+)'\..*",
            r'"\1" is not available here: only {% if %} and {% for %} are',
        ),
    )
)
_TOKENS = {
    '"end of print statement"': '"}}"',
    "end of template": "end of the text",
    '"end of statement block"': '"%}"',
    'token "name"': "a name",
}


Kind = Literal["syntax", "filter", "test", "function", "nondeterminism"]


N = TypeVar("N", bound=nodes.Node)


class ExpressionError(Exception):
    """A template or expression cannot be parsed or evaluated.

    Attributes:
        message: What is wrong and what would be right.
        offset: 0-based offset in the text, in characters, for mistakes found by parsing.
        kind: What sort of mistake that is.
        word: The name that it is about, at or after the offset; empty: the token there.
    """

    def __init__(self, message: str, offset: int = 0, kind: Kind = "syntax", word: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.kind = kind
        self.word = word


class Reference:
    """A name used in an expression, with the keys that follow it as far as they are literal."""

    __slots__ = ("offset", "path")

    def __init__(self, path: tuple[str, ...], offset: int) -> None:
        self.path = path
        self.offset = offset

    def __repr__(self) -> str:
        return f"Reference({'.'.join(self.path)}, at {self.offset})"


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
    lone = is_lone(tree)
    path = _path(tree) if lone else None
    return _Compiled(text, tree, lone=lone) if path is None else _Path(text, path)


@contextmanager
def _told(text: str) -> Iterator[None]:
    """Turn whatever an evaluation raises into an :class:`ExpressionError`."""
    try:
        yield
    except (SecretMisuse, BudgetError, jinja2.TemplateError, ExpressionValueError) as error:
        raise ExpressionError(f"{error.args[0]}, in {_shown(text)}") from None
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RecursionError) as error:
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


class Parsed(NamedTuple):
    """A template that could be parsed."""

    tree: nodes.Template
    """The places of its nodes are offsets in the text (see :mod:`environment`), those of a bare
    expression three more. That of a lone expression has nothing but it."""
    lone: bool
    """Whether it is one expression, white space around it aside."""
    references: list[Reference]
    problems: list[ExpressionError]
    """What is not on the allow-list."""


def parse(text: str, *, bare: bool = False) -> Parsed:
    """Parse a template, or a bare expression.

    Raises:
        ExpressionError: The text cannot be parsed.
    """
    if bare:
        text = f"{{{{ {text}\n}}}}"
    if simple := _simple(text):
        return simple
    tree = _parse(text)
    problems = [problem for node in _nodes(tree) for problem in _problems(node)]
    return Parsed(tree, is_lone(tree), references_in(tree), problems)


def references(text: str, *, bare: bool = False) -> list[Reference]:
    """List the names that a template, or a bare expression, uses, with the keys after them.

    Raises:
        ExpressionError: The text cannot be parsed, or names what does not exist.
    """
    return list(_references(text, bare))


@lru_cache(maxsize=20_000)
def _references(text: str, bare: bool) -> tuple[Reference, ...]:
    return tuple((_parse_expression(text) if bare else _allowed(text)).references)


def references_in(tree: nodes.Node) -> list[Reference]:
    """List the names that a tree of :func:`parse`, or a part of one, uses, with the keys after them."""
    found: list[Reference] = []
    _collect(tree, frozenset(["range"]), found)
    return found


@lru_cache(maxsize=20_000)
def _template(text: str) -> _Path | _Compiled:
    return _ready(text, _allowed(text).tree)


@lru_cache(maxsize=5_000)
def _expression(text: str) -> _Path | _Compiled:
    return _ready(text, _parse_expression(text).tree)


def _parse_expression(text: str) -> Parsed:
    parsed = _allowed("{{ " + text + "\n}}")
    if not parsed.lone:
        raise not_one(text)
    return parsed


def not_one(text: str) -> ExpressionError:
    """Return the error of a text that should be one bare expression."""
    return ExpressionError(f"one expression without braces was expected, not {_shown(text)}")


def _allowed(text: str) -> Parsed:
    parsed = parse(text)
    for problem in parsed.problems:
        raise problem
    return parsed


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
    except ValueError:  # Python's own, of a number with thousands of digits
        place = _LONG_NUMBER.search(text)
        raise ExpressionError("a number has too many digits", place.start() if place else 0) from None
    if is_lone(tree):
        # White space around a lone expression does not make it text.
        tree.body = [nodes.Output([_output_values(tree)[0]], lineno=1)]
    return tree


def _simple(text: str) -> Parsed | None:
    """Parse a text whose only templates are expressions without braces, as most are; None: it is more.

    The result is what Jinja makes of it, for a fraction of the time (see ``bench/``): names with
    keys are told from the rest at a glance, and of other expressions each is parsed once.
    """
    parts: list[nodes.Expr] = []
    found: list[Reference] = []
    problems: list[ExpressionError] = []
    blank, count, end = True, 0, 0
    for match in _INSERTED.finditer(text):
        start = match.start()
        between = text[end:start]
        if between[-1:] == "{" or _OPENING.search(between):
            return None
        if between:
            parts.append(_node(nodes.TemplateData, end + 1, data=between))
            blank = blank and between.isspace()
        node = _lone_path(match, found) or _cached(match, found, problems)
        if node is None:
            return None
        parts.append(node)
        count += 1
        end = match.end()
    rest = text[end:]
    if not count or "\r" in text or _OPENING.search(rest):
        return None
    if rest:
        parts.append(_node(nodes.TemplateData, end + 1, data=rest))
    lone = count == 1 and blank and (not rest or rest.isspace())
    output = _node(nodes.Output, 1, nodes=[node] if lone else parts)
    return Parsed(_node(nodes.Template, 1, body=[output]), lone, found, problems)


def _lone_path(match: re.Match[str], found: list[Reference]) -> nodes.Expr | None:
    """Return the node of a name with keys, and add its reference; None: it is something else."""
    path = _PATH.fullmatch(match[1])
    if path is None or path[1] in _RESERVED or len(path[2]) > _MAX_DEPTH:
        return None
    name, keys = path.groups()
    place = match.start(1) + path.start(1)
    node: nodes.Expr = _node(nodes.Name, place + 1, name=name, ctx="load")
    names = [name]
    if keys:
        node = _with_keys(node, keys, place + len(name) + 1, names)
    found.append(Reference(tuple(names), place))
    return node


def _cached(
    match: re.Match[str], found: list[Reference], problems: list[ExpressionError]
) -> nodes.Expr | None:
    """Return the node of an expression, and add what is in it; None: it is not to be had alone."""
    known = _expression_in(match[1])
    if known is None:
        return None
    node, references, wrong = known
    start = match.start()
    found += [Reference(one.path, one.offset + start) for one in references]
    problems += [ExpressionError(one.message, one.offset + start, one.kind, one.word) for one in wrong]
    return _moved(node, start)


@lru_cache(maxsize=20_000)
def _expression_in(text: str) -> tuple[nodes.Expr, list[Reference], list[ExpressionError]] | None:
    """Parse what stands between two braces and two; None: in there it is not what it is here."""
    if text[:1] in ("-", "+") or text[-1:] in ("-", "+"):
        return None  # white space around it is trimmed
    try:
        tree = _parse(f"{{{{{text}}}}}")
        wrong = [problem for node in _nodes(tree) for problem in _problems(node)]
    except ExpressionError:
        return None
    if not is_lone(tree):
        return None
    return _output_values(tree)[0], references_in(tree), wrong


def _moved(node: N, by: int) -> N:
    """Return a copy of a tree that stands further on; the copy is the caller's to change."""
    copy = type(node).__new__(type(node))
    for key, value in vars(node).items():
        if isinstance(value, nodes.Node):
            value = _moved(value, by)  # noqa: PLW2901 - here and below: the copy's
        elif type(value) is list:
            value = [_moved(one, by) if isinstance(one, nodes.Node) else one for one in value]  # noqa: PLW2901
        copy.__dict__[key] = value
    copy.lineno = node.lineno + by if node.lineno else node.lineno
    return copy


def _with_keys(node: nodes.Expr, keys: str, place: int, path: list[str]) -> nodes.Expr:
    """Put keys and indices behind a name; add the keys before the first index to its path."""
    indexed = False
    for key in _KEY.finditer(keys):
        here = place + key.start()
        if key[1]:
            node = _node(nodes.Getattr, here, node=node, attr=key[1], ctx="load")
            path += [] if indexed else [key[1]]
        else:
            index = _node(nodes.Const, here + 1, value=int(key[2]))
            node = _node(nodes.Getitem, here, node=node, arg=index, ctx="load")
            indexed = True
    return node


def _node(kind: type[N], place: int, **fields: Any) -> N:
    """Make a node. Its own constructor takes ten times as long, to check what is known here."""
    node = kind.__new__(kind)
    node.__dict__.update(fields, lineno=place, environment=ENVIRONMENT)
    return node


def _too_deep(place: int = 1) -> ExpressionError:
    return ExpressionError(
        'the expression is nested too deeply: compute parts of it in a "set" step before this one', place - 1
    )


def _check_brackets(text: str) -> None:
    """Refuse brackets in brackets in brackets, which the parser takes most of the stack for."""
    if sum(map(text.count, "([{")) <= _MAX_BRACKETS:
        return
    depth = 0
    for place, kind, value in ENVIRONMENT.tokens(text):
        if kind == "operator":
            depth += (value in "([{") - (value in ")]}")
            if depth > _MAX_BRACKETS:
                raise _too_deep(place)


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


def is_lone(tree: nodes.Template) -> bool:
    """Tell whether a template is one expression, white space around it aside."""
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
            raise _too_deep(node.lineno or 1)
        yield node
        waiting += reversed([(child, depth + 1, blocks) for child in node.iter_child_nodes()])


def _problems(node: nodes.Node) -> Iterator[ExpressionError]:
    """Yield what keeps a node from the allow-list."""
    place = (node.lineno or 1) - 1  # an operand of a comparison has none
    if isinstance(node, nodes.Call):
        called = node.node
        if not (isinstance(called, nodes.Name) and called.name in ENVIRONMENT.globals):
            yield _no_function(called)
    elif isinstance(node, nodes.Filter):
        yield from _unknown("filter", node.name, ENVIRONMENT.filters, place)
    elif isinstance(node, nodes.Test):
        yield from _unknown("test", node.name, ENVIRONMENT.tests, place)
    elif isinstance(node, nodes.For) and node.recursive:
        yield ExpressionError("recursive loops are not available", place)
    elif not isinstance(node, _EXPRESSION_NODES + _STATEMENT_NODES):
        kind = _WORDS.get(type(node), type(node).__name__.lower())
        yield ExpressionError(
            f'"{kind}" is not available here: only {{% if %}} and {{% for %}} are', place, word=kind
        )


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
    """Return the filter that does what a function or a method of Python does."""
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
            found.append(Reference((base.name, *reversed(chain)), base.lineno - 1))
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
