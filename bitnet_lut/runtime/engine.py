"""What all sequences of one model share: the weights, the threads, and one workspace."""

import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut._native import PAGE, Cache, Drawer, Pages, Pool, Weights, Workspace
from bitnet_lut.errors import NumericsError
from bitnet_lut.runtime.memory import in_megabytes, refuse_beyond

if TYPE_CHECKING:
    from bitnet_lut.runtime.logprobs import Score, Scoring
    from bitnet_lut.runtime.sampling import Drawing

__all__ = ["BATCH", "Engine", "Probe"]

# Called with the layer (-1 outside the layers), the op's name and its result (n, width).
Probe = Callable[[int, str, NDArray[np.float32]], None]

# Texts that run together at most, and tokens whose logits are in memory at once.
BATCH = 128
_PROBED = 8  # tokens that the hash of a model is made from


class Engine:
    """Steps sequences of one model. Threads may share it: their steps take turns.

    kind: what caches keep keys and values in, one of `_native.CACHE_KINDS`.
    context: positions that the workspace is made for; it grows if a longer cache comes.
    batch: most tokens computed at once; results do not depend on it. None: as many as pay here.
    """

    def __init__(
        self, weights: Weights, pool: Pool, *, kind: str, context: int, batch: int | None = None
    ) -> None:
        """Take over *weights* and *pool*; the workspace is made when it is first needed."""
        self.config, self.pool = weights.config, pool
        self._weights: Weights | None = weights
        self.kind, self._context = kind, context
        self.batch = weights.batch if batch is None else batch
        self._fingerprint: str | None = None
        self._workspace: Workspace | None = None
        self._isa = weights.isa
        self._drawer = Drawer(isa=self._isa, pool=pool)
        self._lock = threading.Lock()
        _ENGINES.add(self)

    @property
    def weights(self) -> Weights:
        """The weights; ValueError once the model was closed."""
        if self._weights is None:
            raise ValueError("this model was closed: open it again to use it")
        return self._weights

    @property
    def is_open(self) -> bool:
        """Whether `close` was not called yet."""
        return self._weights is not None

    def close(self) -> None:
        """Let go of weights and workspace; caches keep the weights as long as they live."""
        self._weights = self._workspace = None

    def cache_bytes(self, context: int) -> int:
        """Bytes of the keys and values of *context* positions."""
        return _native.cache_bytes(self.weights, context, kind=self.kind)

    def workspace_bytes(self, context: int) -> int:
        """Bytes of the workspace for caches of up to *context* positions."""
        return _native.workspace_bytes(
            self.weights, context=context, batch=self.batch, threads=self.pool.threads
        )

    def cache(self, context: int, *, promised: int = 0) -> Cache:
        """Make an empty cache; raises what `refuse_cache` raises."""
        self.refuse_cache(context, promised=promised)
        return Cache(self.weights, context, kind=self.kind)

    def pages(self, most_bytes: int) -> Pages:
        """Memory for caches, of at most *most_bytes*; ValueError if that is less than one page."""
        page = _native.page_bytes(self.weights, kind=self.kind)
        if most_bytes < page:
            raise ValueError(
                f"{in_megabytes(most_bytes)} for caches is less than one page of {PAGE} positions "
                f"takes, {in_megabytes(page)}"
            )
        return Pages(self.weights, kind=self.kind, most=most_bytes // page)

    def fingerprint(self) -> str:
        """Hash of what the model computes, which all of its weights enter.

        It is that of the logits of some ids, which are the same bits on every machine, with every
        kernel and in every format of file, but not for other weights or another kind of cache.
        """
        if self._fingerprint is None:
            vocab_size = self.config.vocab_size
            ids = np.array([i * 7919 % vocab_size for i in range(_PROBED)], np.int32)
            logits = np.empty((_PROBED, vocab_size), np.float32)
            cache = Cache(self.weights, _PROBED, kind=self.kind)
            self.step([(cache, ids)], np.arange(_PROBED), logits)
            self._fingerprint = hashlib.blake2b(logits.tobytes(), digest_size=32).hexdigest()
        return self._fingerprint

    def fork(self, cache: Cache, *, context: int, position: int) -> Cache:
        """Go on from *cache* at *position*, with room for *context* positions.

        Raises what `refuse_cache` raises.
        """
        self.refuse_cache(context)
        return cache.fork(context=context, position=position)

    def refuse_cache(self, context: int, *, promised: int = 0) -> None:
        """MemoryError, with the numbers, if a cache of *context* positions would not fit.

        promised: bytes that other caches have not taken yet, but will.
        """
        needed = self.cache_bytes(context)
        if self._workspace is None:
            needed += self.workspace_bytes(max(context, self._context))
        refuse_beyond(
            needed + promised, f"a session with a context of {context}", "ask for a shorter context"
        )

    def step(
        self,
        chunks: Sequence[tuple[Cache, NDArray[np.int32]]],
        rows: NDArray[np.int64] | None = None,
        logits: NDArray[np.float32] | None = None,
        hidden: NDArray[np.float32] | None = None,
        *,
        probe: Probe | None = None,
    ) -> NDArray[np.bool_]:
        """Run one step of several sequences; see `_native.Workspace.step`.

        Waits while another thread steps this model.
        """
        weights = self.weights
        context = max([cache.context for cache, _ in chunks])
        with self._lock:
            workspace = self._workspace
            if workspace is None or workspace.context < context:
                context = max(context, self._context)
                self._workspace = None  # the old one goes before the new one comes
                workspace = Workspace(weights, self.pool, context=context, batch=self.batch)
                self._workspace = workspace
            return workspace.step(chunks, rows, logits, hidden, probe=probe)

    def draw(self, drawings: list["Drawing"]) -> list[int]:
        """Draw from rows of one vocabulary, on all threads; see `_native.Drawer.draw`.

        Waits while another thread steps this model.
        """
        with self._lock:
            return self._drawer.draw(drawings)

    def score(self, rows: list["Scoring"]) -> list["Score | None"]:
        """Score rows of one vocabulary, on all threads; see `_native.Drawer.score`.

        Waits while another thread steps this model.
        """
        with self._lock:
            return self._drawer.score(rows)

    def fault(self, cache: Cache, ids: NDArray[np.int32], rows: int) -> NumericsError:
        """The error for *ids*, which gave NaN or Inf: runs them again to see where.

        rows: of how many of them, the last ones, the logits were wanted.
        """
        wanted = np.arange(len(ids) - rows, len(ids))
        with self._lock:
            assert self._workspace is not None
            found = _native.first_fault(self._workspace, cache, ids, wanted)
        return NumericsError(
            f"the forward pass at position {cache.position} is not finite: {found}"
        )

    def _renew(self) -> None:
        """Replace what a thread that does not exist in this process may hold."""
        self._lock, self._workspace = threading.Lock(), None
        self._drawer = Drawer(isa=self._isa, pool=self.pool)


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in _ENGINES:
        engine._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
