"""Workflow ids of runs: a given one, the pipeline's template, or its name and a random suffix."""

import secrets
from collections.abc import Mapping
from typing import Any

from pipeline_runner.core.expressions.evaluate import render_text
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import Pipeline
from pipeline_runner.core.paths import MAX_ID


class WorkflowIdError(ValueError):
    """A run's workflow id cannot be used, or cannot be created."""


def workflow_id_of(pipeline: Pipeline, inputs: Mapping[str, Any], chosen: str | None = None) -> str:
    """Return the workflow id of a run.

    Args:
        pipeline: The pipeline.
        inputs: The run's inputs, checked and with defaults.
        chosen: The given id, if any.

    Raises:
        WorkflowIdError: The pipeline's template cannot be rendered, or the id is empty or too long.
    """
    if chosen is None and pipeline.workflow_id is not None:
        try:
            chosen = render_text(pipeline.workflow_id, {"inputs": inputs})
        except ExpressionError as error:
            raise WorkflowIdError(f"the workflow id cannot be rendered: {error.message}") from None
    return workflow_id_for(pipeline.name, chosen)


def workflow_id_for(name: str, chosen: str | None = None) -> str:
    """Return the workflow id of a run when only the pipeline's name is known.

    Raises:
        WorkflowIdError: The chosen id is empty or too long, or cannot be encoded as UTF-8.
    """
    made = f"{name}-{secrets.token_hex(4)}" if chosen is None else chosen
    try:
        size = len(made.encode())
    except UnicodeEncodeError as error:
        raise WorkflowIdError(
            f"a workflow id must be UTF-8, but character {error.start + 1} of this one is half of a surrogate"
            " pair: nothing was started"
        ) from None
    if not 0 < size <= MAX_ID:
        raise WorkflowIdError(f"a workflow id must have 1 to {MAX_ID} bytes, not {size}: nothing was started")
    return made
