"""``shell-template``: data is handed to a shell as an argument, not as a part of its program.

Bad: ``command: [sh, -c, "rm {{ inputs.path }}"]``; good: ``[rm, "{{ inputs.path }}"]``, or
``[sh, -c, 'rm "$1"', sh, "{{ inputs.path }}"]``.
"""

import re
from collections.abc import Iterator

from pipeline_runner.core.parsing import references_in
from pipeline_runner.core.plain_expressions import Reference
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use
from pipeline_runner.language.nodes import Node, Scalar
from pipeline_runner.language.types import Plain, Type, options

_SHELL = re.compile(r"(?:.*/)?(?:ba|da|k|z|a)?sh")
_PROGRAM = re.compile(r"-[a-zA-Z]*c[a-zA-Z]*")
_TAKES_ONE = re.compile(r"[-+][a-zA-Z]*[oO]|--(?:rcfile|init-file)")
_HARMLESS = frozenset([("run", "run_id"), ("run", "started_at"), ("step", "key"), ("index",)])
"""Texts of letters, digits and a few signs that mean nothing to a shell."""
_HELP = 'hand it over as an argument: [sh, -c, \'… "$1"\', sh, "{{ … }}"]'


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield programs for a shell that are built from templates."""
    for call in document.calls:
        given = call.node.mapping("with")
        program = _program(given.items("command") if given else ())
        use = document.use_at(program, call.step, compensates=call.compensates) if program else None
        for reference in _unsafe(document, use) if use else ():
            assert use is not None
            source, path = document.source, reference.path
            span = use.span(source, reference).to(use.span(source, reference, len(path) - 1))
            message = f'"{".".join(path)}" becomes a part of the program that the shell reads'
            yield source.warning(span, "shell-template", message, _HELP)
            break


def _program(command: tuple[Node, ...]) -> Scalar | None:
    """Return the program in the command of a shell; None: there is none."""
    words = iter(command)
    first = next(words, None)
    if not isinstance(first, Scalar) or not _SHELL.fullmatch(first.text):
        return None
    for word in words:
        text = word.text if isinstance(word, Scalar) else ""
        if _PROGRAM.fullmatch(text):
            program = next(words, None)
            return program if isinstance(program, Scalar) else None
        if _TAKES_ONE.fullmatch(text):
            next(words, None)
        elif not text.startswith(("-", "+")):
            return None  # it is a file with the program, and the rest are its arguments
    return None


def _unsafe(document: Document, use: Use) -> Iterator[Reference]:
    """Yield the names in a program whose values can be anything."""
    for node, kind in document.types.inserted(use):
        found = references_in(node)
        if found and not all(map(_is_safe, options(kind))) and found[0].path not in _HARMLESS:
            yield found[0]


def _is_safe(kind: Type) -> bool:
    """Tell whether it is a number, or one of the texts that the file or a schema lists."""
    return isinstance(kind, Plain) and (kind.kind != "string" or kind.values is not None)
