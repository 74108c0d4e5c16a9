"""What is replayed: the modules of ``engine/workflow`` and of ``core``, and what they may import."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipeline_runner

ROOT = Path(pipeline_runner.__file__).parent
REPLAYED = sorted([*(ROOT / "engine" / "workflow").rglob("*.py"), *(ROOT / "core").rglob("*.py")])
INTERCEPTORS = ROOT / "engine" / "workflow" / "interceptors.py"


# While the tests are collected: beside threads, Python 3.11 may refuse to make a tree (gh-106905).
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in REPLAYED}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, with the names that it takes from it."""
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", REPLAYED, ids=[str(p.relative_to(ROOT)) for p in REPLAYED])
def test_a_replayed_module_uses_neither_a_client_nor_a_worker(path: Path) -> None:
    forbidden = ("temporalio.client", "temporalio.worker", "temporalio.service", "temporalio.activity")
    found = [name for name in imports(path) if name.startswith(forbidden)]
    if path == INTERCEPTORS:
        # The classes that an interceptor must have as its base, and their inputs.
        assert found
        found = [name for name in found if not name.endswith(("Interceptor", "Input"))]
    assert not found


def test_a_replayed_module_asks_only_the_workflow_for_the_time() -> None:
    for path in REPLAYED:
        for node in ast.walk(TREES[path]):
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"utcnow", "today", "perf_counter", "monotonic"}, (path, node.lineno)
                if node.attr == "now":
                    assert isinstance(node.value, ast.Name), (path, node.lineno)
                    assert node.value.id == "workflow", (path, node.lineno)
