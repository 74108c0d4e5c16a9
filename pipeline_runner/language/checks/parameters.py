"""``unknown-parameter``, ``missing-parameter``: ``with`` matches the activity's parameters.

``undeclared-parameter``: the schema is not closed. It accepts the parameter, but does not declare it,
which is a warning.
"""

from collections.abc import Iterator
from collections.abc import Mapping as AnyMapping
from typing import Any

from pipeline_runner.core.suggest import listed, nearest
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Call, Document
from pipeline_runner.language.yaml.nodes import MappingNode

_FOREIGN = {
    **dict.fromkeys(("program", "cmd", "script", "run", "exec", "args", "argv"), "command"),
    **dict.fromkeys(("environment", "env_vars", "variables"), "env"),
    **dict.fromkeys(("workdir", "working_dir", "working_directory", "dir", "chdir"), "cwd"),
    **dict.fromkeys(("body", "text", "data", "contents"), "content"),
    **dict.fromkeys(("dest", "destination", "file", "filename", "directory"), "path"),
    **dict.fromkeys(("uri", "link", "address"), "url"),
}
"""Names of the built-in activities' parameters in other tools."""


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield parameters that an activity does not accept, and missing ones."""
    for call in document.calls:
        activity = call.activity
        if activity is None or activity.input is None or "args" in call.node:
            continue
        if "with" in call.node or activity.arguments is None:  # else its only parameter has a default
            yield from _check_call(document, call, resolved(activity.input))


def _check_call(document: Document, call: Call, schema: dict[str, Any]) -> Iterator[Diagnostic]:
    source, given = document.source, call.node.get("with")
    if given is not None and not isinstance(given, MappingNode):
        return
    known = schema.get("properties")
    missing = [name for name in schema.get("required", ()) if given is None or name not in given]
    if isinstance(known, dict) and "patternProperties" not in schema:
        for name, entry in given.by_name.items() if given else ():
            if name in known:
                continue
            message = f'"{call.name}" has no parameter "{name}"'
            meant = _meant(name, known)
            help_ = f'did you mean "{meant}"?' if meant else f"its parameters are {listed(known)}"
            # The parameter that it means is not missing as well; but a warning must not hide that it is.
            is_missing = meant in missing
            if schema.get("additionalProperties") is False:
                yield source.diagnostic(entry.key.span, "unknown-parameter", message, help_)
            elif "additionalProperties" in schema:
                continue
            elif is_missing:
                message = f'"{call.name}" needs "{meant}" in its "with", and has no parameter "{name}"'
                yield source.diagnostic(entry.key.span, "missing-parameter", message, help_)
            else:
                yield source.diagnostic(entry.key.span, "undeclared-parameter", message, help_)
            if is_missing:
                missing.remove(meant)
    if missing:
        names = ", ".join(f'"{name}"' for name in missing)
        yield source.diagnostic(
            call.input_span, "missing-parameter", f'"{call.name}" needs {names} in its "with"'
        )


def _meant(name: str, known: AnyMapping[str, Any]) -> str | None:
    foreign = _FOREIGN.get(name.lower().replace("-", "_"))
    return nearest(name, known) or (foreign if foreign in known else None)


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the definition that a reference at the top of a schema leads to."""
    reference = schema.get("$ref")
    if not isinstance(reference, str) or not reference.startswith("#/$defs/"):
        return schema
    definition = schema.get("$defs", {}).get(reference.removeprefix("#/$defs/"), {})
    return definition if isinstance(definition, dict) else {}
