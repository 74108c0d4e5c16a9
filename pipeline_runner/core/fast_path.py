"""The short way to parse a template that has nothing but paths, such as ``{{ steps.build.output.id }}``.

Nearly all templates are such: texts, and names with keys between braces. Jinja's parser takes a
multiple of this one's time (see ``bench/``). The nodes made here are those that Jinja makes, down to
their places (:mod:`environment`); the tests compare the two. All else is left to Jinja.
"""

import re
from typing import Any, TypeVar

from jinja2 import nodes

from pipeline_runner.core.environment import ENVIRONMENT

_N = TypeVar("_N", bound=nodes.Node)

_PATH = re.compile(r"[ \t\n]*([A-Za-z_]\w*)((?:\.[A-Za-z_]\w*){0,50})[ \t\n]*\}\}", re.ASCII)
_RESERVED = frozenset(
    ["and", "or", "not", "in", "is", "if", "else", "true", "True", "false", "False", "none", "None"]
).union(ENVIRONMENT.globals)
"""What is no name of a value."""


def parse(text: str) -> nodes.Template | None:
    """Parse a template of texts and paths; None: it is more than that, or not right."""
    if "{%" in text or "{#" in text or "\r" in text:
        return None
    paths: list[nodes.Expr] = []
    parts: list[nodes.Expr] = []
    blank, end = True, 0
    while (start := text.find("{{", end)) >= 0:
        found = _PATH.match(text, start + 2)
        if not found or found[1] in _RESERVED:
            return None
        if start > end:
            blank = blank and text[end:start].isspace()
            parts.append(_node(nodes.TemplateData, end + 1, data=text[end:start]))
        paths.append(_path(found))
        parts.append(paths[-1])
        end = found.end()
    if not paths:
        return None
    if end < len(text):
        blank = blank and text[end:].isspace()
        parts.append(_node(nodes.TemplateData, end + 1, data=text[end:]))
    if blank and len(paths) == 1:
        parts = paths  # white space around a lone expression does not make it text
    return _node(nodes.Template, 1, body=[_node(nodes.Output, parts[0].lineno, nodes=parts)])


def _path(found: re.Match[str]) -> nodes.Expr:
    name, keys = found.groups()
    node: nodes.Expr = _node(nodes.Name, found.start(1) + 1, name=name, ctx="load")
    place = found.start(2) + 1
    for key in keys.split(".")[1:]:
        node = _node(nodes.Getattr, place, node=node, attr=key, ctx="load")
        place += len(key) + 1
    return node


def _node(kind: type[_N], place: int, **fields: Any) -> _N:
    """Make a node without its constructor, which takes ten times as long."""
    node = object.__new__(kind)
    node.__dict__ = {**fields, "lineno": place, "environment": ENVIRONMENT}
    return node
