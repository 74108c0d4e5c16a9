"""The model of a checked pipeline, which is sent to Temporal in the workflow's input.

It contains everything that a run needs, resolved: policies are merged, the catalogue's defaults are
applied, durations are seconds. Templates are still strings; the interpreter renders them when it
reaches their step. :func:`encode` encodes a :class:`Bundle` as JSON; the SHA-256 of those bytes is the
bundle's hash.

The structs are frozen and reject unknown fields, so that a worker never runs half of what a newer
version wrote.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

FORMAT = 1
"""The version of this model and of the interpreter that runs it. A bundle carries it, and a worker refuses a
bundle of another format."""


class Struct(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Base of the model: frozen, strict when it is decoded, compact when it is encoded."""


class Retry(Struct, frozen=True, kw_only=True):
    """A retry policy, with Temporal's field names. ``None``: not set here."""

    initial_interval: float | None = None
    """Seconds before the second attempt."""
    backoff_coefficient: float | None = None
    maximum_interval: float | None = None
    """The maximum seconds between two attempts."""
    maximum_attempts: int | None = None
    """0: no limit, as in Temporal."""
    non_retryable_error_types: tuple[str, ...] | None = None


class Timeouts(Struct, frozen=True, kw_only=True):
    """Timeouts of an activity in seconds, with Temporal's names. ``None``: not set here."""

    start_to_close: float | None = None
    schedule_to_close: float | None = None
    schedule_to_start: float | None = None
    heartbeat: float | None = None


class ChildTimeouts(Struct, frozen=True, kw_only=True):
    """Timeouts of a child workflow in seconds. The server enforces them, and undoes nothing."""

    run: float | None = None
    execution: float | None = None


class ActivityCall(Struct, tag="activity", tag_field="kind", frozen=True, kw_only=True):
    """Schedule the activity with a registered name."""

    name: str
    """The registered activity type. Its worker can use any SDK."""
    input: dict[str, Any] | None = None
    """``with``: a mapping that may contain templates, the activity's only argument."""
    args: list[Any] | None = None
    """``args``: positional arguments that may contain templates, instead of ``input``."""
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    task_queue: str | None = None
    """None: the task queue of the run itself."""
    secrets: bool = True
    """False: its worker does not use this package, and would take a reference to a secret for the value."""


class ChildCall(Struct, tag="pipeline", tag_field="kind", frozen=True, kw_only=True):
    """Run another pipeline as a child workflow."""

    pipeline: str
    """Key of the child in :attr:`Bundle.pipelines`."""
    input: dict[str, Any] = {}
    """``with``: the child's inputs, which may contain templates."""
    timeouts: ChildTimeouts = ChildTimeouts()
    retry: Retry | None = None
    """None: the child is not retried."""
    task_queue: str | None = None
    """None: the child pipeline's own, else the parent's."""
    parent_close_policy: Literal["terminate", "request_cancel", "abandon"] = "terminate"
    workflow_id: str | None = None
    """A template; None: ``<parent workflow id>/<step path>``."""
    wait_for_completion: bool = True


class SetValues(Struct, tag="set", tag_field="kind", frozen=True, kw_only=True):
    """Compute values, without an event in the history."""

    values: dict[str, Any]


class Wait(Struct, tag="wait", tag_field="kind", frozen=True, kw_only=True):
    """Wait on a durable timer. Exactly one field is set; each is a template."""

    duration: str | None = None
    until: str | None = None
    """A template whose result is an RFC 3339 time."""


class Event(Struct, tag="event", tag_field="kind", frozen=True, kw_only=True):
    """Wait for an event that is sent to the run: ``wait: {event: …}``."""

    name: str
    timeout: float | None = None
    """Seconds after which the step fails with ``EventTimeout``; None: never."""
    payload_schema: dict[str, Any] | bool | None = msgspec.field(default=None, name="schema")
    """JSON Schema of the payload; None: any."""


class Approval(Struct, tag="approval", tag_field="kind", frozen=True, kw_only=True):
    """Wait for people to approve."""

    message: str | None = None
    """The question, a template."""
    timeout: float | None = None
    """Seconds after which ``on_timeout`` is the answer; None: never."""
    payload_schema: dict[str, Any] | bool | None = msgspec.field(default=None, name="schema")
    """JSON Schema of the payload that comes with an answer; None: any."""
    on_timeout: Literal["reject", "approve"] = "reject"
    payload: Any = None
    """The payload of an approval by timeout: a template, or any value with templates in it."""
    approvals: int = 1
    """How many different identities have to approve."""
    not_by_starter: bool = False
    """Whether the identity that started the run may not approve."""


class Fail(Struct, tag="fail", tag_field="kind", frozen=True, kw_only=True):
    """Raise an error that is never retried."""

    message: str
    """A template."""
    type: str = "PipelineFailure"


class Block(Struct, tag="steps", tag_field="kind", frozen=True, kw_only=True):
    """Run steps one after the other, as a separate scope."""

    steps: "tuple[Step, ...]"
    output: Any = msgspec.UNSET
    """A template, or any value that may contain templates; unset: the output of the last step."""


class Branch(Struct, frozen=True, kw_only=True):
    """One of the lists of steps that run at the same time."""

    name: str
    steps: "tuple[Step, ...]"


class Parallel(Struct, tag="parallel", tag_field="kind", frozen=True, kw_only=True):
    """Run branches at the same time, each as a scope. The outputs are those of their last steps, by name."""

    branches: tuple[Branch, ...]
    """In the order of the file, in which they start."""


class Arm(Struct, frozen=True, kw_only=True):
    """One of the lists of steps of which at most one runs."""

    when: str | None = None
    """A bare expression; None: it always holds."""
    steps: "tuple[Step, ...]"


class Switch(Struct, tag="switch", tag_field="kind", frozen=True, kw_only=True):
    """Run the first arm whose condition holds. The output is that of its last step, null if none does."""

    arms: tuple[Arm, ...]


Action = ActivityCall | ChildCall | SetValues | Wait | Event | Approval | Fail | Block | Switch | Parallel
"""What a step does."""


class Compensation(Struct, frozen=True, kw_only=True):
    """How a step is undone."""

    action: ActivityCall | ChildCall
    after: Literal["completed", "uncertain", "started"] = "uncertain"


class Handler(Struct, frozen=True, kw_only=True):
    """What happens to an error of a step after the step has been undone."""

    types: tuple[str, ...] | None = None
    """Error types; None: any."""
    steps: "tuple[Step, ...]" = ()
    output: Any = None
    """The step's output: a template that sees the handler's steps, or a value that may contain templates."""


class Until(Struct, frozen=True, kw_only=True):
    """How often a step is repeated."""

    condition: str
    """A bare expression that sees ``last`` and ``index``; the step is repeated until it holds."""
    every: str = "10s"
    """The pause between two repetitions: a duration, or a template of one."""
    at_most: int = 100
    """The number of repetitions after which the step fails with ``UntilTimeout``."""
    timeout: float | None = None
    """Seconds for all repetitions, after which it fails with ``UntilTimeout``, too."""


class Step(Struct, frozen=True, kw_only=True):
    """One step of a pipeline."""

    id: str
    action: Action
    name: str | None = None
    """A template; None: the id."""
    when: str | None = None
    """A bare expression; false skips the step."""
    compensate: Compensation | Literal["none"] | None = None
    """None: not set in the file. A completed child is then undone by its own log."""
    for_each: str | list[Any] | None = None
    """A bare expression whose result is a list, or a list that may contain templates: the step runs once for
    each element."""
    max_concurrency: int | None = None
    """How many items or branches run at the same time; None: one item, all branches."""
    fail_fast: bool = True
    """Whether the first item or branch that fails ends the others."""
    until: Until | None = None
    """Excludes ``for_each``."""
    timeout: float | None = None
    """Seconds for a block, switch, parallel or loop as a whole; then it fails with ``BlockTimeout``."""
    retry: Retry | None = None
    """Of a block, switch or parallel, with every field but the error types set; None: it is not retried."""
    pivot: bool = False
    """Whether nothing up to this step is undone any more once the step has completed."""
    catch: tuple[Handler, ...] = ()
    """The first handler that accepts the type of an error handles it."""


class Ask(Struct, frozen=True, kw_only=True):
    """Hold a run that has failed until a person decides."""

    timeout: float = 86_400.0
    """Seconds after which it is undone."""


class Pipeline(Struct, frozen=True, kw_only=True):
    """One pipeline file, checked and resolved."""

    name: str
    """The Temporal workflow type."""
    description: str | None = None
    inputs: dict[str, dict[str, Any] | bool] = {}
    """A JSON Schema (2020-12) for each input. An input with ``default`` is optional."""
    output: Any = None
    """A template, or any value that may contain templates."""
    secrets: tuple[str, ...] = ()
    timeout: float | None = None
    """Seconds after which the run fails with ``PipelineTimeout`` and is undone."""
    steps: tuple[Step, ...] = ()
    finally_: tuple[Step, ...] = msgspec.field(default=(), name="finally")
    on_failure: Literal["undo", "keep"] | Ask = "undo"
    """What happens to the effects of the run when an error ends it."""
    task_queue: str | None = None
    workflow_id: str | None = None
    """A template that sees ``inputs``, for runs that the command starts."""


Call = ActivityCall | ChildCall
"""What a step or its compensation schedules. It has a task queue."""


# Every walk over the steps of a pipeline is one of these four: steps that contain other steps are added here.


def walk(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the steps of a list, each followed by the steps inside it, but not the steps of children."""
    for step in steps:
        yield step
        for inside in _lists(step):
            yield from walk(inside)


def _lists(step: Step) -> Iterator[tuple[Step, ...]]:
    """Yield the lists of steps inside a step."""
    match step.action:
        case Block(steps=steps):
            yield steps
        case Parallel(branches=branches):
            yield from (branch.steps for branch in branches)
        case Switch(arms=arms):
            yield from (arm.steps for arm in arms)
    yield from (handler.steps for handler in step.catch)


def _encoded_steps(steps: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the same steps as :func:`walk`, from encoded ones."""
    for step in steps:
        yield step
        action = step["action"]
        for holder in (action, *action.get("branches", ()), *action.get("arms", ()), *step.get("catch", ())):
            yield from _encoded_steps(holder.get("steps", ()))


def steps_of(pipeline: Pipeline) -> Iterator[Step]:
    """Yield every step of a pipeline, those of ``finally`` last."""
    yield from walk((*pipeline.steps, *pipeline.finally_))


def calls_of(pipeline: Pipeline) -> Iterator[Call]:
    """Yield every activity and child that a pipeline's steps and compensations call."""
    for step in steps_of(pipeline):
        actions = [step.action]
        if isinstance(step.compensate, Compensation):
            actions.append(step.compensate.action)
        yield from (action for action in actions if isinstance(action, Call))


def with_calls(pipeline: Pipeline, change: Callable[[Call], Call]) -> Pipeline:
    """Return a pipeline in which ``change`` has replaced every call of :func:`calls_of`."""

    def changed(steps: Iterable[Step]) -> tuple[Step, ...]:
        return tuple(map(with_change, steps))

    def with_change(step: Step) -> Step:
        undo = step.compensate
        if isinstance(undo, Compensation):
            undo = replace(undo, action=change(undo.action))
        action = step.action
        match action:
            case ActivityCall() | ChildCall():
                action = change(action)
            case Block():
                action = replace(action, steps=changed(action.steps))
            case Parallel():
                branches = tuple(replace(branch, steps=changed(branch.steps)) for branch in action.branches)
                action = replace(action, branches=branches)
            case Switch():
                arms = tuple(replace(arm, steps=changed(arm.steps)) for arm in action.arms)
                action = replace(action, arms=arms)
        handlers = tuple(replace(handler, steps=changed(handler.steps)) for handler in step.catch)
        return replace(step, action=action, compensate=undo, catch=handlers)

    return replace(pipeline, steps=changed(pipeline.steps), finally_=changed(pipeline.finally_))


class Bundle(Struct, frozen=True, kw_only=True):
    """A pipeline with all its children. It defines a run, and never changes."""

    format: int = FORMAT
    root: str
    """Key of the pipeline to run in ``pipelines``."""
    pipelines: dict[str, Pipeline]
    """By key: the file's path relative to the root's directory, with ``/``."""

    def __post_init__(self) -> None:
        if self.root not in self.pipelines:
            raise ValueError(f"the bundle has no pipeline {self.root!r}, which it should start with")


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder()


def encode(bundle: Bundle) -> bytes:
    """Return the bundle as canonical JSON: equal bundles have equal bytes.

    Most activities share a few policies. Each policy is written once, in a list beside the pipelines,
    and a call refers to it by its index. This halves the size of a pipeline with many steps.
    """
    data = msgspec.to_builtins(bundle)
    # The format is written although it is the default: readers check it first.
    data["format"] = bundle.format
    policies: dict[bytes, int] = {}
    for call in _activity_calls(data):
        policy = _encoder.encode({key: call.pop(key) for key in _POLICY if key in call})
        call["policy"] = policies.setdefault(policy, len(policies))
    if policies:
        data["policies"] = [msgspec.Raw(policy) for policy in policies]
    return _encoder.encode(data)


def decode(data: bytes) -> Bundle:
    """Decode a bundle.

    Raises:
        msgspec.DecodeError: The bytes are not a bundle of this version.
    """
    value = _decoder.decode(data)
    try:
        policies = value.pop("policies", [])
        for call in _activity_calls(value):
            call.update(policies[call.pop("policy")])
    except (AttributeError, LookupError, TypeError) as error:
        raise msgspec.ValidationError(f"this is not a bundle: {error}") from None
    return msgspec.convert(value, Bundle)


def canonical(data: bytes) -> bytes:
    """Return the canonical form of an encoded bundle that another JSON library has written.

    Raises:
        msgspec.DecodeError: The bytes are not JSON.
    """
    return _encoder.encode(_decoder.decode(data))


_POLICY = ("timeouts", "retry")


def _activity_calls(bundle: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each encoded :class:`ActivityCall` of an encoded bundle."""
    for pipeline in bundle["pipelines"].values():
        for step in _encoded_steps([*pipeline.get("steps", ()), *pipeline.get("finally", ())]):
            compensate = step.get("compensate")
            actions = [step["action"], *([compensate["action"]] if isinstance(compensate, dict) else [])]
            yield from (action for action in actions if action["kind"] == "activity")


def bundle_hash(data: bytes) -> str:
    """Return the content hash of an encoded bundle: ``sha256:`` and 64 hex digits."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
