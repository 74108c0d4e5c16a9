"""Turns the errors of the Docker client into errors of activities.

Imports the client only when there is an error.
"""

import os
import re
import socket
from dataclasses import dataclass

from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.toolkit.errors import refused
from pipeline_runner.activities.toolkit.sizes import one_line

MESSAGE_LIMIT = 500
"""The maximum number of characters of the Engine's message in ours."""
_RETRIED = {403, 408, 409, 429}
"""The Engine answers 403 for objects that are in use."""
MISSING = ("ContainerNotFound", "ImageNotFound", "NetworkNotFound", "VolumeNotFound")
"""The error types for objects that do not exist."""
_NEVER_SENT = (ConnectionRefusedError, FileNotFoundError, PermissionError, socket.gaierror)
"""Causes that prove that a request did not reach the Engine."""
_MISSING = (
    (r"no such container: ?(\S+)", "container", "ContainerNotFound"),
    (r"no such image: (?:.*no such image: )?(\S+)", "image", "ImageNotFound"),
    (r"network (\S+) not found", "network", "NetworkNotFound"),
    (r"(?:get )?(\S+): no such volume", "volume", "VolumeNotFound"),
)
_TAKEN = (
    (r'container name "/?([^"]+)" is already in use', "container"),
    (r"network with name (\S+) already exists", "network"),
)
_PORT_TAKEN = re.compile(
    r"(?:bind for|listen \w+|bind host port(?: for)?) (\S+?):?\s.*(?:already allocated|already in use)",
    re.IGNORECASE,
)
_BAD_NAME = re.compile(r"invalid (reference format|repository name)")
"""Engines answer some of these with 500."""
_PREFIX = re.compile(r"^.*unable to start container process: ", re.DOTALL)


@dataclass(frozen=True)
class ConnectionFailure:
    """Why the Engine could not be reached."""

    text: str
    sent: bool
    """Whether the request may have reached it all the same."""


def explain(error: Exception, doing: str) -> Exception | None:
    """Return the error for people when the Engine, or the client, refuses a request.

    Args:
        error: The exception. One that is already for people stays as it is.
        doing: The intention: ``stop container web``.
    """
    if isinstance(error, ApplicationError):
        return error
    import docker.errors

    if isinstance(error, docker.errors.APIError) and error.status_code is not None:
        return of_answer(error.status_code, str(error.explanation or error), doing)
    if isinstance(error, docker.errors.InvalidVersion | docker.errors.InvalidArgument):
        return refused(f"cannot {doing}: {one_line(str(error), MESSAGE_LIMIT)}", "InvalidInput")
    return None


def of_answer(status: int, said: str, doing: str) -> ApplicationError:
    """Return the error for a status of the Engine's response."""
    said = one_line(_PREFIX.sub("", said), MESSAGE_LIMIT)
    for pattern, what, error_type in _MISSING:
        match = re.search(pattern, said, re.IGNORECASE)
        if match and status == 404:
            return refused(f"there is no {what} {match[1]}", error_type)
    for pattern, what in _TAKEN:
        match = re.search(pattern, said, re.IGNORECASE)
        if match and status == 409:
            return refused(f"there is another {what} named {match[1]}", "NameTaken")
    port = _PORT_TAKEN.search(said)
    if port:
        return ApplicationError(f"cannot {doing}: the port {port[1]} is taken", type="PortTaken")
    if status == 400 or _BAD_NAME.search(said):
        return refused(f"cannot {doing}: {said}", "InvalidInput")
    final = status < 500 and status not in _RETRIED
    return ApplicationError(f"cannot {doing}: {said}", type="DockerError", non_retryable=final)


def connection_failure(error: Exception) -> ConnectionFailure | None:
    """Return why there is no response; None: the error is of another kind."""
    import docker.errors
    import requests
    import urllib3

    kinds = (
        docker.errors.DockerException,
        docker.errors.StreamParseError,
        requests.exceptions.RequestException,
        urllib3.exceptions.HTTPError,
        OSError,
    )
    if not isinstance(error, kinds):
        return None

    if isinstance(error, requests.exceptions.ReadTimeout):
        return ConnectionFailure("no answer in time", sent=True)
    cause: BaseException | None = error
    text, sent = str(error), not isinstance(error, requests.exceptions.ConnectTimeout)
    while cause is not None:
        if isinstance(cause, _NEVER_SENT):
            sent = False
        if isinstance(cause, socket.gaierror):
            text = str(cause.strerror)
        elif isinstance(cause, OSError) and cause.errno:
            text = os.strerror(cause.errno)
        elif isinstance(cause, ConnectionError) and not cause.errno:
            text = "the connection broke"  # http.client's: nothing more is known
        cause = cause.__cause__ or cause.__context__
    return ConnectionFailure(one_line(text or type(error).__name__, 300).lower(), sent)


def is_type(error: BaseException, *types: str) -> bool:
    """Tell whether an activity's error has one of these types."""
    return isinstance(error, ApplicationError) and error.type in types
