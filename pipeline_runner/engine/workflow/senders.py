"""Who started a run, and who sent its updates: the identities that their clients claim.

Temporal tells a worker, and the Python SDK does not pass it on: what runs the workflows of a worker notes it
down on its way in (``cancelling.py``). It comes from the history, so that a replay gives the same.
"""

from typing import TYPE_CHECKING

from temporalio import workflow

if TYPE_CHECKING:
    from collections.abc import Callable

SENDERS = "pipeline_runner.senders"
"""The function of the worker that returns the identity of an update's sender, by the id of the update;
by None, that of the client that started the run."""

_OF_COMMAND = "temporal-cli:"
"""What Temporal's own command puts in front of ``user@host``."""


def starter() -> str:
    """Return the identity of the client that started this run; empty: nobody knows."""
    return _identity(None)


def sender() -> str:
    """Return the identity of the client that sent the update that is being handled; empty: nobody knows."""
    update = workflow.current_update_info()
    return "" if update is None else _identity(update.id)


def _identity(update: str | None) -> str:
    identity: Callable[[str | None], str] | None = workflow.extern_functions().get(SENDERS)
    return "" if identity is None else identity(update).removeprefix(_OF_COMMAND)
