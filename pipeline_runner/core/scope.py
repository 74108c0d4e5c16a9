"""Which names an expression can use, and where. The checker and the interpreter both use this module."""

from enum import StrEnum


class Place(StrEnum):
    """The place of an expression."""

    STEP = "step"
    """In a step of a pipeline's ``steps``: its ``when``, ``name``, ``with``, …"""
    COMPENSATION = "compensation"
    CATALOGUE = "catalogue"
    """In the undo that the catalogue declares for an activity, for every pipeline."""
    CATCH = "catch"
    """In a handler of a step's ``catch``: in its steps or its ``output``."""
    FINALLY = "finally"
    """In a step of a pipeline's ``finally``."""
    OUTPUT = "output"
    """In a pipeline's ``output``."""
    START = "start"
    """In a pipeline's own ``workflow_id`` or ``search_attributes``, rendered before the run starts."""


_COMMON = frozenset(["inputs", "steps", "run", "secrets"])
_ROOTS = {
    Place.STEP: _COMMON,
    Place.COMPENSATION: _COMMON | {"step", "error"},
    Place.CATALOGUE: frozenset(["run", "step", "error"]),
    Place.CATCH: _COMMON | {"error"},
    Place.FINALLY: _COMMON | {"error"},
    Place.OUTPUT: _COMMON,
    Place.START: frozenset(["inputs"]),
}

NAMES = frozenset(["item", "index", "last"]).union(*_ROOTS.values())
"""All names of the language, whatever the place."""

RUN_KEYS = ("workflow_id", "run_id", "pipeline", "started_at")
"""Keys of ``run``. In ``finally``, there is also ``status``."""

STEP_KEYS = ("input", "output", "outcome", "error", "key")
"""Keys of ``step`` in a compensation."""

OWN_KEYS = ("key",)
"""Keys of ``step`` in a step's own ``with`` and ``args``, which are known before these are rendered."""


def roots(place: Place, *, in_input: bool = False) -> frozenset[str]:
    """Return the names that an expression may use at a place.

    Args:
        place: The place of the expression.
        in_input: Whether it is in a step's ``with`` or ``args``.
    """
    return _ROOTS[place] | {"step"} if in_input else _ROOTS[place]
