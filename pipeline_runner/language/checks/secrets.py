"""``unknown-secret``, ``secret-place``: secrets are declared, and used only in activities.

``secret-elsewhere``: the activity's worker uses this package. Any other worker would take the reference
to the secret for its value.
"""

from collections.abc import Iterator

from pipeline_runner.core.scope import Place
from pipeline_runner.core.suggest import did_you_mean
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use
from pipeline_runner.language.types import SECRET, List, Map, Type, options
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml.nodes import Span


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield undeclared secrets, and secrets at places where they would be visible."""
    source = document.source
    for use in document.uses:
        if use.step and use.step.kind is None:
            continue  # another rule reports that, and the allowed places depend on it
        for reference in use.references:
            if reference.path[0] != "secrets" or "secrets" not in use.roots:
                continue
            name = reference.path[1] if len(reference.path) > 1 else None
            if use.takes_secrets and name in document.secrets:
                continue
            span = use.span(source, reference, 0 if name is None else 1)
            if not use.takes_secrets:
                message = 'a secret is only allowed in "with" or "args" of an activity'
                yield source.diagnostic(span, "secret-place", message)
            elif name is None:
                yield source.diagnostic(span, "secret-place", "refer to a secret by its name: secrets.NAME")
            if name is not None and name not in document.secrets:
                add = (
                    'add it to "secrets"'
                    if "secrets" in document.root
                    else f'add it to the file: "secrets: [{name}]"'
                )
                help_ = did_you_mean(name, document.secrets) or add
                yield source.diagnostic(span, "unknown-secret", f'the secret "{name}" is not declared', help_)


def check_elsewhere(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield secrets in the input of activities that ``activities.yaml`` declares for other workers."""
    if not document.secrets or not document.complete:
        return
    elsewhere = {
        (id(call.step), call.compensates): call.name
        for call in document.calls
        if call.activity is not None and not call.activity.takes_secrets
    }
    for use in document.uses if elsewhere else ():
        name = elsewhere.get((id(use.step), use.place is Place.COMPENSATION))
        if name is None or not use.takes_secrets or not _holds_secret(inferred.of(use)):
            continue
        message = f'"{name}" is served elsewhere: its worker would get a reference instead of the secret'
        help_ = f'if its worker uses this package, add "secrets: true" to {name} in activities.yaml'
        yield document.source.diagnostic(_span(document, use), "secret-elsewhere", message, help_)


def _span(document: Document, use: Use) -> Span:
    named = (one for one in use.references if one.path[0] in ("secrets", "step"))
    reference = next(named, None)
    if reference is None:
        return use.node.span
    return use.span(document.source, reference, min(1, len(reference.path) - 1))


def _holds_secret(kind: Type) -> bool:
    """Tell whether a value of a type may contain a secret."""
    for one in options(kind):
        match one:
            case List(item=item):
                found = _holds_secret(item)
            case Map(keys=keys):
                found = any(map(_holds_secret, keys.values()))
            case _:
                found = one == SECRET
        if found:
            return True
    return False
