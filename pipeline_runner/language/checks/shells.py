"""``shell-template``: data is passed to a shell as an argument, not as a part of its program.

For ``ssh``, everything after the host is a program.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from pipeline_runner.core.expressions.fast_path import Reference
from pipeline_runner.core.expressions.parsing import references_in
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document, Use
from pipeline_runner.language.types import Plain, Type, options
from pipeline_runner.language.typing.inference import Inference
from pipeline_runner.language.yaml.nodes import Node, Scalar

_SHELL = re.compile(r"(?:.*/)?(?:ba|da|k|z|a)?sh")
_PROGRAM = re.compile(r"-[a-zA-Z]*c[a-zA-Z]*")
_TAKES_ONE = re.compile(r"[-+][a-zA-Z]*[oO]|--(?:rcfile|init-file)")
_RUNS_ANOTHER = re.compile(
    r"(?:.*/)?(?:docker|doas|env|find|kubectl|nerdctl|nice|nohup|podman|setsid|stdbuf|sudo|time|timeout|xargs)"
)
_SSH = re.compile(r"(?:.*/)?ssh")
_SSH_TAKES_ONE = re.compile(r"-[46AaCfGgKkMNnqsTtVvXxYy]*[BbcDEeFIiJLlmOoPpQRSWw]")
_HARMLESS = frozenset([("run", "run_id"), ("run", "started_at"), ("step", "key"), ("index",)])
"""Strings of letters, digits and a few characters that have no meaning in a shell."""
_OWN_ARGUMENT = re.compile(r"-.*|[0-9].*|\w+=.*", re.DOTALL)
"""An argument of a command that runs another one: an option, a time, a variable."""
_HELP = 'pass it as an argument: [sh, -c, \'… "$1"\', sh, "{{ … }}"]'
_HELP_SSH = 'pass it on standard input: [ssh, HOST, \'read -r x; … "$x"\'], with "stdin"'


def check(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield programs for a shell that contain templates."""
    for call in document.calls:
        given = call.given
        command = (*given.items("entrypoint"), *given.items("command")) if given else ()
        programs, help_ = _programs(command) if command else ((), "")
        uses = [document.use_at(one, call.step, compensates=call.compensates) for one in programs]
        found = ((use, one) for use in uses if use for one in _unsafe(inferred, use))
        if first := next(found, None):
            (use, reference), source = first, document.source
            path = reference.path
            span = use.span(source, reference).to(use.span(source, reference, len(path) - 1))
            message = f'"{".".join(path)}" becomes a part of the program that the shell runs'
            yield source.diagnostic(span, "shell-template", message, help_)


def _programs(command: tuple[Node, ...]) -> tuple[tuple[Scalar, ...], str]:
    """Return the parts of a command that a shell runs as a program, and what to write instead."""
    words = [node.text if isinstance(node, Scalar) else "" for node in command]
    if _SHELL.fullmatch(words[0]):
        return _of_shell(command), _HELP
    start = 0
    if _RUNS_ANOTHER.fullmatch(words[0]):
        for place, word in enumerate(words):
            if _SHELL.fullmatch(word) and (found := _of_shell(command[place:])):
                return found, _HELP
        start = _other(words)
    return (_of_ssh(command[start + 1 :]), _HELP_SSH) if _SSH.fullmatch(words[start]) else ((), "")


def _of_shell(command: tuple[Node, ...]) -> tuple[Scalar, ...]:
    words = iter(command[1:])
    for word in words:
        text = word.text if isinstance(word, Scalar) else ""
        if _PROGRAM.fullmatch(text):
            program = next(words, None)
            return (program,) if isinstance(program, Scalar) else ()
        if _TAKES_ONE.fullmatch(text):
            next(words, None)
        elif not text.startswith(("-", "+")):
            return ()  # a file with the program, followed by its arguments
    return ()


def _other(words: list[str]) -> int:
    """Return the index of the command that the first one, such as ``sudo -u root``, may run."""
    for place, (before, word) in enumerate(pairwise(words), 1):
        if _SSH.fullmatch(word) or not (
            _RUNS_ANOTHER.fullmatch(word) or _OWN_ARGUMENT.fullmatch(word) or before.startswith("-")
        ):
            return place
    return 0


def _of_ssh(arguments: tuple[Node, ...]) -> tuple[Scalar, ...]:
    """Return the arguments after the host: ``ssh`` joins them, and the shell of the host runs them."""
    words, host = iter(enumerate(arguments)), False
    for place, word in words:
        text = word.text if isinstance(word, Scalar) else ""
        if _SSH_TAKES_ONE.fullmatch(text):
            next(words, None)
        elif host and not text.startswith("-"):
            return tuple(one for one in arguments[place:] if isinstance(one, Scalar))
        elif not text.startswith("-"):
            host = True
    return ()


def _unsafe(inferred: Inference, use: Use) -> Iterator[Reference]:
    """Yield the names in a program that may have any value."""
    for node, kind in inferred.inserted(use):
        found = references_in(node)
        if found and not all(map(_is_safe, options(kind))) and found[0].path not in _HARMLESS:
            yield found[0]


def _is_safe(kind: Type) -> bool:
    """Tell whether it is a number, or one of the strings that the file or a schema lists."""
    return isinstance(kind, Plain) and (kind.kind != "string" or kind.values is not None)
