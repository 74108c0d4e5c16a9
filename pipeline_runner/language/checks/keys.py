"""``template-key``: a template is in a value, not in a key, where it is literal."""

from collections.abc import Iterator

from pipeline_runner.core.expressions.parsing import contains_template
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.yaml.nodes import MappingNode, SequenceNode

_HELP = "to compute a key, write an expression for the whole mapping: \"{{ {inputs.name: 'value'} }}\""

_TEMPLATED = frozenset(["with", "args", "set", "output", "for_each", "search_attributes"])
"""Keys whose values contain templates."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield keys that look like templates."""
    owners = [document.root]
    for step in document.steps:
        owners += [step.node, *([step.compensation] if step.compensation else [])]
        owners += [handler for handler in step.node.items("catch") if isinstance(handler, MappingNode)]
    waiting = [entry.value for owner in owners for name, entry in owner.by_name.items() if name in _TEMPLATED]
    while waiting:
        node = waiting.pop()
        if isinstance(node, SequenceNode):
            waiting += node.items
        elif isinstance(node, MappingNode):
            for name, entry in node.by_name.items():
                waiting.append(entry.value)
                if contains_template(name):
                    message = "a template in a key is not rendered"
                    yield document.source.diagnostic(entry.key.span, "template-key", message, _HELP)
