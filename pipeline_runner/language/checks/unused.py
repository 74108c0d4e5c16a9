"""``unused-input``, ``unused-policy``, ``unused-secret``: what is declared is used."""

import re
from collections.abc import Collection, Iterable, Iterator

from pipeline_runner.core.expressions.parsing import contains_template
from pipeline_runner.core.suggest import nearest
from pipeline_runner.language.checks.policies import owners
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.yaml.nodes import Entry, MappingNode, Node, Scalar, Span, scalars

_FINE = "not-supported-yet"
"""The error of a file that is written correctly."""


def check(document: Document, told: Iterable[Diagnostic]) -> Iterator[Diagnostic]:
    """Yield unused names, but none while there are errors, which may hide their uses."""
    if any(one.rule == "lost-brace" or (one.severity == "error" and one.rule != _FINE) for one in told):
        return
    source = document.source
    inputs = [(entry.name, entry.key.span) for entry in document.root.mapping("inputs") or ()]
    for name, span in _unused(document, "inputs", inputs):
        yield source.diagnostic(span, "unused-input", f'the input "{name}" is not used', "remove it")
    secrets = [(one.text, one.span) for one in document.root.items("secrets") if isinstance(one, Scalar)]
    for name, span in _unused(document, "secrets", secrets):
        yield source.diagnostic(span, "unused-secret", f'the secret "{name}" is not used', "remove it")
    used = {owner.text("policy") or "" for owner in owners(document) if "policy" in owner}
    used |= _meant(used, document.policies)
    for entry in document.root.mapping("policies") or ():
        if entry.name not in used and not _is_shared(document, entry):
            message = f'the policy "{entry.name}" is not used'
            yield source.diagnostic(entry.key.span, "unused-policy", message, "remove it")


def _unused(document: Document, root: str, declared: list[tuple[str, Span]]) -> list[tuple[str, Span]]:
    """Return the declared names that no expression uses."""
    paths = {reference.path[:2] for use in document.uses for reference in use.references}
    named = {path[1] for path in paths if path[0] == root and path[1:]}
    named |= _meant(named, [name for name, _ in declared])
    unused = [one for one in declared if (root,) not in paths and one[0] not in named]
    # Another rule reports templates that are not rendered, such as those under a misspelled key.
    texts = _unread(document) if unused else ""
    return [(name, span) for name, span in unused if not _is_in(texts, root, re.escape(name))]


def _is_in(texts: str, root: str, name: str) -> bool:
    return re.search(rf"\b{root}\s*(?:\.\s*{name}(?!\w)|\[\s*['\"]{name}['\"])", texts) is not None


def _meant(named: set[str], declared: Collection[str]) -> set[str]:
    """Return the declared names that undeclared ones most likely mean."""
    return {near for name in named if name not in declared and (near := nearest(name, declared))}


def _unread(document: Document) -> str:
    read = {id(use.node) for use in document.uses}
    found = (one.text for one in scalars(document.root) if id(one) not in read)
    return "\n".join(filter(contains_template, found))


def _is_shared(document: Document, policy: Entry) -> bool:
    """Tell whether an alias or a merge key shares a policy, or a part of it, with another one."""
    parts = {id(node) for node in (policy.value, *_values(policy.value))}
    others = [entry.value for entry in document.root.mapping("policies") or () if entry is not policy]
    return any(id(node) in parts for other in others for node in (other, *_values(other)))


def _values(node: Node) -> list[Node]:
    return [entry.value for entry in node] if isinstance(node, MappingNode) else []
