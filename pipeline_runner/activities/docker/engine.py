"""What the container activities share: the connection to a Docker Engine, and its errors.

The client is that of the Python package ``docker``, the low-level one (``APIClient``). It
is imported and connected when the first activity needs it, and again after the Engine was
out of reach. Its calls block, so each has a thread of its own.

What a step makes carries its idempotency key in a label, :data:`KEY_LABEL`. By it a retry
finds what an attempt before it made, and an undo removes that and nothing else.

Messages name containers, images and what the Engine said, never environments.
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
"""The optional part of this package that brings the client."""
docker_activity = functools.partial(built_in, extra=EXTRA, timeouts=Timeouts(heartbeat=10.0))
"""Makes a method a built-in activity that needs an Engine."""

KEY_LABEL = "pipeline-runner.key"
"""Holds the idempotency key of the step that made a thing."""
WORKFLOW_LABEL = "pipeline-runner.workflow"
"""Holds the workflow id of the run that the step belongs to; for people."""

PATIENCE = 120.0
"""Seconds without a byte from the Engine after which a call has failed."""
LONG_PATIENCE = 3600.0
"""The same for calls that say nothing before they are done, such as a commit."""
IN_FLIGHT = 0.7
"""Seconds that a cancelled activity waits for the answer to a change that has been sent."""
LOOK_EVERY = 0.1
REMOVAL = 10.0
"""Seconds to wait for the end of a removal that somebody else has begun."""

NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$(?!\n)"
"""A name or an id of the Engine's, as a regular expression for JSON Schema."""
IMAGE = r"^(?!.*\.\.)[a-zA-Z0-9][a-zA-Z0-9_.:/@-]*$(?!\n)"
"""A reference to an image. The Engine's own rules are stricter."""

Container = Annotated[str, doc("The container's name or id.", pattern=NAME)]
Image = Annotated[str, doc("The image's name, such as `app:1`, or id.", pattern=IMAGE)]
Network = Annotated[str, doc("The network's name or id.", pattern=NAME)]
Labels = Annotated[dict[str, Scalar], doc("Labels, for people and filters.")]
Variables = dict[Annotated[str, Meta(pattern=r"^[^=\x00]+$(?!\n)")], Scalar]
"""Environment variables. A name is checked here: the Engine would show the value with it."""
Key = Annotated[
    Annotated[str, Meta(pattern=r"^[0-9A-Za-z_-]{1,64}$(?!\n)")] | None,
    doc('An idempotency key: "{{ step.key }}". Only what the step with this key created is removed.'),
]
Force = Annotated[bool, doc("Use the Engine's `force` option.")]


def connect() -> Any:
    """Return a client for the Engine that the environment names, as Docker's command does.

    Read are ``DOCKER_HOST``, ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``.

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
        """Use the client that ``connect`` returns; it is called when it is needed."""
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
        """Run a function with the client, in a thread; return what it returns.

        Args:
            doing: What it does, for messages: ``stop container web``.
            function: Gets the client.
            effect: The call changes something: if it breaks off, the outcome is not known.
            patience: Seconds without a byte from the Engine after which it has failed.
            late: Removes the result when the activity was cancelled before it was there.
        """

        def work() -> T:
            try:
                return function(self._client(patience))
            except Exception as error:  # noqa: BLE001 - told for people, or raised as it is
                # From None: a cause would show the request, and the message says it all.
                raise self._explained(error, doing, effect=effect) from None

        if not effect or late is not None:
            return await in_thread(work, late=late)
        task = asyncio.ensure_future(in_thread(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # So that the undo sees what the Engine was just doing; an Engine that is near is done by then.
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
        """Run a function that makes something; what comes too late is removed again.

        Until then the call counts as one under way: see :func:`settled`.
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
            if call.returned:  # in this very moment: an undo finds it by its key
                call.over()
            raise
        except BaseException:
            call.over()  # also where there was no client to begin with
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

    def _explained(self, error: Exception, doing: str, *, effect: bool) -> Exception:
        told = errors.told(error, doing)
        if told is not None:
            return told
        reason = errors.broken(error)
        if reason is None:
            return error
        self._clients.clear()  # the Engine may come back elsewhere, or as another version
        details = [UNCERTAIN] if effect and reason.sent else []
        return ApplicationError(f"{reason.text} ({self._place})", *details, type="EngineUnreachable")


_BY_ENVIRONMENT = connect


class _UnderWay:
    """A call that makes something for a step, until it is over or what it made is removed."""

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
    """Wait until no call of this process is under way that makes something for this step.

    A cancelled activity ends at once, and the Engine goes on with what it was asked for. A
    retry or an undo that looked too early would not see it.
    """
    while key is not None and _UnderWay.of(key):  # noqa: ASYNC110
        await asyncio.sleep(0.02)  # the calls are in threads


class Family:
    """Activities that work on one Engine."""

    def __init__(self, engine: Engine | None = None) -> None:
        """Use this Engine; default: the one that the environment names."""
        self._engine = engine or Engine()


@dataclass(frozen=True, kw_only=True)
class Removed:
    """Whether something was removed."""

    removed: Annotated[bool, doc("False if there was nothing to remove.")]


async def there(engine: Engine, doing: str, look: Callable[[Any], Any]) -> Any:
    """Return what the Engine knows of a thing, None if there is no such thing."""
    try:
        return await engine.call(doing, look)
    except ApplicationError as error:
        if not errors.is_type(error, *errors.MISSING):
            raise
        return None


def own_labels() -> dict[str, str]:
    """Return the labels of what the current step makes; none outside a pipeline."""
    key = step_key()
    if key is None:
        return {}
    workflow = activity.info().workflow_id if activity.in_activity() else None
    return {KEY_LABEL: key, **({WORKFLOW_LABEL: workflow} if workflow else {})}


def by_key(key: str) -> dict[str, list[str]]:
    """Return the filter for what the step of a key made."""
    return {"label": [f"{KEY_LABEL}={key}"]}


def has_key(thing: Any, key: str | None) -> bool:
    """Tell whether a container, network or volume, as it is listed, carries this key."""
    return key is not None and (thing.get("Labels") or {}).get(KEY_LABEL) == key


@dataclass(frozen=True)
class Kind:
    """A kind of things that a step can make in an Engine, and how they are found."""

    what: str
    look: Callable[[Any, str], Any]
    """Asks the client for what a name or an id names."""
    of_key: Callable[[Any, str], list[Any]]
    """Asks the client for what the step of a key made."""
    id: str = "Id"
    """Where its id stands."""

    async def there(self, engine: Engine, name: str) -> Any:
        """Return what the Engine knows of a thing, None if there is no such thing."""
        return await there(engine, f"inspect {self.what} {name}", lambda docker: self.look(docker, name))

    async def remove(
        self, engine: Engine, thing: str, remove: Callable[[Any, str], object], *, shown: str = ""
    ) -> None:
        """Have a thing removed; gone is fine, and so is a removal that is under way.

        Args:
            engine: Where the thing is.
            thing: Its id, or its name.
            remove: Asks the client for it.
            shown: What messages call it, if that is another name.
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
            while await there(engine, doing, lambda docker: self.look(docker, thing)) is not None:
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(LOOK_EVERY)

    async def made_by(self, engine: Engine, key: str | None) -> list[Any]:
        """Return what the step of a key made, once nothing is being made for it any more."""
        if key is None:
            return []
        await wait_until_settled(key)
        return await engine.call(f"list {self.what}s", lambda docker: self.of_key(docker, key))

    async def meant(self, engine: Engine, name: str | None, key: str | None) -> dict[str, str]:
        """Return the names of the things that a name, a key, or both stand for, by id.

        Raises:
            ApplicationError: There is neither.
        """
        check_which(name, key, self.what)
        if name is None:
            found = await self.made_by(engine, key)
        else:
            await wait_until_settled(key)
            named = await self.there(engine, name)
            found = [] if named is None else [named]
            if found and key is not None:
                found = [one for one in await self.made_by(engine, key) if one[self.id] == named[self.id]]
        return {one[self.id]: _name_of(one) for one in found}


def _name_of(thing: Any) -> str:
    """Return a thing's name, as it is listed or inspected; an image has none."""
    name = thing.get("Name") or next(iter(thing.get("Names") or ()), thing["Id"])
    return str(name).removeprefix("/")


def _containers_of(docker: Any, key: str) -> list[Any]:
    """Return the containers that the step of a key made, as they are listed.

    An image that was committed from such a container inherits the label, and so does a
    container of that image, which is somebody else's.
    """
    listed = docker.containers(all=True, filters=by_key(key))
    return [one for one in listed if not _inherits(docker, one["ImageID"], key)]


def _images_of(docker: Any, key: str) -> list[Any]:
    """Return the image that the step of a key made.

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
    """Return a mapping with its values as texts, for labels."""
    return {name: as_text(value) for name, value in values.items()}


def environment(values: dict[str, Scalar]) -> list[str]:
    """Return environment variables as the Engine takes them."""
    if any("\x00" in as_text(value) for value in values.values()):
        raise refused(
            "the environment contains a character that cannot be passed to a program", "InvalidInput"
        )
    return [f"{name}={value}" for name, value in texts(values).items()]


def check_which(name: str | None, key: str | None, what: str) -> None:
    """Refuse an input that names nothing at all."""
    if name is None and key is None:
        ways = "by its name, by the key of the step that created it, or by both"
        raise refused(f"specify the {what} {ways}", "InvalidInput")


def seconds(text: str, what: str) -> float:
    """Return the seconds of a duration such as ``500ms``.

    Raises:
        ApplicationError: It is none.
    """
    try:
        return durations.parse(text)
    except durations.DurationError as error:
        raise refused(f"{what}: {error}", "InvalidInput") from None


def whole_seconds(text: str, what: str) -> int:
    """Return a duration in whole seconds, which is what the Engine takes; parts count as one."""
    return math.ceil(seconds(text, what))
