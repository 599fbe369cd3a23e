"""The result of every op of a run."""

from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import NumericsError
from bitnet_lut.runtime.arguments import int32_ids
from bitnet_lut.runtime.session import Session

__all__ = ["trace_ops"]


def trace_ops(session: Session, ids: Sequence[int]) -> dict[tuple[int, str], NDArray[np.float32]]:
    """Run *ids* (n) on a new session: {(layer, op): float32 (n, width)}, in order.

    Results that are not finite are kept: whoever traces looks for them.
    """
    tokens = int32_ids(ids)
    session._check_room(tokens)
    logits = np.empty((len(tokens), session._engine.config.vocab_size), np.float32)
    pieces: dict[tuple[int, str], list[NDArray[np.float32]]] = {}

    def probe(layer: int, op: str, array: NDArray[np.float32]) -> None:
        pieces.setdefault((layer, op), []).append(array)

    with suppress(NumericsError):
        session._run(tokens, logits, probe=probe)
    return {place: np.concatenate(arrays) for place, arrays in pieces.items()}
