"""The public names, exactly: whoever adds or removes one says so here, in the documentation and in the changelog."""

import subprocess
import sys
from importlib import import_module

import pytest

PUBLIC = {
    "pipeline_runner": [
        "ConflictError",
        "Connection",
        "Diagnostic",
        "Ended",
        "ErrorInfo",
        "Event",
        "InvalidInputs",
        "InvalidPipeline",
        "Pipeline",
        "PipelinePlugin",
        "Problem",
        "Progress",
        "RefusedError",
        "Report",
        "Run",
        "RunCancelled",
        "RunError",
        "RunFailed",
        "Runner",
        "TooLargeError",
        "UnansweredError",
        "UndoRecord",
        "UnreachableError",
        "Unserved",
        "UsageError",
        "WorkflowIdError",
        "load",
        "load_directory",
        "load_text",
        "worker",
    ],
    "pipeline_runner.activity": [
        "Retry",
        "Timeouts",
        "Undo",
        "absolute",
        "describe",
        "idempotency_key",
        "progress",
        "undone_outcome",
        "working_directory",
    ],
    "pipeline_runner.testing": ["Server", "activity_environment", "dev_server", "replayer"],
}


@pytest.mark.parametrize("name", PUBLIC)
def test_a_module_has_exactly_its_public_names(name: str) -> None:
    module = import_module(name)
    assert sorted(module.__all__) == PUBLIC[name]
    for member in module.__all__:
        assert getattr(module, member).__doc__, member
    assert set(module.__all__) <= set(dir(module))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'pipeline_runner' has no attribute 'lod'"):
        import_module("pipeline_runner").lod  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'lod'"):
        exec("from pipeline_runner import lod")


def imports(code: str, *modules: str) -> list[str]:
    """Return which of these modules a new interpreter has after some code."""
    check = f"{code}\nimport sys\nprint(*[name for name in {modules!r} if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=True, timeout=60
    )
    return result.stdout.split()


def test_to_import_the_package_imports_nothing_of_it() -> None:
    inner = ("pipeline_runner.api", "pipeline_runner.core", "msgspec", "temporalio")
    assert imports("import pipeline_runner", *inner) == []


def test_to_load_a_pipeline_imports_no_temporalio(tmp_path_factory: pytest.TempPathFactory) -> None:
    text = "name: a\nsteps: [{id: b, set: {c: 1}}]\n"
    code = f"from pipeline_runner import load_text; assert load_text({text!r}).check_inputs({{}}) == {{}}"
    assert imports(code, "temporalio", "httpx") == []
    assert imports("import pipeline_runner.activity", "temporalio") == []
