"""``template-key``: a template stands in a value, not in a key, where it is taken literally.

Bad: ``with: {"{{ inputs.name }}": 1}``; good: a value, or ``{{ {inputs.name: 1} }}``.
"""

from collections.abc import Iterator

from pipeline_runner.core.parsing import contains_template
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.nodes import Mapping, Scalar, Sequence, Source

_HELP = "a key that is computed needs an expression for the whole mapping: \"{{ {inputs.name: 'value'} }}\""

_TEMPLATED = frozenset(["with", "args", "set", "output", "for_each", "search_attributes"])
"""Keys of what is full of templates."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield keys that look like templates."""
    owners = [document.root]
    for step in document.steps:
        owners += [step.node, *([step.compensation] if step.compensation else [])]
        owners += [handler for handler in step.node.items("catch") if isinstance(handler, Mapping)]
    for owner in owners:
        for name, entry in owner.by_name.items():
            if name in _TEMPLATED and not isinstance(entry.value, Scalar):
                yield from _below(document.source, entry.value)


def _below(source: Source, node: Mapping | Sequence) -> Iterator[Diagnostic]:
    if isinstance(node, Sequence):
        below = node.items
    else:
        below = tuple([entry.value for entry in node])
        for name, entry in node.by_name.items():
            if "{" in name and contains_template(name):
                message = "a template in a key is taken literally"
                yield source.warning(entry.key.span, "template-key", message, _HELP)
    for value in below:
        if not isinstance(value, Scalar):
            yield from _below(source, value)
