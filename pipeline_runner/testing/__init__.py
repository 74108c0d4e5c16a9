"""What users test their pipelines and activities with: what this package tests itself with.

A unit test of an activity needs :func:`activity_environment` alone. A test of a pipeline runs it on a real
server, :func:`dev_server`; :mod:`pipeline_runner.testing.pytest` has it as a fixture.
:mod:`pipeline_runner.testing.docker` is a Docker Engine in memory. Nothing else of the package imports this
one.
"""

from pipeline_runner.testing.activities import activity_environment
from pipeline_runner.testing.servers import Server, dev_server, replayer

__all__ = ["Server", "activity_environment", "dev_server", "replayer"]
