"""A little of what ``python -m tests.fuzz.checker`` does at length."""

import sys

import pytest

from tests.fuzz.checker import run


def test_broken_files_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception, no file over a second, no place outside of the file, nothing twice."""
    monkeypatch.setattr(sys, "path", sys.path.copy())
    outcome = run(seed=1, start=0, files=300)
    assert [(problem, data[:2000]) for problem, data in outcome.failures] == []
    assert outcome.files == 300
    assert len(outcome.rules) > 20
