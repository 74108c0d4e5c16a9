"""The Dockerfile, built on an image that is made of this Python and busybox, and run as the README says.

About a minute: pip installs the package and a Temporal server in the container.
"""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

from tests import services
from tests.docs.pages import ROOT

PYTHON_IMAGE = "python:here"
PIPELINE = """
name: hello
steps:
  - {id: hello, activity: shell.run, with: {command: [sh, -c, "id -u"]}, compensate: none}
output: "{{ steps.hello.output.stdout }}"
"""
UNUSED = {"test", "site-packages", "__pycache__", "idlelib", "tkinter", "lib2to3", "share"}
BESIDE = ("libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libnss_dns.so.2", "libgcc_s.so.1")
"""Libraries that packages load, beside those of Python itself."""


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if UNUSED & set(member.name.split("/")) or member.name.endswith(".a") else member


def _libraries(base: Path) -> set[str]:
    programs = [os.path.realpath(base / "bin/python3"), *map(str, base.glob("lib/python3*/lib-dynload/*.so"))]
    listed = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    found = {word for word in listed.split() if word.startswith("/") and not word.endswith(":")}
    [libc] = [name for name in found if name.endswith("/libc.so.6")]
    beside = {str(Path(libc).with_name(name)) for name in BESIDE}
    return {name for name in found | beside if os.path.exists(name) and not name.startswith(str(base))}


def _add_python(tar: tarfile.TarFile) -> None:
    """Add this Python where it is, with its libraries and what it needs to reach a package registry."""
    base = Path(sys.base_prefix)
    name = f"python3.{sys.version_info.minor}"
    for part in (f"bin/{name}", "bin/python3", "lib"):
        tar.add(base / part, str(base / part).lstrip("/"), filter=_wanted)
    link = tarfile.TarInfo("usr/bin/python3")
    link.type, link.linkname = tarfile.SYMTYPE, str(base / "bin/python3")
    tar.addfile(link)
    settings = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/nsswitch.conf")
    for file in (*settings, *_libraries(base)):
        if os.path.exists(file):
            tar.add(os.path.realpath(file), file.lstrip("/"))
    temporary = tarfile.TarInfo("tmp")
    temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
    tar.addfile(temporary)


def _import_python(engine: services.Engine, folder: Path) -> None:
    archive = folder / "python.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(services.BUSYBOX, "bin/busybox")
        names = subprocess.run(
            [services.BUSYBOX, "--list"], capture_output=True, text=True, check=True
        ).stdout
        for name in set(names.split()) - {"busybox"}:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        _add_python(tar)
    environment = f"ENV LD_LIBRARY_PATH={sys.base_prefix}/lib PATH=/usr/bin:/bin"
    engine.docker("import", "--change", environment, str(archive), PYTHON_IMAGE)


def test_the_image_runs_a_pipeline_as_any_user_in_a_read_only_container(
    engine: services.Engine, tmp_path: Path
) -> None:
    before = engine.left()["images"]
    _import_python(engine, tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    (work / "hello.yaml").write_text(PIPELINE)
    # The Engine has no network of its own, and may have no BuildKit.
    build = ["build", "--quiet", "--network=host", "--build-arg", f"PYTHON_IMAGE={PYTHON_IMAGE}"]
    try:
        engine.docker(*build, "--tag", "pipeline-runner", str(ROOT))
        image = engine.inspect("pipeline-runner")
        config = image["Config"]
        assert isinstance(config, dict)
        assert (config["Entrypoint"], config["User"]) == (["run-pipeline"], "65532:65532")
        run = ["run", "--rm", "--network=host", "--read-only", "--tmpfs", "/tmp", "-v", f"{work}:/pipelines"]
        for user in ([], ["-u", "54321:54321"]):
            printed = engine.docker(*run, *user, "pipeline-runner", "hello.yaml")
            assert printed == ('"54321\\n"' if user else '"65532\\n"')
    finally:
        made = set(engine.left()["images"]) - set(before) - {"<none>:<none>"}
        engine.docker("rmi", "--force", *made)
        engine.docker("image", "prune", "--force")
        assert engine.left()["images"] == before
