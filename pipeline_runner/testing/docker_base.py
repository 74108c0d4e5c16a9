"""What the parts of the stand-in share: errors, the record of calls, orders to fail or to wait."""

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
    """Return the error that the client raises for an answer of the Engine.

    Args:
        status: The HTTP status, 400 or more.
        message: What the Engine says.
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
    """Return the error for an Engine that does not listen."""
    error = requests.exceptions.ConnectionError("Connection aborted.")
    error.__cause__ = ConnectionRefusedError(111, "Connection refused")
    return error


def broken() -> requests.exceptions.ConnectionError:
    """Return the error for an Engine that went away during the call."""
    error = requests.exceptions.ConnectionError("Connection aborted.")
    error.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    return error


@dataclass(eq=False)
class Hold:
    """A call that waits until it is released."""

    entered: threading.Event = field(default_factory=threading.Event)
    """Set when the call is there."""
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let the call go on, and those after it."""
        self._released.set()

    def wait(self) -> None:
        """Wait for the release, for at most a minute."""
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
    """The record of calls, and what was ordered for them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        """Every call, such as ``stop web``, in order."""
        self.changes: list[str] = []
        """The calls that change something, in order: not those that only look."""
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
        """Have calls fail.

        Args:
            operation: The client's method: ``stop``, ``commit``, ``create_network``.
            container: Only for this container, by the name that the call gives.
            image: Only for this image.
            network: Only for this network.
            volume: Only for this volume.
            with_: The error: see :func:`answer`, :func:`unreachable`, :func:`broken`. Default: a status 500.
            times: How many calls.
            after: Do what was asked for, and fail then: the answer got lost.
        """
        error = with_ or answer(500, f"the {operation} was told to fail")
        target = container or image or network or volume
        self._check(operation)
        self._orders.append(_Order(operation, target, error, times=times, after=after))

    def hold(self, operation: str, target: str | None = None, *, after: bool = False) -> Hold:
        """Have a call wait, before it does anything, until it is released; ``after``: when it is done."""
        self._check(operation)
        hold = Hold()
        self._orders.append(_Order(operation, target, hold=hold, times=1, after=after))
        return hold

    def _check(self, operation: str) -> None:
        if not hasattr(getattr(self, operation, None), "__wrapped__"):
            raise ValueError(f"there is no operation {operation}")

    def obey(self, operation: str, target: str, *, after: bool) -> None:
        """Wait or fail, if that was ordered."""
        with self.lock:
            due = next((o for o in self._orders if o.fits(operation, target, after=after)), None)
            if due is not None:
                due.times -= 1
        if due is not None and due.hold is not None:
            due.hold.wait()
        if due is not None and due.error is not None:
            raise due.error

    def shown(self, target: str) -> str:
        """Return a thing's name, whatever the call names it by."""
        return target

    def new_id(self) -> str:
        """Return an id that nothing has."""
        return f"{next(self._numbers):064x}"

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def version(self, api_version: bool = True) -> dict[str, str]:
        """Return the version that this behaves like."""
        return {"ApiVersion": self._version, "Version": "20.10"}


def operation(*, changes: bool) -> Callable[[F], F]:
    """Make a method a call that is noted, and that can be told to fail.

    Args:
        changes: It changes something.
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
    """Tell whether labels fit the Engine's filter ``label``."""
    wanted = (filters or {}).get("label", [])
    for one in [wanted] if isinstance(wanted, str) else wanted:
        name, has_value, value = one.partition("=")
        if name not in (labels or {}) or (has_value and (labels or {})[name] != value):
            return False
    return True
