"""What the attempts of the ``http`` family share while a worker runs.

Every worker imports this module, but the HTTP client only with the activities that need it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any


class Shared:
    """What the workers on one event loop share."""

    def __init__(self) -> None:
        self.workers = 0
        self.routes: dict[Any, Any] = {}
        """Connections, by the settings of the environment that they were made with."""
        self.closing: list[Callable[[], Awaitable[None]]] = []
        """What closes them."""


_shared: dict[asyncio.AbstractEventLoop, Shared] = {}


def shared() -> Shared | None:
    """Return what the workers on this event loop share; None: there are none."""
    return _shared.get(asyncio.get_running_loop())


@asynccontextmanager
async def shared_connections() -> AsyncIterator[None]:
    """Share connections among the activities of this event loop until the last worker leaves."""
    loop = asyncio.get_running_loop()
    ours = _shared.setdefault(loop, Shared())
    ours.workers += 1
    try:
        yield
    finally:
        ours.workers -= 1
        if not ours.workers:
            del _shared[loop]
            for close in ours.closing:
                await close()
