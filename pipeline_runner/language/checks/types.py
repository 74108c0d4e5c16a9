"""Operations that the types of values make impossible, or pointless, in an expression."""

import re
from collections.abc import Iterator

from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use
from pipeline_runner.language.types import ANY_LIST, BOOLEAN, STRING, List, Map, Type, misfits, options, words
from pipeline_runner.language.typing.inference import Inference

_LOOSE = re.compile(r"\b(?:and|if|in|is|not|or)\b")
"""Operators that bind less tightly than a comparison."""

_VARIABLE = "use an input or a result, or remove it"


def check(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield the errors inside expressions, then wrong types of their results."""
    source = document.source
    for use in document.uses:
        for problem in inferred.problems(use):
            span = use.at(source, problem.offset, problem.word)
            yield source.diagnostic(span, problem.rule, problem.message, problem.help)
        if use.key in ("when", "switch", "until", "for_each", "wait") and use.tree is not None:
            yield from _result(document, inferred, use)


def _result(document: Document, inferred: Inference, use: Use) -> Iterator[Diagnostic]:
    """Yield a result that cannot be used at its place."""
    source, kind = document.source, inferred.of(use)
    match use.key:
        case "when" | "switch" | "until" if use.bare:
            if any(misfits(kind, BOOLEAN)):
                what = "condition" if use.key == "until" else "when"
                message = f'"{what}" must be true or false, but this is {words(kind)}'
                yield source.diagnostic(use.node.span, "not-a-boolean", message, _as_condition(use, kind))
            elif use.key != "until" and not use.references and not inferred.problems(use):
                message = "this condition is always the same"
                yield source.diagnostic(use.node.span, "constant-condition", message, _VARIABLE)
        case "for_each" if use.bare:
            if any(misfits(kind, ANY_LIST)):
                message = f'"for_each" must be a list, but this is {words(kind)}'
                yield source.diagnostic(use.node.span, "not-a-list", message)
        case "wait" | "until":
            if any(misfits(kind, STRING)):
                until = (
                    use.key == "wait" and use.step is not None and use.step.node.mapping("wait") is not None
                )
                key = "every" if use.key == "until" else "wait"
                what = '"until" must be a time' if until else f'"{key}" must be a duration such as "30s"'
                message = f"{what}, but this is {words(kind)}"
                help_ = 'add the unit: "{{ … }}s"' if words(kind) == "a number" and not until else None
                yield source.diagnostic(use.node.span, "type-mismatch", message, help_)


def _as_condition(use: Use, kind: Type) -> str | None:
    text = use.text.strip()
    if not use.references:
        return "write true or false"
    if _LOOSE.search(text):
        return None
    if any(isinstance(option, List) for option in options(kind)):
        return f"write {text} | length > 0"
    if any(isinstance(option, Map) for option in options(kind)):
        # An input is null only if its schema allows it, and is then more than a mapping.
        filled = use.references[0].path[0] == "inputs" and kind == options(kind)[0]
        return f"write {text} | length > 0" if filled else f"write {text} is not none"
    match words(kind):
        case "a string":
            return f'write {text} != ""'
        case "a number":
            return f"write {text} != 0"
    return None
