"""What always happens when a step is reached, as far as the file alone tells."""

from collections.abc import Iterator

from pipeline_runner.language.document import Scope, Step
from pipeline_runner.language.yaml.nodes import MappingNode

SCOPES = ("steps", "switch", "parallel")
"""The kinds of steps that run others."""

_MAY_PASS = ("when", "for_each", "catch")
"""Keys with which a step may be passed without an error."""


def always_fails(step: Step) -> bool:
    """Tell whether nothing after a step runs once it is reached: it ends in a ``fail`` whatever happens."""
    if any(key in step.node for key in _MAY_PASS):
        return False
    match step.kind:
        case "fail":
            return True
        case "steps" | "parallel":
            return any(map(ends_in_failure, [*step.body("block"), *step.body("branch")]))
        case "switch":
            return has_default(step) and all(map(ends_in_failure, step.body("arm")))
    return False


def ends_in_failure(scope: Scope) -> bool:
    """Tell whether a list of steps fails whenever it runs."""
    return any(map(always_fails, scope.steps))


def arms(step: Step) -> list[MappingNode]:
    """Return the arms of a ``switch``."""
    return [arm for arm in step.node.items("switch") if isinstance(arm, MappingNode)]


def has_default(step: Step) -> bool:
    """Tell whether a ``switch`` has an arm that always holds."""
    return any("when" not in arm for arm in arms(step))


def scopes_around(step: Step) -> Iterator[Scope]:
    """Yield the scope that a step is in, and those around that one."""
    scope: Scope | None = step.scope
    while scope:
        yield scope
        scope = scope.owner.scope if scope.owner else None


def handlers(step: Step) -> list[tuple[MappingNode, Scope]]:
    """Return the handlers of a step, with their steps."""
    nodes = [node for node in step.node.items("catch") if isinstance(node, MappingNode)]
    return list(zip(nodes, step.body("catch"), strict=True))
