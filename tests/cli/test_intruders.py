"""The embedded server's doors, tried as a web page or another user of the machine would."""

import asyncio
import base64
import json
import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ApplicationError

from pipeline_runner.core import model
from pipeline_runner.engine.client import MEMO
from pipeline_runner.language.workspace import load
from pipeline_runner.server.devserver import ServerError
from pipeline_runner.server.key import NAME, SIZE, signing_key
from tests.cli.command import finish, popen
from tests.cli.test_serving import read_until
from tests.conftest import connected

WAITS = "name: waits\nsteps:\n  - {id: w, wait: 60s}\n"
EVIL = "name: evil\nsteps:\n  - {id: a, activity: shell.run, with: {command: [touch, PROOF]}, compensate: none}\n"


def _bundle(folder: Path, text: str) -> bytes:
    file = folder / "evil.yaml"
    file.write_text(text.replace("PROOF", str(folder / "owned")))
    bundle = load(file).bundle
    assert bundle is not None
    return model.encode(bundle)


def _payload(data: str) -> dict[str, object]:
    return {
        "metadata": {"encoding": base64.b64encode(b"json/plain").decode()},
        "data": base64.b64encode(data.encode()).decode(),
    }


def _post(port: int, workflow_id: str, queue: str, bundle: bytes) -> bool:
    """Start a run as a page of another origin can: a POST that needs no leave of the server's."""
    body = {
        "workflowType": {"name": "evil"},
        "taskQueue": {"name": queue},
        "requestId": workflow_id,
        "input": {"payloads": [_payload("{}"), _payload(bundle.decode())]},
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/api/v1/namespaces/default/workflows/{workflow_id}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "text/plain", "Origin": "http://page.example"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False  # another of its ports


def _server_ports(folder: Path) -> list[int]:
    """The ports on which the embedded server of a state folder listens."""
    inodes = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if str(folder / "state" / "temporal.db").encode() not in words:
                continue
            for descriptor in (process / "fd").iterdir():
                name = os.readlink(descriptor)
                if name.startswith("socket:["):
                    inodes.add(name[8:-1])
        except OSError:
            continue  # it has ended, or the descriptor is closed
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = "0A"
    return [int(row[1].split(":")[1], 16) for row in rows if row[3] == listening and row[9] in inodes]


async def _reason(address: str, workflow_id: str) -> ApplicationError:
    client = await connected(address)
    with pytest.raises(WorkflowFailureError) as caught:
        await asyncio.wait_for(client.get_workflow_handle(workflow_id).result(), 20)
    assert isinstance(caught.value.cause, ApplicationError)
    return caught.value.cause


async def _plant(address: str, module_folder: Path) -> None:
    """Start a run with a memo that would have ``watch`` import a module of the attacker's."""
    memo = {"cwd": str(module_folder), "modules": ["planted"], "folders": [str(module_folder)], "queues": []}
    client = await connected(address)
    await client.start_workflow("planted", id="planted", task_queue="nobody", memo={MEMO: memo})


def test_a_page_can_have_nothing_run(tmp_path: Path) -> None:
    (tmp_path / "waits.yaml").write_text(WAITS)
    bundle = _bundle(tmp_path, EVIL)
    process = popen(tmp_path, "waits.yaml", "--workflow-id", "mine")
    read_until(process, "w: ")
    ports = _server_ports(tmp_path)
    answered = [_post(port, f"evil-{port}", "run/mine", bundle) for port in ports]
    assert any(answered), f"the HTTP interface is none of {ports}"
    address = json.loads((tmp_path / "state/server.json").read_text())["address"]
    started = f"evil-{ports[answered.index(True)]}"
    error = asyncio.run(_reason(address, started))
    assert error.type == "NotSigned"
    assert not (tmp_path / "owned").exists()

    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "planted.py").write_text("open('imported', 'w').close()\n")
    asyncio.run(_plant(address, planted))
    watching = popen(tmp_path, "watch", "planted")
    assert "the run planted was not started by a command of this user" in read_until(
        watching, "does not serve it"
    )
    watching.kill()
    finish(watching)
    assert not (planted / "imported").exists()

    process.send_signal(signal.SIGINT)
    assert finish(process).code == 4


def test_the_key_is_its_owners(tmp_path: Path) -> None:
    key = signing_key(tmp_path)
    file = tmp_path / NAME
    assert len(key) == SIZE
    assert file.stat().st_mode & 0o777 == 0o600
    assert signing_key(tmp_path) == key
    assert os.listdir(tmp_path) == [NAME]


def test_a_key_that_cannot_be_trusted_is_refused(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"short")
    with pytest.raises(ServerError, match="is damaged"):
        signing_key(tmp_path)
    (tmp_path / NAME).unlink()
    (tmp_path / "elsewhere").write_bytes(b"x" * SIZE)
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServerError, match="cannot be used"):
        signing_key(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_key_of_another_user_is_refused(tmp_path: Path) -> None:
    signing_key(tmp_path)
    os.chown(tmp_path / NAME, 1234, 1234)
    with pytest.raises(ServerError, match=r"belongs to another user \(uid 1234\)"):
        signing_key(tmp_path)
