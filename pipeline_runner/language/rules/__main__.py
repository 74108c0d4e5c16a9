"""Write ``docs/checks.md`` from the pages of the rules: ``python -m pipeline_runner.language.rules``.

A test tells when it was forgotten.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from pipeline_runner.language import rules

TARGET = Path(__file__).parents[3] / "docs" / "checks.md"
_INTRO = """\
<!-- Written by "python -m pipeline_runner.language.rules" from the pages of the rules. -->

# What the checker says

Every message of `run-pipeline validate` ends with the id of its rule, in brackets. This page has one
entry for each; `run-pipeline explain RULE` prints the same. The tests check that the bad examples get
that rule and no other, if nothing else is said, and that nothing is said of the good ones.

A rule is an error or a warning. With an error nothing is started. A warning is silenced by a comment, on
its line or on a line of its own above: `# pipeline: ignore[rule-id]`. In a text of several lines, it is the
line in which that begins. Several rules stand in one pair of brackets, separated by commas. Errors cannot be
ignored.
"""


def generate(every: Iterable[rules.Rule]) -> str:
    """Return the text of ``docs/checks.md``."""
    parts = [_INTRO]
    for group, found in groupby(every, key=lambda rule: rule.group):
        parts += [f"\n## {group}\n", *("".join(_entry(rule)) for rule in found)]
    return "".join(parts)


def _entry(rule: rules.Rule) -> Iterator[str]:
    yield f"\n### {rule.id}\n\n{rule.severity.capitalize()}. {rule.what}\n\nWhy: {rule.why}\n"
    if rule.bad and rule.good:
        yield f"\nBad:\n\n{_noted(rule.bad, rule.id)}\n\nGood:\n\n{rule.good}\n"


def _noted(bad: str, rule_id: str) -> str:
    """Say before the last block, which is the one that is wrong, what the checker says of it."""
    if "<!-- mistake: " in bad:
        return bad
    before, fence, block = bad.rpartition("```yaml\n")
    return f"{before}<!-- mistake: {rule_id} -->\n{fence}{block}"


if __name__ == "__main__":
    TARGET.write_text(generate(rules.every()), encoding="utf-8")
