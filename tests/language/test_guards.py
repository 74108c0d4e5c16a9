"""What an expression looks into, and what conditions have made sure of there."""

import pytest
from jinja2 import nodes as jinja

from pipeline_runner.core.expressions.environment import ENVIRONMENT
from pipeline_runner.language.typing.guards import Known, expression_of, looks


def condition(text: str) -> jinja.Node:
    """Return the tree of a bare expression."""
    found = expression_of(ENVIRONMENT.parse(f"{{{{ {text} }}}}"))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("a", "a"),
        ("a.b == 1", "a['b']==1"),
        ("a == 1", "1 == a"),
        ("not a == 1", "a != 1"),
        ("not (a != 1)", "a == 1"),
        ("a and b", "b and a"),
        ("a and (b and c)", "c"),
        ("not (a or b)", "not b"),
        ("a", "a or b"),
        ("b", "a or b"),
        ("a | length > 2", "(a|length) > 2"),
        ("a is defined", "a is defined"),
        ("a == 'x y'", 'a == "x y"'),
    ],
)
def test_condition_that_follows(known: str, asked: str) -> None:
    assert Known().also(condition(known), holds=True).implies(condition(asked))


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ("a", "not a"),
        ("a or b", "a"),
        ("a", "a and b"),
        ("a == 1", "a == 2"),
        ("a == 1", "a == '1'"),
        ("a == 1", "a == true"),
        ("a > 1", "a < 1"),
        ("a.b", "a"),
        ("a is none", "a is defined"),
        ("not (a and b)", "not a"),
    ],
)
def test_condition_that_does_not_follow(known: str, asked: str) -> None:
    assert not Known().also(condition(known), holds=True).implies(condition(asked))


def test_condition_that_is_false() -> None:
    known = Known().also(condition("a or not b"), holds=False)
    assert known.implies(condition("not a and b"))
    assert known.asks("a")
    assert not known.asks("c")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ a.b }}", ["a.b"]),
        ("{{ a }}", ["a"]),
        ("x {{ a }}", ["a!"]),
        ("{{ a ~ b }}", ["a!", "b!"]),
        ("{{ a[0] }}", ["a!"]),
        ("{{ a[b.c].d }}", ["b.c", "a!"]),
        ("{{ a | default(b) }}", ["b"]),
        ("{{ a.b | first | default(1) }}", ["a.b!"]),
        ("{{ a is none }}", []),
        ("x {{ b if a else c }}", ["a", "b!", "c!"]),
        ("x {{ a or b }}", ["a", "b!"]),
        ("{{ a == b }}", ["a", "b"]),
        ("{{ a < b }}", ["a!", "b!"]),
        ("{{ a in b }}", ["a", "b!"]),
        ("x {{ a | tojson }}", ["a"]),
        ("{{ {'k': a} }}", ["a"]),
        ("{% for a in b %}{{ a }}{{ c }}{{ loop.index }}{% endfor %}{{ a }}", ["b!", "c!", "a!"]),
        ("{% if a %}{{ b }}{% elif c %}{{ d }}{% endif %}", ["a", "b!", "c", "d!"]),
        ("{{ range(a) }}", ["a"]),
    ],
)
def test_looks(text: str, expected: list[str]) -> None:
    """With a mark where null would be a mistake."""
    lone = text.startswith("{{") and text.endswith("}}") and text.count("{{") == 1
    found = list(looks(ENVIRONMENT.parse(text), lone=lone))
    assert [".".join(look.reference.path) + "!" * look.needed for look in found] == expected
