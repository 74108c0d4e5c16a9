"""Write ``docs/checks.md`` from the pages of the rules: ``python -m pipeline_runner.language.rules``.

A test fails if you forget it.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from pipeline_runner.language import rules

TARGET = Path(__file__).parents[3] / "docs" / "checks.md"
_INTRO = """\
<!-- Written by "python -m pipeline_runner.language.rules" from the pages of the rules. -->

# Checks

Every message of `run-pipeline validate` ends with the id of its rule in brackets. This page describes every
rule; `run-pipeline explain RULE` prints the same. The tests verify that each bad example causes only that
rule, unless it says otherwise, and that the good examples cause none.

A rule is either an error or a warning. A file with an error is never started. To silence a warning, add the
comment `# pipeline: ignore[rule-id]` at the end of its line or on a separate line above it. For a string of
several lines, use the line where the string begins. To silence several rules, separate their ids with commas.
Errors cannot be ignored.
"""


def generate(every: Iterable[rules.Rule]) -> str:
    """Return the content of ``docs/checks.md``."""
    parts = [_INTRO]
    for group, found in groupby(every, key=lambda rule: rule.group):
        parts += [f"\n## {group}\n", *("".join(_entry(rule)) for rule in found)]
    return "".join(parts)


def _entry(rule: rules.Rule) -> Iterator[str]:
    yield f"\n### {rule.id}\n\n{rule.severity.capitalize()}. {rule.what}\n\nWhy: {rule.why}\n"
    if rule.bad and rule.good:
        yield f"\nBad:\n\n{_noted(rule.bad, rule.id)}\n\nGood:\n\n{rule.good}\n"


def _noted(bad: str, rule_id: str) -> str:
    """Mark the last block, which is the wrong one, with the rule that the checker reports."""
    if "<!-- error: " in bad:
        return bad
    before, fence, block = bad.rpartition("```yaml\n")
    return f"{before}<!-- error: {rule_id} -->\n{fence}{block}"


if __name__ == "__main__":
    TARGET.write_text(generate(rules.every()), encoding="utf-8")
