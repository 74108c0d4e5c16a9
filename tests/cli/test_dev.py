"""What ``./dev`` installs, and when. ``uv`` is played by a program that notes what it is asked."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = f"""#!/bin/sh
printf '%s\\n' "$*" >>"$NOTES"
[ -z "${{REFUSED:-}}" ] || {{ echo 'no such package' >&2; exit 1; }}
[ "$1" = venv ] || exit 0
mkdir -p .venv/bin
printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' >.venv/bin/python
chmod +x .venv/bin/python
touch .venv/bin/pip
"""


class Checkout:
    """A copy of what ``./dev`` reads, and what it had installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("dev", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, folder / name)
        tools = folder / "tools"
        tools.mkdir()
        for name, text in (("uv", UV), ("pytest", "#!/bin/sh\necho tested\n")):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        self.notes = folder / "notes"

    def dev(self, *args: str, **more: str) -> "subprocess.CompletedProcess[str]":
        path = f"{self.folder / 'tools'}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "NOTES": str(self.notes), "PYTHONPATH": str(ROOT), **more}
        return subprocess.run(
            ["./dev", *args], check=False, cwd=self.folder, env=environment, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip

    def installed(self) -> list[str]:
        """Return the extras that were asked for since the last time."""
        asked = self.notes.read_text().splitlines() if self.notes.exists() else []
        self.notes.unlink(missing_ok=True)
        return [line.rpartition("[")[2].rstrip("]") for line in asked if "[" in line]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_running_installs_no_development_tools(checkout: Checkout) -> None:
    done = checkout.dev("run-pipeline", "--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "run-pipeline"), done.stderr
    assert checkout.installed() == ["containers,dns,sql"]
    told = done.stderr.splitlines()
    assert told[0].startswith("dev: making .venv with Python 3.")
    assert told[1:] == ["dev: installing Pipeline Runner and a Temporal server into .venv"]
    again = checkout.dev("run-pipeline", "--version")
    assert (again.stderr, checkout.installed()) == ("", [])


def test_testing_installs_everything_once(checkout: Checkout) -> None:
    checkout.dev("run-pipeline", "--version")
    checkout.installed()
    done = checkout.dev("test", "some-tests")
    assert (done.returncode, done.stdout, checkout.installed()) == (0, "tested\n", ["dev"])
    assert "the development tools" in done.stderr
    for words in (["test", "some-tests"], ["run-pipeline", "--version"]):
        assert checkout.dev(*words).stderr == ""
    assert checkout.installed() == []


def test_other_constraints_are_installed_anew(checkout: Checkout) -> None:
    checkout.dev("test", "some-tests")
    checkout.installed()
    with (checkout.folder / "constraints.txt").open("a") as constraints:
        constraints.write("# renewed\n")
    checkout.dev("run-pipeline", "--version")
    assert checkout.installed() == ["containers,dns,sql"]
    checkout.dev("test", "some-tests")
    assert checkout.installed() == ["dev"]


def test_a_failed_installation_is_told_and_tried_again(checkout: Checkout) -> None:
    done = checkout.dev("run-pipeline", "--version", REFUSED="yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[1:] == ["no such package", "dev: the set-up failed, see above"]
    assert checkout.dev("run-pipeline", "--version").returncode == 0
