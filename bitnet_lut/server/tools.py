"""Functions that a model may call: what it is told of them, and what it answers."""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bitnet_lut.server.errors import RequestError

__all__ = ["Tools", "choose_tools", "find_calls"]

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)


class Tools(NamedTuple):
    """What a request says of tools.

    offered: for the template. schema: what the answer must follow where a call is required.
    """

    offered: Sequence[Mapping[str, Any]] | None
    schema: dict[str, Any] | None


def choose_tools(
    tools: Sequence[Mapping[str, Any]] | None, choice: str | Mapping[str, Any] | None
) -> Tools:
    """Read the fields tools and tool_choice; RequestError if they make no sense."""
    functions = {}
    for i, tool in enumerate(tools or ()):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, Mapping):
            raise RequestError(400, f"tools[{i}] must be of type 'function', and have one", "tools")
        name = function.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,64}", name):
            raise RequestError(400, f"tools[{i}].function.name is {name!r}, not a name", "tools")
        functions[name] = function
    match choice:
        case None | "auto":
            return Tools(tools or None, None)
        case "none":
            return Tools(None, None)
        case "required":
            wanted = list(functions)
        case {"type": "function", "function": {"name": str(name)}}:
            wanted = [name] if name in functions else []
        case _:
            raise RequestError(400, f"tool_choice is {choice!r}", "tool_choice")
    if not wanted:
        raise RequestError(400, "tool_choice asks for a tool that is not in tools", "tool_choice")
    return Tools(tools, {"anyOf": [_call_schema(functions[name]) for name in wanted]})


def _call_schema(function: Mapping[str, Any]) -> dict[str, Any]:
    parameters = function.get("parameters") or {"type": "object"}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def find_calls(text: str) -> tuple[str, list[dict[str, Any]]]:
    """What *text* says beside its calls, and the calls as clients expect them.

    Read are ``<tool_call>{"name": ..., "arguments": ...}</tool_call>``, and a text that is such an
    object as a whole, with "parameters" as another name of the arguments.
    """
    found = [_call(source) for source in _CALL.findall(text)]
    if found and None not in found:
        return _CALL.sub("", text).strip(), [call for call in found if call]
    whole = _call(text)
    return ("", [whole]) if whole else (text, [])


def _call(source: str) -> dict[str, Any] | None:
    try:
        match json.loads(source):
            case {"name": str(name), "arguments": dict(arguments)}:
                pass
            case {"name": str(name), "parameters": dict(arguments)}:
                pass
            case _:
                return None
    except (ValueError, RecursionError):
        return None
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}
