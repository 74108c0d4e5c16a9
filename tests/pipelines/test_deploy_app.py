"""deploy-app.yaml on a real Docker Engine and a real DNS server; failing at every stage, and outages."""

import os
import re
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline_runner.server.devserver import free_port
from tests.cli.command import Done, finish, interrupt, popen, run
from tests.cli.test_serving import read_until
from tests.pipelines.test_examples import PIPELINES, failure, undone
from tests.services import TSIG_SECRET, ZONE, Engine, NameServer

FILE = str(PIPELINES / "deploy-app.yaml")
STEPS = ["record", "link", "web", "api", "edge", "data", "backend"]
"""What is undone, in the order of undo, when everything was done."""
OLD = ["192.0.2.1", "192.0.2.2"]


@pytest.fixture(scope="session")
def images(engine: Engine) -> Engine:
    """The demo's images: sound ones, and ones with a fault."""
    for version in ("1.0", "2.0"):
        make = subprocess.run(
            [str(PIPELINES / "demo-images.sh"), version],
            env={**os.environ, "DOCKER_HOST": engine.host},
            capture_output=True,
            text=True,
            check=False,
        )
        assert make.returncode == 0, make.stderr
    for kind, old, new in (("api", "1.0", "mixed"), ("web", "2.0", "mixed")):
        engine.docker("tag", f"demo-{kind}:{old}", f"demo-{kind}:{new}")
    derived(engine, "slow", web='CMD ["sh", "-c", "sleep 3; exec httpd -f -p 8080 -h /www"]')
    derived(engine, "empty", web='CMD ["httpd", "-f", "-p", "8080", "-h", "/bin"]')
    derived(engine, "brief", web='CMD ["sh", "-c", "echo no licence >&2; exit 3"]')
    return engine


def derived(engine: Engine, version: str, *, web: str) -> None:
    """Make a version whose web server starts in another way."""
    engine.docker("tag", "demo-api:1.0", f"demo-api:{version}")
    container = engine.docker("create", "demo-web:1.0")
    engine.docker("commit", "--change", web, container, f"demo-web:{version}")
    engine.docker("rm", container)


@dataclass
class Site:
    """Where the application goes."""

    folder: Path
    engine: Engine
    names: NameServer
    port: int = field(default_factory=free_port)

    def arguments(self, **inputs: Any) -> list[str]:
        given = {
            "app": "shop", "version": "1.0", "port": self.port, "domain": f"old.{ZONE}",
            "dns_port": self.names.port, **inputs,
        }  # fmt: skip
        return [FILE, *(word for name, value in given.items() for word in ("-i", f"{name}={value}"))]

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": self.engine.host, "DNS_KEY": self.names.tsig}

    def run(self, **inputs: Any) -> Done:
        return run(self.folder, *self.arguments(**inputs), **self.environment)

    def start(self, **inputs: Any) -> "subprocess.Popen[str]":
        return popen(self.folder, *self.arguments(**inputs), **self.environment)

    def record(self) -> list[str]:
        return self.names.ask("old", "A")

    def fetch(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def everything(self) -> Any:
        """All that a run could leave behind."""
        return self.engine.left(), self.record(), self.names.ask("old", "TXT")


@pytest.fixture
def site(images: Engine, name_server: NameServer, tmp_path: Path) -> Iterator[Site]:
    found = Site(tmp_path, images, name_server)
    before = found.everything()
    yield found
    assert found.everything() == before


def dismantle(site: Site) -> None:
    """Take away by hand what a good run made."""
    docker = site.engine.docker
    docker("rm", "-f", "shop-api", "shop-web")
    docker("network", "rm", "shop-backend", "shop-edge")
    docker("volume", "rm", "shop-data")
    site.names.put("old", "A", OLD)


def test_the_application_is_deployed(site: Site) -> None:
    done = site.run()
    assert done.code == 0, done.err
    ids = [site.engine.docker("inspect", "-f", "{{.Id}}", f"shop-{part}") for part in ("api", "web")]
    assert done.json == {"url": f"http://old.{ZONE}:{site.port}/", "containers": ids, "replaced": OLD}
    assert (site.fetch("version"), site.fetch("cgi-bin/api")) == ("1.0\n", "1.0\n")
    assert site.record() == ["127.0.0.1"]
    left = site.engine.left()
    assert left["containers"] == ["shop-api", "shop-web"]
    assert left["networks"] == ["shop-backend", "shop-edge"]
    assert left["volumes"] == ["shop-data"]
    dismantle(site)


def test_a_new_name_is_made_and_unmade(site: Site) -> None:
    """There was no record: after the undo there is none."""
    done = site.run(domain=f"new.{ZONE}", version="mixed")
    assert done.code == 1, done.err
    assert undone(done) == STEPS
    assert site.names.ask("new", "A") == []


def test_the_health_is_asked_for_at_a_constant_interval(site: Site) -> None:
    done = site.run(version="slow")
    assert done.code == 1, done.err  # it says version 1.0
    assert failure(done) == (
        "failed: mismatch: slow was asked for, but the web server has 1.0 and the API 1.0 [WrongVersion]"
    )
    assert "web_health: retrying, attempt " in done.err
    assert undone(done) == STEPS


@pytest.mark.parametrize(
    ("make", "unmake", "error", "order"),
    [
        (
            ["network", "create", "shop-backend"],
            ["network", "rm", "shop-backend"],
            "provision network shop-backend: ",
            [],
        ),
        (
            ["volume", "create", "shop-data"],
            ["volume", "rm", "shop-data"],
            "provision volume shop-data: ",
            STEPS[6:],
        ),
        (
            ["network", "create", "shop-edge"],
            ["network", "rm", "shop-edge"],
            "configure network shop-edge: ",
            STEPS[5:],
        ),
        (
            ["create", "--name", "shop-api", "demo-api:1.0"],
            ["rm", "shop-api"],
            "deploy shop-api: ",
            STEPS[4:],
        ),
        (
            ["create", "--name", "shop-web", "demo-web:1.0"],
            ["rm", "shop-web"],
            "deploy shop-web: ",
            STEPS[3:],
        ),
    ],
)
def test_a_name_that_is_taken(
    site: Site, make: list[str], unmake: list[str], error: str, order: list[str]
) -> None:
    """What others made stays as it is; what the run made is gone."""
    site.engine.docker(*make)
    before = site.everything()
    try:
        done = site.run()
        assert done.code == 1, done.err
        assert failure(done).startswith(f"failed: {error}")
        assert failure(done).endswith("[NameTaken]")
        assert undone(done) == order
        assert site.everything() == before
    finally:
        site.engine.docker(*unmake)


@pytest.mark.parametrize(
    ("inputs", "key", "error", "order"),
    [
        ({"version": "9.9"}, None, r"deploy shop-api: .*demo-api:9\.9.* \[ImageNotFound\]", STEPS[4:]),
        ({"version": "brief"}, None, r"deploy shop-web: .*no licence.* \[ContainerExited\]", STEPS[3:]),
        (
            {"version": "empty"},
            None,
            r"check the health of shop-web: GET http://127\.0\.0\.1:\d+/version: status 404 .* \[HttpStatusError\]",
            STEPS[1:],
        ),
        ({"domain": "shop.example.org"}, None, r"(look up|point) shop\.example\.org.* \[Dns\w+\]", STEPS[1:]),
        (
            {},
            f"hmac-sha256:somebody:{TSIG_SECRET}",
            rf"point old\.{ZONE} to 127\.0\.0\.1: .* \[DnsRefused\]",
            STEPS[1:],
        ),
        (
            {"dns_key": "NO_SUCH_KEY"},
            None,
            rf"point old\.{ZONE} to .*NO_SUCH_KEY.* \[SecretNotFound\]",
            STEPS[1:],
        ),
        (
            {"version": "mixed"},
            None,
            r"mismatch: mixed was asked for, but the web server has 2\.0 and the API 1\.0 ",
            STEPS,
        ),
    ],
    ids=["no image", "exits at once", "not healthy", "no zone", "wrong key", "no key", "wrong version"],
)
def test_a_stage_that_fails(
    site: Site, inputs: dict[str, Any], key: str | None, error: str, order: list[str]
) -> None:

    environment = site.environment | ({} if key is None else {"DNS_KEY": key})
    done = run(site.folder, *site.arguments(**inputs), **environment)
    assert (done.code, done.out) == (1, ""), done.err
    assert re.match(f"failed: {error}", failure(done)), failure(done)
    assert undone(done) == order
    assert TSIG_SECRET not in done.err


def test_a_port_that_is_taken(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", site.port))
        taken.listen()
        done = site.run()
    assert done.code == 1, done.err
    assert failure(done).endswith("[PortTaken]")
    assert undone(done) == STEPS[3:]


def test_a_cancelled_deployment_is_undone(site: Site) -> None:
    process = site.start(version="slow")
    seen = read_until(process, "web_health: running")
    interrupt(process)
    done = finish(process)
    assert done.code == 4, seen + done.err
    assert undone(done) == STEPS[1:]


def test_the_engine_dies_in_the_middle(site: Site) -> None:
    """Once it is back, the deployment completes or is undone, and says which."""
    process = site.start(version="slow")
    seen = read_until(process, "web_health: running")
    site.engine.kill()
    time.sleep(1)
    site.engine.start()
    done = finish(process, timeout=120)
    assert done.code == 1, seen + done.err  # it says version 1.0, as in an undisturbed run
    assert failure(done).startswith("failed: ")
    assert sorted(undone(done)) == sorted(set(undone(done)))
    assert set(STEPS[1:]) <= set(undone(done))


def test_the_name_server_dies_in_the_middle(site: Site) -> None:
    """The steps that need it wait for it, each with its retries."""
    site.names.kill()
    process = site.start()
    seen = read_until(process, "record_before: retrying")
    site.names.start()
    done = finish(process, timeout=120)
    assert done.code == 0, seen + done.err
    assert site.record() == ["127.0.0.1"]
    dismantle(site)


def test_the_name_server_stays_away(site: Site) -> None:
    site.names.kill()
    try:
        done = site.run()
    finally:
        site.names.start()
    assert done.code == 1, done.err
    assert failure(done).startswith(f"failed: look up old.{ZONE}: ")
    assert failure(done).endswith("[DnsUnreachable]")
    assert undone(done) == STEPS[1:]
