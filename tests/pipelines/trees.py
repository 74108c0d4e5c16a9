"""What stands in a folder: every file's bytes and mode, every folder."""

from pathlib import Path

Tree = dict[str, tuple[int, bytes | None]]


def tree(folder: Path) -> Tree:
    """Return what is in a folder, without the state of the command itself."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
        if path.relative_to(folder).parts[0] not in {"state", "config"}
    }


def files(folder: Path) -> list[str]:
    """Return the paths of the files that a pipeline made."""
    return sorted(name for name, (_, data) in tree(folder).items() if data is not None)
