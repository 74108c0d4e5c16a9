"""Determines how many items the loops of a run have, if its history contains what their expressions read."""

import re
from typing import Any

from pipeline_runner.core.expressions.evaluate import evaluate
from pipeline_runner.core.expressions.parsing import ExpressionError
from pipeline_runner.core.model import Pipeline, steps_of

_READ = re.compile(r"\bsteps\s*\.\s*(\w+)")


class Sizes:
    """The inputs of one run, and the outputs of its steps that a loop may iterate over."""

    def __init__(self, pipeline: Pipeline | None, inputs: Any) -> None:
        """Begin with a run that has done nothing. Inputs that are not a mapping are ignored."""
        steps = steps_of(pipeline) if pipeline is not None else ()
        loops = [step.for_each for step in steps if isinstance(step.for_each, str)]
        self._wanted = {name for loop in loops for name in _READ.findall(loop)}
        declared = pipeline.inputs.items() if pipeline is not None and loops else ()
        defaults = {
            k: schema["default"] for k, schema in declared if isinstance(schema, dict) and "default" in schema
        }
        self._inputs = defaults | (inputs if loops and isinstance(inputs, dict) else {})
        self._steps: dict[str, Any] = {}

    def wants(self, step: str) -> bool:
        """Tell whether a loop may read the output of a step with this id."""
        return step in self._wanted

    def keep(self, step: str, output: Any) -> None:
        """Keep the output of a step."""
        self._steps[step] = {"output": output, "status": "completed", "error": None}

    def of(self, expression: str) -> int | None:
        """Return the number of items; None: the expression reads something else."""
        try:
            items = evaluate(expression, {"inputs": self._inputs, "steps": self._steps})
        except ExpressionError:
            return None
        return len(items) if isinstance(items, list) else None
