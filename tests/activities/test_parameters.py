"""Input that does not fit is refused by name, at once, and without its value."""

import asyncio
from typing import Any

import pytest
from temporalio import activity
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from pipeline_runner.activities.catalogue.providers import BUILTIN_MODULES, activities_of
from pipeline_runner.activities.files.file import WriteInput, write
from pipeline_runner.activities.http.request import request
from pipeline_runner.activities.shell import run as shell_run
from pipeline_runner.activities.toolkit.parameters import as_text


async def _call(function: Any, value: Any) -> Any:
    result = function(value)
    return await result if asyncio.iscoroutine(result) else result


def _decoded(function: Any, value: Any) -> Any:
    """Pass a value through Temporal's default converter, as a worker would."""
    definition = activity._Definition.must_from_callable(function)
    converter = DataConverter.default.payload_converter
    return converter.from_payloads(converter.to_payloads([value]), definition.arg_types)[0]


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        (shell_run, {"command": "ls"}, "Expected `array`, got `str` - at `command`"),
        (shell_run, {"command": []}, "Expected `array` of length >= 1 - at `command`"),
        (shell_run, {"command": ["ls"], "env": {"A": None}}, "got `null` - at `env[...]`"),
        (shell_run, {"command": ["ls"], "parse": "xml"}, "Invalid enum value 'xml' - at `parse`"),
        (request, {}, "Object missing required field `url`"),
        (request, {"url": "http://x", "expect_status": [99]}, "at `expect_status[0]`"),
        (write, {"path": "", "content": "x"}, "at `path`"),
        (write, ["a"], "Expected `object`, got `array`"),
    ],
)
def test_a_misfit_is_not_retried_and_named(function: Any, value: Any, message: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        asyncio.run(_call(function, _decoded(function, value)))
    assert message in caught.value.message
    assert caught.value.message.startswith("the input is not valid: ")
    assert caught.value.type == "InvalidInput"
    assert caught.value.non_retryable
    assert caught.value.__cause__ is None


def test_temporal_hands_the_plain_value_to_every_builtin() -> None:
    """Else Temporal's own lenient decoding would come first."""
    functions = [function for module in BUILTIN_MODULES for function in activities_of(module)]
    assert len(functions) == 33
    for function in functions:
        assert activity._Definition.must_from_callable(function).arg_types == [Any]


def test_the_parameters_class_is_accepted_too(tmp_path: Any) -> None:
    result = write(WriteInput(path=str(tmp_path / "f"), content="x"))
    assert (result.bytes, result.replaced) == (1, False)


def test_scalars_become_text_as_in_templates() -> None:
    assert [as_text(v) for v in ("a", 5, 1.5, True, False)] == ["a", "5", "1.5", "true", "false"]
