"""The record of the calls of the fake Engine, requests to make them fail or wait, and their errors."""

import io
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

import docker.errors
import requests

F = TypeVar("F", bound=Callable[..., Any])


def answer(status: int, message: str) -> docker.errors.APIError:
    """Return the error that the client raises for a response of the Engine.

    Args:
        status: The HTTP status, 400 or more.
        message: The Engine's message.
    """
    response = requests.Response()
    response.status_code = status
    response.reason = HTTPStatus(status).phrase
    response.url = "http+docker://fake"
    response.raw = io.BytesIO(json.dumps({"message": message}).encode())
    try:
        response.raise_for_status()
    except requests.exceptions.HTTPError as error:
        try:
            docker.errors.create_api_error_from_http_exception(error)
        except docker.errors.APIError as made:
            return made
    raise ValueError(f"{status} is not an error status")


def unreachable() -> requests.exceptions.ConnectionError:
    """Return the error for an Engine that is not listening."""
    error = requests.exceptions.ConnectionError("Connection aborted.")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


def broken() -> requests.exceptions.ConnectionError:
    """Return the error for a connection to the Engine that broke during the call."""
    error = requests.exceptions.ConnectionError("Connection aborted.")
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    return error


@dataclass(eq=False)
class Hold:
    """A call that waits until it is released."""

    entered: threading.Event = field(default_factory=threading.Event)
    """Set when the call arrives."""
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let this call and later ones continue."""
        self._released.set()

    def wait(self) -> None:
        """Wait for the release for at most a minute."""
        self.entered.set()
        self._released.wait(60)


@dataclass
class _Order:
    operation: str
    target: str | None
    error: Exception | None = None
    hold: Hold | None = None
    times: int = 1
    after: bool = False

    def fits(self, operation: str, target: str, *, after: bool) -> bool:
        return (
            self.times > 0
            and self.operation == operation
            and self.target in {None, target}
            and self.after == after
        )


class Calls:
    """The record of the calls, and the requests to make them fail or wait."""

    def __init__(self) -> None:
        self.all: list[str] = []
        self.changes: list[str] = []
        self._lock = threading.RLock()
        self._orders: list[_Order] = []

    def make(self, method: Callable[..., Any], target: str, *args: Any, **kwargs: Any) -> Any:
        """Call an operation: record it, and wait or fail if a test has requested it."""
        name = method.__name__
        line = f"{name} {target}".strip()
        with self._lock:
            self.all.append(line)
            if method.changes:  # type: ignore[attr-defined]  # see :func:`operation`
                self.changes.append(line)
        self._obey(name, target, after=False)
        with self._lock:
            result = method(*args, **kwargs)
        self._obey(name, target, after=True)
        return result

    def order(self, operation: str, target: str | None, *, after: bool, **what: Any) -> None:
        """Request that calls of an operation fail or wait."""
        self._orders.append(_Order(operation, target, after=after, **what))

    def _obey(self, operation: str, target: str, *, after: bool) -> None:
        with self._lock:
            due = next((o for o in self._orders if o.fits(operation, target, after=after)), None)
            if due is not None:
                due.times -= 1
        if due is not None and due.hold is not None:
            due.hold.wait()
        if due is not None and due.error is not None:
            raise due.error


def operation(*, changes: bool) -> Callable[[F], F]:
    """Mark a method as one of the client's.

    Args:
        changes: Whether it changes something.
    """

    def attach(method: F) -> F:
        method.changes = changes  # type: ignore[attr-defined]
        return method

    return attach


def fits(labels: dict[str, str] | None, filters: Any) -> bool:
    """Tell whether labels match the Engine's ``label`` filter."""
    wanted = (filters or {}).get("label", [])
    for one in [wanted] if isinstance(wanted, str) else wanted:
        name, has_value, value = one.partition("=")
        if name not in (labels or {}) or (has_value and (labels or {})[name] != value):
            return False
    return True
