"""The rules of the checker: a page for each, ``<rule-id>.md`` in this directory.

``run-pipeline explain`` prints the pages, and ``python -m pipeline_runner.language.rules``
writes ``docs/checks.md`` from them. Checking a file does not read them.
"""

import re
from importlib.resources import files

import msgspec

from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.severities import Severity

GROUPS = (
    "Comments",
    "The file",
    "Keys and values",
    "Names and expressions",
    "Types",
    "Activities",
    "Children",
    "Undo",
    "Timeouts and retries",
    "Size",
)
"""In the order of the documentation."""

_PAGE = re.compile(
    r"# (?P<id>[a-z0-9-]+)\n\n"
    r"Group: (?P<group>[^\n]+)\n"
    r"Severity: (?P<severity>error|warning)\n\n"
    r"(?P<what>.+?)\n\n"
    r"Why: (?P<why>(?:(?!\n\n).)+)\n"
    r"(?:\nBad:\n\n(?P<bad>.+?)\n\nGood:\n\n(?P<good>.+?)\n)?",
    re.DOTALL,
)
_COMMENT = re.compile(r"^<!-- .* -->\n+", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=\.)\s")


class PageError(ValueError):
    """A page does not have the format of the pages."""


class UnknownRuleError(LookupError):
    """The rule does not exist."""

    def __init__(self, rule_id: str, suggestion: str | None) -> None:
        super().__init__(f'there is no rule "{rule_id}"' + (f": {suggestion}" if suggestion else ""))
        self.suggestion = suggestion
        """The rule that is probably meant, as a question; None if none is similar."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a rule. The strings are Markdown."""

    id: str
    group: str
    """One of :data:`GROUPS`."""
    severity: Severity
    what: str
    """What the rule reports."""
    why: str
    """What would happen otherwise, or why it matters."""
    bad: str | None = None
    """The blocks of a pipeline with this error; None if no file can show it."""
    good: str | None = None
    """The same, corrected."""

    @property
    def first_sentence(self) -> str:
        """Return a short description of the rule."""
        return _SENTENCE_END.split(self.what)[0]


def ids() -> list[str]:
    """Return the ids of all rules, sorted."""
    names = (page.name for page in files(__package__).iterdir())
    return sorted(name.removesuffix(".md") for name in names if name.endswith(".md"))


def every() -> list[Rule]:
    """Return all rules, by group, then by id."""
    return sorted(map(load, ids()), key=lambda rule: (GROUPS.index(rule.group), rule.id))


def load(rule_id: str) -> Rule:
    """Return the description of a rule.

    Raises:
        UnknownRuleError: The rule does not exist.
    """
    return parse(page(rule_id))


def page(rule_id: str) -> str:
    """Return the page of a rule.

    Raises:
        UnknownRuleError: The rule does not exist.
    """
    known = ids()
    if rule_id not in known:
        raise UnknownRuleError(rule_id, did_you_mean(rule_id, known))
    return files(__package__).joinpath(f"{rule_id}.md").read_text(encoding="utf-8")


def readable(text: str) -> str:
    """Return a page without its comments, which are for the tests."""
    return _COMMENT.sub("", text)


def parse(text: str) -> Rule:
    """Parse a page.

    Raises:
        PageError: It does not have the format of the pages.
    """
    match = _PAGE.fullmatch(text)
    if match is None:
        raise PageError(f"this is not the page of a rule: {text[:40]!r}")
    if match["group"] not in GROUPS:
        raise PageError(f'there is no group "{match["group"]}"')
    return msgspec.convert(match.groupdict(), Rule)
