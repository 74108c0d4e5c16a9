"""Which names an expression may see, and where. Checker and interpreter both ask here."""

from collections.abc import Sequence
from enum import StrEnum


class Place(StrEnum):
    """Where an expression stands."""

    STEP = "step"
    """In a step of a pipeline's ``steps``: its ``when``, ``name``, ``with``, …"""
    COMPENSATION = "compensation"
    FINALLY = "finally"
    """In a step of a pipeline's ``finally``."""
    OUTPUT = "output"
    """In a pipeline's ``output``."""
    WORKFLOW_ID = "workflow_id"
    """In a pipeline's own ``workflow_id``, rendered before the run starts."""


_COMMON = frozenset(["inputs", "steps", "run", "secrets"])
_ROOTS = {
    Place.STEP: _COMMON,
    Place.COMPENSATION: _COMMON | {"step", "error"},
    Place.FINALLY: _COMMON | {"error"},
    Place.OUTPUT: _COMMON,
    Place.WORKFLOW_ID: frozenset(["inputs"]),
}

RUN_KEYS = ("workflow_id", "run_id", "pipeline", "started_at")
"""Keys of ``run``; in ``finally`` there is ``status`` too."""

STEP_KEYS = ("input", "output", "outcome", "error", "key")
"""Keys of ``step`` in a compensation."""

RESULT_KEYS = ("output", "status", "error")
"""Keys of ``steps.<id>``."""


def roots(place: Place) -> frozenset[str]:
    """Return the names that an expression may use at a place."""
    return _ROOTS[place]


def visible_steps(ids: Sequence[str], place: Place, index: int) -> frozenset[str]:
    """Return the ids of the steps that an expression sees.

    Args:
        ids: The pipeline's step ids in order: ``steps``, then those of ``finally``.
        place: Where the expression stands.
        index: The index in ``ids`` of the step that the expression belongs to; for
            ``OUTPUT`` the number of steps.

    A compensation sees what its step saw: the steps before it.
    """
    if place is Place.WORKFLOW_ID:
        return frozenset()
    return frozenset(ids[:index])
