"""Patterns mean what ECMA 262 says, and no text can hold up whoever looks at it."""

import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_runner.core.inputs import InvalidInputs, misfits, schema_problems, validate_inputs
from pipeline_runner.core.schemas.pattern_syntax import PatternError
from pipeline_runner.core.schemas.patterns import compiled


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^[a-z]+$", ["ab"], ["ab\n", "ab\nx", "", "aB"]),
        (r"^\d+$", ["12"], ["٣", "1\n"]),
        (r"^\w+$", ["a_Z9"], ["é", "a-b"]),
        (r"^\W$", ["é", "-"], ["a"]),
        (r"^\s$", [" ", "\u00a0", "\ufeff", "\u2028", "\v"], ["\x85", "\x1c", "a"]),
        (r"^\S$", ["\x85"], ["\u3000"]),
        ("^.$", ["a", "😀", "\x85"], ["\n", "\r", "\u2028", ""]),
        ("^a{,2}$", ["a{,2}"], ["a", "aa"]),
        ("^a{2}b{1,}c{0,2}$", ["aab", "aabbbcc"], ["ab", "aac", "aabccc"]),
        ("^a{x}{2$", ["a{x}{2"], ["aa"]),
        ("b", ["abc"], ["ac"]),
        ("^(a|bc|)$", ["a", "bc", ""], ["b", "abc"]),
        ("^(?:ab)*?c+?$", ["c", "ababcc"], ["abab"]),
        ("^(?<name>a)[^]$", ["ab", "a\n"], ["a"]),
        ("[]", [], ["", "a"]),
        (r"^[\w.-]+$", ["a.b-c"], ["a b"]),
        (r"^[a-\d]+$", ["a-1"], ["b"]),
        (r"^[^\d\s]+$", ["ab"], ["a1", "a b"]),
        (r"^[\b]$", ["\b"], ["b"]),
        (r"^\u00e9\x41\u{1F600}\ud83d\ude00\cJ\/\-\$\0$", ["éA😀😀\n/-$\0"], ["é"]),
        (r"^\p{Lu}\P{L}\p{Letter}[\p{Nd}_]+$", ["É1é٣_"], ["é1é3"]),
        (r"\bcat\b", ["a cat!", "cat"], ["cats", "concat"]),
        (r"\Bcat", ["concat"], ["cat", "a cat"]),
        ("^(?!-)[a-z-]{1,63}(?<!-)$", ["a-b"], ["-a", "a-", ""]),
        ("^(?=.*[A-Z])(?=.*[0-9]).{4,}$", ["aB3d", "3xxB"], ["aB3", "abcd", "ABCD"]),
        ("(?<=a(?=bc))b", ["abc"], ["abd", "xbc"]),
        ("^(?!.*(?=a)b)x$", ["x"], ["a"]),
        ("^.{1,5000}$", ["a" * 5000], ["a" * 5001, ""]),
        ("(^|x)a($|y)", ["a", "xay", "zxa"], ["za", "azy"]),
        ("^(a?){30}a{30}$", ["a" * 30, "a" * 60], ["a" * 29, "a" * 61]),
        ("^(()*a*)*$", ["", "aa"], ["b"]),
    ],
)
def test_patterns_mean_what_ecma_262_says(pattern: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not compiled(pattern).search(text)] == []
    assert [text for text in bad if compiled(pattern).search(text)] == []


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a)", 'a ")" has no matching "(", at character 2 of the pattern'),
        ("(a", 'a "(" is not closed, at character 3 of the pattern'),
        ("[a", "the pattern ends too early, at character 3 of the pattern"),
        ("a\\", "the pattern ends too early, at character 3 of the pattern"),
        ("*a", "there is nothing to repeat, at character 1 of the pattern"),
        ("a++", "there is nothing to repeat, at character 3 of the pattern"),
        ("^*", "an assertion cannot be repeated, at character 3 of the pattern"),
        ("a{2,1}", "the bounds of a repeat are out of order"),
        ("[b-a]", "a range of characters is out of order"),
        (
            "(?i)a",
            '"(?" does not begin a group of ECMA 262: there are no flags, and a named group is (?<name>…)',
        ),
        ("(?P<n>a)", '"(?" does not begin a group of ECMA 262'),
        ("(a)\\1", "back-references are not available"),
        ("(?<n>a)\\k<n>", "back-references are not available"),
        ("\\Aa", '"\\A" has no meaning in ECMA 262: write ^'),
        ("a\\Z", '"\\Z" has no meaning in ECMA 262: write $'),
        ("\\x4", "2 hexadecimal digits are missing"),
        ("a{99999999999999}", "the pattern is too large"),
        ("(?:){20001}", "the pattern is too large"),
        ("\\p{Greek}", 'there is no character category "Greek"'),
        ("(" * 60 + ")" * 60, "the pattern is nested too deeply"),
        ("((a{1,1000}){1,1000}){1,1000}", "the pattern is too large: it repeats too much"),
    ],
)
def test_what_is_no_pattern_is_told(pattern: str, message: str) -> None:
    with pytest.raises(PatternError) as caught:
        compiled(pattern)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^([a-z]+)*$", "a" * 200_000 + "!"),
        ("^a*a*a*$", "a" * 50_000 + "!"),
        (r"\s+$", " " * 200_000 + "x"),
        ("^(a|a)*$", "a" * 100_000 + "b"),
        ("^(?=(a+)+$)(a|aa)+$", "a" * 50_000 + "!"),
        ("(x+x+)+y", "x" * 100_000),
    ],
)
def test_no_text_takes_for_ever(pattern: str, text: str) -> None:
    begin = time.process_time()
    assert not compiled(pattern).search(text)
    assert time.process_time() - begin < 2.0, "the limit of Temporal's deadlock detector"


def test_what_would_take_too_long_is_an_error_whatever_was_asked_before() -> None:
    pattern = compiled("a.{1000}b")
    text = "ab" * 2500
    begin = time.process_time()
    for _ in range(2):
        with pytest.raises(PatternError, match="the pattern takes too long on this string"):
            pattern.search("".join(c if n % 7 else "a" for n, c in enumerate(text)))
    assert time.process_time() - begin < 3.0


PARTS = st.sampled_from(
    ["a", "b", ".", "[ab]", "[^a]", "(?:a|b)", "(?:ab)", "(?:|b)", "(?=a)", "(?!b)", r"\b", "(?<!a)"]
)
PATTERNS = st.lists(st.tuples(PARTS, st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,2}"])), max_size=5)


@given(PATTERNS, st.booleans(), st.booleans(), st.text("ab -", max_size=8))
@settings(max_examples=400, deadline=None)
def test_simple_patterns_match_as_in_python(
    parts: list[tuple[str, str]], begins: bool, ends: bool, text: str
) -> None:
    repeatable = [p + ("" if p.startswith(("(?=", "(?!", "(?<", "\\")) else q) for p, q in parts]
    pattern = "^" * begins + "".join(repeatable) + "$" * ends
    assert compiled(pattern).search(text) is bool(re.search(pattern, text))


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "string", "pattern": "^[a-z]+$"}, "ab\n", 'must match the pattern "^[a-z]+$", not "ab\\n"'),
        ({"type": "string", "pattern": r"^\d+$"}, "٣", 'must match the pattern "^\\\\d+$", not "٣"'),
        (
            {"additionalProperties": False, "patternProperties": {"^x$": {"type": "integer"}}},
            {"x": 1, "x\n": 1},
            'must not have the key "x\n"',
        ),
        ({"patternProperties": {"^x$": {"type": "integer"}}}, {"x": "a"}, 'must be an integer, not "a"'),
        ({"patternProperties": {"^x$": {"type": "integer"}}}, {"x\n": "a"}, None),
        (
            {"patternProperties": {"^x": {}}, "additionalProperties": {"type": "integer"}},
            {"xa": "a", "y": "a"},
            'must be an integer, not "a"',
        ),
        (
            {"pattern": "a.{1000}b"},
            "ab" * 9000,
            "cannot be checked: the pattern takes too long on this string",
        ),
    ],
)
def test_schemas_judge_by_these_patterns(schema: Any, value: Any, message: str | None) -> None:
    found = [text for _, text in misfits(schema, value)]
    assert found == ([] if message is None else [message])


def test_schemas_say_what_is_wrong_with_a_pattern() -> None:
    assert schema_problems({"pattern": "a\\Z"}) == [
        (
            ("pattern",),
            'is not a valid pattern: "\\Z" has no meaning in ECMA 262: write $, at character 4 of the pattern',
        )
    ]
    with pytest.raises(InvalidInputs, match="must match the pattern"):
        validate_inputs({"name": {"type": "string", "pattern": "^[a-z]+$"}}, {"name": "ab\n"})
