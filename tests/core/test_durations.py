"""Durations: one way to write them, and a helpful word for all others."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_runner.core import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1.5s", 1.5),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("0s", 0),
        ("1m500ms", 60.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds
    assert re.search(durations.PATTERN, text)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("PT5M", "5m"), ("P1DT2H", "1d2h"), ("30", "30s"), ("5 minutes", "5m"), ("5min", "5m"), ("1h 30m", "1h30m"),
        ("2 hours and 3 seconds", "2h3s"), ("500 ms", "500ms"), ("100 milliseconds", "100ms"), ("5M", "5m"),
        ("soon", None), ("", None), ("-5s", None), ("m", None), ("1x", None),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_answered_with_the_right_spelling(text: str, right: str | None) -> None:
    with pytest.raises(durations.DurationError) as caught:
        durations.parse(text)
    expected = f'write "{right}"' if right else 'write for example "500ms", "30s", "5m" or "1h30m"'
    assert str(caught.value) == f'"{text}" is not a duration, {expected}'
    assert not re.search(durations.PATTERN, text)


@pytest.mark.parametrize("text", ["9" * 100_000, "a" + "9" * 100_000, "1 " * 50_000, "9" * 100_000 + "s"])
def test_a_long_text_is_answered_at_once_and_in_short(text: str) -> None:
    begin = time.process_time()
    with pytest.raises(durations.DurationError) as caught:
        durations.parse(text)
    assert len(str(caught.value)) < 200
    assert time.process_time() - begin < 1


def test_ten_years_are_enough() -> None:
    with pytest.raises(durations.DurationError, match="longer than ten years"):
        durations.parse("4000d")


@given(st.integers(0, 10**11))
def test_what_is_spelt_is_parsed_back(milliseconds: int) -> None:
    text = durations.spell(milliseconds / 1000)
    assert durations.parse(text) == pytest.approx(milliseconds / 1000)
