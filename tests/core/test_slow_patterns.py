"""Patterns that backtrack without end are found by looking at them."""

import re
import time

import pytest

from pipeline_runner.core.schemas.plain import fits, is_pattern
from pipeline_runner.core.schemas.slow_patterns import is_slow


@pytest.mark.parametrize(
    ("pattern", "rounds"),
    [
        (r"^(a+)+$", "a"),
        (r"^(a+)*?$", "a"),
        (r"(a+)+b", "a"),
        (r"^(a+)+(?!.)", "a"),
        (r"((a+)+y)*", "a"),
        (r"^(a*)*$", "a"),
        (r"^(?:a{2,}|b)+$", "a"),
        (r"^(a|a)*$", "a"),
        (r"^(ab|ab)*$", "ab"),
        (r"^(a|aa)+$", "a"),
        (r"^(a?b?)*$", "ab"),
        (r"^((a?)*b)+$", "b"),
        (r"^(\d{1,3})+$", "1"),
        (r"^(a{1,50}){1,50}$", "a"),
        (r"^(\w+\s?)+$", "a"),
        (r"^(\s*\w+\s*)*$", "a"),
        (r"^(\w|\w-|-)+$", "a-"),
        (r"^(.*,)*$", ","),
        (r"^([aA]|[aA][bB]?|[bB])+$", "ab"),
        (r"^([aA]b|a[bB])+$", "ab"),
        (r"^(a+|b)+$", "a"),
        (r"^(.|x)+$", "x"),
        (r"^((?!-)[a-z0-9-]+)+$", "a"),
        (r"^a(\Ba+)+$", "a"),
        (r"^(([-.]|_+)?([a-zA-Z0-9]+))*@x$", "a"),
        (r"^(й+)+$", "й"),
    ],
)
def test_slow(pattern: str, rounds: str) -> None:
    """With so few rounds it ends; but each takes half as long again as all before it, or longer."""
    assert is_slow(pattern)
    assert time_of(pattern, rounds * 12) > 3 * time_of(pattern, rounds * 8)


def time_of(pattern: str, text: str) -> float:
    compiled = re.compile(pattern)
    found = []
    for _ in range(5):
        start = time.perf_counter()
        compiled.search(f"{text}!\n\n")
        found.append(time.perf_counter() - start)
    return min(found)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^([a-z]+-)*[a-z]+$",
        r"^\d+(\.\d+)*$",
        r"^([^/]+/)*[^/]+$",
        r"^(a+b+)+$",
        r"^(a{3}|b)+$",
        r"^(aab|aaab)+$",
        r"^([0-9a-f]{64})+$",
        r"^(\d{1,3}){1,5}$",
        r"^(foo|bar|baz)+$",
        r"^(\w|\d)+$",  # many an engine makes it one set
        r"^(a?)*$",
        r'^("[^"]*"|\w)*$',
        r"^(a+)+",  # it always matches, or fails, at once
        r"^(a+$)+",
        r"^(\b\w+\b\s*)+$",
        r"^(?>a+)+$",
        r"^(a++)+$",
        r"^(a)?(?(1)b|c)*\1$",
        r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$",
        r"^[\w.+-]+@([\w-]+\.)+[\w-]{2,4}$",
        r"^(v?\d+\.\d+\.\d+)(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$",
        r"^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?!$)|$)){4}$",
        "^(a|" + "b|cd" * 500 + ")+$",
        "^(?:" + "(?:" * 6 + "()" + "{16})" * 6 + ")*$",
        "(" + "abc" * 300000 + ")",
        "(",
        "(a){99999999999999}",
    ],
)
def test_quick(pattern: str) -> None:
    assert not is_slow(pattern)


def test_value_is_held_against_it_in_bounded_time() -> None:
    assert not fits({"pattern": "^(a+)+$"}, "a" * 40 + "!")
    assert fits({"pattern": "^(a+)+$"}, "a")
    assert fits({"pattern": "^(a+)+$"}, 1)


def test_bracket_in_a_set() -> None:
    assert is_pattern("^([[a]+)+$")
    assert is_slow("^([[a]+)+$")


@pytest.mark.parametrize("pattern", ["(?i)^(a+)+$", "^((?>a+)+)+$", r"^(a+)+\1$"])
def test_what_is_no_pattern_is_told_by_another_rule(pattern: str) -> None:
    assert not is_pattern(pattern)
    assert not is_slow(pattern)
