"""What a process needs to serve a run. It is checked before the run is started or resumed.

Something that is missing in the middle of a run would fail steps, and then the undos that need it too.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline_runner.activities.catalogue import extras
from pipeline_runner.activities.catalogue.entries import Catalogue
from pipeline_runner.activities.toolkit.secret_values import SecretNotFoundError, secret_value
from pipeline_runner.core import model
from pipeline_runner.core.expressions.parsing import ExpressionError, references, strings_in
from pipeline_runner.language.workspace import Loaded

SECRET = "x-secret"  # noqa: S105 - a keyword
"""In the schema of an activity's parameter: its value is the name of a secret."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What the steps and undos of a pipeline and its children need where they run."""

    secrets: tuple[str, ...] = ()
    extras: tuple[tuple[str, str], ...] = ()
    """Activities, and the optional part of this package that each needs."""

    def missing(self) -> list[str]:
        """Return what is missing in this process."""
        return [*_missing_secrets(self.secrets), *_missing_extras(self.extras)]


def needs_of(loaded: Loaded) -> Needs:
    """Return what a process needs that serves all of a pipeline."""
    assert loaded.bundle is not None
    secrets: dict[str, None] = {}
    parts: dict[str, str] = {}
    for pipeline in loaded.bundle.pipelines.values():
        for call in model.calls_of(pipeline):
            if not isinstance(call, model.ActivityCall) or not served_here(call, loaded.catalogue):
                continue
            secrets |= dict.fromkeys(_secrets_of(call, pipeline, loaded.catalogue))
            if extra := loaded.catalogue[call.name].extra:
                parts[call.name] = extra
    return Needs(secrets=tuple(secrets), extras=tuple(parts.items()))


def served_here(call: model.Call, catalogue: Catalogue) -> bool:
    """Tell whether workers of this package serve a call, not other workers."""
    if isinstance(call, model.ChildCall):
        return True
    entry = catalogue.get(call.name)
    return entry is not None and entry.implementation is not None


def _secrets_of(call: model.ActivityCall, pipeline: model.Pipeline, catalogue: Catalogue) -> Iterable[str]:
    for text in strings_in([call.input, call.args]):
        for path in _references(text):
            if path[0] == "secrets":
                yield from path[1:2] if len(path) > 1 else pipeline.secrets
    schema: Mapping[str, Any] = catalogue[call.name].input or {}
    for name, about in schema.get("properties", {}).items():
        value = (call.input or {}).get(name)
        # The value of a template is known only in the run.
        if about.get(SECRET) and isinstance(value, str) and "{" not in value:
            yield value


def _references(text: str) -> Sequence[tuple[str, ...]]:
    try:
        return [reference.path for reference in references(text)]
    except ExpressionError:
        return ()


def _missing_secrets(names: Iterable[str]) -> Iterable[str]:
    for name in names:
        try:
            secret_value(name)
        except SecretNotFoundError as error:
            yield str(error)


def _missing_extras(needed: Iterable[tuple[str, str]]) -> Iterable[str]:
    by_extra = {extra: name for name, extra in reversed([*needed]) if not extras.installed(extra)}
    for extra, name in by_extra.items():
        yield f"{extras.missing(name, extra)}: {extras.remedy(extra)}"
