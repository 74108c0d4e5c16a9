"""Inserts strings into a value of a data converter, whatever its type is.

Secrets are inserted into an activity's arguments after these were decoded, because only then is it
known that the activity is about to run.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import msgspec
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue


def placed(value: Any, path: list[str | int], change: Callable[[str], str]) -> Any:
    """Return a copy of a value in which the string at a path is changed.

    Args:
        value: JSON data, or a converter's value for it: dataclasses, msgspec structs, pydantic models, raw
            values, and lists and mappings of them.
        path: Keys and indexes, as in the JSON data.
        change: Returns the new string for the old one.

    Raises:
        TypeError: There is no string at that path.
    """
    if isinstance(value, RawValue):
        data = placed(json.loads(value.payload.data), path, change)
        return RawValue(Payload(metadata=dict(value.payload.metadata), data=json.dumps(data).encode()))
    if not path:
        if not isinstance(value, str):
            raise TypeError(f"a string is needed there, not {type(value).__name__}")
        return change(value)
    key, rest = path[0], path[1:]
    try:
        if isinstance(value, dict):
            return {**value, key: placed(value[key], rest, change)}
        if isinstance(value, list | tuple):
            items = list(value)
            items[int(key)] = placed(items[int(key)], rest, change)
            return type(value)(items)
        return _with_field(value, str(key), placed(getattr(value, str(key)), rest, change))
    except (LookupError, AttributeError) as error:
        raise TypeError(f"{type(value).__name__} has no such field: {error}") from None


def _with_field(value: Any, name: str, item: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{name: item})
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.replace(value, **{name: item})
    if hasattr(value, "model_copy"):
        return value.model_copy(update={name: item})
    raise TypeError(f"a {type(value).__name__} cannot be copied with another {name}")
