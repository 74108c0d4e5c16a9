"""Saves a response as a file, which appears when it is complete and is undone like any other file."""

import os
from collections.abc import AsyncIterator
from typing import TypedDict

from pipeline_runner.activities.files.copying import remove_file, sync_folder
from pipeline_runner.activities.files.file import AbsolutePath, Bytes, Replaced
from pipeline_runner.activities.files.kept import new_name
from pipeline_runner.activities.http.arriving import keep, seal
from pipeline_runner.activities.toolkit.context import step_key
from pipeline_runner.activities.toolkit.errors import explain_errors
from pipeline_runner.activities.toolkit.heartbeat import Heart, time_left
from pipeline_runner.activities.toolkit.threads import PATIENCE, in_thread


class Saved(TypedDict, total=False):
    """The file with the response body. Empty without `save_as`."""

    path: AbsolutePath
    bytes: Bytes
    replaced: Replaced


async def save(pieces: AsyncIterator[bytes], target: str, total: int | None, heart: Heart) -> Saved:
    """Write a stream of bytes to a file.

    Args:
        pieces: The stream.
        target: The file's absolute path.
        total: The number of bytes expected; None: not known.
        heart: Receives the progress.

    Raises:
        ApplicationError: The system refuses.
    """
    done = 0
    with explain_errors(f"write {target}"):
        # Where the file system has no hard links, the old file is copied, which may take long.
        old, kept = await in_thread(lambda: keep(target, step_key()), patience=time_left(PATIENCE))
        new = new_name(os.path.dirname(target) if kept is None else kept.near)
        try:
            with open(new, "xb") as file:  # noqa: ASYNC230 - as quick as a write to it
                async for piece in pieces:
                    file.write(piece)
                    done += len(piece)
                    heart.tell({"done": done, "total": total, "unit": "bytes"})
                await in_thread(lambda: seal(file, old), patience=time_left(PATIENCE))
            os.replace(new, target)
        finally:
            remove_file(new)
            if kept is not None:
                kept.close()
        sync_folder(os.path.dirname(target))
    return Saved(path=target, bytes=done, replaced=old is not None)
