"""A recorder: activities whose effects are lines of a file, in the order in which they happen.

Used by the engine's tests, in this process and in workers that are killed.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.toolkit.context import idempotency_key, undone_outcome


def note(log: str, line: str) -> None:
    """Append a line, durably, in one write."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, f"{line}\n".encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lines(log: str | Path) -> list[str]:
    """Return what was recorded so far."""
    path = Path(log)
    return path.read_text().splitlines() if path.exists() else []


@activity.defn(name="effect.do")
async def do(given: dict[str, Any]) -> dict[str, Any]:
    """Do something named, and then what ``then`` says: nothing, fail, or hang; fail while ``blocker`` exists."""
    log, name, then = given["log"], given["name"], given.get("then", "")
    if name == given.get("at"):
        then = given["mode"]
    if "blocker" in given and Path(given["blocker"]).exists():
        raise ApplicationError(f"{name} is blocked", type="Blocked", non_retryable="again" not in given)
    if then == "fail":
        raise ApplicationError(f"{name} is out of order", type="Broken", non_retryable=True)
    if then == "die":
        os._exit(9)
    if not (activity.info().attempt > 1 and given.get("once")):
        note(log, f"do {name}")
    if then == "fail-after":
        raise ApplicationError(f"{name} broke down", type="Broken", non_retryable=True)
    if then == "hang":
        await asyncio.sleep(3600)
    while "hangs_while" in given and Path(given["hangs_while"]).exists():
        await asyncio.sleep(0.02)
    if then == "die-after":
        os._exit(9)
    await asyncio.sleep(given.get("seconds", 0))
    return {"name": name, "key": idempotency_key()}


@activity.defn(name="effect.undo")
async def undo(given: dict[str, Any]) -> None:
    """Undo something named; ``then`` makes it fail, once or always, or kills the worker once.

    It fails while a file ``blocker`` exists.

    With ``outcome`` it notes how the step ended that it undoes.
    """
    log, name, then = given["log"], given["name"], given.get("then", "")
    blocked = "blocker" in given and Path(given["blocker"]).exists()
    if blocked or then == "fail" or (then == "fail-once" and activity.info().attempt == 1):
        raise ApplicationError(f"{name} cannot be undone", type="Stuck")
    if then == "die-once" and activity.info().attempt == 1:
        os._exit(9)
    note(log, f"undo {name} after {undone_outcome()}" if given.get("outcome") else f"undo {name}")
    await asyncio.sleep(given.get("seconds", 0))


@activity.defn(name="effect.flaky")
async def flaky(given: dict[str, Any]) -> dict[str, Any]:
    """Do something named, and fail until it has been called as often as ``good`` says, in whatever attempt.

    ``hang`` is the number of the call that never ends.
    """
    log, name = given["log"], given["name"]
    note(log, f"do {name}")
    note(f"{log}.{name}", "called")
    number = len(lines(f"{log}.{name}"))
    if number < given["good"]:
        raise ApplicationError(f"call {number}", type=given.get("type", "Flaky"))
    if number == given.get("hang"):
        await asyncio.sleep(3600)
    return {"path": activity.info().activity_id, "number": number}


@activity.defn(name="effect.attempt")
async def attempt(given: dict[str, Any]) -> dict[str, Any]:
    """Do something named in the attempt ``good`` of the step ``of`` around it, and fail before it does in others."""
    path = activity.info().activity_id
    found = re.search(rf"(?:^|\.){given['of']}(?:\[\d+\])?(?:#(\d+))?\.", path)
    number = int(found[1] or 1) if found else 1
    if number < given["good"]:
        raise ApplicationError(f"attempt {number}", type="Early")
    note(given["log"], f"do {given['name']}")
    return {"name": given["name"]}
