"""What can be wrong with a file whose YAML is sound: one rule, or one family, a module.

A check is a generator ``check(document)`` that yields diagnostics; it never prints, raises
or stops, and puts up with parts of the wrong shape. What involves other files is checked
where they are resolved (:mod:`pipeline_runner.language.resolve`).
"""

from collections.abc import Callable, Iterator

from pipeline_runner.language.checks import (
    activities,
    arguments,
    braces,
    digits,
    dollars,
    expressions,
    inputs,
    intervals,
    keys,
    limits,
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
    unused,
    values,
    waits,
)
from pipeline_runner.language.diagnostics import Diagnostic
from pipeline_runner.language.document import Document

CHECKS: tuple[Callable[[Document], Iterator[Diagnostic]], ...] = (
    structure.check,
    arguments.check,
    waits.check,
    steps.check_ids,
    expressions.check,
    braces.check,
    dollars.check,
    names.check,
    inputs.check,
    steps.check_references,
    types.check,
    secrets.check,
    secrets.check_elsewhere,
    policies.check,
    intervals.check,
    activities.check,
    parameters.check,
    positional.check,
    values.check,
    digits.check,
    schemas.check,
    keys.check,
    limits.check,
    nulls.check,
    requests.check,
    schedules.check,
    scopes.check,
    shells.check,
    sizes.check,
    undo.check,
    unused.check,
)


def check(document: Document) -> Iterator[Diagnostic]:
    """Yield everything that is wrong with a file by itself."""
    for one in CHECKS:
        yield from one(document)
