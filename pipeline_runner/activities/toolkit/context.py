"""What an activity may ask about the step it serves, beyond ``temporalio.activity.info()``.

Imports neither temporalio nor the engine, so that activities stay plain functions.
"""

import os
from contextvars import ContextVar
from dataclasses import dataclass

_key: ContextVar[str | None] = ContextVar("pipeline_runner_idempotency_key", default=None)
_directory: ContextVar[str | None] = ContextVar("pipeline_runner_directory", default=None)
_outcome: ContextVar[str | None] = ContextVar("pipeline_runner_undone_outcome", default=None)
_of_pipeline: ContextVar[str | None] = ContextVar("pipeline_runner_outcome_undone_by_pipeline", default=None)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The run that an activity belongs to."""

    server: str | None
    """Id of the namespace, which no other server has; None: it is not known."""
    workflow_id: str
    run_id: str


_origin: ContextVar[Origin | None] = ContextVar("pipeline_runner_origin", default=None)


def idempotency_key() -> str:
    """Return the idempotency key of the step that this activity serves.

    Thirty-two hex digits, the same over retries, resets and continue-as-new of a run, and
    different for every step of every run. Hand it to a service that de-duplicates requests.

    Raises:
        LookupError: The caller is not an activity that a pipeline step started.
    """
    key = _key.get()
    if key is None:
        raise LookupError("no idempotency key: this code does not run as a step of a pipeline")
    return key


def step_key() -> str | None:
    """Return the idempotency key, or None outside a pipeline."""
    return _key.get()


def set_idempotency_key(key: str | None) -> None:
    """Set the key for the current context. The worker does this; tests may."""
    _key.set(key)


def working_directory() -> str:
    """Return the directory that relative paths of this step refer to.

    It is the directory in which the run was started, if the run has one; see the reference.
    Otherwise it is the current directory of this process.

    Raises:
        OSError: The run has none, and the current directory of this process no longer exists.
    """
    return _directory.get() or os.getcwd()


def absolute(path: str) -> str:
    """Return a path that does not depend on where this process runs."""
    return path if os.path.isabs(path) else os.path.join(working_directory(), path)


def set_working_directory(directory: str | None) -> None:
    """Set the run's directory for the current context. The worker does this; tests may."""
    _directory.set(directory)


def undone_outcome() -> str | None:
    """Return how the step ended that this activity undoes: ``completed``, ``uncertain`` or ``failed``.

    None: the activity is neither a compensation nor a step of a pipeline that is one. An undo that finds
    nothing to undo has to know it: after ``completed`` something is missing, and the undo must fail; after
    ``uncertain`` the step may not have come that far.
    """
    return _outcome.get() or _of_pipeline.get()


def is_compensation() -> bool:
    """Tell whether this activity is a compensation, which nothing undoes.

    A step of a pipeline that is a compensation is none: it is undone when a later step of it fails.
    """
    return _outcome.get() is not None


def set_undone_outcome(outcome: str | None, *, by_pipeline: str | None = None) -> None:
    """Set the outcomes for the current context. The worker does this; tests may.

    Args:
        outcome: How the step ended that the activity undoes.
        by_pipeline: How the step ended that the activity's whole pipeline undoes.
    """
    _outcome.set(outcome)
    _of_pipeline.set(by_pipeline)


def origin() -> Origin | None:
    """Return the run that this activity belongs to, None outside a worker of this package."""
    return _origin.get()


def set_origin(run: Origin | None) -> None:
    """Set the run for the current context. The worker does this; tests may."""
    _origin.set(run)
