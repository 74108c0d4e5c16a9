"""``unknown-policy``: a policy is one of the file's ``policies``."""

from collections.abc import Iterator

from pipeline_runner.core.suggest import did_you_mean, listed
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.yaml.nodes import MappingNode


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield uses of policies that do not exist."""
    for owner in owners(document):
        if "policy" not in owner:
            continue
        value, name = owner.get("policy"), owner.text("policy")
        if value and name and "{{" not in name and name not in document.policies:
            declared = f"the policies are {listed(document.policies)}" if document.policies else None
            help_ = did_you_mean(name, document.policies) or declared or "the file declares no policies"
            message = f'there is no policy "{name}"'
            yield document.source.diagnostic(value.span, "unknown-policy", message, help_)


def owners(document: Document) -> Iterator[MappingNode]:
    """Yield the mappings that may name a policy."""
    if defaults := document.root.mapping("defaults"):
        yield defaults
        if undo := defaults.mapping("compensate"):
            yield undo
    for step in document.steps:
        yield step.node
        if step.compensation:
            yield step.compensation
