"""What the commands that talk to Temporal share: the server, the workers, following a run."""

import argparse
import asyncio
import contextlib
import getpass
import importlib
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pipeline_runner.activities.toolkit.secret_values import SecretNotFoundError, secret_value
from pipeline_runner.activities.toolkit.state_directory import FOLDER_VARIABLE, is_temporary
from pipeline_runner.cli import console
from pipeline_runner.cli.exit_codes import ExitCode
from pipeline_runner.cli.main import CommandError, early
from pipeline_runner.cli.options import codec_option, server_options
from pipeline_runner.server.devserver import ServerError
from pipeline_runner.server.embedded import (
    Embedded,
    Joining,
    NoHomeError,
    embedded_server,
    server_stays,
    state_folder,
)
from pipeline_runner.server.key import signing_key

if TYPE_CHECKING:
    from temporalio.client import Client, WorkflowExecutionDescription, WorkflowHandle
    from temporalio.worker import Worker

    from pipeline_runner.activities.catalogue.providers import Provider


_NEW_SERVER = 4.0
"""Seconds for which a server that has just started may still refuse requests."""


KEY_VARIABLE = "RUN_PIPELINE_SIGNING_KEY"
"""The variable with the secret that workers of a configured server share if they run only what they serve."""

_SHORTEST_KEY = 32


@dataclass(frozen=True, kw_only=True)
class Target:
    """The server that a command uses: an embedded or a configured one."""

    settings: Mapping[str, Any]
    embedded: Embedded | None
    options: tuple[str, ...] = ()
    """The options with which another command uses the same server."""

    def command(self, name: str, *arguments: str) -> str:
        """Return another command of this program for the same server, in a shell's syntax."""
        return shlex.join(["run-pipeline", name, *arguments, *self.options])

    def page(self, workflow_id: str, run_id: str | None) -> str | None:
        """Return the URL of a run's page in the embedded server's web UI."""
        if self.embedded is None:
            return None
        return f"{self.embedded.ui}/namespaces/default/workflows/{quote(workflow_id, safe='')}/{run_id}"

    @property
    def ends_with_us(self) -> bool:
        """Whether the server stops with the last command that uses it."""
        return self.embedded is not None and not server_stays(self.embedded.folder)


@contextlib.contextmanager
def server_begun(args: argparse.Namespace) -> Iterator[Joining | None]:
    """Start the embedded server, if the command uses it, while a file is checked.

    :func:`place` reports problems. If no place uses the server, it stops at once.
    """
    joining = None
    if not _names_a_server(args):
        with contextlib.suppress(ServerError):
            joining = Joining(state_folder())
    if joining is None:
        yield None
        return
    try:
        with contextlib.suppress(ServerError):
            joining.begin()
        yield joining
    finally:
        joining.close()


@contextlib.contextmanager
def place(args: argparse.Namespace, begun: Joining | None = None) -> Iterator[Target]:
    """Return the server that the arguments and the environment select, or use the embedded one.

    Args:
        args: The arguments.
        begun: The embedded server, from :func:`server_begun`.

    Raises:
        CommandError: The configuration cannot be used, or the embedded server cannot be started.
    """
    if not _names_a_server(args):
        with embedded_place(args.codec, begun) as where:
            yield where
        return
    from pipeline_runner.engine.client import ConfigurationError, configured

    try:
        settings = configured(args.address, args.namespace, args.profile)
    except ConfigurationError as error:
        raise CommandError(str(error)) from None
    settings = settings or {"target_host": "localhost:7233"}
    settings |= _encoding(args.codec, settings.get("namespace", "default"))
    with _tell_refusals():
        yield Target(settings=settings, embedded=None, options=server_options(args))


def _encoding(codec: str | None, namespace: str = "default") -> dict[str, Any]:
    """Return the settings of a client that uses this codec.

    Raises:
        CommandError: There is no such codec.
    """
    if codec is None:
        return {}
    from pipeline_runner.engine.codecs import CodecChoiceError, encoding

    try:
        return encoding(codec, namespace)
    except CodecChoiceError as error:
        raise CommandError(str(error)) from None


@contextlib.contextmanager
def embedded_place(
    codec: str | None = None,
    begun: Joining | None = None,
    *,
    stays: bool = False,
    port: int = 0,
    ui_port: int = 0,
) -> Iterator[Target]:
    """Use the embedded server.

    Args:
        codec: Encodes payloads.
        begun: The server if it was started before; otherwise it starts now.
        stays: See :func:`embedded_server`.
        port: Port of the frontend if the server starts now; 0: any.
        ui_port: Port of the web UI if the server starts now; 0: any.

    Raises:
        CommandError: It cannot be started, or there is no such codec.
    """
    encoding = _encoding(codec)
    # Importing the SDK and starting the server take about the same time.
    importing = threading.Thread(target=_import_sdk, daemon=True)
    importing.start()
    try:
        folder = state_folder()
        if is_temporary(folder):
            console.tell(
                f"your state directory is not writable, so runs are kept in {folder};"
                f" set {FOLDER_VARIABLE} to use another directory"
            )
        joining = begun or Joining(folder, port=port, ui_port=ui_port)
        with embedded_server(joining, stays=stays) as server:
            # Two threads that import it at once, by two of its names, would wait for each other's locks.
            importing.join()
            with _tell_refusals():
                settings = {"target_host": server.address, **encoding}
                yield Target(settings=settings, embedded=server, options=codec_option(codec))
    except NoHomeError as error:
        raise CommandError(str(error)) from None
    except ServerError as error:
        raise CommandError(str(error), ExitCode.UNREACHABLE) from None


@contextlib.contextmanager
def _tell_refusals() -> Iterator[None]:
    """Turn a rejection by the server, anywhere in a command, into one line and an exit code."""
    from temporalio.service import RPCError

    from pipeline_runner.engine.client import unreachable
    from pipeline_runner.engine.codecs import CodecError

    try:
        yield
    except CodecError as error:
        raise CommandError(str(error), ExitCode.FAILED) from None
    except RPCError as error:
        code = ExitCode.UNREACHABLE if unreachable(error) else ExitCode.FAILED
        raise CommandError(f"the Temporal server rejected the request: {error.message}", code) from None


def _import_sdk() -> None:
    with contextlib.suppress(ImportError):  # the next import raises the error
        importlib.import_module("pipeline_runner.engine.worker")


def _names_a_server(args: argparse.Namespace) -> bool:
    if any(name is not None for name in (args.address, args.namespace, args.profile)):
        return True
    if any(name.startswith("TEMPORAL_") for name in os.environ):
        return True
    # Temporal's default configuration file, according to its documentation.
    try:
        if sys.platform == "darwin":
            base = Path.home() / "Library" / "Application Support"
        else:
            base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except RuntimeError:  # the user has no home directory
        return False
    return (base / "temporalio" / "temporal.toml").is_file()


async def connect(where: Target, *, served_only: bool = False, identity: str | None = None) -> "Client":
    """Connect to a server.

    Args:
        where: The server.
        served_only: The client's workers run only pipelines by name, and what these start.
        identity: Who the user is; None: the user's name and the host's.

    Raises:
        CommandError: The server cannot be reached, or the time for which it keeps runs is not valid.
    """
    from pipeline_runner.engine import retention
    from pipeline_runner.engine.client import UnreachableError, connect
    from pipeline_runner.engine.signing import signed

    settings: Mapping[str, Any] = {**where.settings, "identity": identity or _user()}
    if where.embedded is not None or served_only:
        key = _workers_key() if where.embedded is None else where.embedded.key
        settings = signed(settings, key, served_only=served_only)

    # A server that has just started may not know its namespace yet.
    kept = _retention() if where.embedded else 0
    end = time.monotonic() + (_NEW_SERVER if where.embedded else 0.0)
    while True:
        try:
            client = await connect(settings)
        except UnreachableError as error:
            if time.monotonic() >= end:
                raise CommandError(str(error), ExitCode.UNREACHABLE) from None
            await asyncio.sleep(0.1)
        else:
            if where.embedded is not None:
                await retention.keep_runs(client, kept)
            return client


def _user() -> str:
    """Return what Temporal's own command identifies its user by."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # the user has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"


async def find_run(
    client: "Client", run: str, *, ended: bool = False
) -> "tuple[WorkflowHandle[Any, Any], WorkflowExecutionDescription]":
    """Return the newest run with a workflow id; ``ended``: one that has ended is meant.

    Raises:
        CommandError: No such run exists.
    """
    from pipeline_runner.engine.client import find

    try:
        return await find(client, run)
    except LookupError as error:
        told = f"{error}; ended runs are kept for a limited time" if ended else str(error)
        raise CommandError(told, ExitCode.FAILED) from None


def _workers_key() -> bytes:
    """Return the key for workers of a configured server that run only what they serve.

    Raises:
        CommandError: There is no usable key.
    """
    try:
        chosen = secret_value(KEY_VARIABLE)
    except SecretNotFoundError:
        return _own_key()
    if len(chosen) < _SHORTEST_KEY:
        raise CommandError(f"{KEY_VARIABLE} is too short: a key needs at least {_SHORTEST_KEY} characters")
    return chosen.encode()


def _own_key() -> bytes:
    try:
        folder = state_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return signing_key(folder)
    except (ServerError, OSError) as error:
        raise CommandError(f"{error}. Alternatively, set {KEY_VARIABLE} to a key for the workers") from None


def _retention() -> int:
    from pipeline_runner.engine import retention

    try:
        return retention.chosen()
    except ValueError as error:
        raise CommandError(str(error)) from None


def activities_of(modules: Iterable["Provider"]) -> list[Callable[..., Any]]:
    """Return the activities that a worker serves: the built-in ones and those of modules.

    Raises:
        CommandError: A module cannot be imported, or provides nothing, or two directories have activities
            with the same name.
    """
    from pipeline_runner.activities.catalogue import providers

    try:
        return providers.served(modules)
    except providers.ProviderError as error:
        raise CommandError(str(error)) from None


def noted(modules: Iterable["Provider"]) -> list[list[str | None]]:
    """Return modules as JSON, for :func:`from_memo`."""
    return [[module, None if directory is None else str(directory)] for module, directory in modules]


def from_memo(memo: Mapping[str, Any]) -> "list[Provider]":
    """Return the modules that the command that started a run has recorded."""
    from pipeline_runner.activities.catalogue import providers

    found = []
    for noted in memo["modules"]:
        # An older command recorded only names, and separately the directory of all of them.
        name, directory = (noted, next(iter(memo["folders"]), None)) if isinstance(noted, str) else noted
        found.append(providers.Provider(name, None if directory is None else Path(directory)))
    return found


def workers(client: "Client", queues: Iterable[str], **settings: Any) -> "list[Worker]":
    """Return a worker for each of these task queues, for :func:`running`.

    Unless activities get time to finish, they are cancelled at once when the worker stops: their
    attempts are reported, and start again where the run is resumed.
    """
    from pipeline_runner.engine.worker import pipeline_worker

    # The client's identity is that of a person. One of these people may have several workers.
    identity = f"{os.getpid()}@{socket.gethostname()}"
    settings = {"graceful_shutdown": timedelta(0), "identity": identity, **settings}
    return [pipeline_worker(client, task_queue=queue, **settings) for queue in dict.fromkeys(queues)]


@contextlib.asynccontextmanager
async def running(workers: "Iterable[Worker]") -> AsyncIterator[None]:
    """Run workers."""
    async with contextlib.AsyncExitStack() as stack:
        for worker in workers:
            await stack.enter_async_context(worker)
        yield


class Interrupts:
    """Counts SIGINT and SIGTERM from the start of a command on, so that none is lost."""

    def __init__(self) -> None:
        self.names: list[str] = []
        """The signals so far: ``Ctrl-C`` or ``SIGTERM``."""
        self.handler: Callable[[str], None] | None = None
        """Called for each signal. The caller has to check for earlier ones."""

    def hit(self, name: str) -> None:
        """Record a signal."""
        self.names.append(name)
        if self.handler is not None:
            self.handler(name)

    def check(self) -> None:
        """End the command if there was a signal.

        Raises:
            CommandError: There was a signal.
        """
        if self.names:
            raise CommandError("interrupted: nothing was started", ExitCode.DETACHED)


def run_loop(command: Coroutine[Any, Any, ExitCode]) -> ExitCode:
    """Run a command to its end, on uvloop where it is a dependency: a step takes an eighth less CPU."""
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(command)
    finally:
        command.close()  # Python must not warn about a command that was interrupted before it began


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    if sys.platform == "win32" or sys.implementation.name != "cpython":  # as in pyproject.toml
        return None
    import uvloop

    return uvloop.new_event_loop


@contextlib.contextmanager
def interrupts() -> Iterator[Interrupts]:
    """Catch the signals that ask a command to end."""
    loop = asyncio.get_running_loop()
    caught = Interrupts()
    names = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
    for number, name in names.items():
        loop.add_signal_handler(number, caught.hit, name)
    try:
        if early:
            raise KeyboardInterrupt
        yield caught
    finally:
        for number in names:
            loop.remove_signal_handler(number)


async def interruptible(command: Callable[[Interrupts], Coroutine[Any, Any, ExitCode]]) -> ExitCode:
    """Run a command, and pass it the signals that ask it to end."""
    with interrupts() as caught:
        return await command(caught)
