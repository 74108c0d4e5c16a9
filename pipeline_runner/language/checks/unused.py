"""``unused-input``, ``unused-policy``, ``unused-secret``: what is declared is used.

Bad: an input that no template names; good: without it.
"""

from collections.abc import Iterator

from pipeline_runner.language.checks.policies import owners
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.nodes import Scalar


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield names that nothing uses; none while there are templates that cannot be read."""
    if any(use.errors for use in document.uses):
        return
    source = document.source
    paths = {reference.path[:2] for use in document.uses for reference in use.references}
    inputs = document.root.mapping("inputs")
    for entry in inputs or () if ("inputs",) not in paths else ():
        if ("inputs", entry.name) not in paths:
            message = f'the input "{entry.name}" is not used'
            yield source.warning(entry.key.span, "unused-input", message, "remove it")
    for node in document.root.items("secrets") if ("secrets",) not in paths else ():
        if isinstance(node, Scalar) and ("secrets", node.text) not in paths:
            yield source.warning(
                node.span, "unused-secret", f'the secret "{node.text}" is not used', "remove it"
            )
    used = {owner.text("policy") for owner in owners(document)}
    for entry in document.root.mapping("policies") or ():
        if entry.name not in used:
            message = f'the policy "{entry.name}" is not used'
            yield source.warning(entry.key.span, "unused-policy", message, "remove it")
