"""``idempotency-key``: a request that may be sent twice has a key that is unique to its step."""

from collections.abc import Iterator

from pipeline_runner.core.expressions.parsing import contains_template
from pipeline_runner.language import policies
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.yaml.nodes import Scalar

_SAFE = ("GET", "HEAD", "OPTIONS")


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield requests that are retried, change something, and have a useless key."""
    for call in document.calls:
        given = call.given
        if call.name != "http.request" or given is None:
            continue
        method = given.text("method") or "GET"
        if method.upper() in _SAFE or contains_template(method):
            continue
        for entry in given.mapping("headers") or ():
            value = entry.value
            if entry.name.lower() != "idempotency-key" or not isinstance(value, Scalar):
                continue
            if policies.call_retry(document, call).maximum_attempts == 1:
                continue
            if not contains_template(value.text):
                message = (
                    "this key is the same in every run: a server treats the second run as a repetition"
                    if value.text.strip()
                    else "without a key, a retried request may take effect twice"
                )
                help_ = "remove the header: the step's own key is then sent"
                yield document.source.diagnostic(value.span, "idempotency-key", message, help_)
