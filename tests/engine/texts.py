"""The YAML of short pipelines, for tests that look at one step."""

from tests.conftest import Pipelines


def pipeline(*steps: str, head: str = "") -> str:
    """Return a pipeline of these steps; ``head``: further top-level lines."""
    return f"version: 1\nname: p\n{head}steps:\n{''.join(steps)}"


def effect(name: str) -> str:
    """Return a step with an effect, and its undo."""
    return (
        f"  - {{id: {name}, activity: effect.do, with: {{log: LOG, name: {name}}},"
        f" compensate: {{activity: effect.undo, with: {{log: LOG, name: {name}}}}}}}\n"
    )


def step(pipelines: Pipelines, activity: str, given: str = "with: {log: LOG}", more: str = "") -> str:
    """Return a step ``o`` of an activity of the test's own, tried once unless ``more`` says else."""
    retry = "" if "retry:" in more else ", retry: {maximum_attempts: 1}"
    more = f", {more}" if more else ""
    return f"  - {{id: o, activity: {activity}, task_queue: {pipelines.queue}, {given}{retry}{more}}}\n"


def undone(name: str) -> str:
    """Return a compensation that notes this name."""
    return f"compensate: {{activity: effect.undo, with: {{log: LOG, name: '{name}'}}}}"


CHILD = "  - {id: c, pipeline: ./c.yaml}\n"
FAIL = "  - {id: f, fail: {message: enough}}\n"
