"""The short way to parse gives what Jinja gives, or nothing."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import nodes

from pipeline_runner.core.expressions import fast_path, parsing
from pipeline_runner.core.expressions.environment import ENVIRONMENT
from pipeline_runner.core.expressions.parsing import references_in
from pipeline_runner.language.yaml.loader import load
from pipeline_runner.language.yaml.nodes import Source, scalars

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("FAST_PATH_EXAMPLES", "0"))
SETTINGS = settings(max_examples=EXAMPLES or 500, derandomize=not EXAMPLES, database=None, deadline=None)


def by_jinja(text: str) -> nodes.Template:
    """Parse a text as if there were no short way.

    Raises:
        ExpressionError: It is not right, or not on the allow-list.
    """
    tree = parsing._parse(text)
    for node in parsing._nodes(tree):
        for problem in parsing._problems(node):
            raise problem
    return tree


def whole(node: Any) -> Any:
    """Return all there is in a tree, its places too."""
    if isinstance(node, nodes.Node):
        assert node.environment is ENVIRONMENT
        return type(node), node.lineno, {key: whole(value) for key, value in node.iter_fields()}
    return [whole(one) for one in node] if isinstance(node, list) else (type(node), node)


def check(text: str) -> bool:
    """Compare the two ways; return whether the short one was gone."""
    paths = fast_path.parse(text)
    if paths is None:
        return False
    tree = by_jinja(text)
    assert whole(paths.tree) == whole(tree)
    assert paths.lone == parsing.is_lone(tree)
    assert paths.references == sorted(references_in(tree), key=lambda one: one.offset)
    return True


@pytest.mark.parametrize(
    "text",
    [
        "{{ a }}", "{{a.b}}", " {{ a.b.c }}\n", "x {{ a.b }} y {{ c }}", "{{ a }}{{ b }}", "{{ a }} {{ b }}", " {{ a }} ", "{{ a\n}}", "{{\ta.b }}",
        "{{ a.if.not.none }}", "{{ a.range.true }}", "{ {{ a }} }", "{{ a }}}}", "{{ a }} } {", "}} {{ a }}", "é {{ a }} 😀{{ b.c }}", "{{ a" + ".b" * 50 + " }}",
        "{{ nota.b }}", "{{ _a._b1 }}", "{{ a | lower }}", "{{a.b|trim }}", " {{ a.b.c | length}}\n", "x{{ a | tojson }}{{ b }}", "{{ a }}\n\n", "\n{{ a }}x\n",
    ],
)  # fmt: skip
def test_paths_are_parsed_as_by_jinja(text: str) -> None:
    assert check(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "text", "{{", "{{ }}", "{{ a", "{{- a }}", "{{+ a }}", "{{ a -}}", "{{ a +}}", "{{ a } }", "{{ (a) }}", "{{{ a }}", "{{ {{ a }}", "{{ a }} {{ b",
        "{% if a %}{{ b }}{% endif %}", "{# a #}{{ b }}", "{{ a }}\r\n", "{{ range }}", "{{ range.a }}", "{{ a.b() }}", "{{ a[0] }}", "{{ a['b'] }}", "{{ a . b }}",
        "{{ a. }}", "{{ .a }}", "{{ a.0 }}", "{{ é }}", "{{ aé }}", "{{ a\u00a0}}", "{{ a\f}}", "{{ 1 }}", "{{ 'a' }}", "{{ true }}", "{{ none.x }}", "{{ not }}", "{{ not a }}",
        "{{ a | upper() }}", "{{ a }} {{ b | default('x') }}", "{{ a | nothing }}", "{{ a | _concat }}", "{{ a | random }}", "{{ a | trim.x }}", "{{ a | }}", "{{ | trim }}", "{{ a || trim }}",
        "{{ a |  trim }}", "{{ a | trim | upper }}", "{{ a | trim + b }}", "{{ a b }}", "{{ a" + ".b" * 51 + " }}",
    ],
)  # fmt: skip
def test_all_else_is_left_to_jinja(text: str) -> None:
    assert fast_path.parse(text) is None


PIECES = (
    "{{", "}}", "{{ ", " }}", "{", "}", "(", " ", "| trim", "lower", "{{ a |", "\n", "\t", "a", "b.c", "_d1.e.f", ".", "'t'", "1", "-", "+", "|", "%", "#", "not", "in", "if", "true", "none", "range", "x", "é",
    "{{ a }}", "{{b.c}}", " {{ a.b.if }} ",
)  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join)
    | st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
)
@SETTINGS
def test_any_pieces_are_parsed_as_by_jinja_or_not_at_all(text: str) -> None:
    check(text)


PATHS = st.lists(
    st.sampled_from(["a", "B_1", "_c", "if", "in", "nota", "range", "true"]), min_size=1, max_size=5
).map(".".join)


@given(
    st.lists(
        st.builds("{{{{ {}{} }}}}".format, PATHS, st.sampled_from(["", " | lower", "|trim"]))
        | st.text(st.characters(exclude_characters="{\r"), max_size=3),
        max_size=5,
    )
)
@SETTINGS
def test_any_paths_between_any_texts_are_parsed_as_by_jinja(parts: list[str]) -> None:
    text = "".join(parts)
    assert check(text) or "{{" not in text or not _is_allowed(text)


def _is_allowed(text: str) -> bool:
    """Tell whether no path begins with a name that has a meaning of its own."""
    return not fast_path._RESERVED & {path.split(".")[0] for path in re.findall(r"\{\{ ([\w.]+)", text)}


def test_nearly_all_templates_in_files_are_texts_and_paths() -> None:
    """Else the short way were not worth its lines."""
    short = count = 0
    for path in sorted(ROOT.glob("pipelines/**/*.yaml")):
        tree, _ = load(Source(path.name, path.read_text(encoding="utf-8")))
        for scalar in scalars(tree):
            if isinstance(scalar.value, str) and "{{" in scalar.value:
                count += 1
                short += check(scalar.value)
    assert count > 150
    assert short / count > 0.9
