"""Pipelines whose histories are recorded, to be replayed by every later interpreter.

Run ``python -m tests.engine.scenarios`` to record those that have no file yet. A recorded
history is never recorded again: it stands for the runs that are open at some user's.
"""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from pipeline_runner.core import model
from pipeline_runner.core.state import WAITING_MEMO
from pipeline_runner.engine.client import find
from pipeline_runner.engine.messages import decide
from pipeline_runner.engine.resuming import resuming, start_resumed
from pipeline_runner.engine.undoing import start_undo, undoing
from pipeline_runner.engine.workflow.approvals import APPROVE, REJECT
from pipeline_runner.server import devserver
from tests.conftest import Pipelines, connected
from tests.engine.test_asking import asked

FOLDER = Path(__file__).parents[1] / "data" / "histories"

HEAD = "version: 1\nname: recorded\n"
STEP = (
    "  - {{id: {0}, activity: effect.do, with: {{log: LOG, name: {0}{1}}}, retry: {{maximum_attempts: 1}},"
    " timeouts: {{start_to_close: 1s}},"
    ' compensate: {{activity: effect.undo, with: {{log: LOG, name: "{{{{ step.input.name }}}}"}}}}}}\n'
)
CHILD = "version: 1\nname: child\nsteps:\n" + STEP.format("c1", "") + STEP.format("c2", "") + "output: done\n"


def steps(*names: str, last: str = "") -> str:
    """Steps of these names; ``last`` is what the last one does."""
    return "".join(STEP.format(n, f", then: {last}" if last and n == names[-1] else "") for n in names)


def indented(text: str, by: int) -> str:
    """The lines of a text, further in."""
    return "".join(" " * by + line for line in text.splitlines(keepends=True))


SCOPES = (
    HEAD + "steps:\n  - id: tried\n    steps:\n"
    + indented(steps("a", "b"), 4)
    + "      - {id: boom, fail: {message: it is broken, type: Boom}}\n"
    + "    catch:\n      - types: [Boom]\n        steps:\n"
    + indented(steps("c"), 8)
    + "  - id: both\n    parallel:\n      left:\n"
    + indented(steps("d"), 6)
    + "      right:\n        - {id: rest, wait: 20ms}\n        - {id: child, pipeline: ./child.yaml}\n"
    + "  - id: each\n    for_each: [1, 2, 3]\n    max_concurrency: 2\n    steps:\n"
    + indented(steps("e"), 4)
)  # fmt: skip

DIRTY = (
    "  - id: tried\n    steps:\n"
    "      - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {activity: effect.undo,"
    " with: {log: LOG, name: a, then: fail}, retry: {maximum_attempts: 1}}}\n"
    "      - {id: boom, fail: {message: it is broken, type: Boom}}\n"
    "    catch: [{output: fine}]\n"
)


FLAKY = (
    "  - {{id: {0}, activity: effect.flaky, with: {{log: LOG, name: {0}, good: {1}}}, retry: {{maximum_attempts: 1}},"
    " compensate: {{activity: effect.undo, with: {{log: LOG, name: {0}}}}}}}\n"
)
WHOLE = (
    HEAD + "steps:\n  - id: size\n    switch:\n"
    '      - {when: "false", steps: [{id: never, set: {x: 1}}]}\n      - steps:\n'
    + indented(steps("a"), 8)
    + "  - id: poll\n    until: {condition: index == 1, every: 20ms, timeout: 1h}\n    timeout: 2h\n    steps:\n"
    + indented(steps("b"), 4)
    + "  - id: checks\n    timeout: 1h\n    retry: {maximum_attempts: 3, initial_interval: 10ms}\n    steps:\n"
    + indented(steps("c") + FLAKY.format("d", 3), 4)
    + "  - id: late\n    timeout: 300ms\n    parallel:\n      left:\n"
    + indented(steps("e"), 6)
    + "        - {id: rest, wait: 1h}\n      right:\n        - {id: child, pipeline: ./child.yaml}\n"
    + '        - {id: rest2, until: {condition: "false", every: 1h}, set: {x: 1}}\n'
    + "    catch: [{types: [BlockTimeout]}]\n"
    + "  - id: each\n    for_each: [1, 2, 3]\n    fail_fast: false\n    max_concurrency: 2\n"
    + "    retry: {maximum_attempts: 2, initial_interval: 10ms}\n    steps:\n"
    + indented(steps("f") + FLAKY.format("g", 5), 4)
)  # fmt: skip
WAITS = (
    HEAD + "steps:\n" + steps("a") + "  - id: both\n    parallel:\n"
    "      ok: [{id: ok, approval: {message: go on?, approvals: 2, not_by_starter: true, timeout: 1h}}]\n"
    "      paid: [{id: paid, wait: {event: paid, schema: {type: object}}}]\n"
    "  - {id: more, for_each: [1, 2], wait: {event: more}}\n"
    "  - {id: late, wait: {event: late, timeout: 20ms}, catch: [{types: [EventTimeout]}]}\n"
    "  - {id: by_itself, approval: {timeout: 20ms, on_timeout: approve, payload: 1}}\n"
    "  - {id: no, approval: {}}\n"
)


@dataclass(frozen=True)
class Scenario:
    """A pipeline, and what happens to its run from outside."""

    text: str
    children: dict[str, str] = field(default_factory=dict)
    act: Callable[[WorkflowHandle[Any, Any], Pipelines], Awaitable[None]] | None = None
    then: Callable[[WorkflowHandle[Any, Any], Pipelines], Awaitable[WorkflowHandle[Any, Any]]] | None = None
    """Begins another run when it has ended, which is recorded instead."""
    by_name: bool = False
    long: bool = False
    """Recorded on a server that suggests to continue as new after 60 events."""


async def _cancel(handle: WorkflowHandle[Any, Any], pipelines: Pipelines) -> None:
    while not any(line in ("do hang", "do c2") for line in pipelines.effects):
        await asyncio.sleep(0.02)
    await handle.cancel()


async def _decide(handle: WorkflowHandle[Any, Any], pipelines: Pipelines) -> None:
    for path, what in (("block", "retry"), ("block#2", "skip"), ("z", "undo")):
        assert await asked(pipelines, handle.id) == path
        await decide(handle, what)


async def _serve_elsewhere(handle: WorkflowHandle[Any, Any], pipelines: Pipelines) -> None:
    """Have a second worker on the task queue know the pipeline that the first one does not."""
    config = pipelines.client.service_client.config
    other = Pipelines(await connected(config.target_host), pipelines.folder)
    other.queue = pipelines.queue
    bundle = other.bundle(SCENARIOS["by-name-elsewhere"].text)
    async with other.worker(bundles={"recorded": model.encode(bundle)}):
        await handle.result()


async def _undo(handle: WorkflowHandle[Any, Any], pipelines: Pipelines) -> WorkflowHandle[Any, Any]:
    what = await undoing(pipelines.client, (await find(pipelines.client, handle.id))[1])
    return await start_undo(pipelines.client, what, {})


async def _resume(handle: WorkflowHandle[Any, Any], pipelines: Pipelines) -> WorkflowHandle[Any, Any]:
    what = await resuming(pipelines.client, (await find(pipelines.client, handle.id))[1])
    return await start_resumed(pipelines.client, what, {})


PEOPLE = ("ann@desk", "bob@desk", "eve@desk")
"""Identities that are recorded: an approval depends on them."""


async def _answer(handle: WorkflowHandle[Any, Any], pipelines: Pipelines) -> None:
    """Send events and answers, as soon as the steps wait for them."""
    address = pipelines.client.service_client.config.target_host
    ann, bob, eve = [await Client.connect(address, identity=who) for who in PEOPLE]

    async def waits(*paths: str) -> None:
        newest = pipelines.client.get_workflow_handle(handle.id)
        while True:
            shown = (await (await newest.describe()).memo()).get(WAITING_MEMO, {})
            if [path for path, wait in shown.items() if wait.get("state", "waiting") == "waiting"] == [
                *paths
            ]:
                return
            await asyncio.sleep(0.02)

    async def approve(client: Client, step: str, name: str = APPROVE) -> None:
        await client.get_workflow_handle(handle.id).execute_update(name, {"step": step, "comment": "seen"})

    await waits("both.ok.ok", "both.paid.paid")
    newest = ann.get_workflow_handle(handle.id)
    for number in range(20):
        await newest.signal("more", number)
    await newest.execute_update("paid", {"amount": 1})
    await approve(bob, "ok")
    await approve(eve, "ok")
    await waits("no")
    await approve(ann, "no", REJECT)


MUCH = "{% for i in range(10) %}{{ range(9000) | list | length }}{% endfor %}"
"""More than a third of the work that one rendering may do."""
SCENARIOS: dict[str, Scenario] = {
    "completed": Scenario(
        HEAD + "inputs: {n: {type: integer, default: 2}}\nsteps:\n" + steps("a")
        + '  - {id: v, set: {x: "{{ inputs.n * 2 }}"}}\n  - {id: w, name: rest, wait: 10ms}\n'
        + "  - {id: s, when: inputs.n > 5, fail: {message: no}}\n  - {id: c, pipeline: ./child.yaml}\n"
        + 'finally:\n  - {id: f, activity: effect.do, with: {log: LOG, name: "{{ run.status }}"}}\n'
        + 'output: "{{ steps.v.output.x }}"\n',
        {"child": CHILD},
    ),
    "failed": Scenario(HEAD + "steps:\n" + steps("a", "b", "c", last="fail")),
    "timed-out-step": Scenario(HEAD + "steps:\n" + steps("a", "b", last="hang")),
    "completed-child-undone": Scenario(
        HEAD + "steps:\n" + steps("a") + "  - {id: c, pipeline: ./child.yaml}\n" + steps("z", last="fail"),
        {"child": CHILD},
    ),
    "failing-child-retried": Scenario(
        HEAD + "steps:\n" + steps("a")
        + "  - {id: c, pipeline: ./child.yaml, retry: {maximum_attempts: 2, initial_interval: 10ms}}\n",
        {"child": CHILD.replace("name: c2}", "name: c2, then: fail-after}").replace("c2", "c2")},
    ),
    "cancelled-step": Scenario(HEAD + "steps:\n" + steps("a") + STEP.format("hang", ", then: hang").replace("1s", "1h"), act=_cancel),
    "cancelled-child": Scenario(
        HEAD + "steps:\n" + steps("a") + "  - {id: c, pipeline: ./child.yaml}\n",
        {"child": CHILD.replace("name: c2}", "name: c2, then: hang}").replace("1s", "1h")},
        act=_cancel,
    ),
    "pipeline-timeout": Scenario(HEAD + "timeout: 500ms\nsteps:\n" + steps("a") + "  - {id: w, wait: 1h}\n"),
    "dirty": Scenario(
        HEAD + "steps:\n" + steps("a")
        + "  - {id: b, activity: effect.do, with: {log: LOG, name: b}, compensate: {activity: effect.undo,"
        " with: {log: LOG, name: b, then: fail}, retry: {maximum_attempts: 1}}}\n"
        + "  - {id: stop, fail: {message: enough, type: Enough}}\n"
    ),
    "compensated-by-pipeline": Scenario(
        HEAD + "steps:\n  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {pipeline: ./child.yaml}}\n"
        "  - {id: stop, fail: {message: enough}}\n",
        {"child": CHILD},
    ),
    "not-waited-for": Scenario(
        HEAD + "steps:\n  - {id: c, pipeline: ./child.yaml, parent_close_policy: abandon, wait_for_completion: false}\n",
        {"child": CHILD},
    ),
    "by-name": Scenario(HEAD + "steps:\n" + steps("a"), by_name=True),
    "by-name-elsewhere": Scenario(HEAD + "steps:\n" + steps("a"), act=_serve_elsewhere, by_name=True),
    "compensated-by-pipeline-retried": Scenario(
        HEAD + "steps:\n  - {id: a, activity: effect.do, with: {log: LOG, name: a}, compensate: {pipeline: ./child.yaml,"
        " retry: {maximum_attempts: 2, initial_interval: 10ms}}}\n  - {id: stop, fail: {message: enough}}\n",
        {
            "child": "version: 1\nname: child\nsteps:\n  - {id: u, activity: effect.undo,"
            " with: {log: LOG, name: u, then: fail}, retry: {maximum_attempts: 1}}\n"
        },
    ),
    "secret": Scenario(
        HEAD + "secrets: [HOME]\nsteps:\n"
        '  - {id: a, activity: effect.do, with: {log: LOG, name: "x{{ secrets.HOME }}"}}\n'
    ),
    "own-key": Scenario(
        HEAD + "steps:\n"
        '  - {id: a, activity: effect.do, with: {log: LOG, name: "{{ step.key }}"},'
        ' compensate: {activity: effect.undo, with: {log: LOG, name: "{{ step.key }}"}}}\n'
        '  - {id: c, pipeline: ./child.yaml, with: {key: "{{ step.key }}"}}\n'
        "  - {id: stop, fail: {message: enough}}\n",
        {"child": CHILD.replace("steps:", "inputs: {key: {type: string, minLength: 32}}\nsteps:")},
    ),
    "much": Scenario(
        HEAD + "inputs: {zero: {type: integer, default: 0}}\nsteps:\n"
        + "".join(f'  - {{id: s{k}, set: {{x: "{MUCH}"}}}}\n' for k in range(5))
        + "".join(
            f"  - {{id: e{k}, activity: effect.do, with: {{log: LOG, name: e{k}}}, compensate: {{activity:"
            f' effect.undo, with: {{log: LOG, name: "{MUCH}{{{{ 1 / inputs.zero }}}}"}}}}}}\n'
            for k in range(3)
        )
        + "  - {id: stop, fail: {message: enough}}\n"
    ),
    "continued": Scenario(HEAD + "steps:\n" + steps(*(f"s{k}" for k in range(12)), last="fail"), long=True),
    "scopes-failed": Scenario(
        SCOPES + "  - {id: f, fail: {message: enough}}\n", children={"child": CHILD}
    ),
    "scopes-completed": Scenario(SCOPES, children={"child": CHILD}),
    "completed-dirty": Scenario(
        HEAD + "steps:\n" + DIRTY + "  - {id: child, pipeline: ./child.yaml}\noutput: done\n",
        children={"child": "version: 1\nname: child\nsteps:\n" + DIRTY},
    ),
    "pivot": Scenario(
        HEAD + "steps:\n" + steps("a")
        + "  - id: c\n    pipeline: ./child.yaml\n    pivot: true\n" + steps("b")
        + "  - {id: d, pipeline: ./pivoted.yaml}\n" + steps("z", last="fail"),
        children={"child": CHILD, "pivoted": CHILD.replace("{id: c1,", "{id: c1, pivot: true,")},
    ),
    "keep": Scenario(
        HEAD + "on_failure: keep\nsteps:\n" + steps("a")
        + "  - {id: c, pipeline: ./child.yaml}\n  - {id: k, pipeline: ./keeping.yaml}\nfinally:\n"
        + '  - {id: f, activity: effect.do, with: {log: LOG, name: "{{ run.status }}"}}\n',
        children={
            "child": CHILD,
            "keeping": CHILD.replace("name: c2}", "name: c2, then: fail}") + "on_failure: keep\n",
        },
    ),
    "asked": Scenario(
        HEAD + "timeout: 1h\non_failure: ask\nsteps:\n" + steps("a")
        + "  - id: block\n    steps:\n" + indented(steps("b", "c", last="fail"), 4)
        + "  - {id: k, pipeline: ./child.yaml}\n" + steps("z", last="fail"),
        children={"child": CHILD},
        act=_decide,
    ),
    "asked-in-vain": Scenario(
        HEAD + "on_failure: {ask: {timeout: 300ms}}\nsteps:\n" + steps("a", "b", last="fail")
    ),
    "child-keeps": Scenario(
        HEAD + "steps:\n" + steps("a") + "  - {id: k, pipeline: ./keeping.yaml}\n",
        children={"keeping": CHILD.replace("name: c2}", "name: c2, then: fail}") + "on_failure: keep\n"},
    ),
    "whole": Scenario(WHOLE, children={"child": CHILD}),
    "whole-continued": Scenario(
        HEAD + "steps:\n  - id: both\n    timeout: 1h\n    fail_fast: false\n    parallel:\n"
        "      left:\n        - id: poll\n          until: {condition: index == 4, every: 1ms}\n          steps:\n"
        + indented(steps("a", "b"), 10)
        + "      right:\n        - id: checks\n          retry: {maximum_attempts: 9, initial_interval: 1ms}\n"
        "          switch:\n            - steps:\n" + indented(steps("c") + FLAKY.format("d", 5), 14), long=True
    ),
    "scopes-continued": Scenario(
        HEAD + "steps:\n  - id: each\n    for_each: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
        "    max_concurrency: 3\n    steps:\n" + indented(steps("a", "b"), 4), long=True
    ),
    "undone-by-hand": Scenario(
        HEAD + "steps:\n" + steps("a", "b") + "  - {id: c, pipeline: ./child.yaml}\n", {"child": CHILD}, then=_undo
    ),
    "resumed": Scenario(
        HEAD + "on_failure: keep\nsteps:\n" + steps("a") + "  - id: block\n    steps:\n"
        + indented(steps("b", "c", last="fail"), 4), then=_resume,
    ),
    "waits": Scenario(WAITS, act=_answer),
    "waits-continued": Scenario(WAITS, act=_answer, long=True),
}  # fmt: skip


async def _record(name: str, scenario: Scenario, servers: tuple[str, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="recorded-") as folder:
        pipelines = Pipelines(await connected(servers[scenario.long]), Path(folder))
        bundle = pipelines.bundle(scenario.text, **scenario.children)
        served = {} if name == "by-name-elsewhere" else {"recorded": model.encode(bundle)}
        async with pipelines.worker(bundles=served):
            if scenario.by_name:
                handle = await pipelines.client.start_workflow(
                    "recorded", {}, id=f"recorded-{name}", task_queue=pipelines.queue
                )
            else:
                handle = await pipelines.start(bundle)
            if scenario.act is not None:
                await scenario.act(handle, pipelines)
            try:
                await handle.result()
            except WorkflowFailureError as error:
                print(f"{name}: {error.cause}")
            if scenario.then is not None:
                handle = await scenario.then(handle, pipelines)
                try:
                    await handle.result()
                except WorkflowFailureError as error:
                    print(f"{name}: {error.cause}")
            # The newest run, and every run before it.
            run_id: str | None = None
            number = 0
            while True:
                history = await pipelines.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
                part = f"-{number}" if scenario.long else ""
                recorded = _cleaned(json.loads(history.to_json()))
                (FOLDER / f"{name}{part}.json").write_text(
                    json.dumps({"id": handle.id, "history": recorded}, indent=1) + "\n"
                )
                started = history.events[0].workflow_execution_started_event_attributes
                run_id, number = started.continued_execution_run_id, number + 1
                if not run_id:
                    break


def _cleaned(value: Any) -> Any:
    """Drop what tells of the machine and is not looked at in a replay."""
    if isinstance(value, dict):
        return {
            key: "recorder" if key == "identity" and item not in PEOPLE else _cleaned(item)
            for key, item in value.items()
            if key != "stackTrace"
        }
    return [_cleaned(item) for item in value] if isinstance(value, list) else value


async def main() -> None:
    """Record every scenario that has no file."""
    FOLDER.mkdir(exist_ok=True)
    missing = [n for n, s in SCENARIOS.items() if not (FOLDER / f"{n}{'-0' if s.long else ''}.json").exists()]
    servers = [devserver.start(), devserver.start(settings=("limit.historyCount.suggestContinueAsNew=60",))]
    try:
        for name in missing:
            await _record(name, SCENARIOS[name], (servers[0].address, servers[1].address))
    finally:
        for server in servers:
            server.stop()


if __name__ == "__main__":
    asyncio.run(main())
