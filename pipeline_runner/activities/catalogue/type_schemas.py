"""The JSON Schemas of types: what an activity accepts and returns, for the catalogue.

msgspec makes them. For types that it does not know, pydantic is used if the type's module has imported
it; this module does not import it. Types with a fixed set of fields are closed at any depth: an unknown
key would be dropped silently from the input, and cannot occur in the output.
"""

import sys
import warnings
from typing import Any, Literal

import msgspec

Mode = Literal["validation", "serialization"]
"""Which schema of a type: that of its input, or that of its output."""

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
    except (TypeError, RuntimeError, NameError):  # pydantic models, and everything else
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
        except Exception:  # noqa: BLE001 - models run code of their own here
            return None
    return schema, schema.pop("$defs", {})


def _has_other_names(model: Any, mode: Mode) -> bool:
    """Tell whether fields may have names that are not in the schema.

    Whether the output has the aliases depends on the data converter.
    """
    fields = model.model_fields.items()
    if mode == "serialization":
        return any(field.serialization_alias not in (None, name) for name, field in fields)
    config = model.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    aliases = [(name, field.validation_alias) for name, field in fields if field.validation_alias is not None]
    return any(not isinstance(alias, str) or (by_name and alias != name) for name, alias in aliases)
