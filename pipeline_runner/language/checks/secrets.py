"""``unknown-secret``, ``secret-place``: secrets are declared, and go into activities only.

Bad: ``name: deploy with {{ secrets.TOKEN }}``; good: ``with: {token: "{{ secrets.TOKEN }}"}``.
"""

from collections.abc import Iterator

from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield secrets that are not declared, and those that stand where they would be seen."""
    source = document.source
    for use in document.uses:
        for reference in use.references:
            if reference.path[0] != "secrets" or "secrets" not in use.roots:
                continue
            name = reference.path[1] if len(reference.path) > 1 else None
            if use.takes_secrets and name in document.secrets:
                continue
            span = use.span(source, reference, 0 if name is None else 1)
            if not use.takes_secrets:
                message = 'a secret may only stand in "with" or "args" of an activity'
                yield source.error(span, "secret-place", message)
            elif name is None:
                yield source.error(span, "secret-place", "a secret is used by its name: secrets.NAME")
            if name is not None and name not in document.secrets:
                add = (
                    'add it to "secrets"'
                    if "secrets" in document.root
                    else f'add it to the file: "secrets: [{name}]"'
                )
                help_ = did_you_mean(name, document.secrets) or add
                yield source.error(span, "unknown-secret", f'the secret "{name}" is not declared', help_)
