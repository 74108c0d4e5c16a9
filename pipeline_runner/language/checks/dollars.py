"""``dollar-template``: a template of a pipeline has no ``$`` in front.

Bad: ``path: "${{ inputs.path }}"``; good: ``path: "{{ inputs.path }}"``.
"""

from collections.abc import Iterator

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

_FOREIGN = "${{"


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield templates as GitHub Actions writes them: the ``$`` would stay in the text."""
    for use in document.uses:
        if use.bare or _FOREIGN not in use.text or use.tree is None:
            continue
        span = use.at(document.source, use.text.index(_FOREIGN), _FOREIGN)
        message = 'the "$" is not part of the template and remains in the string'
        help_ = 'write {{ … }}, or {{ "$" }} for a literal "$"'
        yield document.source.diagnostic(span, "dollar-template", message, help_)
