"""``unused-input``, ``unused-policy``, ``unused-secret``: what is declared is used.

Bad: an input that no template names; good: without it.
"""

import re
from collections.abc import Iterator

from pipeline_runner.core.expressions import contains_template
from pipeline_runner.language.checks.policies import owners
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.nodes import Entry, Mapping, Node, Scalar, Sequence


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield names that nothing uses; none while there are templates that cannot be read."""
    if any(use.errors for use in document.uses):
        return
    source = document.source
    paths = {reference.path[:2] for use in document.uses for reference in use.references}
    inputs = document.root.mapping("inputs")
    for entry in inputs or () if ("inputs",) not in paths else ():
        if ("inputs", entry.name) not in paths and not _stands(document, "inputs", entry.name):
            message = f'the input "{entry.name}" is not used'
            yield source.warning(entry.key.span, "unused-input", message, "remove it")
    for node in document.root.items("secrets") if ("secrets",) not in paths else ():
        if not isinstance(node, Scalar) or ("secrets", node.text) in paths:
            continue
        if not _stands(document, "secrets", node.text):
            yield source.warning(
                node.span, "unused-secret", f'the secret "{node.text}" is not used', "remove it"
            )
    used = {owner.text("policy") for owner in owners(document)}
    for entry in document.root.mapping("policies") or ():
        if entry.name not in used and not _is_shared(document, entry):
            message = f'the policy "{entry.name}" is not used'
            yield source.warning(entry.key.span, "unused-policy", message, "remove it")


def _is_shared(document: Document, policy: Entry) -> bool:
    """Tell whether an alias or a merge key brings a policy, or a part of it, to another one."""
    parts = {id(node) for node in (policy.value, *_values(policy.value))}
    others = [entry.value for entry in document.root.mapping("policies") or () if entry is not policy]
    return any(id(node) in parts for other in others for node in (other, *_values(other)))


def _values(node: Node) -> list[Node]:
    return [entry.value for entry in node] if isinstance(node, Mapping) else []


def _stands(document: Document, root: str, name: str) -> bool:
    """Tell whether a name stands in a template that is not read, which is told: under a misspelt key."""
    pattern = re.compile(rf"\b{root}\s*(?:\.\s*{name}\b|\[\s*['\"]{name}['\"])")
    read = {id(use.node) for use in document.uses}
    return any(
        contains_template(scalar.text) and pattern.search(scalar.text)
        for scalar in _scalars(document.root)
        if id(scalar) not in read
    )


def _scalars(node: Node) -> Iterator[Scalar]:
    match node:
        case Scalar():
            yield node
        case Sequence(items=items):
            for item in items:
                yield from _scalars(item)
        case Mapping():
            for entry in node:
                yield entry.key
                yield from _scalars(entry.value)
