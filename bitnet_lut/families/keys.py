"""Checked values of a file's metadata; every error names file, key and value."""

from collections.abc import Mapping
from typing import Any, NoReturn, cast, get_args

from bitnet_lut.errors import FormatError
from bitnet_lut.families.config import Activation

_MAX_COUNT = 2**31 - 1  # counts are int32 in C
# Real numbers stay clear of zero and infinity in float32.
_MIN_REAL, _MAX_REAL = 1e-30, 1e30
_MAX_QUOTED = 80


class Keys:
    """Values by name, checked for presence, type and range.

    source: the path that opens every error.
    real_types: types a real number may have: GGUF types its numbers, JSON does not.
    """

    def __init__(
        self, values: Mapping[str, Any], source: str, real_types: tuple[type, ...]
    ) -> None:
        """Nothing is checked until it is asked for."""
        self.values = values
        self.source = source
        self.real_types = real_types

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Raise the FormatError that quotes the value of *key*, which must be there."""
        value = repr(self.values[key])
        value = value if len(value) <= _MAX_QUOTED else value[:_MAX_QUOTED] + "..."
        raise FormatError(f"{self.source}: {key} is {value}: {reason}")

    def text(self, key: str, default: str | None = None) -> str:
        """A string; *default* where the key is missing."""
        value = self.values.get(key, default)
        if value is None:
            self._missing(key)
        if not isinstance(value, str):
            self.refuse(key, "it must be a string")
        return value

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            self.refuse(key, "it must be true or false")
        return value

    def count(self, key: str) -> int:
        """An integer in 1..2**31 - 1."""
        value = self._get(key)
        if type(value) is not int:
            self.refuse(key, "it must be an integer")
        if not 0 < value <= _MAX_COUNT:
            self.refuse(key, f"it must be in 1..{_MAX_COUNT}")
        return value

    def real(self, key: str) -> float:
        """A positive number that float32 can hold."""
        value = self._get(key)
        if type(value) not in self.real_types:
            self.refuse(key, "it must be a floating-point number")
        if not _MIN_REAL <= value <= _MAX_REAL:
            self.refuse(key, f"it must be in {_MIN_REAL}..{_MAX_REAL}")
        return float(value)

    def activation(self, key: str) -> Activation:
        """The name of an activation."""
        name = self.text(key)
        if name not in get_args(Activation):
            self.refuse(key, f"only {' and '.join(get_args(Activation))} are supported")
        return cast(Activation, name)

    def _get(self, key: str) -> Any:
        value = self.values.get(key)
        if value is None:
            self._missing(key)
        return value

    def _missing(self, key: str) -> NoReturn:
        raise FormatError(f"{self.source}: {key} is missing")
