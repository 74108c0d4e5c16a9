"""A real Temporal server for tests. It starts in a fraction of a second and ends with the test run."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from temporalio.client import Client
from temporalio.testing import TimeSkipper
from temporalio.worker import Replayer

from pipeline_runner.engine.client import UnreachableError, connect
from pipeline_runner.engine.worker import ServingPlugin
from pipeline_runner.server import devserver

_ATTEMPTS = 100
_PAUSE = 0.05


class Server:
    """A Temporal server on the loopback interface. :func:`dev_server` starts it."""

    def __init__(self, address: str, *, time_skipping: bool) -> None:
        self.address = address
        """Host and port."""
        self.time_skipping = time_skipping
        """Whether its clients skip time, so that a wait of a day takes a moment."""

    async def connect(self, **settings: Any) -> Client:
        """Return a client for the running event loop.

        Args:
            settings: More arguments of ``temporalio.client.Client.connect``, such as ``data_converter``.

        Raises:
            UnreachableError: The server does not answer.
        """
        client = await self._connected({**settings, "target_host": self.address})
        return TimeSkipper(client).client if self.time_skipping else client

    async def _connected(self, settings: dict[str, Any]) -> Client:
        for _ in range(_ATTEMPTS):
            try:
                return await connect(settings)
            except UnreachableError:  # it was started a moment ago, and does not know its namespace yet
                await asyncio.sleep(_PAUSE)
        return await connect(settings)


@contextmanager
def dev_server(*, time_skipping: bool = False) -> Iterator[Server]:
    """Start a Temporal server, and stop it at the end of the block or when this process ends.

    Args:
        time_skipping: Make clients skip time whenever a run waits and no activity is running.

    Raises:
        ServerError: The server cannot be started.
    """
    running = devserver.start(settings=(devserver.TIME_SKIPPING,) if time_skipping else ())
    try:
        yield Server(running.address, time_skipping=time_skipping)
    finally:
        running.stop()


def replayer(**settings: Any) -> Replayer:
    """Return a replayer for the histories of pipeline runs.

    Args:
        settings: Additional arguments of ``temporalio.worker.Replayer``, such as ``workflows`` of your own.
    """
    plugins = [*settings.pop("plugins", ()), ServingPlugin()]
    return Replayer(workflows=[*settings.pop("workflows", ())], plugins=plugins, **settings)
