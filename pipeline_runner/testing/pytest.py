"""Fixtures for pytest.

To enable them, add this line to the topmost ``conftest.py``::

pytest_plugins = ["pipeline_runner.testing.pytest"]
"""

from collections.abc import Iterator

import pytest

from pipeline_runner.testing.servers import Server, dev_server


@pytest.fixture(scope="session")
def pipeline_server() -> Iterator[Server]:
    """A real Temporal server for all tests: ``client = await pipeline_server.connect()``."""
    with dev_server() as server:
        yield server


@pytest.fixture(scope="session")
def time_skipping_server() -> Iterator[Server]:
    """The same server, but its clients skip time, so that a wait of a day takes a moment."""
    with dev_server(time_skipping=True) as server:
        yield server
