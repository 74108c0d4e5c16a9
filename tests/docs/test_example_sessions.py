"""The sessions of the examples' pages, run on the services that each page asks for."""

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline_runner.server.devserver import free_port
from tests.cli.command import run
from tests.docs.pages import ROOT, blocks
from tests.docs.test_sessions import commands, plain
from tests.fileserver import FileServer
from tests.pipelines.test_deploy_app import Site, dismantle, images
from tests.pipelines.test_polyglot import Place, place
from tests.services import Engine, NameServer

__all__ = ["images", "place"]  # fixtures

EXAMPLES = ROOT / "docs/examples"


@dataclass
class Reader:
    """Somebody who follows a page, in a folder that has the checkout's pipelines."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    """What stands in the page, and what it is here."""

    def follow(self, page: str) -> None:
        """Run the sessions of a page and compare what the command prints."""
        if not (self.folder / "pipelines").exists():
            (self.folder / "pipelines").symlink_to(ROOT / "pipelines")
        code, sessions = None, [b for b in blocks(EXAMPLES / page) if b.language == "console"]
        assert sessions
        for line, printed in (pair for block in sessions for pair in commands(block.text)):
            if line == "echo $?":
                assert printed == f"{code}\n"
                continue
            words = shlex.split(self.here(line))
            done = run(self.folder, *words[words.index("run-pipeline") + 1 :], **self.environment)
            code = done.code
            shown = (done.err + done.out).replace(str(self.folder), "/home/ada/pages")
            for said, real in self.instead.items():
                shown = shown.replace(real, said)
            assert anonymous(shown) == anonymous(printed), line

    def here(self, text: str) -> str:
        for said, real in self.instead.items():
            text = text.replace(said, real)
        return text


def anonymous(text: str) -> str:
    """Leave out times, ports and ids, those of containers too."""
    return re.sub(r"\b[0-9a-f]{64}\b", "CONTAINER", plain(text))


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def test_deploy_app(reader: Reader, images: Engine, name_server: NameServer) -> None:
    reader.environment = {"DOCKER_HOST": images.host, "DNS_KEY": name_server.tsig}
    reader.instead = {"5300": str(name_server.port), "18080": str(free_port()), "18081": str(free_port())}
    for image in ("demo-api", "demo-web"):
        images.docker("tag", f"{image}:1.0", f"{image}:1.1")
    try:
        reader.follow("deploy-app.md")
        assert name_server.ask("shop", "A") == ["127.0.0.1"]
        assert name_server.ask("next", "A") == []
        assert images.left()["containers"] == ["shop-api", "shop-web"]
    finally:
        dismantle(Site(reader.folder, images, name_server))
        name_server.put("shop", "A", [])


def test_download_and_load(reader: Reader) -> None:
    lines = (f"INSERT INTO measurements VALUES ({n}, 'station {n % 7}', {n}.5);\n" for n in range(1, 3001))
    with FileServer("".join(lines).encode()) as server:
        reader.environment = {"DATABASE_URL": "sqlite:///demo.db"}
        reader.instead = {"8000": str(server.server_port)}
        reader.follow("download-and-load.md")


def test_polyglot(reader: Reader, place: Place) -> None:
    reader.follow("polyglot.md")
