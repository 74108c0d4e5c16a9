"""``template-key``: a template stands in a value, not in a key, where it is taken literally.

Bad: ``with: {"{{ inputs.name }}": 1}``; good: a value, or ``{{ {inputs.name: 1} }}``.
"""

from collections.abc import Iterator

from pipeline_runner.core.parsing import contains_template
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.nodes import Mapping, Node, Sequence, Source

_HELP = "a key that is computed needs an expression for the whole mapping: \"{{ {inputs.name: 'value'} }}\""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield keys that look like templates."""
    owners = [document.root]
    for step in document.steps:
        owners += [step.node, *([step.compensation] if step.compensation else [])]
        owners += [handler for handler in step.node.items("catch") if isinstance(handler, Mapping)]
    for owner in owners:
        for name in ("with", "args", "set", "output", "for_each", "search_attributes"):
            if value := owner.get(name):
                yield from _below(document.source, value)


def _below(source: Source, node: Node) -> Iterator[Diagnostic]:
    for item in node.items if isinstance(node, Sequence) else ():
        yield from _below(source, item)
    for entry in node if isinstance(node, Mapping) else ():
        if "{" in entry.name and contains_template(entry.name):
            yield source.warning(
                entry.key.span, "template-key", "a template in a key is taken literally", _HELP
            )
        yield from _below(source, entry.value)
