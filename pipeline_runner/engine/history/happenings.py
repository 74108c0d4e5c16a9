"""The events of a run that is followed."""

from dataclasses import dataclass
from typing import Any, Literal

State = Literal["running", "waiting", "retrying", "completed", "failed", "cancelled", "skipped"]
End = Literal["completed", "failed", "cancelled", "terminated", "timed out"]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What has become of the items of a loop."""

    path: str
    """The loop's path."""
    total: int | None
    """None: how many there are is not known."""
    done: int
    """Items that have ended well; those that were skipped are among them."""
    running: int
    failed: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """An event of a step, or of its undo."""

    path: str
    """The step's path; a child's steps come after ``/``."""
    name: str
    state: State
    undo: bool = False
    attempt: int = 1
    maximum_attempts: int | None = None
    """None: there is no limit, or it is not known."""
    since: float
    """Seconds since the start of the run."""
    elapsed: float | None = None
    """Seconds since the step was scheduled, once it has ended."""
    error: str | None = None
    details: Any = None
    """The last heartbeat's details while it runs."""
    waiting_for: str | None = None
    """What a waiting step waits for, unless it is a time: an event, people, a worker."""
    workflow_id: str | None = None
    """Of the run of a step that waits for an event or for people: the run itself, or a child."""
    counts: Counts | None = None
    """Of the outermost loop with many items that the step is in."""
    next_attempt: float | None = None
    """Seconds until the next attempt, while it waits for it."""


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The server became unreachable, or reachable again."""

    lost: bool


@dataclass(frozen=True, kw_only=True)
class Unserved:
    """No worker takes the run, or a step, from its task queue."""

    queue: str


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The run has ended."""

    state: End
    elapsed: float
    """Seconds since its start."""


Happening = Progress | Connection | Unserved | Ended
