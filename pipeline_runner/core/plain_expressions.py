"""The short way to parse a template whose expressions are plain, as nearly all are.

Jinja's parser takes a multiple of this one's time (see ``bench/``), most of it in its lexer and
in the checks of its nodes' constructors. The nodes made here are those that Jinja makes, down to
their places (:mod:`environment`); the tests compare the two. What is not plain is left to Jinja:
statements and comments, calls, slices, tuples, escapes in texts, numbers that are spelt in unusual
ways, white space control, whatever is nested deeply, and every mistake.
"""

import math
import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from jinja2 import nodes

from pipeline_runner.core.environment import ENVIRONMENT
from pipeline_runner.core.plain_nodes import (
    binary,
    constant,
    item_of,
    key_of,
    name_node,
    new,
    operand,
    placed,
    text_data,
    unary,
    with_arguments,
)

_MAX_TOKENS = 150
"""In an expression, each dot and each key counted for one. Its tree is not much deeper than half of that."""
_MAX_BRACKETS = 30

_TOKEN = re.compile(
    r"""[ \t\n]*(?:
    ([A-Za-z_]\w*(?:\.[A-Za-z_]\w*){0,50})
    |((?:0|[1-9]\d{0,14})(?:\.\d{1,15})?(?![\w.]))
    |("[^"\\]*"|'[^'\\]*')
    |([=!<>]=|//|\*\*|[-+*/%~.,:|()\[\]{}<>=])
    |(.|\Z)
    )""",
    re.ASCII | re.DOTALL | re.VERBOSE,
)
# Most expressions are a name with keys, which a look tells from the rest.
_PATH = re.compile(r"[ \t\n]*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*){0,50})[ \t\n]*\}\}", re.ASCII)
_NAME, _NUMBER, _TEXT, _OPERATOR, _OTHER = range(1, 6)
_DEPTH = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}

_KEYWORDS = frozenset(["and", "or", "not", "in", "is", "if", "else"])
_CONSTANTS = {"true": True, "True": True, "false": False, "False": False, "none": None, "None": None}

_RESERVED = _KEYWORDS | _CONSTANTS.keys() | ENVIRONMENT.globals.keys()

_CONDITION, _OR, _AND, _NOT, _COMPARISON, _SUM, _CONCAT, _PRODUCT, _POWER = range(9)
_LEVELS = {
    "if": _CONDITION, "or": _OR, "and": _AND,
    "==": _COMPARISON, "!=": _COMPARISON, "<": _COMPARISON, "<=": _COMPARISON, ">": _COMPARISON,
    ">=": _COMPARISON, "in": _COMPARISON, "not": _COMPARISON,
    "+": _SUM, "-": _SUM, "~": _CONCAT, "*": _PRODUCT, "/": _PRODUCT, "//": _PRODUCT, "%": _PRODUCT,
    "**": _POWER,
}  # fmt: skip
"""How tightly operators bind: the higher, the tighter."""
_BINARY: dict[str, type[nodes.BinExpr]] = {
    "or": nodes.Or, "and": nodes.And, "+": nodes.Add, "-": nodes.Sub, "*": nodes.Mul, "/": nodes.Div,
    "//": nodes.FloorDiv, "%": nodes.Mod, "**": nodes.Pow,
}  # fmt: skip
_SIGNS: dict[str, type[nodes.UnaryExpr]] = {"-": nodes.Neg, "+": nodes.Pos}
_COMPARISONS = {
    "==": "eq", "!=": "ne", "<": "lt", "<=": "lteq", ">": "gt", ">=": "gteq", "in": "in",
}  # fmt: skip
_BEGINNINGS = frozenset(["name", "path", "constant", "(", "[", "{"])
"""The kinds of tokens with which an argument of a test can begin."""


class Reference:
    """A name used in an expression, with the keys that follow it as far as they are literal."""

    __slots__ = ("offset", "path")

    def __init__(self, path: tuple[str, ...], offset: int) -> None:
        self.path = path
        self.offset = offset
        """In the text, in characters."""

    def __repr__(self) -> str:
        return f"Reference({'.'.join(self.path)}, at {self.offset})"


class Plain(NamedTuple):
    """What :func:`parse` made of a template."""

    parts: list[nodes.Expr]
    """Texts and expressions in their order."""
    lone: bool
    """Whether it is one expression, white space around it aside; then that is its only part."""
    references: list[Reference]
    """In the order of the text."""


class _OtherError(Exception):
    """An expression is not plain, or not right."""


def _refuse(_: str) -> Any:
    raise _OtherError


def _finite(text: str) -> float:
    number = float(text)
    if number == math.inf:
        raise _OtherError
    return number


_READ: dict[int, Callable[[str], Any]] = {
    _NUMBER: lambda text: _finite(text) if "." in text else int(text),
    _TEXT: lambda text: text[1:-1],
    _OTHER: _refuse,
}
"""The values of constants, by the group of the token."""


def parse(text: str) -> Plain | None:
    """Parse a template; None: it is not plain, or not right."""
    if "{%" in text or "{#" in text or "\r" in text:
        return None
    parts: list[nodes.Expr] = []
    references: list[Reference] = []
    count, blank, end = 0, True, 0
    while (start := text.find("{{", end)) >= 0:
        if start > end:
            data = text[end:start]
            blank = blank and data.isspace()
            parts.append(text_data(data, end + 1))
        found = _PATH.match(text, start + 2)
        path = tuple(found[1].split(".")) if found else ()
        if found and path[0] not in _RESERVED:
            place = found.start(1)
            node = _of_path(path, place + 1)
            references.append(Reference(path, place))
            end = found.end()
        else:
            parser = _Parser(references)
            try:
                end = parser.tokenize(text, start + 2)
                node = parser.expression(_CONDITION)
            except _OtherError:
                return None
            if parser.kind != "end":
                return None
        parts.append(node)
        count += 1
    if not count:
        return None
    if end < len(text):
        data = text[end:]
        blank = blank and data.isspace()
        parts.append(text_data(data, end + 1))
    references.sort(key=offset_of)
    if count == 1 and blank:
        return Plain([node], True, references)
    return Plain(parts, False, references)


offset_of = attrgetter("offset")
"""Return the offset of a reference."""


def _of_path(path: Sequence[str], place: int) -> nodes.Expr:
    """Return the node of a name, or of a constant, with keys behind it."""
    name, *keys = path
    node = constant(_CONSTANTS[name], place) if name in _CONSTANTS else name_node(name, place)
    place += len(name)
    for key in keys:
        node = key_of(node, key, place)
        place += len(key) + 1
    return node


class _Parser:
    """Parses one expression, from its tokens."""

    __slots__ = ("_at", "_kinds", "_places", "_references", "_values", "kind")

    def __init__(self, references: list[Reference]) -> None:
        self._references = references
        self._kinds: list[str] = []
        self._values: list[Any] = []
        self._places: list[int] = []
        self._at = 0
        self.kind = "end"
        """What the next token is: ``name``, ``path`` (names with dots between them), ``constant``,
        ``end``, or a keyword or an operator itself."""

    def tokenize(self, text: str, start: int) -> int:
        """Read the tokens of an expression up to its closing braces; return the offset after these."""
        kinds, values, places = self._kinds, self._values, self._places
        depth = keys = 0
        for match in _TOKEN.finditer(text, start):
            group = match.lastindex or 0
            value = match[group]
            place = match.start(group)
            if group == _NAME:
                kinds.append(value if value in _KEYWORDS else "path" if "." in value else "name")
                keys += value.count(".")
            elif group == _OPERATOR:
                if value in _DEPTH:
                    if value == "}" and not depth and text[place : place + 2] == "}}":
                        break
                    depth += _DEPTH[value]
                    if not 0 <= depth <= _MAX_BRACKETS:
                        raise _OtherError
                kinds.append(value)
            else:
                kinds.append("constant")
                value = _READ[group](value)
            values.append(value)
            places.append(place + 1)
        if len(kinds) + 2 * keys > _MAX_TOKENS:
            raise _OtherError
        if text[start] in "-+":  # which trims the white space before it
            raise _OtherError
        kinds += ("end", "end")  # one to look at, and one to look ahead to
        values.append("")
        places.append(place + 1)
        self.kind = kinds[0]
        return place + 2

    def _next(self) -> None:
        self._at += 1
        self.kind = self._kinds[self._at]

    def _take(self, kind: str) -> Any:
        """Step over a token that must be of this kind, and return its value."""
        if self.kind != kind:
            raise _OtherError
        value = self._values[self._at]
        self._at += 1
        self.kind = self._kinds[self._at]
        return value

    def expression(self, floor: int) -> nodes.Expr:
        """Parse an expression of operators that bind as tightly as ``floor``, or more so."""
        first = self._places[self._at]
        if self.kind == "not" and floor <= _NOT:
            self._next()
            if self.kind == "not":
                raise _OtherError
            left: nodes.Expr = unary(nodes.Not, first, self.expression(_NOT))
        else:
            left = self._operand()
        last = -1
        while True:
            operator = self.kind
            level = _LEVELS.get(operator, -1)
            if level < floor:
                return left
            # Of several operators in a row, the first is where its left side begins, as in Jinja.
            place = first if level != last else self._places[self._at]
            last = level
            if level == _COMPARISON:
                left = self._comparison(left)
            elif level == _CONCAT:
                left = self._joined(left, place)
            elif level == _CONDITION:
                left = self._condition(left, place)
            else:
                self._next()
                left = binary(_BINARY[operator], place, left, self.expression(level + 1))

    def _comparison(self, left: nodes.Expr) -> nodes.Expr:
        ops: list[nodes.Operand] = []
        while True:
            if self.kind == "not":
                self._next()
                if self.kind != "in":
                    raise _OtherError
                name: str | None = "notin"
            else:
                name = _COMPARISONS.get(self.kind)
            if name is None:
                break
            self._next()
            ops.append(operand(name, self.expression(_SUM)))
        node = new(nodes.Compare)
        node.expr = left
        node.ops = ops
        return placed(node, self._places[self._at])

    def _joined(self, left: nodes.Expr, place: int) -> nodes.Expr:
        parts = [left]
        while self.kind == "~":
            self._next()
            parts.append(self.expression(_PRODUCT))
        node = new(nodes.Concat)
        node.nodes = parts
        return placed(node, place)

    def _condition(self, left: nodes.Expr, place: int) -> nodes.Expr:
        self._next()
        test = self.expression(_OR)
        other = None
        if self.kind == "else":
            self._next()
            other = self.expression(_CONDITION)
        node = new(nodes.CondExpr)
        node.test = test
        node.expr1 = left
        node.expr2 = other
        return placed(node, place)

    def _operand(self) -> nodes.Expr:
        """Parse a value with its sign, keys, filters and tests."""
        if self.kind in _SIGNS:
            sign, place = _SIGNS[self.kind], self._places[self._at]
            self._next()
            node: nodes.Expr = unary(sign, place, self._value())
        else:
            node = self._value()
        while True:
            if self.kind == "|":
                node = self._filter(node)
            elif self.kind == "is":
                node = self._test(node)
            elif self.kind == "(":
                raise _OtherError
            else:
                return node

    def _value(self) -> nodes.Expr:
        """Parse a name or a literal, with its keys."""
        kind, at = self.kind, self._at
        place, value = self._places[at], self._values[at]
        self._at = at + 1
        self.kind = self._kinds[at + 1]
        path: list[str] = value.split(".") if kind in ("name", "path") else []
        named = bool(path) and path[0] not in _CONSTANTS
        if path:
            if named and path[0] in _RESERVED:
                raise _OtherError
            node = _of_path(path, place)
        elif kind == "constant":
            node = constant(value, place)
        elif inner := _BRACKETS.get(kind):
            node = inner(self, place)
        else:
            raise _OtherError
        if self.kind in (".", "["):
            if kind == "(":  # the name inside would go on after the bracket
                raise _OtherError
            node = self._keys(node, path)
        if named:
            self._references.append(Reference(tuple(path), place - 1))
        return node

    def _keys(self, node: nodes.Expr, path: list[str]) -> nodes.Expr:
        """Parse what follows a value; add the keys to the path until one is not literal."""
        literal = True
        while True:
            place = self._places[self._at]
            if self.kind == ".":
                self._next()
                if self.kind not in ("name", "path") and self.kind not in _KEYWORDS:
                    raise _OtherError
                keys, end = self._values[self._at].split("."), self._places[self._at]
                self._next()
                for key in keys:
                    node = key_of(node, key, place)
                    place = end + len(key)  # of the next dot
                    end = place + 1
                if literal:
                    path += keys
            elif self.kind == "[":
                self._next()
                index = self.expression(_CONDITION)
                self._take("]")
                if literal and isinstance(index, nodes.Const) and isinstance(index.value, str):
                    path.append(index.value)
                else:
                    literal = False
                node = item_of(node, index, place)
            else:
                return node

    def _inner(self, _: int) -> nodes.Expr:
        node = self.expression(_CONDITION)
        self._take(")")
        return node

    def _list(self, place: int) -> nodes.Expr:
        items: list[nodes.Expr] = []
        while self.kind != "]":
            if items:
                self._take(",")
                if self.kind == "]":
                    break
            items.append(self.expression(_CONDITION))
        self._next()
        node = new(nodes.List)
        node.items = items
        return placed(node, place)

    def _dict(self, place: int) -> nodes.Expr:
        items: list[nodes.Pair] = []
        while self.kind != "}":
            if items:
                self._take(",")
                if self.kind == "}":
                    break
            key = self.expression(_CONDITION)
            self._take(":")
            pair = new(nodes.Pair)
            pair.key = key
            pair.value = self.expression(_CONDITION)
            items.append(placed(pair, key.lineno))
        self._next()
        node = new(nodes.Dict)
        node.items = items
        return placed(node, place)

    def _filter(self, value: nodes.Expr) -> nodes.Expr:
        self._next()
        place = self._places[self._at]
        name = self._take("name")
        if name not in ENVIRONMENT.filters or name.startswith("_"):
            raise _OtherError
        args, keywords = self._arguments() if self.kind == "(" else ([], [])
        return with_arguments(nodes.Filter, place, value, name, args, keywords)

    def _test(self, value: nodes.Expr) -> nodes.Expr:
        place = self._places[self._at]
        self._next()
        negated = self.kind == "not"
        if negated:
            self._next()
        name = self._values[self._at]
        if name not in ENVIRONMENT.tests or self.kind not in ("name", "in"):
            raise _OtherError
        self._next()
        args: list[nodes.Expr] = []
        keywords: list[nodes.Keyword] = []
        if self.kind == "(":
            args, keywords = self._arguments()
        elif self.kind in _BEGINNINGS:
            args = [self._value()]
        elif self.kind in ("if", "in", "not", "is"):  # Jinja takes these for arguments
            raise _OtherError
        node = with_arguments(nodes.Test, place, value, name, args, keywords)
        return unary(nodes.Not, place, node) if negated else node

    def _arguments(self) -> tuple[list[nodes.Expr], list[nodes.Keyword]]:
        self._next()
        args: list[nodes.Expr] = []
        keywords: list[nodes.Keyword] = []
        while self.kind != ")":
            if args or keywords:
                self._take(",")
                if self.kind == ")":
                    break
            if self.kind == "name" and self._kinds[self._at + 1] == "=":
                keyword = new(nodes.Keyword)
                keyword.key = self._values[self._at]
                self._next()
                self._next()
                keyword.value = self.expression(_CONDITION)
                keywords.append(placed(keyword, keyword.value.lineno))
            elif keywords:
                raise _OtherError
            else:
                args.append(self.expression(_CONDITION))
        self._next()
        return args, keywords


_BRACKETS: dict[str, Callable[[_Parser, int], nodes.Expr]] = {
    "(": _Parser._inner,  # noqa: SLF001 - here and below: its own methods
    "[": _Parser._list,  # noqa: SLF001
    "{": _Parser._dict,  # noqa: SLF001
}
"""How to parse what begins with a bracket."""
