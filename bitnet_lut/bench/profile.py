"""Where the time of a step goes, by part of the model."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Clock", "Profile"]

# The parts of a model, with the ops whose results end them.
_PARTS = {
    "embedding": ("embedding",),
    "norms": ("attn_norm", "attn_sub_norm", "ffn_norm", "ffn_sub_norm", "output_norm"),
    "attention matrices": ("attn_q", "attn_k", "attn_v", "attn_output"),
    "attention": ("attention",),
    "ffn matrices": ("ffn_gate", "ffn_up", "ffn_down"),
    "ffn activation": ("ffn_activation",),
    "head": ("logits",),
}
_PART = {op: part for part, ops in _PARTS.items() for op in ops}
REST = "the rest"

Probe = Callable[[int, str, NDArray[np.float32]], None]


@dataclass(frozen=True)
class Profile:
    """Time by part of the model, while all workers wait for each other after every part.

    name: what was run, such as "generate 64".
    tokens: how many tokens of it were traced.
    parts: seconds by part; "norms" includes the quantization of their results, "attention" includes
        RoPE and the cache, "the rest" includes the calls.
    untraced: seconds of the same tokens without the waiting.
    """

    name: str
    threads: int
    isa: str
    kernel: str
    tokens: int
    parts: dict[str, float]
    untraced: float

    @property
    def seconds(self) -> float:
        """Seconds of all parts together."""
        return sum(self.parts.values())


class Clock:
    """Sums up the time between the results of ops, without the time of its own calls."""

    def __init__(self) -> None:
        """Start at zero."""
        self.parts: dict[str, float] = dict.fromkeys((*_PARTS, REST), 0.0)
        self._last = 0.0

    def time(self, trace: Callable[[Sequence[int], Probe], object], ids: Sequence[int]) -> None:
        """Run *ids* by ``trace(ids, probe)``, which is `Session.trace`."""
        self._last = time.perf_counter()
        trace(ids, self._probe)
        self.parts[REST] += time.perf_counter() - self._last

    def _probe(self, layer: int, op: str, array: NDArray[np.float32]) -> None:
        self.parts[_PART.get(op, REST)] += time.perf_counter() - self._last
        self._last = time.perf_counter()
