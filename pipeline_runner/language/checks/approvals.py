"""``key-conflict``, ``bad-value``, ``type-mismatch``: what a timeout of an approval leads to."""

from collections.abc import Iterator

from pipeline_runner.core.inputs import dotted, schema_problems
from pipeline_runner.language.checks.schemas import at, quick_misfits
from pipeline_runner.language.checks.values import is_literal
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Step
from pipeline_runner.language.types import misfits, of_schema, words
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml.nodes import MappingNode, Node, plain


def check(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield answers to a timeout that never comes, and payloads that the approval itself would refuse."""
    for step in document.steps:
        if approval := step.node.mapping("approval"):
            yield from _keys(document, approval)
            yield from _payload(document, inferred, step, approval)


def _keys(document: Document, approval: MappingNode) -> Iterator[Diagnostic]:
    source, answer, payload = document.source, approval.entry("on_timeout"), approval.entry("payload")
    if answer and "timeout" not in approval:
        message = '"on_timeout" has no effect without "timeout": the step waits without a limit'
        yield source.diagnostic(answer.key.span, "key-conflict", message, 'add "timeout: 1d"')
    if payload and approval.text("on_timeout") != "approve":
        message = '"payload" is only used with "on_timeout: approve"'
        yield source.diagnostic(payload.key.span, "key-conflict", message)


def _payload(
    document: Document, inferred: Inference, step: Step, approval: MappingNode
) -> Iterator[Diagnostic]:
    answer, node, schema = (approval.get(key) for key in ("on_timeout", "payload", "schema"))
    if answer is None or approval.text("on_timeout") != "approve" or not isinstance(schema, MappingNode):
        return
    wanted = plain(schema)
    if schema_problems(wanted):
        return
    if node is None:
        if quick_misfits(wanted, None):
            message = "after the timeout the payload is null, which does not fit the schema"
            yield document.source.diagnostic(answer.span, "bad-value", message, 'add a "payload" that does')
        return
    yield from _literal(document, node, wanted) if is_literal(node) else ()
    for path, found, expected in misfits(inferred.value(node, step), of_schema(wanted)):
        if not is_literal(node):
            message = f'"payload{dotted(path)}" must be {words(expected)}, but this is {words(found)}'
            yield document.source.diagnostic(node.span, "type-mismatch", message)


def _literal(document: Document, node: Node, schema: dict[str, object]) -> Iterator[Diagnostic]:
    for path, message in quick_misfits(schema, plain(node)):
        part = at(node, path)
        yield document.source.diagnostic(part.span, "bad-value", f'"payload{dotted(path)}" {message}')
