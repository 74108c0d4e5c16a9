"""The connection to a Docker Engine, and everything else that the container activities share.

The client is the low-level one of the Python package ``docker`` (``APIClient``). It is imported and
connected when the first activity needs it, and again after the Engine was unreachable. Its calls block,
so each runs in its own thread.

What a step creates carries its idempotency key in a label, :data:`KEY_LABEL`. A retry finds by it what
an earlier attempt created, and an undo removes exactly that.

Messages name containers and images and quote the Engine, but never contain environments.
"""

import asyncio
import functools
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from msgspec import Meta
from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue import extras
from pipeline_runner.activities.docker import errors
from pipeline_runner.activities.toolkit.context import step_key
from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.parameters import Scalar, as_text, built_in, doc
from pipeline_runner.activities.toolkit.threads import in_thread
from pipeline_runner.core import durations
from pipeline_runner.core.errors import UNCERTAIN
from pipeline_runner.core.model import Timeouts

T = TypeVar("T")

EXTRA = "containers"
"""The optional part of this package that installs the client."""
docker_activity = functools.partial(built_in, extra=EXTRA, timeouts=Timeouts(heartbeat=10.0))
"""Makes a method a built-in activity that needs an Engine."""

KEY_LABEL = "pipeline-runner.key"
"""The label with the idempotency key of the step that created an object."""
WORKFLOW_LABEL = "pipeline-runner.workflow"
"""The label with the workflow id of the step's run, for people."""

PATIENCE = 120.0
"""Seconds without a byte from the Engine after which a call fails."""
LONG_PATIENCE = 3600.0
"""The same for calls that send nothing before they are done, such as a commit."""
IN_FLIGHT = 0.7
"""Seconds that a cancelled activity waits for the response to a change that has been sent."""
LOOK_EVERY = 0.1
REMOVAL = 10.0
"""Seconds to wait for the end of a removal that somebody else has begun."""

NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$(?!\n)"
"""A name or an id in the Engine, as a regular expression for JSON Schema."""
IMAGE = r"^(?!.*\.\.)[a-zA-Z0-9][a-zA-Z0-9_.:/@-]*$(?!\n)"
"""A reference to an image. The Engine's own rules are stricter."""

Container = Annotated[str, doc("The container's name or id.", pattern=NAME)]
Image = Annotated[str, doc("The image's name, such as `app:1`, or id.", pattern=IMAGE)]
Network = Annotated[str, doc("The network's name or id.", pattern=NAME)]
Labels = Annotated[dict[str, Scalar], doc("Labels, for people and filters.")]
Variables = dict[Annotated[str, Meta(pattern=r"^[^=\x00]+$(?!\n)")], Scalar]
"""Environment variables. Their names are checked here: the Engine's message would show the value too."""
Key = Annotated[
    Annotated[str, Meta(pattern=r"^[0-9A-Za-z_-]{1,64}$(?!\n)")] | None,
    doc('An idempotency key: "{{ step.key }}". Only what the step with this key created is removed.'),
]
Force = Annotated[bool, doc("Use the Engine's `force` option.")]


def connect() -> Any:
    """Return a client for the Engine in the environment, as Docker's command does.

    Reads ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``.

    Raises:
        ApplicationError: The Python package is not installed.
    """
    if not extras.installed(EXTRA):
        name = activity.info().activity_type if activity.in_activity() else "container.run"
        raise refused(f"{extras.missing(name, EXTRA)}: {extras.remedy(EXTRA)}", "MissingExtra")
    from pipeline_runner.activities.docker import client as docker_client

    return docker_client.connect(int(PATIENCE))


class Engine:
    """A Docker Engine, and how activities call it."""

    def __init__(self, connect: Callable[[], Any] = connect) -> None:
        """Use the client that ``connect`` returns. It is called when a client is needed."""
        self._connect = connect
        self._clients: dict[float, Any] = {}
        self._place = "Docker Engine"
        if connect is _BY_ENVIRONMENT:
            self._place += f" at {os.environ.get('DOCKER_HOST') or 'its default address'}"

    async def call(
        self,
        doing: str,
        function: Callable[[Any], T],
        *,
        effect: bool = False,
        patience: float = PATIENCE,
        late: Callable[[T], object] | None = None,
    ) -> T:
        """Run a function with the client, in a thread, and return its result.

        Args:
            doing: What it does, for messages: ``stop container web``.
            function: The function. It receives the client.
            effect: The call changes something: if it is interrupted, the outcome is not known.
            patience: Seconds without a byte from the Engine after which it fails.
            late: Removes the result if the activity was cancelled before it arrived.
        """

        def work() -> T:
            try:
                return function(self._client(patience))
            except Exception as error:  # noqa: BLE001 - turned into an error for people, or raised unchanged
                # From None: a cause would show the request, and the message says everything.
                raise self._explain(error, doing, effect=effect) from None

        if not effect or late is not None:
            return await in_thread(work, late=late)
        task = asyncio.ensure_future(in_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # So that the undo sees what the Engine was just doing. An Engine that is near is done by then.
            await asyncio.wait({task}, timeout=IN_FLIGHT)
            task.cancel()
            raise

    async def make(
        self,
        doing: str,
        function: Callable[[Any], T],
        remove: Callable[[Any, T], object],
        *,
        patience: float = PATIENCE,
    ) -> T:
        """Run a function that creates something. If its result comes too late, it is removed again.

        Until then, :func:`wait_until_settled` waits for the call.
        """
        call = _UnderWay(step_key())

        def work(client: Any) -> T:
            try:
                result = function(client)
            except BaseException:
                call.over()
                raise
            call.returned = True
            return result

        def late(result: T) -> None:
            try:
                remove(self._client(PATIENCE), result)
            finally:
                call.over()

        try:
            made = await self.call(doing, work, effect=True, patience=patience, late=late)
        except asyncio.CancelledError:
            if call.returned:  # at this very moment: an undo finds it by its key
                call.over()
            raise
        except BaseException:
            call.over()  # also if there was no client to begin with
            raise
        call.over()
        return made

    def _client(self, patience: float) -> Any:
        client = self._clients.get(patience)
        if client is None:
            client = self._connect()
            if patience != PATIENCE:
                client.timeout = patience
            self._clients[patience] = client
        return client

    def _explain(self, error: Exception, doing: str, *, effect: bool) -> Exception:
        refusal = errors.explain(error, doing)
        if refusal is not None:
            return refusal
        failure = errors.connection_failure(error)
        if failure is None:
            return error
        self._clients.clear()  # the Engine may come back elsewhere, or as another version
        details = [UNCERTAIN] if effect and failure.sent else []
        return ApplicationError(f"{failure.text} ({self._place})", *details, type="EngineUnreachable")


_BY_ENVIRONMENT = connect


class _UnderWay:
    """A call that creates something for a step, until it has ended or its result is removed."""

    def __init__(self, key: str | None) -> None:
        self.key = key
        self.returned = False
        with _lock:
            _under_way.append(self)

    def over(self) -> None:
        with _lock:
            if self in _under_way:
                _under_way.remove(self)

    @staticmethod
    def of(key: str) -> bool:
        with _lock:
            return any(call.key == key for call in _under_way)


_lock = threading.Lock()
_under_way: list[_UnderWay] = []


async def wait_until_settled(key: str | None) -> None:
    """Wait until no call of this process is creating something for this step.

    A cancelled activity ends at once, and the Engine continues with the request. A retry or an undo
    that looks too early would not see the result.
    """
    while key is not None and _UnderWay.of(key):  # noqa: ASYNC110
        await asyncio.sleep(0.02)  # the calls are in threads


class Family:
    """Activities on one Engine."""

    def __init__(self, engine: Engine | None = None) -> None:
        """Use this Engine. Default: the one in the environment."""
        self._engine = engine or Engine()


@dataclass(frozen=True, kw_only=True)
class Removed:
    """Whether something was removed."""

    removed: Annotated[bool, doc("False if there was nothing to remove.")]


async def look_up(engine: Engine, doing: str, look: Callable[[Any], Any]) -> Any:
    """Return the Engine's description of an object; None: there is no such object."""
    try:
        return await engine.call(doing, look)
    except ApplicationError as error:
        if not errors.is_type(error, *errors.MISSING):
            raise
        return None


def own_labels() -> dict[str, str]:
    """Return the labels for what the current step creates. Outside a pipeline there are none."""
    key = step_key()
    if key is None:
        return {}
    workflow = activity.info().workflow_id if activity.in_activity() else None
    return {KEY_LABEL: key, **({WORKFLOW_LABEL: workflow} if workflow else {})}


def by_key(key: str) -> dict[str, list[str]]:
    """Return the filter for what the step with a key created."""
    return {"label": [f"{KEY_LABEL}={key}"]}


def has_key(thing: Any, key: str | None) -> bool:
    """Tell whether a container, network or volume, as it is listed, carries this key."""
    return key is not None and (thing.get("Labels") or {}).get(KEY_LABEL) == key


@dataclass(frozen=True)
class Kind:
    """A kind of object that a step can create in an Engine, and how to find it."""

    what: str
    look: Callable[[Any, str], Any]
    """Asks the client for the object with a name or an id."""
    of_key: Callable[[Any, str], list[Any]]
    """Asks the client for the objects that the step with a key created."""
    id: str = "Id"
    """The field with its id."""

    async def look_up(self, engine: Engine, name: str) -> Any:
        """Return the Engine's description of an object; None: there is no such object."""
        return await look_up(engine, f"inspect {self.what} {name}", lambda docker: self.look(docker, name))

    async def remove(
        self, engine: Engine, thing: str, remove: Callable[[Any, str], object], *, shown: str = ""
    ) -> None:
        """Remove an object. It is not an error if it is missing, or if its removal has begun.

        Args:
            engine: Where the object is.
            thing: Its id, or its name.
            remove: Asks the client to remove it.
            shown: Its name for messages, if that is another one.
        """
        doing = f"remove {self.what} {shown or thing}"
        try:
            await engine.call(doing, lambda docker: remove(docker, thing), effect=True)
        except ApplicationError as error:
            if errors.is_type(error, *errors.MISSING):
                return
            if "already in progress" not in error.message:
                raise
            end = time.monotonic() + REMOVAL
            while await look_up(engine, doing, lambda docker: self.look(docker, thing)) is not None:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(LOOK_EVERY)

    async def find_by_key(self, engine: Engine, key: str | None) -> list[Any]:
        """Return what the step with a key created, once no call is creating anything for it."""
        if key is None:
            return []
        await wait_until_settled(key)
        return await engine.call(f"list {self.what}s", lambda docker: self.of_key(docker, key))

    async def own(self, engine: Engine) -> str | None:
        """Return the id of what an earlier attempt of this step created; None: there is none."""
        found = await self.find_by_key(engine, step_key())
        return str(found[0][self.id]) if found else None

    async def find_all(self, engine: Engine, name: str | None, key: str | None) -> dict[str, str]:
        """Return the names of the objects with a name, a key, or both, by id.

        Raises:
            ApplicationError: Neither is given.
        """
        check_which(name, key, self.what)
        if name is None:
            found = await self.find_by_key(engine, key)
        else:
            await wait_until_settled(key)
            named = await self.look_up(engine, name)
            found = [] if named is None else [named]
            if found and key is not None:
                found = [one for one in await self.find_by_key(engine, key) if one[self.id] == named[self.id]]
        return {one[self.id]: _name_of(one) for one in found}


def _name_of(thing: Any) -> str:
    """Return an object's name, as it is listed or inspected. An image has none."""
    name = thing.get("Name") or next(iter(thing.get("Names") or ()), thing["Id"])
    return str(name).removeprefix("/")


def _containers_of(docker: Any, key: str) -> list[Any]:
    """Return the containers that the step with a key created, as they are listed.

    An image that was committed from such a container inherits the label, and so does a container of
    that image, which somebody else created.
    """
    listed = docker.containers(all=True, filters=by_key(key))
    return [one for one in listed if not _inherits(docker, one["ImageID"], key)]


def _images_of(docker: Any, key: str) -> list[Any]:
    """Return the image that the step with a key created.

    Images that others built on it inherit the label: the step's own is the first of them.
    """
    known = [docker.inspect_image(one["Id"]) for one in docker.images(filters=by_key(key))]
    return sorted(known, key=lambda one: (len(one["RootFS"]["Layers"]), one["Created"]))[:1]


def _inherits(docker: Any, image: str, key: str) -> bool:
    from docker.errors import ImageNotFound

    try:
        return has_key(docker.inspect_image(image)["Config"], key)
    except ImageNotFound:
        return False


CONTAINERS = Kind("container", lambda docker, name: docker.inspect_container(name), _containers_of)
IMAGES = Kind("image", lambda docker, name: docker.inspect_image(name), _images_of)
NETWORKS = Kind(
    "network",
    lambda docker, name: docker.inspect_network(name),
    lambda docker, key: list(docker.networks(filters=by_key(key))),
)
VOLUMES = Kind(
    "volume",
    lambda docker, name: docker.inspect_volume(name),
    lambda docker, key: docker.volumes(filters=by_key(key)).get("Volumes") or [],
    id="Name",
)


def texts(values: dict[str, Scalar]) -> dict[str, str]:
    """Return a mapping with its values as strings, for labels."""
    return {name: as_text(value) for name, value in values.items()}


def environment(values: dict[str, Scalar]) -> list[str]:
    """Return environment variables in the Engine's format."""
    if any("\x00" in as_text(value) for value in values.values()):
        raise refused(
            "the environment contains a character that cannot be passed to a program", "InvalidInput"
        )
    return [f"{name}={value}" for name, value in texts(values).items()]


def check_which(name: str | None, key: str | None, what: str) -> None:
    """Refuse an input with neither a name nor a key."""
    if name is None and key is None:
        ways = "by its name, by the key of the step that created it, or by both"
        raise refused(f"specify the {what} {ways}", "InvalidInput")


def seconds(text: str, what: str) -> float:
    """Return the seconds of a duration such as ``500ms``.

    Raises:
        ApplicationError: It is not a duration.
    """
    try:
        return durations.parse(text)
    except durations.DurationError as error:
        raise refused(f"{what}: {error}", "InvalidInput") from None


def whole_seconds(text: str, what: str) -> int:
    """Return a duration rounded up to whole seconds, which the Engine requires."""
    return math.ceil(seconds(text, what))
