"""A file without mistakes into the model that travels to Temporal."""

from collections.abc import Callable
from typing import Any, Literal

from pipeline_runner.core.model import (
    Action,
    ActivityCall,
    ChildCall,
    Compensation,
    Fail,
    Pipeline,
    SetValues,
    Step,
    Wait,
)
from pipeline_runner.core.scope import Place
from pipeline_runner.language import policies
from pipeline_runner.language.document import Call, Document
from pipeline_runner.language.document import Step as StepNode
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, plain

ChildKey = Callable[[str], str]
"""From a child's path as written to its key in the bundle."""


def build(document: Document, child_key: ChildKey) -> Pipeline:
    """Return the pipeline of a file that has no errors."""
    root = document.root
    return Pipeline(
        name=root.text("name") or "",
        description=root.text("description"),
        inputs={name: plain(schema) for name, schema in document.inputs.items()},
        output=_plain(root.get("output")),
        secrets=tuple(_texts(root, "secrets")),
        timeout=policies.seconds(root.get("timeout")),
        steps=_steps(document, Place.STEP, child_key),
        finally_=_steps(document, Place.FINALLY, child_key),
        task_queue=root.text("task_queue"),
        workflow_id=root.text("workflow_id"),
    )


def _steps(document: Document, place: Place, child_key: ChildKey) -> tuple[Step, ...]:
    calls = {(id(call.step), call.compensates): call for call in (*document.calls, *document.declared)}
    first, last = document.scopes
    return tuple(
        Step(
            id=step.id,
            action=_action(document, step, calls.get((id(step), False)), child_key),
            name=step.node.text("name"),
            when=_expression(step.node.get("when")),
            compensate=_compensation(document, step, calls.get((id(step), True)), child_key),
        )
        for step in (last if place is Place.FINALLY else first).steps
    )


def _action(document: Document, step: StepNode, call: Call | None, child_key: ChildKey) -> Action:
    node = step.node
    if call:
        return _call(document, call, child_key)
    match step.kind:
        case "set":
            return SetValues(values=_plain(node.get("set")))
        case "wait":
            wait = node.get("wait")
            if isinstance(wait, MappingNode):
                return Wait(until=wait.text("until"))
            return Wait(duration=_plain(wait))
        case "fail":
            return Fail(**_plain(node.get("fail")))
        case kind:
            raise ValueError(f"a step of kind {kind} was let through by the checks")


def _call(document: Document, call: Call, child_key: ChildKey) -> ActivityCall | ChildCall:
    node = call.node
    if call.kind == "activity":
        return ActivityCall(
            name=call.name or "",
            input=_plain(node.get("with")),
            args=_plain(node.get("args")),
            timeouts=policies.call_timeouts(document, call),
            retry=policies.call_retry(document, call),
            task_queue=policies.task_queue(document, call),
            # Said only where there may be any, so that other bundles stay as they were.
            secrets=not document.secrets or call.activity is None or call.activity.takes_secrets,
        )
    own = ("parent_close_policy", "wait_for_completion")
    said = {key: _plain(node.get(key)) for key in own if key in node}
    return ChildCall(
        pipeline=child_key(call.name or ""),
        input=_plain(node.get("with")) or {},
        timeouts=policies.call_child_timeouts(document, call),
        retry=policies.child_retry(document, call),
        task_queue=node.text("task_queue"),
        workflow_id=node.text("workflow_id"),
        **said,
    )


def _compensation(
    document: Document, step: StepNode, call: Call | None, child_key: ChildKey
) -> Compensation | Literal["none"] | None:
    if call is None:
        return "none" if "compensate" in step.node else None
    after: dict[str, Any] = {"after": call.node.text("after")} if "after" in call.node else {}
    return Compensation(action=_call(document, call, child_key), **after)


def _expression(node: Node | None) -> str | None:
    if not isinstance(node, Scalar):
        return None
    return node.value if isinstance(node.value, str) else node.text.lower()


def _plain(node: Node | None) -> Any:
    return None if node is None else plain(node)


def _texts(node: MappingNode, key: str) -> list[str]:
    return [item.text for item in node.items(key) if isinstance(item, Scalar)]
