"""What an activity can find out about its step, beyond ``temporalio.activity.info()``.

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
    """Id of the namespace, which no other server has; None: not known."""
    workflow_id: str
    run_id: str


_origin: ContextVar[Origin | None] = ContextVar("pipeline_runner_origin", default=None)


def idempotency_key() -> str:
    """Return the idempotency key of the step that this activity serves.

    It consists of 32 hex digits. It is the same over retries, resets and continue-as-new, and differs
    for every other step of every run. Pass it to services that de-duplicate requests.

    Raises:
        LookupError: No pipeline step started the calling activity.
    """
    key = _key.get()
    if key is None:
        raise LookupError("no idempotency key: this code does not run as a step of a pipeline")
    return key


def step_key() -> str | None:
    """Return the idempotency key, or None outside a pipeline."""
    return _key.get()


def set_idempotency_key(key: str | None) -> None:
    """Set the idempotency key for the current context. Only the worker and tests call this."""
    _key.set(key)


def working_directory() -> str:
    """Return the directory that relative paths of this step refer to.

    If the run has a directory, it is the one in which the run was started. Otherwise it is the current
    directory of this process.

    Raises:
        OSError: The run has none, and the current directory of this process no longer exists.
    """
    return _directory.get() or os.getcwd()


def absolute(path: str) -> str:
    """Return the absolute path of a path that may be relative to the run's directory."""
    return path if os.path.isabs(path) else os.path.join(working_directory(), path)


def set_working_directory(directory: str | None) -> None:
    """Set the run's directory for the current context. Only the worker and tests call this."""
    _directory.set(directory)


def undone_outcome() -> str | None:
    """Return the outcome of the step that this activity undoes: ``completed``, ``uncertain`` or ``failed``.

    Return None if the activity is neither a compensation nor a step of a pipeline that is one. An undo
    that finds nothing to undo needs the outcome: after ``completed`` something is missing, and the undo
    must fail; after ``uncertain`` the step may not have done anything.
    """
    return _outcome.get() or _of_pipeline.get()


def is_compensation() -> bool:
    """Tell whether this activity is a compensation, which is never undone.

    A step of a pipeline that is a compensation does not count: it is undone if a later step of it
    fails.
    """
    return _outcome.get() is not None


def set_undone_outcome(outcome: str | None, *, by_pipeline: str | None = None) -> None:
    """Set the outcomes for the current context. Only the worker and tests call this.

    Args:
        outcome: The outcome of the step that the activity undoes.
        by_pipeline: The outcome of the step that the activity's whole pipeline undoes.
    """
    _outcome.set(outcome)
    _of_pipeline.set(by_pipeline)


def origin() -> Origin | None:
    """Return the run that this activity belongs to, or None outside a worker of this package."""
    return _origin.get()


def set_origin(run: Origin | None) -> None:
    """Set the run for the current context. Only the worker and tests call this."""
    _origin.set(run)
