"""The optional parts of this package: what a family needs beyond the core.

An activity whose extra is not installed is in the catalogue all the same, and served: the
checker warns of it, the command refuses to start a run that it would have to serve itself,
and the activity fails with the type ``MissingExtra``. All three say what to install.
Imports nothing but the standard library.
"""

from importlib.util import find_spec

EXTRAS = {"containers": "docker", "dns": "dns", "sql": "sqlalchemy"}
"""The Python package that shows whether an extra is installed."""


def installed(extra: str) -> bool:
    """Tell whether an extra is installed; nothing is imported."""
    return find_spec(EXTRAS[extra]) is not None


def missing(activity: str, extra: str) -> str:
    """Say what an activity lacks."""
    return f'"{activity}" needs the Python package "{EXTRAS[extra]}"'


def remedy(extra: str) -> str:
    """Say how an extra is installed."""
    return f'pip install "pipeline-runner[{extra}]"'
