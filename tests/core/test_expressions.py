"""Expressions: typed, strict, sandboxed, bounded. Each case states a rule of the reference."""

import json
import keyword
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.nodes import Concat

from pipeline_runner.core.expressions.evaluate import evaluate, render, render_text
from pipeline_runner.core.expressions.parsing import ExpressionError, contains_template, parse, references
from pipeline_runner.core.secrets import Secrets, SecretText, at, filled, seal, unseal

NAMES: dict[str, Any] = {
    "inputs": {
        "one": "1", "ten": "10", "count": 3, "none": None, "yes": True, "list": [1, 2, 3], "text": "a b",
        "nested": {"items": [1], "keys": {"deep": True}}, "big": ["x" * 1000] * 1000, "float": 1.0,
    },
    "steps": {
        "list": {"output": {"items": [5], "get": 6}, "status": "completed", "error": None},
        "skipped": {"output": None, "status": "skipped", "error": None},
    },
    "secrets": Secrets(("TOKEN", "OTHER")),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # A lone expression keeps its type, white space around it aside; other text is a string.
        ("{{ inputs.count }}", 3),
        (" {{ inputs.list }}\n", [1, 2, 3]),
        ("{{ inputs.one }}.{{ inputs.ten }}", "1.10"),
        ("{{ 1 }}", 1),
        ("{{ none }}", None),
        ("n={{ inputs.count }}", "n=3"),
        ("{{ inputs.yes }}!", "true!"),
        ("{{ inputs.nested }}!", '{"items":[1],"keys":{"deep":true}}!'),
        ("{{ 'a' ~ true ~ [1] }}", "atrue[1]"),
        ("no template", "no template"),
        ("{{ '{{ inputs.count }}' }}", "{{ inputs.count }}"),
        # A mapping's keys come before anything that Python knows of a mapping.
        ("{{ steps.list.output.items }}", [5]),
        ("{{ steps.list.output.get }}", 6),
        ("{{ inputs.nested['items'][0] }}", 1),
        ("{{ inputs.list[1:] }}", [2, 3]),
        ("{{ inputs.list[-1] }}", 3),
        # default() stands in for what is undefined, at any depth, and for null.
        ("{{ inputs.nothing.at.all|default('d') }}", "d"),
        ("{{ steps.skipped.output.id|default('d') }}", "d"),
        ("{{ steps.skipped.output|default('d') }}", "d"),
        ("{{ inputs.list[9]|default('d') }}", "d"),
        ("{{ inputs.nothing is defined }}", False),
        # Statements: if and for.
        ("{% for x in inputs.list %}{{ loop.index }}:{{ x }} {% endfor %}", "1:1 2:2 3:3 "),
        ("{% if inputs.yes %}a{% else %}b{% endif %}", "a"),
        # A name that is set is visible as in Jinja: after it, in branches and loops, but not outside of a loop.
        ("{% set x = inputs.count + 1 %}{{ x }}", "4"),
        ("{% set x = inputs.list %}{{ x[1:] }}{{ x | length }}", "[2,3]3"),
        ("{% set x = 1 %}{% set x = x + 1 %}{{ x }}", "2"),
        ("{% if inputs.yes %}{% set x = 'a' %}{% else %}{% set x = 'b' %}{% endif %}{{ x }}", "a"),
        (
            "{% set x = 0 %}{% for n in inputs.list %}{{ x }}{% set x = n %}{{ x }},{% endfor %}{{ x }}",
            "01,02,03,0",
        ),
        ("{% set sep = '-' %}{% for n in inputs.list if n != sep %}{{ n }}{{ sep }}{% endfor %}", "1-2-3-"),
        ("{% set names = inputs.list | map('string') %}{{ names | join }}{{ names | join }}", "123123"),
        ("{% set größe = 2 %}{{ größe }}", "2"),
        ("{% set import = 1 %}{% set pass = import %}{{ pass }}", "1"),
        ("{% set x = none %}{{ x is none }}", "true"),
        ("{% for n in inputs.list %}{% set at = loop.index %}{{ at }}{% endfor %}", "123"),
        # Filters.
        ("{{ inputs.list|map('string')|join('-') }}", "1-2-3"),
        ("{{ inputs.list|sum }}", 6),
        ("{{ inputs.text|split|last|upper }}", "B"),
        ("{{ inputs.nested|tojson }}", '{"items":[1],"keys":{"deep":true}}'),
        ("{{ '{\"a\": 1}'|fromjson }}", {"a": 1}),
        ("{{ {'a': 1}|combine({'b': 2}) }}", {"a": 1, "b": 2}),
        ("{{ inputs.list|select('odd')|list }}", [1, 3]),
        ("{{ inputs.list|map('string') }}", ["1", "2", "3"]),
        ("{{ range(3) }}", [0, 1, 2]),
        ("{{ 7 // 2 + 2 ** 3 }}", 11),
        ("{{ inputs.float }}|{{ 0.5 }}", "1.0|0.5"),
    ],
)
def test_values(text: str, value: Any) -> None:
    result = render(text, NAMES)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ inputs.nothing }}", 'there is no key "nothing": the keys are big, count,'),
        ("{{ steps.skipped.output.id }}", 'there is no key "id": the value is null'),
        ("{{ steps.other.output }}", 'there is no key "other": the keys are list, skipped'),
        ("{{ unknown }}", "'unknown' is undefined"),
        ("x{{ inputs.none }}", "null cannot be put into a string"),
        ("{{ inputs.nested.items() }}", 'methods cannot be called: use the filter "items"'),
        ("{{ inputs.text.__class__ }}", 'there is no key "__class__"'),
        ("{{ ().__class__ }}", 'there is no key "__class__"'),
        ("{{ inputs.text|uper }}", 'there is no filter "uper": did you mean "upper"?'),
        ("{{ inputs.text is strng }}", 'there is no test "strng": did you mean "string"?'),
        ("{{ now() }}", '"now()" is not available: a workflow is replayed, so it has no clock'),
        ("{{ [1]|random }}", 'there is no filter "random": a workflow is replayed'),
        ("{{ cycler(1) }}", '"cycler()" is not available: the only function is range()'),
        ("{% set x, y = 1, 2 %}", '"set" takes one name and one value: write {% set NAME = VALUE %}'),
        ("{% set x.y = 1 %}", '"set" takes one name and one value: write {% set NAME = VALUE %}'),
        ("{% set x %}1{% endset %}", '"set" takes one name and one value: write {% set NAME = VALUE %}'),
        ("{% set true = 1 %}", "only a name can be set: write {% set NAME = VALUE %}"),
        ("{% set steps = 1 %}", '"steps" is a name of the language: choose another for the variable'),
        ("{% set last = 1 %}", '"last" is a name of the language'),
        ("{% set loop = 1 %}", '"loop" is a name of the language'),
        ("{% for loop in [1] %}{% endfor %}", '"loop" is a name of the language'),
        ("{% for a, range in [[1, 2]] %}{% endfor %}", '"range" is a name of the language'),
        ("{% set \ufb01 = 1 %}", 'the name "\ufb01" has compatibility characters: write "fi"'),
        (
            "{% for e\u0301 in [1] %}{% endfor %}",
            'the name "e\u0301" has compatibility characters: write "\u00e9"',
        ),
        ("{{ x }}{% set x = 1 %}", "'x' is undefined"),
        ("{% for n in [1] %}{% set x = n %}{% endfor %}{{ x }}", "'x' is undefined"),
        ("{% if inputs.none %}{% set x = 1 %}{% endif %}{{ x }}", "'x' is undefined"),
        ("{% set x = inputs.nothing %}", 'there is no key "nothing"'),
        ("{% for n in [1] %}{% set x = loop %}{% endfor %}", '"loop" cannot be kept: set one of its keys'),
        ("{% set x = 'ab' * 3 %}", '"*" requires numbers'),
        ("{% include 'x' %}", '"include" is not available here'),
        ("{{ inputs.count", 'unexpected end of the string, expected "}}"'),
        ("{{ inputs.count + }}", "the expression ends too early"),
        ("{{ inputs.count | }}", "the expression ends too early"),
        ("{{ }}", "the expression ends too early"),
        ("{{ (inputs.count }}", 'a ")" is missing'),
        ("{% if inputs.count %}", '"{% if %}" is never closed'),
        ("{{ inputs.count && 1 }}", '"&" is not an operator: write "and"'),
        ("{{ inputs.count || 1 }}", '"||" is not an operator: write "or"'),
        ("{{ !inputs.count }}", '"!" is not an operator: write "not"'),
        ("{{ 1 ? 2 : 3 }}", '"?" is not an operator: write "a if condition else b"'),
        ("{% if inputs.count = 3 %}{% endif %}", '"=" does not compare: write "=="'),
        ("{{ inputs.count === 3 }}", '"=" does not compare: write "=="'),
        ("{{ inputs.text + 1 }}", '"+" cannot be applied to a string and a number'),
        ("{{ [] + none }}", '"+" cannot be applied to a list and null'),
        ("{{ 'a' < 1 }}", "a string and a number cannot be compared"),
        ("{{ 1 in 2 }}", '"in" cannot search a number for a number'),
        ("{{ 1 not in 'a' }}", '"in" cannot search a string for a number'),
        ("{{ [1, 'a']|sort }}", "sort: some of the values cannot be compared"),
        ("{{ [1, 'a']|max }}", "max: some of the values cannot be compared"),
        ("{{ 3|unique|list }}", 'a filter before "list" cannot be applied to its value'),
        ("{{ -'a' }}", "bad operand type for unary -: a string"),
        ("{{ 1 is divisibleby none }}", "unsupported operand type(s) for %: a number and null"),
        ("{{ 3|length }}", "length cannot be applied to a number"),
        ("{{ 3|first }}", "first cannot be applied to a number"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ 'abc'|int }}", "int: 'abc' is not a number"),
        ("{{ {}|keys(1) }}", "keys: too many positional arguments"),
        ("{{ 'a'|replace('b') }}", "replace: missing a required argument: 'new'"),
        ("{{ [1]|join(sep=', ') }}", "join: got an unexpected keyword argument 'sep'"),
        ("{{ inputs.text * 2 }}", '"*" requires numbers, not strings or lists'),
        ("{{ 2 ** 63 }}", "the result is an integer of more than 64 bits"),
        ("{{ 1e308 * 10 }}", "the result is not a finite number"),
        ("{{ {1: 2} }}", "the keys of a mapping must be strings, not 1"),
        ("{{ range }}", "the result must be a JSON value, not "),
        ("{{ inputs.list | dictsort }}", "is not a mapping"),
        ("{{ inputs.list|map('nonsense')|list }}", "No filter named 'nonsense'"),
        ("{{ " + "9" * 5000 + " }}", "a number has too many digits"),
        ("{{ inputs.list|keys }}", "keys: [1, 2, 3] is not a mapping"),
        ("{{ inputs.count|values }}", "values: 3 is not a mapping"),
        ("{{ inputs.list|dictsort }}", "dictsort: [1, 2, 3] is not a mapping"),
        ("{{ inputs.nothing|items }}", 'there is no key "nothing"'),
        ("{{ inputs.list|combine({}) }}", "combine: [1, 2, 3] is not a mapping"),
        ("{{ 0|map('upper') }}", "map: 0 is not a list"),
        ("{{ inputs.text|sum }}", "sum: 'a b' is not a list"),
        ("{{ ['a']|join([]) }}", "has no attribute 'join'"),
        ("{{ (1, 2) * 1000000000 }}", '"*" requires numbers, not strings or lists'),
    ],
)
def test_mistakes_are_told(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        render(text, NAMES)
    assert message in caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ (2 ** 1000) ** 1000 }}",
        "{{ '%0999999999d' % 1 }}",
        "{{ 'xyzabc'|replace('', inputs.big|join) }}",
        "{{ inputs.big|map('replace', 'x', 'yy')|map('replace', 'y', 'zz')|list }}",
        "{{ range(10 ** 9) }}",
        "{{ 'a'|indent(10 ** 9) }}",
        "{{ 1.5|round(10 ** 9) }}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ " + "[" * 100 + "]" * 100 + " }}",
        "{{ inputs.big|join|list|map('string')|map('upper')|map('lower')|list }}",
    ],
)
def test_nothing_hangs_or_bloats(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(ExpressionError):
        render(text, NAMES)
    assert time.process_time() - begin < 2.0, "the limit of Temporal's deadlock detector"


NESTED: dict[str, Callable[[int], str]] = {
    "sum": lambda n: "{{ " + "+".join(["x"] * n) + " }}",
    "filters": lambda n: "{{ x" + "|default(x)" * n + " }}",
    "keys": lambda n: "{{ x" + ".a" * n + " }}",
    "not": lambda n: "{{ " + "not " * n + "x }}",
    "else": lambda n: "{{ " + "x if x else " * n + "x }}",
    "power": lambda n: "{{ " + "**".join(["x"] * n) + " }}",
    "brackets": lambda n: "{{ " + "(" * n + "x" + ")" * n + " }}",
    "lists": lambda n: "{{ " + "[" * n + "x" + "]" * n + " }}",
    "indices": lambda n: "{{ " + "x[" * n + "0" + "]" * n + " }}",
    "arguments": lambda n: "{{ " + "x|default(" * n + "x" + ")" * n + " }}",
    "ifs": lambda n: "{% if x %}" * n + "{% endif %}" * n,
    "elifs": lambda n: "{% if x %}" + "{% elif x %}" * n + "{% endif %}",
    "loops": lambda n: "{% for i in x %}" * n + "{% endfor %}" * n,
}


def _deeper(frames: int, what: Callable[[], object]) -> object:
    return what() if frames == 0 else _deeper(frames - 1, what)


@pytest.mark.parametrize("form", NESTED)
def test_what_the_checker_lets_through_can_be_run_whatever_the_stack(form: str) -> None:
    """The depth that is allowed leaves room for the frames of a workflow."""

    def allowed(count: int) -> bool:
        try:
            references(NESTED[form](count))
        except ExpressionError as error:
            assert error.message.startswith("the expression is nested too deeply"), error.message
            return False
        return True

    most = max(count for count in range(1, 120) if allowed(count))
    assert 10 <= most <= 100
    assert not allowed(5000)
    try:
        _deeper(200, lambda: render(NESTED[form](most), {"x": 1}))
    except ExpressionError as error:
        assert "deep" not in error.message
        assert "recursion" not in error.message


def test_templates_stand_in_values_and_never_in_keys() -> None:
    assert render({"{{ x }}": ["{{ inputs.count }}", 1, None]}, NAMES) == {"{{ x }}": [3, 1, None]}


def test_results_are_never_rendered_again() -> None:
    names = {"inputs": {"evil": "{{ secrets.TOKEN }}"}, "secrets": NAMES["secrets"]}
    assert render("{{ inputs.evil }}", names) == "{{ secrets.TOKEN }}"
    assert render("x {{ inputs.evil }}", names) == "x {{ secrets.TOKEN }}"


def test_a_bare_expression_has_no_braces() -> None:
    assert evaluate("inputs.count > 2 and not inputs.none", NAMES) is True
    with pytest.raises(ExpressionError, match="one expression without braces"):
        evaluate("1 }} {{ 2", NAMES)


def test_names_of_steps_are_texts() -> None:
    assert render_text("{{ inputs.count }}", NAMES) == "3"
    for bad in ("{{ inputs.none }}", "{{ secrets.TOKEN }}"):
        with pytest.raises(ExpressionError):
            render_text(bad, NAMES)


@pytest.mark.parametrize(
    "text",
    [
        "{{ secrets.TOKEN|upper }}", "{{ secrets.TOKEN == 'x' }}", "{{ secrets.TOKEN[0] }}", "{{ secrets.TOKEN + 'x' }}",
        "{{ 'x' if secrets.TOKEN else 'y' }}", "{{ secrets.TOKEN|length }}", "{{ secrets.TOKEN in 'x' }}",
        "{{ secrets.TOKEN|tojson }}", "x {{ [secrets.TOKEN] }}", "{{ secrets.NOPE }}", "{{ [secrets.TOKEN]|join }}",
        "{{ [secrets.TOKEN, 'a']|sort }}", "{{ 'a' < secrets.TOKEN }}", "{{ {'a': 1}[secrets.TOKEN] }}",
    ],
)  # fmt: skip
def test_a_secret_cannot_be_looked_at(text: str) -> None:
    with pytest.raises(ExpressionError):
        render(text, NAMES)


def test_a_secret_stands_in_text_and_travels_apart_from_the_data() -> None:
    value = render({"a": ["Bearer {{ secrets.TOKEN }}, {{ secrets.OTHER }}"], "b": "<secret TOKEN>"}, NAMES)
    assert isinstance(value["a"][0], SecretText)
    plain, places = seal(value)
    assert plain == {"a": ["Bearer <secret TOKEN>, <secret OTHER>"], "b": "<secret TOKEN>"}
    assert places == [(["a", 0], [(7, 21, "TOKEN"), (23, 37, "OTHER")])]
    assert json.loads(json.dumps(places)) == [[["a", 0], [[7, 21, "TOKEN"], [23, 37, "OTHER"]]]]
    assert seal(unseal(plain, places)) == (plain, places)
    values = {"TOKEN": "t<secret OTHER>", "OTHER": "o"}
    [(path, spans)] = places
    assert filled(at(plain, path), spans, values.__getitem__) == "Bearer t<secret OTHER>, o"
    assert "t" not in json.dumps(places).replace("TOKEN", "")


def test_references_are_listed_with_the_keys_that_are_literal() -> None:
    text = "{{ steps.a.output['x'][0].z ~ inputs[steps.b.output] }}{% for q in inputs.l %}{{ q.a ~ z }}{% endfor %}"
    paths = [".".join(reference.path) for reference in references(text)]
    assert paths == ["steps.a.output.x", "inputs", "steps.b.output", "inputs.l", "z"]


def test_contains_template() -> None:
    assert [contains_template(t) for t in ("{{ x }}", "{% if %}", "{# #}", "{ x }", "")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@given(st.text(alphabet="{}%# inputs.list|map()[]'0123+-*/~<>=,and not", max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_json_or_an_expression_error(text: str) -> None:
    try:
        value = render("{{ " + text + " }}", NAMES)
    except ExpressionError:
        return
    json.dumps(value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_a_lone_expression_hands_over_any_json_value_unchanged(value: Any) -> None:
    assert render("{{ v }}", {"v": value}) == value
    if value is not None and not isinstance(value, str):
        assert json.loads(render("x{{ v }}", {"v": value})[1:]) == value


def test_what_is_compiled_does_not_change_what_is_kept() -> None:
    """``~`` is replaced in the tree that is compiled: the one that the next template gets is another."""
    for text in ("{{ a ~ b }}", "x {{ a ~ b }}", "{{ a ~ b }}"):
        parsed = parse(text)
        assert any(isinstance(node, Concat) for node in parsed.tree.find_all(Concat))
        assert render(text, {"a": "1", "b": "2"}).endswith("12")


WORDS = [
    *keyword.kwlist,
    "true",
    "false",
    "none",
    "recursive",
    "loop",
    "set",
    "block",
    "items",
    "get",
    "größe",
    "名前",
    "क्षमा",
    "_1",
]


@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_an_id(word: str) -> None:
    """Words of Python and Jinja, and names in any script, follow a dot wherever an expression is."""
    names = {"inputs": {word: 2}, "steps": {word: {"output": {word: [word]}}}}
    assert render(f"{{{{ steps.{word}.output.{word} }}}}", names) == [word]
    assert render(f"x{{{{steps.{word}.output.{word}|first}}}}", names) == f"x{word}"
    assert evaluate(f"inputs.{word} in [inputs.{word}] and not inputs.{word} is none", names) is True
    assert evaluate(f"inputs.{word} if inputs.{word} else inputs.{word} + 1", names) == 2
    text = f"{{% set x = inputs.{word} %}}{{% for y in steps.{word}.output.{word} if inputs.{word} %}}{{{{ y }}}}{{% endfor %}}"
    assert (
        render(f"{text}{{% if inputs.{word} == x %}}{{{{ inputs.{word} }}}}{{% endif %}}", names)
        == f"{word}2"
    )
    paths = {reference.path for reference in references(text)}
    assert paths == {("inputs", word), ("steps", word, "output", word)}


def test_what_is_set_has_a_budget() -> None:
    with pytest.raises(ExpressionError, match="this expression takes too long"):
        render("{% for a in range(1000) %}{% set x = range(2000) | list %}{% endfor %}", {})
    with pytest.raises(ExpressionError, match="the string is too long"):
        render("{% set x = inputs.big | join %}" + "{% set x = x ~ x %}" * 3, NAMES)


def test_names_that_are_set_are_no_references() -> None:
    text = "{{ x }}{% set x = inputs.a %}{{ x.b }}{% if x %}{% set y = x %}{% endif %}{{ y }}{% for z in y %}{% set w = z %}{% endfor %}{{ w }}"
    assert [reference.path for reference in references(text)] == [("x",), ("inputs", "a"), ("w",)]
