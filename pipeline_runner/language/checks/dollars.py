"""``dollar-template``: a template of a pipeline does not follow a ``$``."""

from collections.abc import Iterator

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

_FOREIGN = "${{"


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield templates as in GitHub Actions: the ``$`` would remain in the string."""
    for use in document.uses:
        if use.bare or _FOREIGN not in use.text or use.tree is None:
            continue
        span = use.at(document.source, use.text.index(_FOREIGN), _FOREIGN)
        message = 'the "$" is not part of the template and remains in the string'
        help_ = 'write {{ … }}, or {{ "$" }} for a literal "$"'
        yield document.source.diagnostic(span, "dollar-template", message, help_)
