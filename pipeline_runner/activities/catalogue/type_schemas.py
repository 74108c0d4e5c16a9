"""The JSON Schemas of types: what the catalogue says that an activity takes and gives back.

msgspec makes them. Types that it does not know are asked of pydantic, if the module that
has them has imported it; nothing here does. Types with a fixed set of fields are closed,
at any depth: a key that they do not have would be dropped silently on its way in, and is
not there on its way out.
"""

import sys
import warnings
from typing import Any, Literal

import msgspec

Mode = Literal["validation", "serialization"]
"""What is asked of a type: what it takes, or what it becomes."""

_REFERENCE = "#/$defs/"


def schema_of(hint: Any, mode: Mode) -> dict[str, Any] | None:
    """Return the JSON Schema of a type hint; None: not known."""
    if hint is Any or hint is object:
        return None
    found = _by_msgspec(hint) or _by_pydantic(hint, mode)
    if found is None:
        return None
    schema, definitions = found
    name = schema.get("$ref", "").removeprefix(_REFERENCE)
    top = definitions.pop(name, None)
    if top is not None and f'"{schema["$ref"]}"' in msgspec.json.encode([top, definitions]).decode():
        definitions[name] = top  # it contains itself
        top = None
    whole = top or schema
    for part in (whole, *definitions.values()):
        if "properties" in part:
            part.setdefault("additionalProperties", False)
    return {**whole, **({"$defs": definitions} if definitions else {})}


def _by_msgspec(hint: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    try:
        (schema,), definitions = msgspec.json.schema_components([hint], ref_template=_REFERENCE + "{name}")
    except (TypeError, RuntimeError, NameError):  # pydantic models and what else there is
        return None
    return schema, definitions


def _by_pydantic(hint: Any, mode: Mode) -> tuple[dict[str, Any], dict[str, Any]] | None:
    pydantic: Any = sys.modules.get("pydantic")
    if not hasattr(pydantic, "TypeAdapter"):  # not imported, or of version 1
        return None
    base: Any = pydantic.json_schema.GenerateJsonSchema

    def model_schema(self: Any, schema: Any) -> dict[str, Any]:
        found: dict[str, Any] = base.model_schema(self, schema)
        if _has_other_names(schema["cls"], mode):
            found["additionalProperties"] = True
            found.pop("required", None)
        return found

    generator = type("_Generator", (base,), {"model_schema": model_schema})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            schema = pydantic.TypeAdapter(hint).json_schema(mode=mode, schema_generator=generator)
        except Exception:  # noqa: BLE001 - models have code of their own for this, and it is not ours
            return None
    return schema, schema.pop("$defs", {})


def _has_other_names(model: Any, mode: Mode) -> bool:
    """Tell whether fields may go by names that the schema does not have.

    What comes out has the aliases or not: that depends on the data converter.
    """
    fields = model.model_fields.items()
    if mode == "serialization":
        return any(field.serialization_alias not in (None, name) for name, field in fields)
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    aliases = [(name, field.validation_alias) for name, field in fields if field.validation_alias is not None]
    return any(not isinstance(alias, str) or (by_name and alias != name) for name, alias in aliases)
