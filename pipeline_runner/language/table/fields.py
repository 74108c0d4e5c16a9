"""The language in one table: every key, its shape, and what it is for.

The structure check, the published JSON Schema and the search for templates all read this
table, so they cannot disagree. ``Mode.TEMPLATE`` marks texts that are templates,
``Mode.EXPRESSION`` bare expressions; all other texts are literal.
"""

import msgspec

from pipeline_runner.core import paths
from pipeline_runner.language.table.collections import Field, Fields, Forms, Later, ListOf, MapOf, Variants
from pipeline_runner.language.table.shapes import (
    RESERVED,
    AnyValue,
    Boolean,
    Choice,
    Duration,
    JsonSchema,
    Mode,
    Number,
    Text,
)

IDENTIFIER = Text(
    pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
    means='letters, digits and "_", not starting with a digit',
    reserved=RESERVED,
)
# The handlers of a step are called "catch[0]" in paths, where the items of a step "catch" would be, too.
_ID = msgspec.structs.replace(IDENTIFIER, reserved=RESERVED | {paths.CATCH})
_NAME = Text()
_TITLE = Text(mode=Mode.TEMPLATE)
_PROSE = Text(mode=Mode.PROSE)
_EXPRESSION = Text(mode=Mode.EXPRESSION)
_ANY_TEMPLATE = AnyValue(template=True)
_VALUES = MapOf(value=_ANY_TEMPLATE, hint="write {NAME: VALUE}")
_POSITIVE = Duration()

RETRY = Fields(
    name="retry",
    title="a retry policy",
    lone="maximum_attempts",
    fields={
        "initial_interval": Field(_POSITIVE, "Wait before the second attempt. Default: 1s."),
        "backoff_coefficient": Field(
            Number(minimum=1, whole=False), "Each wait is this many times the one before. Default: 2.0."
        ),
        "maximum_interval": Field(_POSITIVE, "The wait does not grow beyond this. Default: 1m."),
        "maximum_attempts": Field(
            Number(minimum=0, maximum=2**31 - 1),
            "Attempts in all; 0 means for ever. Default: 5, for compensations 10.",
        ),
        "non_retryable_error_types": Field(
            ListOf(item=_NAME, title="an error type"), "Error types that are not tried again."
        ),
    },
)

_ACTIVITY_TIMEOUTS = {
    "start_to_close": Field(_POSITIVE, "Limit of one attempt. Default: 5m."),
    "schedule_to_close": Field(_POSITIVE, "Limit of all attempts together."),
    "schedule_to_start": Field(_POSITIVE, "Limit of the wait for a worker."),
    "heartbeat": Field(_POSITIVE, "Longest silence of a running attempt."),
}
_CHILD_TIMEOUTS = {
    "run": Field(_POSITIVE, "Limit of one run of the child, enforced by the server, which undoes nothing."),
    "execution": Field(_POSITIVE, "Limit of the child with all its runs."),
}
ACTIVITY_TIMEOUTS = Fields(
    name="activity_timeouts",
    title="the timeouts of an activity",
    lone="start_to_close",
    fields=_ACTIVITY_TIMEOUTS,
    hints=dict.fromkeys(_CHILD_TIMEOUTS, '"run" and "execution" are timeouts of child pipelines'),
)
CHILD_TIMEOUTS = Fields(
    name="child_timeouts",
    title="the timeouts of a child pipeline",
    lone="run",
    fields=_CHILD_TIMEOUTS,
    hints=dict.fromkeys(_ACTIVITY_TIMEOUTS, 'a child pipeline has "run" and "execution"'),
)

POLICY_TIMEOUTS = Fields(
    name="policy_timeouts",
    title="the timeouts of a policy",
    lone="start_to_close",
    fields={**_ACTIVITY_TIMEOUTS, **_CHILD_TIMEOUTS},
)

POLICY = Fields(
    name="policy",
    title="a policy",
    fields={
        "timeouts": Field(POLICY_TIMEOUTS, "Timeouts; a step takes those of its kind."),
        "retry": Field(RETRY, "How failed attempts are repeated."),
    },
)

_USES_POLICY = Field(_NAME, "A policy of this file; the own retry and timeouts go over it.")
_RETRY = Field(RETRY, "How failed attempts are repeated.")
_TIMEOUTS = Field(ACTIVITY_TIMEOUTS, "Timeouts with Temporal's names.")
_CHILD_LIMITS = Field(CHILD_TIMEOUTS, "Timeouts of the child workflow.")
_WITH = Field(
    MapOf(value=_ANY_TEMPLATE, hint='write {NAME: VALUE}; a list of arguments is "args"'),
    "The input: one mapping, handed to the activity as its one argument.",
)
_ARGS = Field(
    ListOf(item=_ANY_TEMPLATE, title="an argument", hint='write [VALUE]; one mapping is "with"'),
    "Positional arguments instead of with, for activities of other SDKs.",
)
_CHILD_WITH = Field(_VALUES, "The child's inputs.")
_QUEUE = Field(_NAME, "The task queue where it runs. Default: the catalogue's, else the pipeline's.")
_ACTIVITY = Field(_NAME, "The activity's registered name, in whatever language its worker is written.")
_PIPELINE = Field(_NAME, "Another pipeline file, relative to this one, run as a child workflow.")

COMPENSATION = Variants(
    name="compensation",
    title="a compensation",
    common={
        "after": Field(
            Choice(values=("completed", "uncertain", "started")),
            "Undo only if the step completed; also if its outcome is not known (default); also if it failed.",
        ),
        "policy": _USES_POLICY,
        "retry": _RETRY,
        "task_queue": _QUEUE,
    },
    kinds={
        "activity": {"activity": _ACTIVITY, "with": _WITH, "args": _ARGS, "timeouts": _TIMEOUTS},
        "pipeline": {"pipeline": _PIPELINE, "with": _CHILD_WITH, "timeouts": _CHILD_LIMITS},
    },
)

_STEPS = ListOf(
    item=Later(lambda: STEP), title="a step", at_least=1, hint='each step begins with "- ", and has its "id"'
)

CATCH = Fields(
    name="catch",
    title="a catch",
    fields={
        "types": Field(
            ListOf(item=_NAME, title="an error type", at_least=1), "Error types it handles; none: any."
        ),
        "steps": Field(_STEPS, "What runs once the scope is undone; none: go on."),
        "output": Field(_ANY_TEMPLATE, "The step's output. Default: null."),
    },
)

APPROVAL = Fields(
    name="approval",
    title="an approval",
    lone="message",
    fields={
        "message": Field(_TITLE, "What is asked."),
        "timeout": Field(_POSITIVE, "How long to wait. Default: for ever."),
        "schema": Field(JsonSchema(), "JSON Schema of the answer's payload."),
        "on_timeout": Field(
            Choice(values=("reject", "approve")), "What a timeout stands for. Default: reject."
        ),
    },
)

WAIT_UNTIL = Fields(
    name="wait_until",
    title="a wait",
    fields={"until": Field(_TITLE, "The time to wait for, as RFC 3339: 2030-01-31T12:00:00Z.")},
    required=("until",),
    hints=dict.fromkeys(
        ("for", "duration", "delay", "time", "timeout", "seconds", "minutes", "hours"),
        'how long to wait is no mapping: write "wait: 5m"',
    ),
)

FAIL = Fields(
    name="fail",
    title="a fail step",
    lone="message",
    fields={
        "message": Field(_TITLE, "What went wrong."),
        "type": Field(_NAME, "The error type. Default: PipelineFailure."),
    },
    required=("message",),
)

_UNDO = "write {activity: NAME, with: …}, or {pipeline: FILE}"
_COMMANDS = ("run", "script", "command", "cmd", "shell", "exec", "program")
_CHILDREN = ("workflow", "child_workflow", "subworkflow", "call")
_PAUSES = ("sleep", "delay", "pause")
_CONDITIONS = ("wait_for", "wait_until")
_CLAIMS = ("assert", "check", "require")
_PRINTED = ("print", "echo", "debug", "log")
_AS_COMMAND = 'an activity runs it: write "activity: shell.run", "with: {command: [PROGRAM, ARGUMENT]}"'
_AS_WAIT = 'write "wait: 5m"; for a time of day, "wait: {until: TIME}"'
_AS_FAIL = 'write "when: not (CONDITION)" and "fail: {message: …}"'
_AS_OUTPUT = (
    'nothing is printed while a pipeline runs: what people should see goes into the step\'s "name",'
    ' what programs should get into the pipeline\'s "output"'
)
_ENV = 'it goes into the "with" of "activity: shell.run"'
_AS_KIND = '"activity" names what the step does, "pipeline" another pipeline file'

STEP: Variants = Variants(
    name="step",
    title="a step",
    common={
        "id": Field(_ID, "The step's name in expressions and histories; unique in the file."),
        "name": Field(_TITLE, "A title for people. Default: the id."),
        "when": Field(_EXPRESSION, "A bare expression; the step is skipped if it is false."),
        "for_each": Field(
            Forms(
                expected="an expression or a list",
                scalar=_EXPRESSION,
                sequence=ListOf(item=_ANY_TEMPLATE, title="an element"),
            ),
            "The step runs once for each element, which is item; its number is index.",
            later="a loop",
        ),
        "compensate": Field(
            Forms(
                expected="none or a mapping",
                scalar=Choice(values=("none",), expected="none or a mapping", hint=_UNDO),
                mapping=COMPENSATION,
                hint=_UNDO,
            ),
            "How the step is undone; none: there is nothing to undo.",
        ),
        "pivot": Field(
            Boolean(),
            "True: once completed, it and what came before is not undone.",
            later="a point of no return",
        ),
        "catch": Field(
            ListOf(item=CATCH, title="a catch", at_least=1, hint='each handler begins with "- "'),
            "What errors to handle.",
            later="error handlers",
        ),
        "max_concurrency": Field(Number(minimum=1), "Elements of for_each, or branches, that run at a time."),
    },
    kinds={
        "activity": {
            "activity": _ACTIVITY,
            "with": _WITH,
            "args": _ARGS,
            "policy": _USES_POLICY,
            "retry": _RETRY,
            "timeouts": _TIMEOUTS,
            "task_queue": _QUEUE,
        },
        "pipeline": {
            "pipeline": _PIPELINE,
            "with": _CHILD_WITH,
            "policy": _USES_POLICY,
            "retry": _RETRY,
            "timeouts": _CHILD_LIMITS,
            "task_queue": _QUEUE,
            "parent_close_policy": Field(
                Choice(values=("terminate", "request_cancel", "abandon")),
                "What becomes of the child if the parent closes. Default: terminate.",
            ),
            "workflow_id": Field(_TITLE, "The child's workflow id. Default: the parent's / the step."),
            "wait_for_completion": Field(
                Boolean(), "False, with abandon only: go on as soon as the child has started."
            ),
        },
        "set": {"set": Field(_VALUES, "Values to compute; leaves no event in the history.")},
        "wait": {
            "wait": Field(
                Forms(
                    expected="a duration or {until: time}",
                    scalar=Duration(positive=False, template=True),
                    mapping=WAIT_UNTIL,
                ),
                "How long to wait, on a durable timer; or until when.",
            )
        },
        "approval": {
            "approval": Field(APPROVAL, "Wait for a person or a system.", later="a wait for a person")
        },
        "fail": {"fail": Field(FAIL, "Raise an error that nothing retries.")},
        "steps": {
            "steps": Field(_STEPS, "A block: a scope of its own.", later="a block"),
            "output": Field(_ANY_TEMPLATE, "The block's output. Default: its last step's."),
        },
        "parallel": {
            "parallel": Field(
                MapOf(
                    value=_STEPS,
                    key=IDENTIFIER,
                    title="the name of a branch",
                    at_least=1,
                    hint="write {NAME: [STEP, …]}",
                ),
                "Branches that run at the same time, each a scope.",
                later="branches",
            )
        },
    },
    required=("id",),
    hints={
        **dict.fromkeys(_COMMANDS, _AS_COMMAND),
        **dict.fromkeys(_CHILDREN, 'another pipeline file is run by "pipeline: ./file.yaml"'),
        **dict.fromkeys((*_PAUSES, *_CONDITIONS), _AS_WAIT),
        **dict.fromkeys(_CLAIMS, _AS_FAIL),
        **dict.fromkeys(_PRINTED, _AS_OUTPUT),
        **dict.fromkeys(("uses", "type", "action", "task"), _AS_KIND),
        **dict.fromkeys(("if", "condition", "only_if"), 'write "when"'),
        **dict.fromkeys(("with_items", "loop", "matrix", "items"), 'write "for_each"'),
        **dict.fromkeys(("needs", "depends_on", "after"), "the steps run in the order of the file"),
        **dict.fromkeys(
            ("parameters", "params", "inputs", "input", "arguments", "args", "variables"),
            'write "with"',
        ),
        **dict.fromkeys(("undo", "rollback", "on_rollback"), 'write "compensate"'),
        **dict.fromkeys(
            ("on_error", "on_failure", "rescue", "except", "continue_on_error", "ignore_errors"),
            '"catch" handles errors, "compensate" says how the step is undone',
        ),
        **dict.fromkeys(("always", "ensure"), 'what always runs is a step of the pipeline\'s "finally"'),
        "timeout": 'write "timeouts: {start_to_close: 5m}"',
        "register": 'its result is "steps.ID.output" in the steps after it',
        "env": _ENV,
        "environment": _ENV,
        "outputs": 'what an activity returns is "steps.ID.output"; a block has "output"',
    },
    foreign_kinds=frozenset(
        ["uses", "action", "task", "type", *_COMMANDS, *_CHILDREN, *_PAUSES, *_CONDITIONS, *_CLAIMS]
    ).union(_PRINTED),
)

_DEFAULTS = {
    "policy": _USES_POLICY,
    "retry": _RETRY,
    "timeouts": _TIMEOUTS,
    "task_queue": Field(_NAME, "The task queue of activities that name none."),
}
DEFAULTS = Fields(
    name="defaults",
    title="defaults",
    fields={
        **_DEFAULTS,
        "compensate": Field(
            Fields(name="compensation_defaults", title="the defaults of compensations", fields=_DEFAULTS),
            "The same for compensations.",
        ),
    },
)

SCHEDULE = Fields(
    name="schedule",
    title="a schedule",
    lone="cron",
    fields={
        "cron": Field(
            Forms(
                expected="a cron text or a list of them",
                scalar=_NAME,
                sequence=ListOf(item=_NAME, title="a cron text", at_least=1),
            ),
            "Cron expressions.",
        ),
        "every": Field(_POSITIVE, "An interval."),
        "offset": Field(Duration(positive=False), "Shifts the interval."),
        "jitter": Field(_POSITIVE, "Each start is late by a random time up to this."),
        "time_zone": Field(_NAME, "An IANA time zone. Default: UTC."),
        "inputs": Field(MapOf(value=AnyValue()), "The inputs of the runs."),
        "overlap": Field(
            Choice(
                values=(
                    "skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all",
                )
            ),
            "What to do while the run before is still open. Default: skip.",
        ),
        "catchup_window": Field(_POSITIVE, "How late a missed start may still be made."),
        "pause_on_failure": Field(Boolean(), "Pause after a failed run."),
        "paused": Field(Boolean(), "Create it paused."),
        "note": Field(_PROSE, "A note for people."),
    },
)  # fmt: skip

_SCHEDULES = 'write {NAME: {cron: "0 3 * * *"}}'

PIPELINE = Fields(
    name="pipeline",
    title="a pipeline",
    fields={
        "version": Field(Number(minimum=1, maximum=1), "The version of the language."),
        "name": Field(
            Text(
                pattern=r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,199}$",
                means='letters, digits and "_", further on "-", "." and "/" too',
            ),
            "The pipeline's name, which becomes the Temporal workflow type.",
        ),
        "description": Field(_PROSE, "What the pipeline is for."),
        "inputs": Field(
            MapOf(
                value=JsonSchema(),
                key=IDENTIFIER,
                title="the name of an input",
                hint="write {NAME: {type: string}}, or the like",
            ),
            "A JSON Schema for each input; one with a default may be left out.",
        ),
        "output": Field(_ANY_TEMPLATE, "The pipeline's output. Default: null."),
        "policies": Field(
            MapOf(
                value=POLICY,
                key=_NAME,
                title="the name of a policy",
                hint="write {NAME: {timeouts: …, retry: …}}",
            ),
            "Named bundles.",
        ),
        "defaults": Field(DEFAULTS, "Defaults of activities and compensations, never of children."),
        "secrets": Field(
            ListOf(item=IDENTIFIER, title="the name of a secret", unique=True),
            "Names of the secrets that the steps may use.",
        ),
        "timeout": Field(_POSITIVE, "After this the run fails with PipelineTimeout, and is undone."),
        "steps": Field(_STEPS, "What the pipeline does, in order."),
        "finally": Field(_STEPS, "Steps that run last, whatever happened."),
        "on_failure": Field(
            Choice(values=("undo", "keep", "ask"), later=frozenset(["keep", "ask"])),
            "What a failure leads to. Default: undo.",
        ),
        "task_queue": Field(_NAME, "The task queue of the pipeline and all that names no other."),
        "workflow_id": Field(_TITLE, "The workflow id of a run started by the command; it sees the inputs."),
        "search_attributes": Field(_VALUES, "Search attributes of the run.", later="attributes of the run"),
        "schedules": Field(
            MapOf(value=SCHEDULE, key=_NAME, title="the name of a schedule", hint=_SCHEDULES),
            "When to run.",
            later="Temporal Schedules",
        ),
    },
    required=("name", "steps"),
    hints={
        **dict.fromkeys(("schedule", "cron"), 'did you mean "schedules"? They have names: ' + _SCHEDULES),
        **dict.fromkeys(
            ("env", "environment"),
            'a pipeline has none: each "activity: shell.run" has an "env" in its "with"',
        ),
        **dict.fromkeys(("jobs", "stages"), 'write "steps"; what runs at the same time is a "parallel" step'),
        **dict.fromkeys(("on", "trigger", "triggers"), 'a pipeline is started by a command or "schedules"'),
    },
)

_AS_UNDO = "write {activity: NAME, with: …}"
_UNDO_FIELDS = Fields(
    name="undo",
    title="an undo",
    fields={
        "activity": _ACTIVITY,
        "with": _WITH,
        "args": _ARGS,
        "after": COMPENSATION.common["after"],
        "retry": _RETRY,
        "timeouts": _TIMEOUTS,
        "task_queue": Field(
            _NAME, "Where it runs. Default: where its own entry says, else where the step ran."
        ),
    },
    required=("activity",),
    hints={"policy": 'policies belong to a pipeline: write "retry" and "timeouts"'},
)

ACTIVITIES_FILE = Fields(
    name="activities_file",
    title="activities.yaml",
    fields={
        "modules": Field(
            ListOf(item=_NAME, title="the name of a module", unique=True),
            "Python modules whose activities are known, and served by the worker.",
        ),
        "activities": Field(
            MapOf(
                key=_NAME,
                title="the name of an activity",
                value=Fields(
                    name="declared_activity",
                    title="an activity",
                    fields={
                        "description": Field(_PROSE, "What the activity does."),
                        "task_queue": Field(_NAME, "Where its worker listens."),
                        "input": Field(JsonSchema(boolean=False), "JSON Schema of its argument."),
                        "output": Field(JsonSchema(boolean=False), "JSON Schema of its result."),
                        "effect_free": Field(Boolean(), "True: nothing to undo, may be repeated freely."),
                        "undo": Field(
                            Forms(
                                expected="none or a mapping",
                                scalar=Choice(values=("none",), expected="none or a mapping", hint=_AS_UNDO),
                                mapping=_UNDO_FIELDS,
                                hint=_AS_UNDO,
                            ),
                            "How a step that says nothing is undone; none: there is nothing to undo.",
                        ),
                        "secrets": Field(
                            Boolean(), "True: its worker is one of this package, and resolves secrets."
                        ),
                        "timeouts": Field(ACTIVITY_TIMEOUTS, "Defaults below the pipeline's."),
                        "retry": Field(RETRY, "Defaults below the pipeline's."),
                    },
                    hints=dict.fromkeys(("inverse", "compensate"), 'write "undo: {activity: NAME, with: …}"'),
                ),
            ),
            "Activities by registered name, served by workers in any language.",
        ),
    },
)
