"""The optional parts of this package: what a family needs beyond the core.

An activity whose extra is not installed is still in the catalogue, and served. The checker warns about
it, the command does not start a run that it would have to serve, and the activity fails with the type
``MissingExtra``. All three say what to install. Imports only the standard library.
"""

from importlib.util import find_spec

EXTRAS = {"containers": "docker", "dns": "dns", "sql": "sqlalchemy"}
"""The Python package whose presence shows that an extra is installed."""


def installed(extra: str) -> bool:
    """Tell whether an extra is installed, without importing anything."""
    return find_spec(EXTRAS[extra]) is not None


def missing(activity: str, extra: str) -> str:
    """Return the message for an activity whose extra is missing."""
    return f'"{activity}" needs the Python package "{EXTRAS[extra]}"'


def remedy(extra: str) -> str:
    """Return the command that installs an extra."""
    return f'pip install "pipeline-runner[{extra}]"'
