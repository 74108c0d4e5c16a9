"""The example workers in other languages: compiled once a session, and run beside a server."""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cli.test_serving import read_until
from tests.services import unavailable

PIPELINES = Path(__file__).parents[1] / "pipelines"


def need(program: str, what: str) -> None:
    """Skip the test without a program; fail it in CI."""
    if shutil.which(program) is None:
        unavailable(f'there is no "{program}": install {what}')


def build(folder: Path, *command: str) -> None:
    """Run a build in a worker's folder; what it prints is the error."""
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@dataclass(frozen=True)
class Built:
    """A worker that is compiled."""

    command: tuple[str, ...]
    queue: str


def typescript() -> Built:
    """Compile the worker in TypeScript; its packages are installed when the lock file has changed."""
    need("npm", "Node.js with npm (Debian: nodejs, npm)")
    folder = PIPELINES / "typescript-worker"
    lock, installed = folder / "package-lock.json", folder / "node_modules/.package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        build(folder, "npm", "ci", "--no-progress")
        installed.touch()
    build(folder, "npm", "run", "build")
    return Built(("node", str(folder / "lib/worker.js")), "orders-typescript")


def go(program: Path) -> Built:
    """Compile the worker in Go into a file; its modules must be those of ``go.sum``."""
    need("go", "Go 1.26 or newer")
    build(PIPELINES / "go-worker", "go", "build", "-mod=readonly", "-o", str(program), ".")
    return Built((str(program),), "parcels-go")


def java() -> Built:
    """Compile the worker in Java."""
    need("javac", "a JDK from version 17 (Debian: default-jdk-headless)")
    need("mvn", "Maven (Debian: maven)")
    folder = PIPELINES / "java-worker"
    build(folder, "mvn", "--quiet", "--batch-mode", "compile")
    path = f"{folder}/target/classes:{folder}/target/lib/*"
    return Built(("java", "-cp", path, "example.InvoiceWorker"), "invoices-java")


class Worker:
    """The process of a worker."""

    def __init__(self, built: Built, folder: Path, address: str) -> None:
        """Start it in a folder."""
        self.built = built
        self._process = subprocess.Popen(
            built.command,
            cwd=folder,
            env={**os.environ, "TEMPORAL_ADDRESS": address},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait(self) -> None:
        """Wait until it serves its task queue."""
        read_until(self._process, f"serving the task queue {self.built.queue}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.communicate()
                raise
