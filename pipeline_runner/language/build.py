"""Builds the model of a file without errors, which is sent to Temporal."""

from collections.abc import Callable
from typing import Any, Literal

from pipeline_runner.core.model import (
    Action,
    ActivityCall,
    Approval,
    Arm,
    Ask,
    Block,
    Branch,
    ChildCall,
    Compensation,
    Event,
    Fail,
    Handler,
    Parallel,
    Pipeline,
    SetValues,
    Step,
    Switch,
    Until,
    Wait,
)
from pipeline_runner.language import policies
from pipeline_runner.language.document import Call, Document, Scope
from pipeline_runner.language.document import Step as StepNode
from pipeline_runner.language.yaml.nodes import MappingNode, Node, Scalar, SequenceNode, plain

ChildKey = Callable[[str], str]
"""From a child's path as written to its key in the bundle."""


def build(document: Document, child_key: ChildKey) -> Pipeline:
    """Return the pipeline of a file that has no errors."""
    root = document.root
    first, last = document.scopes
    build_steps = _Builder(document, child_key).steps
    return Pipeline(
        name=root.text("name") or "",
        description=root.text("description"),
        inputs={name: plain(schema) for name, schema in document.inputs.items()},
        output=_plain(root.get("output")),
        secrets=tuple(_texts(root, "secrets")),
        timeout=policies.seconds(root.get("timeout")),
        steps=build_steps(first),
        finally_=build_steps(last),
        task_queue=root.text("task_queue"),
        workflow_id=root.text("workflow_id"),
        on_failure=_on_failure(root.get("on_failure")),
    )


_SCOPES = ("steps", "switch", "parallel")


class _Builder:
    """Builds the steps of one file, at any depth."""

    def __init__(self, document: Document, child_key: ChildKey) -> None:
        self._document = document
        self._child_key = child_key
        calls = (*document.calls, *document.declared)
        self._calls = {(id(call.step), call.compensates): call for call in calls}

    def steps(self, scope: Scope) -> tuple[Step, ...]:
        return tuple(map(self._step, scope.steps))

    def _step(self, step: StepNode) -> Step:
        node = step.node
        return Step(
            id=step.id,
            action=self._action(step),
            name=node.text("name"),
            when=_expression(node.get("when")),
            for_each=_items(node.get("for_each")),
            max_concurrency=_plain(node.get("max_concurrency")),
            fail_fast=_said(node, "fail_fast", default=True),
            until=_until(node.mapping("until")),
            timeout=policies.seconds(node.get("timeout")),
            retry=policies.scope_retry(node.get("retry")) if step.kind in _SCOPES else None,
            pivot=_said(node, "pivot", default=False),
            compensate=_compensation(
                self._document, step, self._calls.get((id(step), True)), self._child_key
            ),
            catch=tuple(map(self._handler, node.items("catch"), step.body("catch"))),
        )

    def _handler(self, node: Node, scope: Scope) -> Handler:
        assert isinstance(node, MappingNode)
        types = tuple(_texts(node, "types")) if "types" in node else None
        return Handler(types=types, steps=self.steps(scope), output=_plain(node.get("output")))

    def _arm(self, node: Node, scope: Scope) -> Arm:
        assert isinstance(node, MappingNode)
        return Arm(when=_expression(node.get("when")), steps=self.steps(scope))

    def _action(self, step: StepNode) -> Action:
        node = step.node
        if call := self._calls.get((id(step), False)):
            return _call(self._document, call, self._child_key)
        match step.kind:
            case "set":
                return SetValues(values=_plain(node.get("set")))
            case "wait":
                return _wait(node.get("wait"))
            case "approval":
                return _approval(node.mapping("approval"))
            case "fail":
                return Fail(**_plain(node.get("fail")))
        return self._scopes(step)

    def _scopes(self, step: StepNode) -> Block | Switch | Parallel:
        node = step.node
        match step.kind:
            case "steps":
                [scope] = step.body("block")
                output = {"output": _plain(node.get("output"))} if "output" in node else {}
                return Block(steps=self.steps(scope), **output)
            case "switch":
                return Switch(arms=tuple(map(self._arm, node.items("switch"), step.body("arm"))))
            case "parallel":
                branches = step.body("branch")
                return Parallel(
                    branches=tuple(Branch(name=scope.name, steps=self.steps(scope)) for scope in branches)
                )
            case kind:
                raise ValueError(f"a step of kind {kind} was let through by the checks")


def _until(node: MappingNode | None) -> Until | None:
    if node is None:
        return None
    said = {key: _plain(node.get(key)) for key in ("every", "at_most") if key in node}
    condition = _expression(node.get("condition")) or ""
    return Until(condition=condition, timeout=policies.seconds(node.get("timeout")), **said)


def _wait(node: Node | None) -> Wait | Event:
    if not isinstance(node, MappingNode):
        return Wait(duration=_plain(node))
    if (event := node.text("event")) is None:
        return Wait(until=node.text("until"))
    timeout = policies.seconds(node.get("timeout"))
    return Event(name=event, timeout=timeout, payload_schema=_plain(node.get("schema")))


def _approval(node: MappingNode | None) -> Approval:
    assert node is not None
    said = {
        key: _plain(entry.value) for key, entry in node.by_name.items() if key not in ("timeout", "schema")
    }
    timeout = policies.seconds(node.get("timeout"))
    return Approval(timeout=timeout, payload_schema=_plain(node.get("schema")), **said)


def _on_failure(node: Node | None) -> Any:
    if isinstance(node, MappingNode):
        ask = node.mapping("ask")
        timeout = policies.seconds(ask.get("timeout")) if ask else None
        return Ask() if timeout is None else Ask(timeout=timeout)
    word = _plain(node) or "undo"
    return Ask() if word == "ask" else word


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
            # Written only if there are secrets, so that other bundles stay unchanged.
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


def _items(node: Node | None) -> str | list[Any] | None:
    return _plain(node) if isinstance(node, SequenceNode) else _expression(node)


def _expression(node: Node | None) -> str | None:
    if not isinstance(node, Scalar):
        return None
    return node.value if isinstance(node.value, str) else node.text.lower()


def _said(node: MappingNode, key: str, *, default: bool) -> bool:
    return bool(_plain(node.get(key))) if key in node else default


def _plain(node: Node | None) -> Any:
    return None if node is None else plain(node)


def _texts(node: MappingNode, key: str) -> list[str]:
    return [item.text for item in node.items(key) if isinstance(item, Scalar)]
