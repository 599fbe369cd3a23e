"""JSON schemas of Python types, and values of those types from JSON.

Supported are str, int, float, bool, None, list[T], tuple[T, ...], dict[str, T], Literal, enums,
unions, Annotated, dataclasses and TypedDicts, in any depth and with recursion.
"""

import dataclasses
import enum
import types
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

__all__ = ["from_json", "is_type", "schema_of"]

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def is_type(value: object) -> bool:
    """Whether *value* is one of the types that `schema_of` may take, and not a schema or a text."""
    return isinstance(value, type | types.UnionType) or get_origin(value) is not None


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON schema of a type; TypeError, which names it, for a type that has none."""
    definitions: dict[str, Any] = {}
    schema = _schema(kind, definitions)
    return {**schema, "$defs": definitions} if definitions else schema


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if kind is None or kind in _PLAIN:
        return {"type": _PLAIN[type(None) if kind is None else kind]}
    if origin in (Annotated, Required, NotRequired):
        return _schema(args[0], definitions)
    if origin is Literal:
        return {"enum": list(args)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(arg, definitions) for arg in args]}
    if kind is list or origin is list:
        return {"type": "array", "items": _schema(args[0] if args else Any, definitions)}
    if origin is tuple:
        return _tuple_schema(args, definitions)
    if kind is dict or origin is dict:
        if args and args[0] is not str:
            raise TypeError(f"{kind} has no JSON schema: keys must be str")
        return {
            "type": "object",
            "additionalProperties": _schema(args[1] if args else Any, definitions),
        }
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    if dataclasses.is_dataclass(kind) or is_typeddict(kind):
        return _object_schema(kind, definitions)
    raise TypeError(
        f"{kind!r} has no JSON schema: use str, int, float, bool, None, list, tuple, dict[str, T], "
        "Literal, an enum, a union, a dataclass or a TypedDict"
    )


def _tuple_schema(args: tuple[Any, ...], definitions: dict[str, Any]) -> dict[str, Any]:
    if len(args) == 2 and args[1] is ...:
        return {"type": "array", "items": _schema(args[0], definitions)}
    entries = [_schema(arg, definitions) for arg in args]
    count = {"minItems": len(args), "maxItems": len(args)}
    return {"type": "array", "prefixItems": entries, "items": False, **count}


def _object_schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """A reference to the definition of a dataclass or TypedDict, which is made on first use."""
    name = kind.__name__
    reference = {"$ref": f"#/$defs/{name}"}
    known = definitions.get(name)
    if known is not None:
        if known.get("title") != f"{kind.__module__}.{kind.__qualname__}":
            raise TypeError(f"two types are called {name}: rename one of them")
        return reference
    definition: dict[str, Any] = {"title": f"{kind.__module__}.{kind.__qualname__}"}
    definitions[name] = definition
    fields = _fields(kind)
    definition |= {
        "type": "object",
        "properties": {key: _schema(hint, definitions) for key, (hint, _) in fields.items()},
        "required": [key for key, (_, required) in fields.items() if required],
        "additionalProperties": False,
    }
    return reference


def _fields(kind: Any) -> dict[str, tuple[Any, bool]]:
    """The fields of a dataclass or TypedDict: each one's type and whether it must be there."""
    hints = get_type_hints(kind, include_extras=True)
    if is_typeddict(kind):
        required = kind.__required_keys__
        return {key: (hint, key in required) for key, hint in hints.items()}
    missing = dataclasses.MISSING
    return {
        field.name: (
            hints[field.name],
            field.default is missing and field.default_factory is missing,
        )
        for field in dataclasses.fields(kind)
        if field.init
    }


def from_json(kind: Any, value: Any) -> Any:
    """The value of type *kind* that *value*, read from JSON, stands for.

    Raises TypeError if it stands for none, which a text that follows the schema never does.
    """
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Annotated, Required, NotRequired):
        return from_json(args[0], value)
    if origin in (Union, types.UnionType):
        return _one_of(args, value)
    if origin is Literal and any(value == arg and type(value) is type(arg) for arg in args):
        return value
    if (kind is list or origin is list) and isinstance(value, list):
        return [from_json(args[0], entry) for entry in value] if args else value
    if origin is tuple and isinstance(value, list):
        kinds = [args[0]] * len(value) if args[1:] == (...,) else args
        return tuple(from_json(k, entry) for k, entry in zip(kinds, value, strict=True))
    if (kind is dict or origin is dict) and isinstance(value, dict):
        return {key: from_json(args[1], entry) for key, entry in value.items()} if args else value
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind(value)
    if isinstance(value, Mapping) and (dataclasses.is_dataclass(kind) or is_typeddict(kind)):
        fields = _fields(kind)
        missing = [key for key, (_, required) in fields.items() if required and key not in value]
        if missing:
            raise TypeError(f"{kind.__name__} needs {missing[0]!r}, which is missing")
        return kind(**{key: from_json(fields[key][0], entry) for key, entry in value.items()})
    return _plain_value(kind, value)


def _plain_value(kind: Any, value: Any) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if value is None and kind in (None, type(None)):
        return None
    # A whole number may be written as 1.0 in JSON, which json reads as a float.
    if kind is int and type(value) is float and value.is_integer():
        return int(value)
    if kind in _PLAIN and type(value) is kind:
        return value
    raise TypeError(f"{value!r} is no {kind}")


def _one_of(kinds: tuple[Any, ...], value: Any) -> Any:
    for kind in kinds:
        try:
            return from_json(kind, value)
        except (TypeError, ValueError, KeyError):
            continue
    raise TypeError(f"{value!r} is not one of {kinds}")
