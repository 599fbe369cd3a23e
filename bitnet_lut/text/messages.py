"""The messages of a chat, as in the OpenAI API: checked, and brought into one form."""

import json
from collections.abc import Mapping, Sequence
from reprlib import repr as quote
from typing import Any, Literal, NotRequired, TypedDict

__all__ = ["Message", "Role", "check_messages"]

Role = Literal["system", "user", "assistant", "tool"]

# "developer" is the newer name that OpenAI gives to "system".
_ROLES = {"system": "system", "developer": "system"} | {
    role: role for role in ("user", "assistant", "tool")
}
_TEXT_KEYS = ("name", "tool_call_id", "reasoning_content")
_DEEPEST = 64  # objects in objects


class Message(TypedDict):
    """One message of a chat.

    content: a text, or text parts ``{"type": "text", "text": ...}``, which are joined by line
        breaks. It may be None, or missing, beside tool_calls.
    tool_calls: what the assistant called: ``{"type": "function", "function": {"name": ...,
        "arguments": ...}}``, the arguments as an object or as its JSON text.
    """

    role: Role
    content: NotRequired[str | Sequence[Mapping[str, str]] | None]
    name: NotRequired[str]
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    tool_call_id: NotRequired[str]
    reasoning_content: NotRequired[str]


def check_messages(messages: Sequence[Message] | Sequence[Mapping[str, Any]]) -> list[Any]:
    """New messages in the one form that templates expect: content a text, arguments an object.

    Raises ValueError, which names the message and its key, for what is not such a message:
    ``messages[2].role is 'bot'; it must be one of ...``.
    """
    if isinstance(messages, str | bytes | Mapping) or not isinstance(messages, Sequence):
        raise ValueError(
            f"messages must be a list of messages such as {{'role': 'user', 'content': 'Hello'}}, "
            f"not {type(messages).__name__}"
        )
    if not messages:
        raise ValueError("messages is empty: give at least one message")
    return [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _message(message: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise ValueError(f"{where} is {quote(message)}; it must be a mapping with role and content")
    unknown = set(message) - {"role", "content", "tool_calls", *_TEXT_KEYS}
    if unknown:
        raise ValueError(f"{where} has the unknown key {quote(min(map(str, unknown)))}")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(
            f"{where}.role is {quote(role)}; it must be one of system, user, assistant, tool"
        )
    checked: dict[str, Any] = {"role": _ROLES[role]}
    calls = message.get("tool_calls")
    content = message.get("content")
    if content is None:
        if not calls:
            raise ValueError(f"{where}.content is missing; it must be a text")
        content = ""
    checked["content"] = _text(content, f"{where}.content")
    for key in _TEXT_KEYS:
        if message.get(key) is not None:
            if not isinstance(message[key], str):
                raise ValueError(f"{where}.{key} is {quote(message[key])}; it must be a text")
            checked[key] = message[key]
    if calls is not None:
        if role != "assistant":
            raise ValueError(f"{where}.tool_calls belongs to the assistant, not to {role}")
        checked["tool_calls"] = _tool_calls(calls, f"{where}.tool_calls")
    return checked


def _text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, bytes | Mapping) or not isinstance(content, Sequence):
        raise ValueError(f"{where} is {quote(content)}; it must be a text or a list of text parts")
    texts = []
    for i, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "text":
            raise ValueError(f"{where}[{i}] is {quote(part)}; only text parts can be read")
        if not isinstance(part.get("text"), str):
            raise ValueError(f"{where}[{i}].text is {quote(part.get('text'))}; it must be a text")
        texts.append(part["text"])
    return "\n".join(texts)


def _tool_calls(calls: object, where: str) -> list[dict[str, Any]]:
    if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
        raise ValueError(f"{where} is {quote(calls)}; it must be a list")
    checked = []
    for i, call in enumerate(calls):
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise ValueError(f"{where}[{i}].function must have a name and arguments")
        place = f"{where}[{i}].function.arguments"
        arguments = function.get("arguments", {})
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments)
            except (ValueError, RecursionError):
                raise ValueError(f"{place} is {quote(arguments)}, which is no JSON") from None
        if not isinstance(arguments, Mapping):
            raise ValueError(f"{place} is {quote(arguments)}; it must be an object")
        named = {"name": function["name"], "arguments": plain(arguments, place)}
        checked.append({"type": "function", "function": named})
        if isinstance(call.get("id"), str):
            checked[-1]["id"] = call["id"]
    return checked


def plain(value: object, where: str, depth: int = 0) -> Any:
    """A copy of *value* made of what JSON can hold; ValueError if it is something else."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if depth == _DEEPEST:
        raise ValueError(f"{where} is nested more than {_DEEPEST} deep")
    if isinstance(value, Mapping):
        return {str(key): plain(entry, where, depth + 1) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(entry, where, depth + 1) for entry in value]
    raise ValueError(f"{where} holds {quote(value)}, which is not JSON")
