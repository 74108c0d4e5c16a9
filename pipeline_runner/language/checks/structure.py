"""Checks that every key is known, and that every value has the right shape (``fields.py``)."""

from collections.abc import Iterator

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.table.fields import PIPELINE


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield violations of the table of the language."""
    yield from PIPELINE.check(document.root, document.source, "the file")
