"""Real services for the tests, started by them on the loopback: a Docker Engine, DNS, PostgreSQL.

Each can be killed and started again with what it had. Where one cannot run, its tests are
skipped and say why; in CI that is a failure.
"""

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pipeline_runner.server.devserver import free_port

BUSYBOX = "/bin/busybox"
IMAGE = "busybox-test:1"
ZONE = "example.test"
TSIG_SECRET = base64.b64encode(b"a key of the tests, 32 bytes long").decode()


def unavailable(reason: str) -> None:
    """Skip the test; fail it in CI, where everything is installed."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def wait_until(what: str, condition: Callable[[], bool], log: Path, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: {log.read_text(errors='replace')[-2000:]}"
        time.sleep(0.05)


class Service:
    """A process in a folder of its own, which can be killed and started again."""

    user: str | None = None
    """As whom it runs; None: as the tests do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user,
            )
        wait_until(type(self).__name__, self._up, self.log)

    def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text(errors="replace")[-2000:]
        return self.ready()

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Engine(Service):
    """A Docker Engine with its own data root and socket."""

    @classmethod
    def make(cls) -> "Engine":
        if shutil.which("dockerd") is None:
            unavailable("there is no dockerd: install a Docker Engine (Debian: docker.io)")
        if os.geteuid() != 0:
            unavailable("a Docker Engine of the tests' own needs root")
        if not os.path.exists(BUSYBOX):
            unavailable("there is no static busybox to make images from (Debian: busybox-static)")
        # Not below pytest's folder: the path of a socket may have 107 bytes.
        return cls(Path(tempfile.mkdtemp(prefix="engine-")))

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/s"

    def command(self) -> list[str]:
        at = self.folder
        return [
            "dockerd", "--host", self.host, "--data-root", f"{at}/data", "--exec-root", f"{at}/x",
            "--pidfile", f"{at}/pid", "--bridge=none", "--iptables=false", "--ip6tables=false",
        ]  # fmt: skip

    def start(self) -> None:
        # After a crash the number in a pid file may be a zombie's, which the Engine takes for itself.
        (self.folder / "pid").unlink(missing_ok=True)
        (self.folder / "x/containerd/containerd.pid").unlink(missing_ok=True)
        super().start()

    def kill(self) -> None:
        super().kill()
        with suppress(ProcessLookupError):
            os.kill(int((self.folder / "x/containerd/containerd.pid").read_text()), signal.SIGKILL)

    def ready(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            try:
                connection.connect(f"{self.folder}/s")
                connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
                return b"200" in connection.recv(64)
            except OSError:
                return False

    def docker(self, *args: str) -> str:
        """Run Docker's own command: a second opinion on what is there."""
        done = subprocess.run(
            ["docker", "--host", self.host, *args], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def load_image(self) -> None:
        """Import an image that holds busybox and nothing else, as ``IMAGE``."""
        archive = self.folder / "image.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(BUSYBOX, "bin/busybox")
            names = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout
            for name in names.split():
                if name != "busybox":
                    link = tarfile.TarInfo(f"bin/{name}")
                    link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                    tar.addfile(link)
        self.docker("import", "--change", 'CMD ["sh"]', str(archive), IMAGE)

    def close(self) -> None:
        try:
            if containers := self.docker("ps", "-aq").split():
                self.docker("rm", "-f", *containers)
        finally:
            self.stop()
            for line in reversed(Path("/proc/mounts").read_text().splitlines()):
                if (place := line.split()[1]).startswith(f"{self.folder}/"):
                    subprocess.run(["umount", "--lazy", place], check=False)
            shutil.rmtree(self.folder, ignore_errors=True)

    def left(self) -> dict[str, list[str]]:
        """Return the names of all that is there: containers, networks, volumes, image tags."""
        own = {"none", "host", "bridge"}
        return {
            "containers": sorted(self.docker("ps", "-a", "--format", "{{.Names}}").split()),
            "networks": sorted(set(self.docker("network", "ls", "--format", "{{.Name}}").split()) - own),
            "volumes": sorted(self.docker("volume", "ls", "--format", "{{.Name}}").split()),
            "images": sorted(self.docker("images", "--format", "{{.Repository}}:{{.Tag}}").split()),
        }

    def inspect(self, name: str) -> dict[str, object]:
        found: list[dict[str, object]] = json.loads(self.docker("inspect", name))
        return found[0]


class NameServer(Service):
    """Knot DNS with the zone ``example.test``, which takes updates that are signed."""

    @classmethod
    def make(cls, folder: Path) -> "NameServer":
        if shutil.which("knotd") is None:
            unavailable("there is no knotd: install Knot DNS (Debian: knot)")
        made = cls(folder)
        made.port = free_port()
        made.tsig = f"hmac-sha256:pipelines:{TSIG_SECRET}"
        (folder / "run").mkdir()
        (folder / "db").mkdir()
        (folder / "zones").mkdir()
        (folder / "zones" / f"{ZONE}.zone").write_text(
            f"$ORIGIN {ZONE}.\n$TTL 60\n"
            "@ SOA ns admin 1 3600 600 86400 60\n@ NS ns\nns A 127.0.0.1\nold A 192.0.2.1\nold A 192.0.2.2\n"
            'alias CNAME old\ntext TXT "one" "two"\n'
        )
        (folder / "knot.conf").write_text(
            f"server:\n  rundir: {folder}/run\n  listen: 127.0.0.1@{made.port}\n"
            "log:\n  - target: stderr\n    any: info\n"
            f"database:\n  storage: {folder}/db\n"
            f"key:\n  - id: pipelines\n    algorithm: hmac-sha256\n    secret: {TSIG_SECRET}\n"
            "acl:\n  - id: signed\n    key: pipelines\n    action: [update, transfer]\n"
            f"zone:\n  - domain: {ZONE}\n    storage: {folder}/zones\n    file: {ZONE}.zone\n    acl: signed\n"
        )
        return made

    port: int
    tsig: str
    """What a pipeline's ``tsig`` names: ``algorithm:name:secret``."""

    def command(self) -> list[str]:
        return ["knotd", "-c", f"{self.folder}/knot.conf"]

    def ready(self) -> bool:
        return self.ask("ns", "A") == ["127.0.0.1"]

    def ask(self, name: str, kind: str) -> list[str]:
        """Ask with a library, not with the activity: the values, sorted; empty if there are none."""
        import dns.exception
        import dns.message
        import dns.query
        import dns.rdatatype

        query = dns.message.make_query(f"{name}.{ZONE}", kind)
        try:
            answer = dns.query.tcp(query, "127.0.0.1", port=self.port, timeout=2)
        except (OSError, EOFError, dns.exception.DNSException):
            return []
        wanted = dns.rdatatype.from_text(kind)
        return sorted(r.to_text() for a in answer.answer if a.rdtype == wanted for r in a)

    def put(self, name: str, kind: str, values: list[str]) -> None:
        """Set values with a library, not with the activity."""
        import dns.query
        import dns.tsigkeyring
        import dns.update

        keys = dns.tsigkeyring.from_text({"pipelines": TSIG_SECRET})
        update = dns.update.UpdateMessage(ZONE, keyring=keys, keyalgorithm="hmac-sha256")
        update.delete(name, kind)
        for value in values:
            update.add(name, 60, kind, value)
        answer = dns.query.tcp(update, "127.0.0.1", port=self.port, timeout=5)
        assert answer.rcode() == 0, answer


class Database(Service):
    """PostgreSQL with one database, reached by a password."""

    @classmethod
    def make(cls) -> "Database":
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        initdb = str(programs[-1]) if programs else shutil.which("initdb")
        if initdb is None:
            unavailable("there is no initdb: install PostgreSQL (Debian: postgresql)")
        assert initdb is not None
        made = cls(Path(tempfile.mkdtemp(prefix="database-")))
        made.programs, made.port = Path(initdb).parent, free_port()
        password = made.folder / "password"
        password.write_text("pw-of-the-tests")
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            made.user = "postgres"
            shutil.chown(made.folder, made.user)
            shutil.chown(password, made.user)
        done = subprocess.run(
            [initdb, "--pgdata", f"{made.folder}/data", "--username", "pipelines",
             "--pwfile", str(password), "--auth", "scram-sha-256", "--no-sync", "--no-instructions"],
            user=made.user, cwd="/", capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return made

    programs: Path
    port: int

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://pipelines:pw-of-the-tests@127.0.0.1:{self.port}/postgres"

    def command(self) -> list[str]:
        return [
            str(self.programs / "postgres"), "-D", f"{self.folder}/data", "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off",
        ]  # fmt: skip

    def ready(self) -> bool:
        return self.query("select 1") == "1"

    def query(self, statement: str) -> str:
        """Ask with PostgreSQL's own command; empty while there is no answer."""
        done = subprocess.run(
            [str(self.programs / "psql"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "pipelines",
             "-d", "postgres", "-At", "-c", statement],
            env={**os.environ, "PGPASSWORD": "pw-of-the-tests", "PGCONNECT_TIMEOUT": "2"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.strip()

    def kill(self) -> None:
        super().kill()
        # Its children notice in a moment, and hold the shared memory until then.
        time.sleep(0.5)

    def close(self) -> None:
        self._end(signal.SIGINT)
        shutil.rmtree(self.folder, ignore_errors=True)
