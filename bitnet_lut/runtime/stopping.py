"""When a text ends: the rules, and text that holds back what may be a stop string."""

from collections.abc import Sequence
from dataclasses import dataclass

from bitnet_lut.runtime.generation import FinishReason

__all__ = ["StopRules", "StoppedText"]


@dataclass(frozen=True)
class StopRules:
    """When a text ends.

    max_tokens: most tokens to generate. room: how many tokens the context leaves for them.
    strings: end the text and are cut off.
    end_ids, stop_ids: tokens that end it, for the reasons "eos" and "stop", and are not part of it.
    min_tokens: none of these tokens is chosen before so many others; a stop string may come before.
    """

    max_tokens: int
    room: int
    strings: tuple[str, ...] = ()
    end_ids: frozenset[int] = frozenset()
    stop_ids: frozenset[int] = frozenset()
    min_tokens: int = 0

    def forbidden(self, count: int) -> frozenset[int]:
        """The ids that may not follow *count* generated tokens."""
        return self.end_ids | self.stop_ids if count < self.min_tokens else frozenset()

    @property
    def limit(self) -> int:
        """The most tokens that can come."""
        return min(self.max_tokens, self.room)

    @property
    def reason_at_limit(self) -> FinishReason:
        """Why a text of that many tokens ends."""
        return "length" if self.max_tokens <= self.room else "context"


class StoppedText:
    """Text that comes in pieces; what may be the start of a stop string is held back."""

    def __init__(self, strings: Sequence[str]) -> None:
        """*strings*: the stop strings, none of them empty."""
        self._strings = strings
        self._most_held = max(map(len, strings), default=1) - 1
        self._held = ""
        self._shown: list[str] = []
        self.stopped = False

    def __str__(self) -> str:
        """Everything shown so far."""
        return "".join(self._shown)

    def push(self, piece: str) -> str:
        """Append *piece*; return what can be shown now, up to a stop string."""
        text = self._held + piece
        found = [at for at in map(text.find, self._strings) if at >= 0]
        self.stopped = bool(found)
        at = min(found) if found else len(text) - self._start_of_a_stop(text)
        self._held = "" if found else text[at:]
        self._shown.append(text[:at])
        return text[:at]

    def flush(self) -> str:
        """Return what was held back: the text ends here."""
        rest, self._held = self._held, ""
        self._shown.append(rest)
        return rest

    def _start_of_a_stop(self, text: str) -> int:
        """How many characters at the end of *text* may begin a stop string."""
        for length in range(min(len(text), self._most_held), 0, -1):
            if any(end.startswith(text[-length:]) for end in self._strings):
                return length
        return 0
