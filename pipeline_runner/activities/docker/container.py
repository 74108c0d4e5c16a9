"""The ``container`` family: containers of the Docker Engine in the worker's environment.

It reads ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``, as Docker's own command does.
What a step creates carries its idempotency key in the label ``pipeline-runner.key``. The undo finds it
by that, whatever the outcome of the step.

The undo of a stop starts the container again. If the stop was interrupted, the Engine may still be
about to stop the container, so the undo watches it for a little longer than the grace period. An undo
does nothing if its step changed nothing: see ``changed`` and ``since``.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from msgspec import Meta
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue.undo import Undo
from pipeline_runner.activities.docker import container_state as state
from pipeline_runner.activities.docker.container_commit import CommitInput, CommitOutput, commit
from pipeline_runner.activities.docker.container_exec import ExecInput, ExecOutput, execute
from pipeline_runner.activities.docker.container_run import RunInput, RunOutput, run
from pipeline_runner.activities.docker.engine import (
    CONTAINERS,
    NAME,
    Container,
    Family,
    Key,
    Removed,
    docker_activity,
    seconds,
    whole_seconds,
)
from pipeline_runner.activities.docker.errors import is_type
from pipeline_runner.activities.toolkit.errors import refused, uncertain
from pipeline_runner.activities.toolkit.heartbeat import Heart, heartbeating, remembered
from pipeline_runner.activities.toolkit.output import STDERR_LIMIT, STDOUT_ENCODED, STDOUT_LIMIT
from pipeline_runner.activities.toolkit.parameters import doc
from pipeline_runner.activities.toolkit.sizes import clip
from pipeline_runner.core.durations import PATTERN
from pipeline_runner.core.model import Retry

_SLACK = 2.0
"""Seconds that the Engine may need beyond the grace period to end a container."""
_CLOCKS = timedelta(seconds=5)
"""The difference that the clocks of the Engine and of the server may have."""

Changed = Annotated[
    bool | None,
    doc(
        "For an undo: whether the step changed anything. False: do nothing. Null: unknown, and"
        " `since` decides."
    ),
]
Id = Annotated[str, doc("The container's id.")]
Name = Annotated[str, doc("The container's name.")]


@dataclass(frozen=True, kw_only=True)
class ContainerInput:
    """The container."""

    container: Container


@dataclass(frozen=True, kw_only=True)
class InspectOutput:
    """The state of the container."""

    id: Id
    name: Name
    image: Annotated[str, doc("The name that the image had when the container was created.")]
    image_id: Annotated[str, doc("The image's id.")]
    status: Annotated[str, doc("One of created, running, paused, restarting, removing, exited and dead.")]
    running: Annotated[bool, doc("Whether it is running. False while it waits to be restarted.")]
    exit_code: Annotated[int | None, doc("The last exit code. Null if it is running or has never run.")]
    health: Annotated[
        str | None, doc("One of starting, healthy and unhealthy. Null if there is no health check.")
    ]
    auto_remove: Annotated[bool, doc("Whether the Engine removes it when it exits (`--rm`).")]
    labels: Annotated[dict[str, str], doc("The labels of the container and of its image.")]
    networks: Annotated[dict[str, str], doc("The container's address in each network, by network name.")]
    ports: Annotated[dict[str, str], doc('The published ports: `{"80/tcp": "127.0.0.1:8080"}`.')]
    created: Annotated[str, doc("The time of creation, in RFC 3339 format.")]


@dataclass(frozen=True, kw_only=True)
class StartInput:
    """The container, and how long to watch it."""

    container: Container
    settle: Annotated[
        str,
        Meta(
            pattern=PATTERN + r"(?!\n)",
            description="If the container is running, watch it for this long, and start it again if it exits."
            " To undo a stop that was interrupted, set a little more than its `grace`.",
        ),
    ] = "0s"
    changed: Changed = None
    since: Annotated[
        str | None,
        doc(
            "For an undo: start it only if it exited after this time (RFC 3339), give or take"
            " five seconds. It is then watched for two seconds longer than `settle`."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StartOutput:
    """The running container."""

    id: Id
    name: Name
    started: Annotated[bool, doc("False if it was running before this step.")]


@dataclass(frozen=True, kw_only=True)
class StopInput:
    """The container, and how long it may take to stop."""

    container: Container
    grace: Annotated[
        str,
        Meta(
            pattern=PATTERN + r"(?!\n)",
            description="The time between the request to stop and the kill, rounded up to whole seconds.",
        ),
    ] = "10s"
    changed: Changed = None
    since: Annotated[
        str | None,
        doc(
            "For an undo: stop it only if it was started after this time (RFC 3339), give or take"
            " five seconds."
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class StopOutput:
    """The stopped container."""

    id: Id
    name: Name
    stopped: Annotated[bool, doc("False if it was not running before this step.")]
    exit_code: Annotated[int, doc("The last exit code. 137 means that it was killed.")]


@dataclass(frozen=True, kw_only=True)
class RemoveInput:
    """The container."""

    container: Annotated[Annotated[str, Meta(pattern=NAME)] | None, doc("The container's name or id.")] = None
    key: Key = None
    force: Annotated[bool, doc("Remove it even if it is running. `key` implies this.")] = False
    volumes: Annotated[bool, doc("Also remove its anonymous volumes. `key` implies this.")] = False


@dataclass(frozen=True, kw_only=True)
class LogsInput:
    """The container, and how much of its log to read."""

    container: Container
    tail: Annotated[int, doc("The number of lines to read, from the end.", ge=1, le=10_000)] = 100


@dataclass(frozen=True, kw_only=True)
class LogsOutput:
    """The end of the log."""

    stdout: Annotated[str, doc("What the container wrote to standard output.")]
    stderr: Annotated[str, doc("What the container wrote to standard error.")]
    truncated: Annotated[
        bool,
        doc(
            "Whether output was dropped, because there was more than 768 KiB of standard output"
            " or 256 KiB of standard error."
        ),
    ]


class Containers(Family):
    """The activities of this family."""

    @docker_activity("container.run", undo=Undo("container.remove", {"key": "{{ step.key }}"}))
    async def run(self, parameters: RunInput) -> RunOutput:
        """Run a long-running container: create it, start it, and check that it keeps running.

        A retry takes over the container that an earlier attempt created. A container that cannot
        be started, or that exits at once, is removed before the step fails.
        """
        async with heartbeating() as heart:
            return await run(self._engine, parameters, heart)

    @docker_activity("container.inspect", effect_free=True)
    async def inspect(self, parameters: ContainerInput) -> InspectOutput:
        """Return the state of a container."""
        async with heartbeating():
            found = await state.find(self._engine, parameters.container)
        about = found["State"]
        over = about["Status"] in {"exited", "dead", "restarting"}
        return InspectOutput(
            id=found["Id"],
            name=state.name_of(found),
            image=found["Config"]["Image"],
            image_id=found["Image"],
            status=about["Status"],
            running=state.runs(found),
            exit_code=about["ExitCode"] if over else None,
            health=(about.get("Health") or {}).get("Status"),
            labels=found["Config"].get("Labels") or {},
            auto_remove=found["HostConfig"].get("AutoRemove", False),
            networks=state.networks(found),
            ports=state.ports(found),
            created=found["Created"],
        )

    @docker_activity(
        "container.start",
        undo=Undo(
            "container.stop",
            {
                "container": "{{ step.input.container }}",
                "changed": "{{ step.output.started | default(none) }}",
                "since": "{{ run.started_at }}",
            },
        ),
    )
    async def start(self, parameters: StartInput) -> StartOutput:
        """Start a container. A running container is not an error."""
        settle = seconds(parameters.settle, "settle")
        if parameters.since is not None:
            settle += _SLACK
        async with heartbeating() as heart:
            found = await state.find(self._engine, parameters.container)
            steady = state.runs(found)
            if steady and parameters.changed is not False:
                found, steady = await state.watch(self._engine, found, settle)
            if not _is_due(parameters, found["State"]["FinishedAt"]):
                return StartOutput(id=found["Id"], name=state.name_of(found), started=False)
            started = await _change(heart, "started", due=not steady)
            if not steady and not state.runs(found):
                container = found["Id"]
                await self._engine.call(
                    f"start container {state.name_of(found)}",
                    lambda docker: docker.start(container),
                    effect=True,
                )
        return StartOutput(id=found["Id"], name=state.name_of(found), started=started)

    @docker_activity(
        "container.stop",
        undo=Undo(
            "container.start",
            {
                "container": "{{ step.input.container }}",
                # If the stop was interrupted, the Engine continues it until the grace period ends.
                "settle": "{{ step.input.grace | default('10s') if step.outcome == 'uncertain' else '0s' }}",
                "changed": "{{ step.output.stopped | default(none) }}",
                "since": "{{ run.started_at }}",
            },
        ),
    )
    async def stop(self, parameters: StopInput) -> StopOutput:
        """Stop a container. A container that is not running is not an error.

        If the step is cancelled or times out, the Engine continues to stop the container, for up
        to ``grace``. See ``settle`` of ``container.start``.
        """
        grace = whole_seconds(parameters.grace, "grace")
        async with heartbeating() as heart:
            found = await state.find(self._engine, parameters.container)
            container = found["Id"]
            if not _is_due(parameters, found["State"]["StartedAt"]):
                return _stopped(found, changed=False)
            stopped = await _change(heart, "stopped", due=found["State"]["Running"])
            if found["State"]["Running"]:
                doing = f"stop container {state.name_of(found)}"
                try:
                    await self._engine.call(
                        doing, lambda docker: docker.stop(container, timeout=grace), effect=True
                    )
                except ApplicationError as error:
                    # The Engine has asked the container to stop, and does not know whether it did.
                    raise (uncertain(error) if is_type(error, "DockerError") else error) from None
                found = await state.find(self._engine, container)
        return _stopped(found, changed=stopped)

    @docker_activity("container.exec", retry=Retry(maximum_attempts=1))
    async def exec(self, parameters: ExecInput) -> ExecOutput:
        """Run a command in a running container. An exit code other than 0 fails the step.

        If the step is cancelled or times out, the command gets SIGTERM, and SIGKILL two seconds
        later. This needs ``sh`` and ``cat`` in the container. If the command cannot be stopped,
        the error says that it is still running.
        """
        async with heartbeating():
            return await execute(self._engine, parameters)

    @docker_activity("container.commit", undo=Undo("image.remove", {"key": "{{ step.key }}"}))
    async def commit(self, parameters: CommitInput) -> CommitOutput:
        """Create an image from the current files of a container, without its volumes."""
        async with heartbeating():
            return await commit(self._engine, parameters)

    @docker_activity("container.remove")
    async def remove(self, parameters: RemoveInput) -> Removed:
        """Remove a container. A missing container is not an error.

        With ``key``, removes the container that the step with this key created, even if it is
        running.
        """
        ours = parameters.key is not None
        async with heartbeating():
            found = await CONTAINERS.find_all(self._engine, parameters.container, parameters.key)
            for container, name in found.items():
                await state.remove_container(
                    self._engine,
                    container,
                    name,
                    force=parameters.force or ours,
                    volumes=parameters.volumes or ours,
                )
        return Removed(removed=bool(found))

    @docker_activity("container.logs", effect_free=True)
    async def logs(self, parameters: LogsInput) -> LogsOutput:
        """Read the end of a container's log."""
        async with heartbeating():
            stdout, more = await self._tail(parameters, STDOUT_LIMIT, stdout=True, stderr=False)
            stderr, errors = await self._tail(parameters, STDERR_LIMIT, stdout=False, stderr=True)
        shown = clip(stdout[::-1], STDOUT_ENCODED)[::-1]
        tail = clip(stderr[::-1], STDERR_LIMIT)[::-1]
        cut = len(shown) < len(stdout) or len(tail) < len(stderr)
        return LogsOutput(stdout=shown, stderr=tail, truncated=more or errors or cut)

    async def _tail(self, parameters: LogsInput, limit: int, **streams: bool) -> tuple[str, bool]:
        """Return at most ``limit`` bytes of the log's end, and whether there were more."""
        container, lines = parameters.container, parameters.tail

        def read(docker: Any) -> tuple[bytes, bool]:
            data, more = bytearray(), False
            for piece in docker.logs(container, stream=True, follow=False, tail=lines, **streams):
                data += piece
                more |= len(data) > limit
                del data[:-limit]
            return bytes(data), more

        data, more = await self._engine.call(f"read the log of container {container}", read)
        return data.decode(errors="replace"), more


async def _change(heart: Heart, what: str, *, due: bool) -> bool:
    """Tell whether this step changes something, including its earlier attempts.

    This is saved before anything is changed, so that no attempt takes the work of an earlier one for
    the original state.
    """
    before: Any = remembered()
    if isinstance(before, dict) and what in before:
        return bool(before[what])
    await heart.remember({what: due})
    return due


def _stopped(found: Any, *, changed: bool) -> StopOutput:
    return StopOutput(
        id=found["Id"], name=state.name_of(found), stopped=changed, exit_code=found["State"]["ExitCode"]
    )


def _is_due(parameters: StartInput | StopInput, at: str) -> bool:
    """Tell whether an undo has anything to do, by the time of the container's last change."""
    if parameters.changed is not None or parameters.since is None:
        return parameters.changed is not False
    try:
        since = datetime.fromisoformat(parameters.since)
        return datetime.fromisoformat(at) >= since - _CLOCKS
    except (TypeError, ValueError):
        raise refused("since is not a time such as 2030-01-31T12:00:00Z", "InvalidInput") from None
