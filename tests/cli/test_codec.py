"""``--codec``: what commands do with a server that is to see nothing."""

import argparse
import asyncio
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.client import Client
from temporalio.converter import DataConverter

from pipeline_runner.cli import main, options, session
from pipeline_runner.engine import codecs
from pipeline_runner.engine.client import find
from pipeline_runner.server.devserver import DevServer
from tests.cli.command import assert_nothing_left, finish, popen, run, wait_for
from tests.cli.test_run_command import EFFECTS, PIPELINE, arguments
from tests.cli.test_serving import read_until
from tests.codecs import UpsideDown
from tests.effects import lines

CODEC = ("--codec", "tests.codecs:codec")
ENCODED = (
    "run-pipeline: the payloads of the run {} are encoded:"
    " pass the codec that it was started with (--codec). The run is unchanged\n"
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(PIPELINE)
    return tmp_path


class Codecs(BaseHTTPRequestHandler):
    """A codec server."""

    seen: ClassVar[list[tuple[str, str | None, str | None]]] = []
    answer: ClassVar[tuple[int, bytes] | None] = None

    def do_POST(self) -> None:
        self.seen.append((self.path, self.headers["X-Namespace"], self.headers["Authorization"]))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        payloads = json_format.Parse(body, Payloads()).payloads
        codec = UpsideDown()
        made = asyncio.run((codec.encode if self.path.endswith("/encode") else codec.decode)(payloads))
        status, data = self.answer or (200, json_format.MessageToJson(Payloads(payloads=made)).encode())
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def codec_server() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Codecs)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    Codecs.seen.clear()
    Codecs.answer = None
    yield f"http://127.0.0.1:{server.server_port}/codec"
    server.shutdown()
    thread.join()
    server.server_close()


def _remote(address: str) -> DataConverter:
    found = codecs.encoding(address, "shops")["data_converter"]
    assert isinstance(found, DataConverter)
    return found


async def test_a_codec_server_is_asked_in_temporal_s_protocol(codec_server: str) -> None:
    converter = _remote(codec_server.replace("//", "//me:secret@"))
    encoded = await converter.encode([{"a": "visible"}, 2])
    assert b"visible" not in b"".join(payload.SerializeToString() for payload in encoded)
    assert await converter.decode(encoded) == [{"a": "visible"}, 2]
    login = "Basic bWU6c2VjcmV0"
    assert Codecs.seen == [("/codec/encode", "shops", login), ("/codec/decode", "shops", login)]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((500, b""), "/codec/decode answered 500 Internal Server Error"),
        ((200, b"<html>"), "/codec/decode did not answer with payloads"),
        ((200, b"\xff"), "/codec/decode did not answer with payloads"),
        ((200, b'{"payloads": []}'), "/codec/decode answered with 0 payloads for 1"),
    ],
)
async def test_a_codec_server_that_cannot_is_told_in_one_line(
    codec_server: str, answer: tuple[int, bytes], reason: str
) -> None:
    Codecs.answer = answer
    with pytest.raises(codecs.CodecError) as caught:
        await _remote(codec_server.replace("//", "//me:secret@")).decode([Payload(data=b"x")])
    assert str(caught.value).endswith(reason)
    assert "secret" not in str(caught.value)


async def test_an_answer_of_a_codec_server_is_read_up_to_a_limit(
    codec_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b'"decoded"')
    answer = json_format.MessageToJson(Payloads(payloads=[payload])).encode()
    Codecs.answer = (200, answer)
    monkeypatch.setattr(codecs, "_ANSWER", len(answer))
    remote = _remote(codec_server)
    assert await remote.decode([Payload(data=b"y")]) == ["decoded"]
    Codecs.answer = (200, answer + b" ")
    with pytest.raises(codecs.CodecError) as caught:
        await remote.decode([Payload(data=b"y")])
    assert str(caught.value).endswith(f"/codec/decode answered with more than {len(answer):,} bytes")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing", 'a codec must be MODULE:NAME or http://HOST:PORT/PATH, not "nothing"'),
        ("no_such_module:codec", 'there is no Python module "no_such_module"'),
        ("tests.codecs:cdc", 'the module "tests.codecs" has no "cdc"'),
        ("tests.codecs:ENCODING", "ENCODING is neither a PayloadCodec"),
        ("tests.cli.test_codec:broken", "broken() failed: ValueError: no key"),
        ("ftp://me:secret@host", 'must be http://HOST:PORT/PATH, not "ftp://host"'),
        ("http://", "the URL of a codec server must be"),
    ],
)
def test_what_is_no_codec_is_refused_before_anything_is_started(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main.run(["watch", "some-run", "--address", "127.0.0.1:1", "--codec", name])
    told = capsys.readouterr().err
    assert (code, told.count("\n")) == (2, 1)
    assert message in told


def broken() -> None:
    """Stand for a factory that lacks something."""
    raise ValueError("no key")


def test_an_instance_a_class_and_a_factory_are_codecs() -> None:
    for name in ("tests.codecs:codec", "tests.codecs:UpsideDown"):
        assert isinstance(codecs.encoding(name, "default")["data_converter"].payload_codec, codecs.Told)


async def test_runs_of_a_configured_server_are_encoded(shop: Path, server: DevServer) -> None:
    address = {"TEMPORAL_ADDRESS": server.address}
    queue = ("--task-queue", f"queue-{shop.name}")
    worker = popen(shop, "worker", *EFFECTS, *queue, *CODEC, **address)
    read_until(worker, "serving")
    started = run(shop, *arguments(shop), *queue, "--detach", "--workflow-id", shop.name, *CODEC, **address)
    assert started.code == 0, started.err
    blind = run(shop, "watch", shop.name, **address)
    assert (blind.code, blind.out, blind.err) == (2, "", ENCODED.format(shop.name))
    watched = run(shop, "watch", shop.name, *CODEC, **address)
    assert (watched.code, watched.json) == (0, {"by": "b", "sold": 1}), watched.err
    assert "sell 1" in watched.err
    failing = [*arguments(shop, then="fail"), *queue]
    failed, blind_end, blind_failure = (
        finish(process)
        for process in [
            popen(shop, *failing, "--report", "report.json", *CODEC, **address),
            popen(shop, *arguments(shop), *queue, **address),
            popen(shop, *failing, **address),
        ]
    )
    assert failed.code == 1
    assert "failed: sell 1: b is out of order [Broken]\n  undone: a\n" in failed.err
    assert json.loads((shop / "report.json").read_text())["undo"][0]["state"] == "undone"
    assert (blind_end.code, blind_failure.code, blind_end.out) == (1, 1, "")
    assert blind_end.err.endswith("but its output is encoded: pass the codec of its worker with --codec\n")
    assert blind_failure.err.endswith(
        "but its outcome is encoded: pass the codec of its worker with --codec\n"
    )
    worker.send_signal(signal.SIGTERM)
    assert finish(worker).code == 0
    client = await Client.connect(server.address)
    history = (await client.get_workflow_handle(shop.name).fetch_history()).to_json()
    assert not [word for word in ("sell", "sold", "shop.yaml", "out of order") if word in history]


def test_runs_of_the_embedded_server_are_encoded_and_signed(shop: Path, codec_server: str) -> None:
    text = PIPELINE.replace("name: a}", "name: a, seconds: 0.7}", 1)
    (shop / "shop.yaml").write_text(
        text.replace("steps:\n", "defaults: {timeouts: {start_to_close: 2s}}\nsteps:\n", 1)
    )
    remote = ("--codec", codec_server)
    process = popen(shop, *arguments(shop), "--workflow-id", "shop-9", *remote)
    wait_for(lambda: "do a" in lines(shop / "log"))
    process.kill()
    finish(process)
    blind = run(shop, "watch", "shop-9")
    assert (blind.code, blind.err) == (2, ENCODED.format("shop-9"))
    done = run(shop, "watch", "shop-9", *remote)
    assert (done.code, done.json) == (0, {"by": "b", "sold": 1}), done.err
    assert_nothing_left(shop)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((), ""),
        (("--address", "here:1", "--namespace", "a b"), " --address here:1 --namespace 'a b'"),
        (("--profile", "p", *CODEC), " --profile p --codec tests.codecs:codec"),
        (("--codec", "http://localhost:1/c"), " --codec http://localhost:1/c"),
        (("--codec", "https://me:a@b:c@host/c"), " --codec https://USER:PASSWORD@host/c"),
    ],
)
def test_commands_that_are_shown_have_the_same_server_and_no_password(
    given: tuple[str, ...], shown: str
) -> None:
    parser = argparse.ArgumentParser()
    options.add_server(parser)
    words = options.server_options(parser.parse_args(given))
    where = session.Target(settings={}, embedded=None, options=words)
    assert where.command("watch", "my run") == f"run-pipeline watch 'my run'{shown}"


async def test_an_encoded_run_is_cancelled_with_its_codec(shop: Path, server: DevServer) -> None:
    """No worker serves it: what the command advises depends on what it can read."""
    address = {"TEMPORAL_ADDRESS": server.address}
    queue = ("--task-queue", f"queue-{shop.name}")
    detached = ("--detach", "--workflow-id", shop.name)
    started = run(shop, *arguments(shop), *queue, *detached, *CODEC, **address)
    assert started.code == 0, started.err
    cancelled = run(shop, "cancel", shop.name, "--reason", "not now", *CODEC, **address)
    assert (cancelled.code, cancelled.out) == (0, ""), cancelled.err
    assert f"cancellation requested: {shop.name}" in cancelled.err
    assert f"to follow it: run-pipeline watch {shop.name} --codec tests.codecs:codec\n" in cancelled.err
    assert f"run-pipeline worker --task-queue queue-{shop.name} --codec tests.codecs:codec" in cancelled.err
    handle = (await Client.connect(server.address)).get_workflow_handle(shop.name)
    assert (await handle.describe()).raw_description.workflow_extended_info.cancel_requested
    await handle.terminate()


def test_a_server_with_a_codec_serves_encoded_runs(shop: Path, codec_server: str) -> None:
    """Its worker takes what is encoded; a name that is no codec starts no server."""
    wrong = run(shop, "server", "--codec", "tests.codecs:cdc")
    assert (wrong.code, wrong.err) == (
        2,
        'run-pipeline: --codec tests.codecs:cdc: the module "tests.codecs" has no "cdc"\n',
    )
    process = popen(shop, "server", *EFFECTS, "--codec", codec_server)
    read_until(process, "serving")
    detached = ("--detach", "--workflow-id", "shop-8", "--codec", codec_server)
    started = run(shop, *arguments(shop), *detached)
    assert started.code == 0, started.err
    watched = run(shop, "watch", "shop-8", "--codec", codec_server)
    assert (watched.code, watched.json) == (0, {"by": "b", "sold": 1}), watched.err
    assert {path for path, _, _ in Codecs.seen} == {"/codec/encode", "/codec/decode"}
    process.send_signal(signal.SIGTERM)
    assert finish(process).code == 0
    assert_nothing_left(shop)


async def test_a_start_that_cannot_be_encoded_starts_nothing(
    shop: Path, server: DevServer, codec_server: str
) -> None:
    Codecs.answer = (503, b"")
    detached = ("--detach", "--workflow-id", shop.name, "--codec", codec_server)
    refused = run(shop, *arguments(shop), *detached, TEMPORAL_ADDRESS=server.address)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.endswith("answered 503 Service Unavailable. Nothing was started\n")
    with pytest.raises(LookupError):
        await find(await Client.connect(server.address), shop.name)
