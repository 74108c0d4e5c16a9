"""The short way to parse gives what Jinja gives, or nothing."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import nodes

from pipeline_runner.core import parsing, plain_expressions, plain_nodes
from pipeline_runner.core.environment import ENVIRONMENT
from pipeline_runner.core.parsing import ExpressionError, references_in
from pipeline_runner.language.loader import load
from pipeline_runner.language.nodes import Source, scalars

ROOT = Path(__file__).parents[2]
EXAMPLES = int(os.environ.get("PLAIN_EXAMPLES", "0"))
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
    plain = plain_expressions.parse(text)
    if plain is None:
        return False
    tree = by_jinja(text)
    assert whole(plain_nodes.template(plain.parts)) == whole(tree)
    assert plain.lone == parsing.is_lone(tree)
    found = sorted((one.offset, one.path) for one in references_in(tree))
    assert [(one.offset, one.path) for one in plain.references] == found
    return True


@pytest.mark.parametrize(
    "text",
    [
        "{{ a }}", "{{a.b}}", " {{ a.b['c'][0].d }}\n", "x {{ a[b.c]['d'].e }} y {{ f }}", "{{ a['}}'] }}", '{{ "a }} b" }}',
        "{{ a.if.not.none }}", "{{ none.x }}", "{{ true.true }}", "{{ none .x }}", "{{ a[0].if.b }}", "{{ a [0] . b.c .d.e }}", "{{ a is eq b.c.d }}", "{{ {'a': {'b': []}} }}", "{{ {'a': {'b': 1,}} | tojson }}", "{{ [1, 2.5, 'x',] }}",
        "{{ a | default('x') | upper }}", "{{ a|combine({'b': c}, recursive=true) }}", "{{ a | map(attribute='x') | list }}",
        "{{ a is defined and b is not none or not c }}", "{{ a is divisibleby 3 }}", "{{ a is divisibleby(3) and b is in [1] }}",
        "{{ a if b else c if d else e }}", "{{ a if b if c }}", "{{ a + b - c * d // e % f ** g ** h }}", "{{ -a ** -b | abs }}",
        "{{ a ~ b ~ 1 + 2 }}", "{{ a < b <= c == d != e not in f in g }}", "{{ (a or b) and (c or not d) or e or f }}",
        "{{ not a == b }}", "{{ {{ a }}", "{ {{ a }} }", "{{ a\n  .b }}", "{{ 'a\nb' }}", "{{ a }}}}", "{{{'a': 1}}}",
    ],
)  # fmt: skip
def test_what_is_plain_is_parsed_as_by_jinja(text: str) -> None:
    try:
        by_jinja(text)
    except ExpressionError:
        assert plain_expressions.parse(text) is None
    else:
        assert check(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "text", "{{", "{{ }}", "{{ a", "{{- a }}", "{{+ a }}", "{{ a -}}", "{{ a +}}", "{{ a } }", "{{ (a }}", "{{ a) }}", "{{ (a] }}",
        "{% if a %}{{ b }}{% endif %}", "{# a #}{{ b }}", "{{ a }}\r\n", "{{ range(3) }}", "{{ range }}", "{{ a.b() }}", "{{ a[1:2] }}", "{{ (a, b) }}", "{{ (a).b }}",
        "{{ a, b }}", "{{ 'a' 'b' }}", r"{{ 'a\n' }}", "{{ 1e5 }}", "{{ 1_000 }}", "{{ 0x1f }}", "{{ 007 }}", "{{ a.0 }}", "{{ é }}", "{{ aé }}",
        "{{ a | nothing }}", "{{ a | _concat }}", "{{ a is nothing }}", "{{ a is defined if b }}", "{{ not not a }}", "{{ - - a }}", "{{ a not b }}",
        "{{ and }}", "{{ a is not }}", "{{ a | }}", "{{ a. }}", "{{ a[ }}", "{{ {'a'} }}", "{{ [a b] }}", "{{ a | d(b=1, 2) }}", "{{ a | d(*b) }}", "{{ a = b }}",
        "{{ " + "(" * 31 + "a" + ")" * 31 + " }}", "{{ a" + " + a" * 80 + " }}", "{{ a }} {{ b", "{{ 1.5.x }}", "{{ 12345678901234567 }}",
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_jinja(text: str) -> None:
    assert plain_expressions.parse(text) is None


def test_nothing_plain_is_nested_too_deeply_for_the_rest() -> None:
    for text in (
        "(" * 30 + "a" + ")" * 30,
        " == (".join("a" * 30) + ")" * 29,
        "a" + " + a" * 74,
        "a" + "|d" * 74,
        "a" + ".a" * 74,
    ):
        assert check(f"{{{{ {text} }}}}")
    # A name with its keys is one token, of which there may be many.
    assert plain_expressions.parse(f"{{{{ a{' .a.b.c.d.e.f' * 70} }}}}") is None


PIECES = (
    "{{", "}}", "{{ ", " }}", "{", "}", "(", ")", "[", "]", " ", "\n", "a", "b.c", ".", "'t'", '"}}"', "1", "2.5", "-", "+", "*", "**", "//", "%", "~",
    "|", "upper", "default", "('x')", "is", "defined", "not", "in", "and", "or", "if", "else", "==", "<", "=", ",", ":", "true", "none", "range", "x",
)  # fmt: skip


@given(
    st.lists(st.sampled_from(PIECES), max_size=14).map(" ".join)
    | st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
)
@SETTINGS
def test_any_pieces_are_parsed_as_by_jinja_or_not_at_all(text: str) -> None:
    check(text)


LEAVES = st.sampled_from(
    ["a", "b.c", "d['e'].f", "g[0]", "true", "none", "1", "2.5", "'t'", '"}} {"', "h[i]"]
)


def _combined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    forms = st.sampled_from(
        [
            "({0})", "{0} + {1}", "{0}-{1}", "{0} ~ {1}", "{0} * {1}", "{0}//{1}", "{0} ** {1}", "-{0}", "not {0}", "{0} and {1}", "{0} or {1}", "{0} == {1}",
            "{0} < {1}", "{0} in {1}", "{0} not in {1}", "{0} if {1} else {2}", "{0} if {1}", "[{0}, {1}]", "{{'k': {0}, {1}: {2}}}", "{0} | upper", "({0}).k",
            "({0})[{1}]", "{0}|default({1})", "{0} | replace({1}, count={2})", "{0} is defined", "{0} is not none", "{0} is divisibleby {1}", "{0} is eq({1})",
        ]
    )  # fmt: skip
    return st.builds(lambda form, *parts: form.format(*parts), forms, inner, inner, inner)


@given(
    st.lists(st.recursive(LEAVES, _combined, max_leaves=12), min_size=1, max_size=3),
    st.sampled_from(["", " ", "x", "\n", "{"]),
)
@SETTINGS
def test_any_expression_is_parsed_as_by_jinja_or_not_at_all(texts: list[str], between: str) -> None:
    check(between.join(f"{{{{{text}}}}}" for text in texts))


def test_nearly_all_that_stands_in_files_is_plain() -> None:
    """Else the short way were not worth its lines."""
    short = count = 0
    for path in sorted(ROOT.glob("pipelines/**/*.yaml")) + sorted(ROOT.glob("tests/data/ok/**/*.yaml")):
        tree, _ = load(Source(path.name, path.read_text(encoding="utf-8")))
        for scalar in scalars(tree):
            if isinstance(scalar.value, str) and "{{" in scalar.value:
                count += 1
                short += check(scalar.value)
    assert count > 500
    assert short / count > 0.9
