"""The rules of the checker: a page for each, ``<rule-id>.md`` in this folder.

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
    "The text",
    "Keys and values",
    "Names and expressions",
    "Types",
    "Activities",
    "Children",
    "Undo",
    "Timeouts and retries",
    "Size",
)
"""In the order in which they are told."""

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
    """A page is not written as pages are."""


class UnknownRuleError(LookupError):
    """There is no such rule."""

    def __init__(self, rule_id: str, suggestion: str | None) -> None:
        super().__init__(f'there is no rule "{rule_id}"' + (f": {suggestion}" if suggestion else ""))
        self.suggestion = suggestion
        """Which one may be meant, as a question; None if none is near."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a rule. The texts are Markdown."""

    id: str
    group: str
    """One of :data:`GROUPS`."""
    severity: Severity
    what: str
    """What the message says, in full."""
    why: str
    """What would happen, or why it matters."""
    bad: str | None = None
    """The blocks of a pipeline with this mistake; None where no text can show it."""
    good: str | None = None
    """The same, mended."""

    @property
    def first_sentence(self) -> str:
        """Return what the rule is about in short."""
        return _SENTENCE_END.split(self.what)[0]


def ids() -> list[str]:
    """Return the ids of all rules, sorted."""
    names = (page.name for page in files(__package__).iterdir())
    return sorted(name.removesuffix(".md") for name in names if name.endswith(".md"))


def every() -> list[Rule]:
    """Return all rules, by group, then by id."""
    return sorted(map(load, ids()), key=lambda rule: (GROUPS.index(rule.group), rule.id))


def load(rule_id: str) -> Rule:
    """Return what is told of a rule.

    Raises:
        UnknownRuleError: There is no such rule.
    """
    return parse(page(rule_id))


def page(rule_id: str) -> str:
    """Return the page of a rule.

    Raises:
        UnknownRuleError: There is no such rule.
    """
    known = ids()
    if rule_id not in known:
        raise UnknownRuleError(rule_id, did_you_mean(rule_id, known))
    return files(__package__).joinpath(f"{rule_id}.md").read_text(encoding="utf-8")


def readable(text: str) -> str:
    """Return a page without its comments, which are for the tests."""
    return _COMMENT.sub("", text)


def parse(text: str) -> Rule:
    """Return what a page says.

    Raises:
        PageError: It is not written as pages are.
    """
    match = _PAGE.fullmatch(text)
    if match is None:
        raise PageError(f"this is no page of a rule: {text[:40]!r}")
    if match["group"] not in GROUPS:
        raise PageError(f'there is no group "{match["group"]}"')
    return msgspec.convert(match.groupdict(), Rule)
