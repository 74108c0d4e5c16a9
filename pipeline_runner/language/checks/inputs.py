"""``unknown-input``: an expression uses only inputs that the file declares."""

from collections.abc import Iterator

from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield uses of undeclared inputs."""
    for use in document.uses:
        for reference in use.references:
            if reference.path[0] != "inputs" or not reference.path[1:]:
                continue
            name = reference.path[1]
            if name not in document.inputs:
                span = use.span(document.source, reference, 1)
                help_ = did_you_mean(name, document.inputs) or _declared(document)
                yield document.source.diagnostic(span, "unknown-input", f'there is no input "{name}"', help_)


def _declared(document: Document) -> str:
    return f"the inputs are {listed(document.inputs)}" if document.inputs else "the file declares no inputs"
