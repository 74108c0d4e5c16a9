"""The checks of a file whose YAML is valid: one rule, or one family of rules, per module.

A check is a generator that yields diagnostics: ``check(document)``, or ``check(document, inferred)`` if
it needs types. It never prints, raises or exits, and tolerates parts with a wrong shape. Checks that
involve other files are in :mod:`pipeline_runner.language.workspace`.
"""

from collections.abc import Callable, Iterator

from pipeline_runner.language.checks import (
    activities,
    approvals,
    arguments,
    braces,
    digits,
    dollars,
    events,
    expressions,
    inputs,
    intervals,
    keys,
    limits,
    loops,
    names,
    nulls,
    parameters,
    policies,
    positional,
    requests,
    schedules,
    schemas,
    scopes,
    secrets,
    shells,
    sizes,
    steps,
    structure,
    types,
    undo,
    undos,
    unused,
    values,
    waits,
)
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document
from pipeline_runner.language.typing.inference import Inference

CHECKS: tuple[Callable[[Document], Iterator[Diagnostic]], ...] = (
    structure.check,
    arguments.check,
    waits.check,
    events.check,
    loops.check,
    steps.check_ids,
    expressions.check,
    braces.check,
    dollars.check,
    names.check,
    inputs.check,
    steps.check_references,
    secrets.check,
    policies.check,
    intervals.check,
    activities.check,
    parameters.check,
    digits.check,
    schemas.check,
    keys.check,
    limits.check,
    requests.check,
    schedules.check,
    scopes.check,
    sizes.check,
    undo.check,
)


OF_TYPES: tuple[Callable[[Document, Inference], Iterator[Diagnostic]], ...] = (
    types.check,
    secrets.check_elsewhere,
    positional.check,
    values.check,
    approvals.check,
    nulls.check,
    shells.check,
    undos.check_steps,
)


def check(document: Document, inferred: Inference) -> Iterator[Diagnostic]:
    """Yield the diagnostics of a file by itself."""
    found = [diagnostic for one in CHECKS for diagnostic in one(document)]
    found += (diagnostic for one in OF_TYPES for diagnostic in one(document, inferred))
    yield from found
    yield from unused.check(document, found)
