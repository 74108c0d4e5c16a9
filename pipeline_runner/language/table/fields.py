"""The language in one table: every key, its shape, and what it is for.

The structure check, the published JSON Schema and the search for templates all read this
table, so they cannot disagree. ``Mode.TEMPLATE`` marks texts that are templates,
``Mode.EXPRESSION`` bare expressions; all other texts are literal.
"""

from pipeline_runner.core import paths
from pipeline_runner.language.table.collections import (
    Field,
    Fields,
    Forms,
    Later,
    ListOf,
    MapOf,
    OneOf,
    Variants,
)
from pipeline_runner.language.table.shapes import (
    AnyValue,
    Boolean,
    Choice,
    Duration,
    Identifier,
    JsonSchema,
    Mode,
    Number,
    Text,
)

_IDENTIFIER = Identifier()
# The handlers of a step are called "catch[0]" in paths, where the items of a step "catch" would be, too.
_ID = Identifier(reserved=frozenset([paths.CATCH]))
# Secrets are environment variables, too.
_SECRET = Text(
    pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", means='the letters A to Z, digits and "_", not starting with a digit'
)
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
        "initial_interval": Field(_POSITIVE, "The wait before the second attempt. Default: 1s."),
        "backoff_coefficient": Field(
            Number(minimum=1, whole=False),
            "The factor by which each wait is longer than the previous one. Default: 2.0.",
        ),
        "maximum_interval": Field(_POSITIVE, "The longest wait between two attempts. Default: 1m."),
        "maximum_attempts": Field(
            Number(minimum=0, maximum=2**31 - 1),
            "The number of attempts, including the first. 0: no limit. Default: 5; 10 for compensations.",
        ),
        "non_retryable_error_types": Field(
            ListOf(item=_NAME, title="an error type"), "Error types that are not retried."
        ),
    },
)

_ACTIVITY_TIMEOUTS = {
    "start_to_close": Field(_POSITIVE, "The limit for one attempt. Default: 5m."),
    "schedule_to_close": Field(_POSITIVE, "The limit for all attempts together."),
    "schedule_to_start": Field(_POSITIVE, "The limit for the wait for a worker."),
    "heartbeat": Field(_POSITIVE, "The longest time between two heartbeats of a running attempt."),
}
_CHILD_TIMEOUTS = {
    "run": Field(
        _POSITIVE, "The limit for one run of the child. The server stops the run, and nothing is undone."
    ),
    "execution": Field(
        _POSITIVE, "The limit for the child with all its runs. The server stops it, and nothing is undone."
    ),
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
        "timeouts": Field(POLICY_TIMEOUTS, "Timeouts. A step uses those that apply to its kind."),
        "retry": Field(RETRY, "How failed attempts are retried."),
    },
)

_USES_POLICY = Field(
    _NAME, "The name of a policy in this file. The retry and timeouts beside it override it."
)
_RETRY = Field(RETRY, "How failed attempts are retried.")
_TIMEOUTS = Field(ACTIVITY_TIMEOUTS, "Timeouts, with Temporal's names.")
_CHILD_LIMITS = Field(CHILD_TIMEOUTS, "Timeouts of the child workflow.")
_WITH = Field(
    MapOf(value=_ANY_TEMPLATE, hint='write {NAME: VALUE}; a list of arguments is "args"'),
    "The input: one mapping, which the activity receives as its only argument.",
)
_ARGS = Field(
    ListOf(item=_ANY_TEMPLATE, title="an argument", hint='write [VALUE]; one mapping is "with"'),
    "Positional arguments, instead of with, for activities in other SDKs.",
)
_CHILD_WITH = Field(_VALUES, "The child's inputs.")
_QUEUE = Field(
    _NAME, "The task queue where it runs. Default: that of the catalogue, of defaults, or of the pipeline."
)
_CHILD_QUEUE = Field(_NAME, "The task queue of the child. Default: the child's own, or the parent's.")
_ACTIVITY = Field(_NAME, "The activity's registered name. Its worker can be written in any language.")
_PIPELINE = Field(_NAME, "Another pipeline file, relative to this one, which runs as a child workflow.")

COMPENSATION = Variants(
    name="compensation",
    title="a compensation",
    common={
        "after": Field(
            Choice(values=("completed", "uncertain", "started")),
            "completed: undo only if the step completed. uncertain (default): also if its outcome is"
            " unknown. started: also if it failed.",
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
            ListOf(item=_NAME, title="an error type", at_least=1), "The error types to handle. Default: all."
        ),
        "steps": Field(
            _STEPS, "Steps that run after the scope has been undone. Without them, the run continues."
        ),
        "output": Field(_ANY_TEMPLATE, "The step's output. Default: null."),
    },
)

ARM = Fields(
    name="arm",
    title="an arm",
    fields={
        "when": Field(
            _EXPRESSION, "A bare expression. The first arm whose condition holds runs. Default: it holds."
        ),
        "steps": Field(_STEPS, "The arm's steps, which are a separate scope."),
    },
    required=("steps",),
)

UNTIL = Fields(
    name="until",
    title="an until",
    lone="condition",
    fields={
        "condition": Field(
            _EXPRESSION, "A bare expression. last is the output of the repetition that has just ended."
        ),
        "every": Field(
            Duration(positive=False, template=True), "The pause between two repetitions. Default: 10s."
        ),
        "at_most": Field(
            Number(minimum=1), "The number of repetitions after which the step fails. Default: 100."
        ),
        "timeout": Field(_POSITIVE, "The limit for all repetitions together."),
    },
    required=("condition",),
)

APPROVAL = Fields(
    name="approval",
    title="an approval",
    lone="message",
    fields={
        "message": Field(_TITLE, "The question."),
        "timeout": Field(_POSITIVE, "How long to wait. Default: no limit."),
        "schema": Field(JsonSchema(), "The JSON Schema of the answer's payload."),
        "on_timeout": Field(
            Choice(values=("reject", "approve")), "The answer that a timeout counts as. Default: reject."
        ),
        "payload": Field(_ANY_TEMPLATE, "The payload of an approval by timeout. Default: null."),
        "approvals": Field(Number(minimum=1), "How many different identities must approve. Default: 1."),
        "not_by_starter": Field(
            Boolean(), "true: the identity that started the run cannot approve. Default: false."
        ),
    },
)

WAIT_UNTIL = Fields(
    name="wait_until",
    title="a wait",
    fields={"until": Field(_TITLE, "The time to wait for, in RFC 3339 format: 2030-01-31T12:00:00Z.")},
    required=("until",),
    hints=dict.fromkeys(
        ("for", "duration", "delay", "time", "timeout", "seconds", "minutes", "hours"),
        'a duration is not a mapping: write "wait: 5m"',
    ),
)

WAIT_EVENT = Fields(
    name="wait_event",
    title="a wait",
    fields={
        "event": Field(_NAME, "The event to wait for: the name of a signal."),
        "timeout": Field(
            _POSITIVE, "How long to wait. Then the step fails with EventTimeout. Default: no limit."
        ),
        "schema": Field(JsonSchema(), "The JSON Schema of the event's payload."),
    },
    required=("event",),
)

FAIL = Fields(
    name="fail",
    title="a fail step",
    lone="message",
    fields={
        "message": Field(_TITLE, "The error message."),
        "type": Field(_NAME, "The error type. Default: PipelineFailure."),
    },
    required=("message",),
)

_SCOPE_RETRY = Field(
    RETRY,
    "A failed attempt is undone completely, then everything runs again. Default: no retry.",
)
_UNDO = "write {activity: NAME, with: …}, or {pipeline: FILE}"
_COMMANDS = ("run", "script", "command", "cmd", "shell", "exec", "program")
_CHILDREN = ("workflow", "child_workflow", "subworkflow", "call")
_PAUSES = ("sleep", "delay", "pause")
_CONDITIONS = ("wait_for", "wait_until")
_CLAIMS = ("assert", "check", "require")
_PRINTED = ("print", "echo", "debug", "log")
_AS_COMMAND = 'a program runs in an activity: "activity: shell.run", "with: {command: [PROGRAM, ARGUMENT]}"'
_AS_WAIT = 'write "wait: 5m"; for a time of day, "wait: {until: TIME}"'
_AS_FAIL = 'write "when: not (CONDITION)" and "fail: {message: …}"'
_AS_OUTPUT = (
    'nothing is printed while a pipeline runs: put what people should see into the step\'s "name",'
    ' and what programs need into the pipeline\'s "output"'
)
_ENV = 'put it into the "with" of "activity: shell.run"'
_AS_KIND = '"activity" calls an activity, "pipeline" runs another pipeline file'

STEP: Variants = Variants(
    name="step",
    title="a step",
    common={
        "id": Field(_ID, "The step's name in expressions and histories. It is unique in the file."),
        "name": Field(_TITLE, "A title for people. Default: the id."),
        "when": Field(_EXPRESSION, "A bare expression, without braces. If it is false, the step is skipped."),
        "for_each": Field(
            Forms(
                expected="an expression or a list",
                scalar=_EXPRESSION,
                sequence=ListOf(item=_ANY_TEMPLATE, title="an element"),
            ),
            "The step runs once for each element. In expressions, item is the element and index its number.",
        ),
        "compensate": Field(
            Forms(
                expected="none or a mapping",
                scalar=Choice(values=("none",), expected="none or a mapping", hint=_UNDO),
                mapping=COMPENSATION,
                hint=_UNDO,
            ),
            "How the step is undone. none: there is nothing to undo.",
        ),
        "until": Field(UNTIL, "The step runs again and again until a condition holds."),
        "timeout": Field(
            _POSITIVE,
            "The limit for a block, switch, parallel or loop as a whole. Then it fails with BlockTimeout.",
        ),
        "fail_fast": Field(
            Boolean(),
            "false: the first failure of an element or a branch does not cancel the others. Default: true.",
        ),
        "pivot": Field(
            Boolean(),
            "true: once this step has completed, it and the steps before it are not undone.",
        ),
        "catch": Field(
            ListOf(item=CATCH, title="a catch", at_least=1, hint='each handler begins with "- "'),
            "The errors to handle, and how.",
        ),
        "max_concurrency": Field(
            Number(minimum=1), "How many elements of for_each, or branches, run at the same time."
        ),
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
            "task_queue": _CHILD_QUEUE,
            "parent_close_policy": Field(
                Choice(values=("terminate", "request_cancel", "abandon")),
                "What happens to the child if the parent closes first. Default: terminate.",
            ),
            "workflow_id": Field(
                _TITLE, "The child's workflow id. Default: the parent's id, a slash, and the step's id."
            ),
            "wait_for_completion": Field(
                Boolean(), "false: continue as soon as the child has started. Allowed only with abandon."
            ),
        },
        "set": {"set": Field(_VALUES, "Values to compute. This adds no event to the history.")},
        "wait": {
            "wait": Field(
                Forms(
                    expected="a duration, {until: time} or {event: name}",
                    scalar=Duration(positive=False, template=True),
                    mapping=OneOf(key="event", shape=WAIT_EVENT, other=WAIT_UNTIL),
                ),
                "A duration, the time or the event to wait for. The timer is durable.",
            )
        },
        "approval": {
            "approval": Field(APPROVAL, "Waits for the approval of people, who answer with a command.")
        },
        "fail": {"fail": Field(FAIL, "Fails with an error that is never retried.")},
        "steps": {
            "steps": Field(_STEPS, "A block of steps, which is a separate scope."),
            "output": Field(_ANY_TEMPLATE, "The block's output. Default: the output of its last step."),
            "retry": _SCOPE_RETRY,
        },
        "switch": {
            "switch": Field(
                ListOf(item=ARM, title="an arm", at_least=1, hint='each arm begins with "- "'),
                "The first arm whose when holds runs. The last arm may have no when.",
            ),
            "retry": _SCOPE_RETRY,
        },
        "parallel": {
            "parallel": Field(
                MapOf(
                    value=_STEPS,
                    key=_IDENTIFIER,
                    title="the name of a branch",
                    at_least=1,
                    hint="write {NAME: [STEP, …]}",
                ),
                "Branches that run at the same time. Each is a separate scope.",
            ),
            "retry": _SCOPE_RETRY,
        },
    },
    required=("id",),
    hints={
        **dict.fromkeys(_COMMANDS, _AS_COMMAND),
        **dict.fromkeys(_CHILDREN, 'to run another pipeline file, write "pipeline: ./file.yaml"'),
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
            '"catch" handles errors, "compensate" declares how the step is undone',
        ),
        **dict.fromkeys(("always", "ensure"), 'steps that always run are in the pipeline\'s "finally"'),
        "register": 'its result is "steps.ID.output" in the steps after it',
        "env": _ENV,
        "environment": _ENV,
        "outputs": 'the result of an activity is "steps.ID.output"; a block has "output"',
    },
    foreign_kinds=frozenset(
        ["uses", "action", "task", "type", *_COMMANDS, *_CHILDREN, *_PAUSES, *_CONDITIONS, *_CLAIMS]
    ).union(_PRINTED),
)

_DEFAULTS = {
    "policy": _USES_POLICY,
    "retry": _RETRY,
    "timeouts": _TIMEOUTS,
    "task_queue": Field(_NAME, "The task queue of activities that do not name one."),
}
DEFAULTS = Fields(
    name="defaults",
    title="defaults",
    fields={
        **_DEFAULTS,
        "compensate": Field(
            Fields(name="compensation_defaults", title="the defaults of compensations", fields=_DEFAULTS),
            "The same defaults for compensations.",
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
                expected="a cron string or a list of them",
                scalar=_NAME,
                sequence=ListOf(item=_NAME, title="a cron string", at_least=1),
            ),
            "One or more cron expressions.",
        ),
        "every": Field(_POSITIVE, "An interval."),
        "offset": Field(Duration(positive=False), "The time by which the interval is shifted."),
        "jitter": Field(_POSITIVE, "The longest random delay of a start."),
        "time_zone": Field(_NAME, "An IANA time zone. Default: UTC."),
        "inputs": Field(MapOf(value=AnyValue()), "The inputs of the scheduled runs."),
        "overlap": Field(
            Choice(
                values=(
                    "skip", "buffer_one", "buffer_all", "cancel_other", "terminate_other", "allow_all",
                )
            ),
            "What to do if the previous run is still open. Default: skip.",
        ),
        "catchup_window": Field(_POSITIVE, "How late a missed start can still happen."),
        "pause_on_failure": Field(Boolean(), "true: pause the schedule after a failed run."),
        "paused": Field(Boolean(), "true: create the schedule paused."),
        "note": Field(_PROSE, "A note for people."),
    },
)  # fmt: skip
ASK = Fields(
    name="on_failure",
    title="on_failure",
    lone="ask",
    fields={
        "ask": Field(
            Fields(
                name="ask",
                title="ask",
                lone="timeout",
                fields={
                    "timeout": Field(
                        _POSITIVE, "How long to wait for a decision before the undo. Default: 1d."
                    )
                },
            ),
            "Hold the failed run until a person decides.",
        )
    },
    required=("ask",),
)

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
                key=_IDENTIFIER,
                title="the name of an input",
                hint="write for example {NAME: {type: string}}",
            ),
            "A JSON Schema for each input. An input that has a default is optional.",
        ),
        "output": Field(_ANY_TEMPLATE, "The pipeline's output. Default: null."),
        "policies": Field(
            MapOf(
                value=POLICY,
                key=_NAME,
                title="the name of a policy",
                hint="write {NAME: {timeouts: …, retry: …}}",
            ),
            "Named sets of timeouts and retry settings.",
        ),
        "defaults": Field(DEFAULTS, "Defaults for activities and compensations, but not for children."),
        "secrets": Field(
            ListOf(item=_SECRET, title="the name of a secret", unique=True),
            "The names of the secrets that steps can use.",
        ),
        "timeout": Field(
            _POSITIVE, "The limit for the run. Then it fails with PipelineTimeout, and is undone."
        ),
        "steps": Field(_STEPS, "The steps of the pipeline, in order."),
        "finally": Field(_STEPS, "Steps that run last, whatever happened before."),
        "on_failure": Field(
            Forms(
                expected="undo, keep, ask or {ask: {timeout: …}}",
                scalar=Choice(values=("undo", "keep", "ask")),
                mapping=ASK,
            ),
            "What happens on failure. Default: undo.",
        ),
        "task_queue": Field(
            _NAME, "The task queue of the pipeline, and of everything in it that does not name another."
        ),
        "workflow_id": Field(
            _TITLE, "The workflow id of a run that the command starts. It can use only inputs."
        ),
        "search_attributes": Field(_VALUES, "Search attributes of the run.", later="attributes of the run"),
        "schedules": Field(
            MapOf(value=SCHEDULE, key=_NAME, title="the name of a schedule", hint=_SCHEDULES),
            "When to start runs.",
            later="Temporal Schedules",
        ),
    },
    required=("name", "steps"),
    hints={
        **dict.fromkeys(("schedule", "cron"), 'did you mean "schedules"? They have names: ' + _SCHEDULES),
        **dict.fromkeys(
            ("env", "environment"),
            'a pipeline has no "env": each "activity: shell.run" has one in its "with"',
        ),
        **dict.fromkeys(("jobs", "stages"), 'write "steps"; a "parallel" step runs several at the same time'),
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
        "task_queue": Field(_NAME, "The task queue. Default: that of its own entry, else that of the step."),
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
            "Python modules whose activities the checker knows and the worker serves.",
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
                        "task_queue": Field(_NAME, "The task queue of its worker."),
                        "input": Field(JsonSchema(boolean=False), "The JSON Schema of its argument."),
                        "output": Field(JsonSchema(boolean=False), "The JSON Schema of its result."),
                        "effect_free": Field(Boolean(), "true: nothing to undo, and safe to repeat."),
                        "undo": Field(
                            Forms(
                                expected="none or a mapping",
                                scalar=Choice(values=("none",), expected="none or a mapping", hint=_AS_UNDO),
                                mapping=_UNDO_FIELDS,
                                hint=_AS_UNDO,
                            ),
                            "How a step without compensate is undone; none: there is nothing to undo.",
                        ),
                        "secrets": Field(
                            Boolean(), "true: its worker uses this package, and inserts secrets."
                        ),
                        "timeouts": Field(
                            ACTIVITY_TIMEOUTS, "Defaults, which the pipeline's settings override."
                        ),
                        "retry": Field(RETRY, "Defaults, which the pipeline's settings override."),
                    },
                    hints=dict.fromkeys(("inverse", "compensate"), 'write "undo: {activity: NAME, with: …}"'),
                ),
            ),
            "Activities of other workers, in any language, by registered name.",
        ),
    },
)
