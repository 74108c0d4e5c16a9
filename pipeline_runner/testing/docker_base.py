"""The shared parts of the fake Engine: errors, the record of calls, and requests to fail or wait."""

import functools
import io
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar, cast

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
    raise ValueError(f"{status} is no status of an error")


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


class Base:
    """The record of calls, and the requests to make them fail or wait."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """Every call, such as ``stop web``, in order."""
        self.changes: list[str] = []
        """The calls that change something, in order. Calls that only read are left out."""
        self.lock = threading.RLock()
        self.timeout = 60.0
        self._version = "1.41"
        self._orders: list[_Order] = []
        self._numbers = itertools.count(1)

    def fail(
        self,
        operation: str,
        *,
        container: str | None = None,
        image: str | None = None,
        network: str | None = None,
        volume: str | None = None,
        with_: Exception | None = None,
        times: int = 1,
        after: bool = False,
    ) -> None:
        """Make calls fail.

        Args:
            operation: The client's method, such as ``stop``, ``commit`` or ``create_network``.
            container: Only calls for this container, by the name in the call.
            image: Only calls for this image.
            network: Only calls for this network.
            volume: Only calls for this volume.
            with_: The error. See :func:`answer`, :func:`unreachable`, :func:`broken`. Default: status 500.
            times: The number of calls.
            after: Perform the call first and fail then, as if the response was lost.
        """
        error = with_ or answer(500, f"the {operation} was made to fail")
        target = container or image or network or volume
        self._check(operation)
        self._orders.append(_Order(operation, target, error, times=times, after=after))

    def hold(self, operation: str, target: str | None = None, *, after: bool = False) -> Hold:
        """Make a call wait until it is released, before it does anything; with ``after``, when it is done."""
        self._check(operation)
        hold = Hold()
        self._orders.append(_Order(operation, target, hold=hold, times=1, after=after))
        return hold

    def _check(self, operation: str) -> None:
        if not hasattr(getattr(self, operation, None), "__wrapped__"):
            raise ValueError(f"there is no operation {operation}")

    def obey(self, operation: str, target: str, *, after: bool) -> None:
        """Wait or fail if a test has requested it."""
        with self.lock:
            due = next((o for o in self._orders if o.fits(operation, target, after=after)), None)
            if due is not None:
                due.times -= 1
        if due is not None and due.hold is not None:
            due.hold.wait()
        if due is not None and due.error is not None:
            raise due.error

    def shown(self, target: str) -> str:
        """Return the name of the target, which the call may name by its id."""
        return target

    def new_id(self) -> str:
        """Return an unused id."""
        return f"{next(self._numbers):064x}"

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def version(self, api_version: bool = True) -> dict[str, str]:
        """Return the version that this Engine emulates."""
        return {"ApiVersion": self._version, "Version": "20.10"}


def operation(*, changes: bool) -> Callable[[F], F]:
    """Make a method a call that is recorded and can be made to fail.

    Args:
        changes: Whether it changes something.
    """

    def attach(method: F) -> F:
        name = method.__name__

        @functools.wraps(method)
        def call(self: "Base", *args: Any, **kwargs: Any) -> Any:
            target = self.shown(str(next((a for a in (*args, *kwargs.values()) if isinstance(a, str)), "")))
            if name == "pull":
                target = f"{target}:{kwargs.get('tag') or 'latest'}"
            line = f"{name} {target}".strip()
            with self.lock:
                self.calls.append(line)
                if changes:
                    self.changes.append(line)
            self.obey(name, target, after=False)
            with self.lock:
                result = method(self, *args, **kwargs)
            self.obey(name, target, after=True)
            return result

        return cast("F", call)

    return attach


def fits(labels: dict[str, str] | None, filters: Any) -> bool:
    """Tell whether labels match the Engine's ``label`` filter."""
    wanted = (filters or {}).get("label", [])
    for one in [wanted] if isinstance(wanted, str) else wanted:
        name, has_value, value = one.partition("=")
        if name not in (labels or {}) or (has_value and (labels or {})[name] != value):
            return False
    return True
