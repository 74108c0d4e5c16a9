"""Every key is known, every value of its shape (``fields.py``)."""

from collections.abc import Iterator

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.table.fields import PIPELINE


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield what does not follow the table of the language."""
    yield from PIPELINE.check(document.root, document.source, "the file")
