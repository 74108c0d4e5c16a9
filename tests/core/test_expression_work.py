"""What expressions may do, and what they give at the edges: capitals, halves of characters, infinity."""

import json
import time
from typing import Any

import pytest

from pipeline_runner.core.expressions.evaluate import render
from pipeline_runner.core.expressions.parsing import ExpressionError

LARGE: dict[str, Any] = {
    "long": "a" * 700_000,
    "numbers": list(range(100_000)),
    "others": list(range(100_000)),
    "pairs": [[n, 1] for n in range(10_000)],
    "wide": {f"k{n}": n for n in range(50_000)},
    "nested": json.loads("[" * 60 + "1" + ",1" * 50_000 + "]" * 60),
    "brackets": "[" + "[]," * 200_000 + "1]",
}


@pytest.mark.parametrize(
    "text",
    [
        # What a comparison, a test, a filter costs grows with its operands.
        "{% for i in range(9000) %}{% if (i ~ 'b') in inputs.long %}{{ i }}{% endif %}{% endfor %}",
        "{% for i in range(9000) %}{% if (i ~ 'b') not in inputs.long %}{{ i if i == 1 }}{% endif %}{% endfor %}",
        "{{ range(9000)|map('string')|reject('in', inputs.long)|list|length }}",
        "{{ range(9000)|select('in', inputs.numbers)|list|length }}",
        "{% for i in range(9000) %}{{ '' if inputs.long < inputs.long ~ 'a' else '' }}{% endfor %}",
        "{% for i in range(9000) %}{{ '' if inputs.numbers[1:] == inputs.numbers[:-1] else '' }}{% endfor %}",
        "{% for i in range(9000) %}{{ '' if [inputs.numbers] == [inputs.others] else '' }}{% endfor %}",
        "{% for i in range(9000) %}{{ '' if [i] in inputs.pairs else '' }}{% endfor %}",
        "{% for i in range(9000) %}{{ inputs.long[1:][:0] }}{% endfor %}",
        "{% for i in range(9000) %}{{ range(10000)[0] }}{% endfor %}",
        "{% for i in range(9000) %}{% for n in inputs.numbers if false %}{% endfor %}{% endfor %}",
        "{% for i in range(9000) %}{{ inputs.wide['x']|default('') }}{{ inputs.long ~ i is defined }}{% endfor %}",
        "{% for i in range(9999) %}{{ " + " and ".join(["inputs.long"] * 90) + " }}{% endfor %}",
        "{{ range(9999)|map(attribute='" + ".".join("a" * 900) + "', default='')|list }}",
        "{{ inputs.long|urlencode }}{{ inputs.long|urlencode }}",
        "{{ inputs.nested|tojson(8) }}{{ inputs.nested|tojson(8) }}",
        "{% for i in range(9000) %}{{ inputs.long is lower }}{% endfor %}",
        "{{ [inputs.numbers, inputs.numbers, inputs.numbers, inputs.numbers]|map('sort')|list|length }}",
        "{% for i in range(900) %}{{ (inputs.numbers|unique|list|length, inputs.numbers|max) }}{% endfor %}",
        "{% for i in range(9000) %}{{ inputs.brackets|fromjson|length }}{% endfor %}",
        "{{ (inputs.long ~ ',')|replace('a', ',')|split(',')|length }}{{ inputs.long|replace('a', ',,')|split(',') }}",
        (
            "{% for a in [[1, 1]] %}{% for b in [[a, a, a, a, a, a, a, a]] %}{% for c in [[b, b, b, b, b, b, b, b]] %}"
            "{% for d in [[c, c, c, c, c, c, c, c]] %}{% for e in [[d, d, d, d, d, d, d, d]] %}"
            "{% for f in [[e, e, e, e, e, e, e, e]] %}{% for g in [[f, f, f, f, f, f, f, f]] %}"
            "{{ g }}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}"
        ),
    ],
)
def test_what_is_large_cannot_hold_a_workflow(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(ExpressionError):
        render(text, {"inputs": LARGE})
    assert time.process_time() - begin < 2.0, "the limit of Temporal's deadlock detector"


def test_all_that_a_step_renders_has_one_budget() -> None:
    """One after the other they would hold the workflow as long as one that is too long."""
    text = "{% for i in range(9000) %}{% if i is even %}{{ i }}{% endif %}{% endfor %}"
    assert render([text, text], {}) == [render(text, {})] * 2
    with pytest.raises(ExpressionError, match="this expression takes too long, in"):
        render([text] * 50, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ 1 < 2 < 3 }}", True),
        ("{{ 1 < 3 < 3 }}", False),
        ("{{ 'a' ~ 1 == 'a1' and 2 not in [1, 3] }}", True),
        ("{{ 'ab' in 'cabd' and 'x' not in {'y': 1} }}", True),
        ("{{ [[1], [2]]|select('in', [[2]])|list }}", [[2]]),
        ("{{ [1, 2, 3]|reject('ge', 2)|list }}", [1]),
        ("{{ {'a': [1]} == {'a': [1]} != {} }}", True),
        # Capitals are letters of their own, and a boolean is no number.
        ("{{ ['Makefile', 'makefile', 1, true, 1.0] | unique | list }}", ["Makefile", "makefile", 1, True]),
        ("{{ ['b', 'A', 'a', 'B'] | sort }}", ["A", "B", "a", "b"]),
        ("{{ ['b', 'A', 'a', 'B'] | sort(case_sensitive=false) }}", ["A", "a", "b", "B"]),
        ("{{ ['b', 'A', 'a', 'B'] | unique(case_sensitive=false) | list }}", ["b", "A"]),
        ("{{ ['a', 'B'] | min }}{{ ['a', 'B'] | max }}", "Ba"),
        ("{{ {'b': 1, 'A': 2, 'a': 3, 'B': 4} | dictsort }}", [["A", 2], ["B", 4], ["a", 3], ["b", 1]]),
        ("{{ {'b': 1, 'a': 2} | dictsort(by='value', reverse=true) }}", [["a", 2], ["b", 1]]),
        (
            "{{ [{'n': 2, 'm': 1}, {'n': 1, 'm': 3}] | sort(attribute='n,m') | map(attribute='m') | list }}",
            [3, 1],
        ),
        ("{{ [[1], {'a': 1}, [1], {'a': 1}, {'a': true}] | unique | list }}", [[1], {"a": 1}, {"a": True}]),
        ("{{ 'a\\x85b\\x0cc\\nd' | indent(2) }}", "a\x85b\x0cc\n  d"),
        ("{{ 'a\\n\\nb' | indent(2) }}{{ 'a\\n\\nb' | indent(2, true, true) }}", "a\n\n  b  a\n  \n  b"),
        # Half of a surrogate pair has no UTF-8.
        ("{{ '\"a\\\\ud83d\"' | fromjson }}", "a\ufffd"),
        ("{{ '\\ud83d' }}", "\ufffd"),
        ("x{{ '\\ud83d' }}", "x\ufffd"),
        ("{{ '\\ud83d' | urlencode }}", "%EF%BF%BD"),
        ("{{ {'\\ud83d': 1} }}", {"\ufffd": 1}),
        ("{{ ('a' if false) | default('b') }}", "b"),
        ("{{ 'a' if true }}", "a"),
        ("{{ {'a': [1, {}]} | tojson(2) }}", '{\n  "a": [\n    1,\n    {}\n  ]\n}'),
    ],
)
def test_values_of_operators_and_filters(text: str, value: Any) -> None:
    found = render(text, {})
    assert (found, list(map(type, found)) if isinstance(found, list) else None) == (
        value,
        list(map(type, value)) if isinstance(value, list) else None,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ ('a' if false) | length }}", 'the condition of "if" is false, and there is no "else"'),
        ("{{ ('a' if false) | join }}", 'the condition of "if" is false, and there is no "else"'),
        ("x{{ 'a' if false }}", 'the condition of "if" is false, and there is no "else"'),
        ("{{ [1, 2] | min < 1e309 }}", "this number is too large"),
        ("{{ -1e999 }}", "this number is too large"),
        ("{{ " + "9" * 400 + ".0 }}", "this number is too large"),
        ("{{ '1e400' | fromjson }}", "fromjson: this is not valid JSON: the number '1e400' is too large"),
        ("{{ 'NaN' | fromjson }}", "fromjson: this is not valid JSON: NaN is not a number"),
        ("{{ 'inf' | float }}", "float: 'inf' is not a number"),
        ("{{ 1 in 2 }}", '"in" cannot search a number for a number'),
        ("{{ 1 in nothing }}", "'nothing' is undefined"),
        ("{{ nothing == 1 }}", "'nothing' is undefined"),
        ("{{ 1 < 'a' }}", "a number and a string cannot be compared"),
        ("{{ {} | dictsort(by='age') }}", 'dictsort: "by" must be "key" or "value"'),
    ],
)
def test_what_has_no_value_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        render(text, {})
    assert message in caught.value.message
