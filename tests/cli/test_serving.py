"""``worker``, ``server`` and ``--detach``: runs that outlive the command that started them."""

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest
from temporalio.client import Client

from pipeline_runner.server.devserver import DevServer, free_port
from tests.cli.command import assert_nothing_left, finish, popen, run, wait_for
from tests.cli.test_run_command import EFFECTS, PIPELINE, arguments
from tests.effects import lines


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "shop.yaml").write_text(PIPELINE)
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    return tmp_path


def read_until(process: "object", text: str) -> str:
    seen = ""
    while text not in seen:
        line = process.stderr.readline()  # type: ignore[attr-defined]
        assert line, seen
        seen += line
    return seen


def test_a_server_takes_detached_runs_and_serves_pipelines_by_name(shop: Path) -> None:
    port, ui = free_port(), free_port()
    server = popen(shop, "server", "pipelines", *EFFECTS, "--port", str(port), "--ui-port", str(ui))
    told = read_until(server, "pipelines by name: shop")
    assert f"Temporal server: 127.0.0.1:{port}" in told
    assert f"web UI: http://127.0.0.1:{ui}" in told
    assert "serving the task queue pipelines" in told
    with socket.create_connection(("127.0.0.1", ui), timeout=10) as page:
        page.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"200 OK" in page.recv(1000)

    detached = run(shop, *arguments(shop), "--detach", "--workflow-id", "later")
    assert (detached.code, detached.out) == (0, "later\n"), detached.err
    watched = run(shop, "watch", "later")
    assert (watched.code, watched.json["by"]) == (0, "b"), watched.err

    async def by_name() -> object:
        client = await Client.connect(f"127.0.0.1:{port}")
        inputs = {"log": str(shop / "other"), "count": 5}
        return await client.execute_workflow("shop", inputs, id="named", task_queue="pipelines")

    assert asyncio.run(by_name()) == {"sold": 5, "by": "b"}
    assert lines(shop / "other") == ["do a", "do b"]
    server.send_signal(signal.SIGTERM)
    assert finish(server).code == 0
    assert_nothing_left(shop)


async def test_a_worker_and_runs_on_a_configured_server(shop: Path, server: DevServer) -> None:
    address = {"TEMPORAL_ADDRESS": server.address}
    queue = ("--task-queue", f"queue-{shop.name}")
    alone = popen(shop, *arguments(shop), *queue, "--workflow-id", shop.name, **address)
    read_until(alone, "no worker serves the task queue")
    worker = popen(shop, "worker", "pipelines", *EFFECTS, *queue, **address)
    done = finish(alone)
    assert (done.code, done.json["by"]) == (0, "b"), done.err
    failed = run(shop, *arguments(shop, then="fail"), *queue, "--report", "report.json", **address)
    assert failed.code == 1
    assert json.loads((shop / "report.json").read_text())["status"] == "failed"
    worker.send_signal(signal.SIGINT)
    ended = finish(worker)
    assert ended.code == 0, ended.err
    assert "stopping" in ended.err
    assert not (shop / "state").exists()


def test_two_pipelines_of_one_name_are_refused(shop: Path) -> None:
    (shop / "pipelines" / "again.yaml").write_text(PIPELINE)
    done = run(shop, "worker", "pipelines", *EFFECTS)
    assert done.code == 2
    assert 'are both named "shop"' in done.err


def test_a_worker_finishes_what_it_runs_before_it_stops(shop: Path, server: DevServer) -> None:
    (shop / "shop.yaml").write_text(PIPELINE.replace("name: a}", "name: a, seconds: 2}", 1))
    address = {"TEMPORAL_ADDRESS": server.address}
    queue = ("--task-queue", f"queue-{shop.name}-2")
    worker = popen(shop, "worker", *EFFECTS, *queue, **address)
    read_until(worker, "serving")
    follower = popen(shop, *arguments(shop), *queue, **address)
    wait_for(lambda: "do a" in lines(shop / "log"))
    worker.send_signal(signal.SIGTERM)
    assert finish(worker).code == 0
    again = popen(shop, "worker", *EFFECTS, *queue, **address)
    done = finish(follower)
    assert done.code == 0, done.err
    assert lines(shop / "log") == ["do a", "do b"], "the step was not run again"
    again.send_signal(signal.SIGTERM)
    assert finish(again).code == 0


def test_a_server_says_who_may_start_what(shop: Path) -> None:
    """The three share one server, whichever of them is first."""
    text = PIPELINE.replace("steps:", "secrets: [SHOP_TOKEN]\nsteps:", 1).replace(
        'name: b, then: "{{ inputs.then }}"', 'name: "{{ secrets.SHOP_TOKEN }}"', 1
    )
    (shop / "pipelines/shop.yaml").write_text(text)
    server = popen(shop, "server", "pipelines", *EFFECTS)
    bare = popen(shop, "server")
    nothing = popen(shop, "server", "--no-worker")
    told = read_until(server, "anyone who can reach the server can start them")
    assert "pipelines by name: shop\n" in told
    assert 'warning: shop: the worker has no secret "SHOP_TOKEN"' in told
    assert "pipelines by name: shop" not in read_until(bare, "no pipelines by name")
    assert "serving" not in read_until(nothing, "no worker: this command runs no pipelines")
    for process in (server, bare, nothing):
        process.send_signal(signal.SIGTERM)
    for process in (server, bare, nothing):
        assert finish(process).code == 0
    assert_nothing_left(shop)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("worker", "--served-only"), "--served-only needs pipelines to serve"),
        (
            ("worker", "pipelines", *EFFECTS, "--allow", "file.*", "--allow", "http.*"),
            'the pipeline "shop" needs "effect.do", but --allow allows only file.*, http.*',
        ),
        (("server", "pipelines", *EFFECTS, "--no-worker"), "--no-worker cannot be used with PATH"),
    ],
)
def test_what_cannot_be_served_is_refused(shop: Path, words: tuple[str, ...], told: str) -> None:
    done = run(shop, *words, TEMPORAL_ADDRESS="127.0.0.1:1")
    assert done.code == 2
    assert told in done.err


def test_a_worker_of_a_configured_server_takes_only_what_it_serves(shop: Path, server: DevServer) -> None:
    settings = {"TEMPORAL_ADDRESS": server.address, "RUN_PIPELINE_SIGNING_KEY": "k" * 32}
    queue = ("--task-queue", f"queue-{shop.name}")
    worker = popen(shop, "worker", "pipelines", *EFFECTS, *queue, "--served-only", **settings)
    read_until(worker, "pipelines by name: shop")
    refused = run(shop, *arguments(shop), *queue, **settings)
    assert refused.code == 1
    assert "this worker runs only the pipelines that it serves" in refused.err
    assert "[NotSigned]" in refused.err

    async def by_name() -> object:
        client = await Client.connect(server.address)
        return await client.execute_workflow(
            "shop", {"log": str(shop / "other")}, id=f"{shop.name}-n", task_queue=queue[1]
        )

    assert asyncio.run(by_name()) == {"sold": 1, "by": "b"}
    worker.send_signal(signal.SIGTERM)
    assert finish(worker).code == 0
    short = run(
        shop, "worker", "pipelines", *EFFECTS, "--served-only", **settings | {"RUN_PIPELINE_SIGNING_KEY": "k"}
    )
    assert short.code == 2
    assert "RUN_PIPELINE_SIGNING_KEY is too short" in short.err


@pytest.fixture
def namesakes(tmp_path: Path) -> Path:
    """Two directories, each with a module ``shop`` and a pipeline ``only-NAME`` that uses it."""
    code = "from temporalio import activity\n\n\n@activity.defn(name='shop.{0}')\nasync def only() -> str:\n    return '{1}'\n"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "activities.yaml").write_text("modules: [shop]\n")
        (tmp_path / name / "shop.py").write_text(code.format(f"only_{name}", f"of {name}"))
        (tmp_path / name / "only.yaml").write_text(
            f"name: only-{name}\nsteps: [{{id: x, activity: shop.only_{name}, compensate: none}}]\n"
            "output: '{{ steps.x.output }}'\n"
        )
    (tmp_path / "both.yaml").write_text(
        "name: both\nsteps: [{id: a, pipeline: ./a/only.yaml}, {id: b, pipeline: ./b/only.yaml}]\n"
        "output: ['{{ steps.a.output }}', '{{ steps.b.output }}']\n"
    )
    return tmp_path


def test_modules_of_one_name_in_two_directories_are_two(namesakes: Path, server: DevServer) -> None:
    ran = run(namesakes, "both.yaml")
    assert (ran.code, ran.json) == (0, ["of a", "of b"]), ran.err
    address = {"TEMPORAL_ADDRESS": server.address}
    queue = ("--task-queue", f"queue-{namesakes.name}-3")
    worker = popen(namesakes, "worker", "a", "b", *queue, **address)
    read_until(worker, "serving")
    for name in ("a", "b"):
        done = run(namesakes, f"{name}/only.yaml", *queue, **address)
        assert (done.code, done.json) == (0, f"of {name}"), done.err
    worker.send_signal(signal.SIGTERM)
    assert finish(worker).code == 0


@pytest.mark.parametrize("words", [("both.yaml",), ("worker", "a", "b")])
def test_activities_of_one_name_in_two_directories_are_refused(
    namesakes: Path, words: tuple[str, ...]
) -> None:
    for name in ("a", "b"):
        for file in (namesakes / name).iterdir():
            file.write_text(file.read_text().replace(f"shop.only_{name}", "shop.who"))
    done = run(namesakes, *words)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        f"run-pipeline: the modules of both {namesakes}/a/activities.yaml and {namesakes}/b/activities.yaml have an"
        ' activity "shop.who", and one worker can serve only one: give them different names, or run a worker for each\n'
    )
