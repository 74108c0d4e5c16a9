"""Parses templates that contain only paths, such as ``{{ steps.build.output.id }}``, without Jinja's parser.

Nearly all templates are of this kind: literal text, and names with keys between braces. Jinja's parser
takes several times as long as this one (see ``bench/``). The nodes are the same as those that Jinja
makes, including their offsets (:mod:`environment`); the tests compare the two. Everything else is left
to Jinja.
"""

import re
from typing import Any, NamedTuple, TypeVar

from jinja2 import nodes

from pipeline_runner.core.expressions.environment import ENVIRONMENT

_N = TypeVar("_N", bound=nodes.Node)

_PATH = re.compile(
    r"[ \t\n]*([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*){0,50})(?: ?\| ?([a-z]+))?[ \t\n]*\}\}", re.ASCII
)
_RESERVED = frozenset(
    ["and", "or", "not", "in", "is", "if", "else", "true", "True", "false", "False", "none", "None"]
).union(ENVIRONMENT.globals)
"""Words that are not names of values."""


class Reference(NamedTuple):
    """A name in an expression, with the keys that follow it as far as they are literal."""

    path: tuple[str, ...]
    offset: int
    """In characters, from the start of the string."""


class Paths(NamedTuple):
    """A template of literal text and paths."""

    tree: nodes.Template
    lone: bool
    """Whether it is one path, apart from white space around it."""
    references: list[Reference]
    """In the order of the string."""


def parse(text: str) -> Paths | None:
    """Parse a template of literal text and paths; None: it contains something else, or an error."""
    if "{%" in text or "{#" in text or "\r" in text:
        return None
    parts: list[nodes.Expr] = []
    references: list[Reference] = []
    end = 0
    while (start := text.find("{{", end)) >= 0:
        found = _PATH.match(text, start + 2)
        if not found or found[1] in _RESERVED or not (found[3] is None or found[3] in ENVIRONMENT.filters):
            return None
        if start > end:
            parts.append(_node(nodes.TemplateData, end + 1, data=text[end:start]))
        parts.append(_path(found))
        references.append(Reference((found[1], *found[2].split(".")[1:]), found.start(1)))
        end = found.end()
    if not references:
        return None
    if end < len(text):
        parts.append(_node(nodes.TemplateData, end + 1, data=text[end:]))
    lone = len(references) == 1 and not text[: text.index("{{")].strip() and not text[end:].strip()
    if lone:  # white space around a path does not make it a string
        parts = [part for part in parts if not isinstance(part, nodes.TemplateData)]
    output = _node(nodes.Output, parts[0].lineno, nodes=parts)
    return Paths(_node(nodes.Template, 1, body=[output]), lone, references)


def _path(found: re.Match[str]) -> nodes.Expr:
    name, keys, filter_ = found.groups()
    node: nodes.Expr = _node(nodes.Name, found.start(1) + 1, name=name, ctx="load")
    place = found.start(2) + 1
    for key in keys.split(".")[1:]:
        node = _node(nodes.Getattr, place, node=node, attr=key, ctx="load")
        place += len(key) + 1
    if filter_ is None:
        return node
    fields: dict[str, Any] = {"name": filter_, "args": [], "kwargs": [], "dyn_args": None, "dyn_kwargs": None}
    return _node(nodes.Filter, found.start(3) + 1, node=node, **fields)


def _node(kind: type[_N], place: int, **fields: Any) -> _N:
    """Make a node without its constructor, which takes ten times as long."""
    node = object.__new__(kind)
    node.__dict__ = {**fields, "lineno": place, "environment": ENVIRONMENT}
    return node
