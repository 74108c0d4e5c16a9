"""The state of a container: how it is looked up, described and watched."""

import asyncio
import time
from typing import Any

from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.docker.engine import CONTAINERS, Engine
from pipeline_runner.activities.toolkit.sizes import one_line
from pipeline_runner.core.durations import spell

WATCH_EVERY = 0.1
"""Seconds between two looks at a container that is watched."""
LOG_LINES = 10
LOG_TAIL = 2 * 1024
"""Characters of each stream of a container's log in the details of an error."""


async def find(engine: Engine, container: str) -> Any:
    """Return the description of a container, as ``docker inspect`` shows it."""
    return await engine.call(
        f"inspect container {container}", lambda docker: docker.inspect_container(container)
    )


def name_of(found: Any) -> str:
    """Return a container's name."""
    return str(found["Name"]).removeprefix("/")


def runs(found: Any) -> bool:
    """Tell whether a container is running. One that waits to be restarted is not."""
    state = found["State"]
    return bool(state["Running"]) and not state.get("Restarting")


def networks(found: Any) -> dict[str, str]:
    """Return a container's address in each of its networks, by the network's name."""
    attached = found["NetworkSettings"].get("Networks") or {}
    return {name: endpoint.get("IPAddress") or "" for name, endpoint in attached.items()}


def ports(found: Any) -> dict[str, str]:
    """Return the address of each published port on the Engine's host."""
    published = found["NetworkSettings"].get("Ports") or {}
    return {port: _address(places[0]) for port, places in published.items() if places}


def _address(place: Any) -> str:
    host = place.get("HostIp") or "0.0.0.0"  # noqa: S104 - the Engine's own value
    return f"[{host}]:{place['HostPort']}" if ":" in host else f"{host}:{place['HostPort']}"


async def watch(engine: Engine, found: Any, seconds: float) -> tuple[Any, bool]:
    """Watch a container for a while. Return its last description, and whether it ran all the time."""
    end = time.monotonic() + seconds
    begun, container = found["State"]["StartedAt"], found["Id"]
    while True:
        if not runs(found) or found["State"]["StartedAt"] != begun:
            return found, False
        if time.monotonic() >= end:
            return found, True
        await asyncio.sleep(min(WATCH_EVERY, max(end - time.monotonic(), 0)))
        found = await find(engine, container)


async def exit_error(engine: Engine, found: Any, seconds: float) -> ApplicationError:
    """Return the error for a container that did not keep running."""
    stdout, stderr = [await _last_lines(engine, found, stderr=number == 2) for number in (1, 2)]
    lines = [line for line in f"{stdout}\n{stderr}".splitlines() if line.strip()]
    code = found["State"]["ExitCode"]
    what = "exited and was restarted" if runs(found) else f"exited with code {code}"
    message = f"container {name_of(found)} {what} within {spell(seconds)}"
    return ApplicationError(
        f"{message}: {one_line(lines[-1], 300)}" if lines else message,
        {"exit_code": code, "stdout": stdout[-LOG_TAIL:], "stderr": stderr[-LOG_TAIL:]},
        type="ContainerExited",
    )


async def _last_lines(engine: Engine, found: Any, *, stderr: bool) -> str:
    def read(docker: Any) -> bytes:
        return bytes(docker.logs(found["Id"], stdout=not stderr, stderr=stderr, tail=LOG_LINES))

    try:
        data = await engine.call(f"read the log of container {name_of(found)}", read)
    except ApplicationError as error:
        # Some logging drivers cannot be read. The exit is what matters.
        return error.message
    return data.decode(errors="replace")


async def remove_container(engine: Engine, container: str, name: str, *, force: bool, volumes: bool) -> None:
    """Remove a container. A missing one is not an error."""
    await CONTAINERS.remove(
        engine,
        container,
        lambda docker, one: docker.remove_container(one, v=volumes, force=force),
        shown=name,
    )
