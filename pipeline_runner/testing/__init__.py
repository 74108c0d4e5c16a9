"""Tools to test pipelines and activities. This package uses them for its own tests.

A unit test of an activity needs only :func:`activity_environment`. A test of a pipeline runs it on a real
server, :func:`dev_server`, which :mod:`pipeline_runner.testing.pytest` provides as a fixture.
:mod:`pipeline_runner.testing.docker` is a fake Docker Engine in memory. Nothing else in the package imports
this one.
"""

from pipeline_runner.testing.activities import activity_environment
from pipeline_runner.testing.servers import Server, dev_server, replayer

__all__ = ["Server", "activity_environment", "dev_server", "replayer"]
