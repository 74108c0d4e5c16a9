"""``shell-template``: data is handed to a shell as an argument, not as a part of its program.

Bad: ``command: [sh, -c, "rm {{ inputs.path }}"]``; good: ``[rm, "{{ inputs.path }}"]``, or
``[sh, -c, 'rm "$1"', sh, "{{ inputs.path }}"]``.
"""

import re
from collections.abc import Iterator

from pipeline_runner.core.expressions import contains_template
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.nodes import Scalar

_SHELL = re.compile(r"(?:.*/)?(?:ba|da|k|z|a)?sh")
_PROGRAM = re.compile(r"-[a-z]*c")
_HELP = 'hand it over as an argument: [sh, -c, \'… "$1"\', sh, "{{ … }}"]'


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield programs for a shell that are built from templates."""
    for call in document.calls:
        given = call.node.mapping("with")
        command = given.items("command") if given else ()
        texts = [item.text if isinstance(item, Scalar) else "" for item in command]
        if not texts or not _SHELL.fullmatch(texts[0]):
            continue
        for number, text in enumerate(texts[1:-1], 1):
            program = command[number + 1]
            if _PROGRAM.fullmatch(text) and isinstance(program, Scalar):
                if contains_template(program.text):
                    message = "what the template gives becomes a part of the shell's program"
                    yield document.source.warning(program.span, "shell-template", message, _HELP)
                break
