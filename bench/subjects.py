"""What is compared: the same steps by hand, as a generic DSL workflow, and as a pipeline file.

A step is the activity ``bench.add``, which takes the tally of the step before it and gives
the next one; its undo is ``bench.remove``. All three subjects give a step the same activity
id, summary, timeout and retry policy. Imports nothing but temporalio: the default sandbox,
which is shown for information, imports this module anew for every run.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy

TIMEOUT = timedelta(seconds=30)
RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(minutes=1),
    maximum_attempts=5,
)
UNDO_RETRY = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(minutes=1),
    maximum_attempts=10,
)


@dataclass
class Tally:
    """What a step takes and gives."""

    name: str
    total: int


@activity.defn(name="bench.add")
async def add(tally: Tally) -> Tally:
    """Add one."""
    return Tally(name=tally.name, total=tally.total + 1)


@activity.defn(name="bench.remove")
async def remove(tally: Tally) -> None:
    """Undo one ``bench.add``."""


# By hand


@dataclass
class Order:
    """The input of the workflow written by hand."""

    name: str
    steps: int


@workflow.defn(name="by-hand")
class ByHand:
    """The steps as a user of the SDK would write them, with the undo that sagas keep."""

    @workflow.run
    async def run(self, order: Order) -> Tally:
        """Run the steps; undo those begun, in reverse order, if one fails."""
        begun: list[tuple[str, Tally]] = []
        tally = Tally(name=order.name, total=0)
        try:
            for number in range(order.steps):
                step = f"s{number}"
                begun.append((step, tally))
                tally = await workflow.execute_activity(
                    add,
                    tally,
                    activity_id=step,
                    summary=f"add {number}",
                    start_to_close_timeout=TIMEOUT,
                    retry_policy=RETRY,
                    cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
                )
        except Exception:
            for step, given in reversed(begun):
                await workflow.execute_activity(
                    remove,
                    given,
                    activity_id=f"undo:{step}",
                    summary=f"undo {step}",
                    start_to_close_timeout=TIMEOUT,
                    retry_policy=UNDO_RETRY,
                )
            raise
        return tally


# A generic workflow that interprets typed statements, without expressions and without undo


@dataclass
class Invocation:
    """Call an activity with variables, and keep its result in another."""

    step: str
    activity: str
    arguments: list[str]
    result: str


@dataclass
class Statement:
    """One activity, or some statements one after the other."""

    invocation: Invocation | None = None
    sequence: "list[Statement] | None" = None


@dataclass
class Plan:
    """The input of the DSL workflow."""

    root: Statement
    variables: dict[str, Any]


@workflow.defn(name="dsl")
class Dsl:
    """Interprets a plan."""

    @workflow.run
    async def run(self, plan: Plan) -> Any:
        """Run the plan and return its variable ``last``."""
        self._variables = dict(plan.variables)
        await self._execute(plan.root)
        return self._variables["last"]

    async def _execute(self, statement: Statement) -> None:
        if (call := statement.invocation) is not None:
            self._variables[call.result] = await workflow.execute_activity(
                call.activity,
                args=[self._variables[name] for name in call.arguments],
                activity_id=call.step,
                summary=f"add {call.step[1:]}",
                start_to_close_timeout=TIMEOUT,
                retry_policy=RETRY,
                cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
            )
        for inner in statement.sequence or []:
            await self._execute(inner)


def plan(name: str, steps: int) -> Plan:
    """Return so many steps as a plan."""
    targets = [f"t{number}" for number in range(1, steps)] + ["last"]
    sources = ["t0", *targets]
    sequence = [
        Statement(invocation=Invocation(f"s{number}", "bench.add", [sources[number]], targets[number]))
        for number in range(steps)
    ]
    first = {"name": name, "total": 0}
    return Plan(root=Statement(sequence=sequence), variables={"t0": first, "last": first})


# The pipeline


def pipeline(steps: int, prefix: str) -> str:
    """Return so many steps, their ids being prefix and number, as a file; none is a ``set`` step."""
    head = """\
version: 1
name: bench-pipeline
inputs:
  name: {type: string}
policies:
  step:
    timeouts: {start_to_close: 30s}
    retry: {initial_interval: 1s, backoff_coefficient: 2.0, maximum_interval: 1m, maximum_attempts: 5}
defaults:
  policy: step
  compensate: {timeouts: {start_to_close: 30s}}
steps:
"""
    if not steps:
        return head + '  - id: tally\n    set: {name: "{{ inputs.name }}", total: 0}\n' + _output("tally")
    return head + "".join(_step(prefix, number) for number in range(steps)) + _output(f"{prefix}{steps - 1}")


def _step(prefix: str, number: int) -> str:
    total = f'"{{{{ steps.{prefix}{number - 1}.output.total }}}}"' if number else "0"
    return f"""\
  - id: {prefix}{number}
    name: add {number}
    activity: bench.add
    with: {{name: "{{{{ inputs.name }}}}", total: {total}}}
    compensate:
      activity: bench.remove
      with: {{name: "{{{{ step.input.name }}}}", total: "{{{{ step.input.total }}}}"}}
"""


def _output(step: str) -> str:
    return f'output: "{{{{ steps.{step}.output }}}}"\n'
