"""Changing inputs at random: bytes, and the values inside JSON."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

_NUMBERS = [0, 1, 2, 3, 4, 8, 31, 32, 64, 127, 128, 255, 256, 2**15, 2**16, 2**20, 2**31 - 1]
_NUMBERS += [2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30]
_VALUES: list[Any] = [None, True, False, "", "a", "\0", "\ud800", "x" * 300, "../x", "/", "nan"]
_VALUES += [0.5, -0.0, 1e308, float("inf"), float("nan"), 1e-45, *_NUMBERS, *(-n for n in _NUMBERS)]
_CONTAINERS = ("[]", "{}", "[0]", "[[]]", '{"": 0}')


def mutate_bytes(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Flip, overwrite, cut, repeat and join some pieces."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changed):
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 2:
                code = rng.choice("BHIQ")
                value = rng.choice((*_NUMBERS, len(data), len(data) + 1))
                value &= 2 ** (8 * struct.calcsize(f"<{code}")) - 1
                number = struct.pack(f"<{code}", value)
                changed[at : at + len(number)] = number
            case 3:
                del changed[at : at + rng.choice((1, 2, 8, 100, len(changed)))]
            case 4:
                end = at + rng.choice((1, 4, 8, 64))
                changed[at:at] = changed[at:end] * rng.choice((1, 2, 10))
            case 5:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 8)))
            case 6:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                length = rng.choice((4, 16, 64))
                changed[at : at + length] = other[start : start + length]
    return bytes(changed)


def mutate_json(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Change some values, keys and places of a JSON text, and now and then its bytes."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        value = _change(value, rng, others)
    if rng.random() < 0.02:  # nested beyond what parsers take
        depth = rng.choice((100, 1000, 100_000))
        return b"[" * depth + json.dumps(value).encode() + b"]" * depth
    text = json.dumps(value).encode()
    return mutate_bytes(text, rng, others) if rng.random() < 0.15 else text


def _change(value: Any, rng: random.Random, others: Sequence[bytes]) -> Any:
    """*value* with one place in it changed."""
    places = list(_places(value))
    if not places:
        return _value(rng)
    holder, key = rng.choice(places)
    match rng.randrange(8):
        case 0 | 1 | 2:
            holder[key] = _value(rng)
        case 3:
            del holder[key]
        case 4:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"x": holder[key]}
        case 5:  # a value of the same text, or of another one
            other = list(_places(json.loads(rng.choice(others))))
            if other:
                there, name = rng.choice(other)
                holder[key] = there[name]
        case 6 if isinstance(holder, dict):
            holder[rng.choice((f"{key}x", "type", "", "x" * 300))] = deepcopy(holder[key])
        case 6:
            holder.insert(key, deepcopy(holder[key]))
        case 7:
            holder[key] = _near(holder[key], rng)
    return value


def _value(rng: random.Random) -> Any:
    return json.loads(rng.choice(_CONTAINERS)) if rng.random() < 0.1 else rng.choice(_VALUES)


def _near(value: Any, rng: random.Random) -> Any:
    """Something like *value*."""
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, 2 * value, value // 2, float(value)))
    if isinstance(value, float):
        return rng.choice((-value, value * 1e30, int(value) if abs(value) < 1e300 else 0))
    if isinstance(value, str):
        return rng.choice((value[:-1], value + "a", value * 2, value.upper(), f"##{value}"))
    return value


def _places(value: Any) -> Any:
    """Every (holder, key) inside a value."""
    inner: Any = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, part in inner:
        yield value, key
        yield from _places(part)


Mutate = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
