"""Steps of any number of sequences: all checks, then one call of the engine."""

import threading

import numpy as np

from bitnet_lut import _registry

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, realloc

from cengine cimport (
    bl_chunk,
    bl_forward,
    bl_model,
    bl_probe,
    bl_step,
    bl_workspace,
    bl_workspace_bytes,
    bl_workspace_place,
)

cdef int64_t _MOST_BATCH = 1 << 16  # a workspace asks for the size of an input at each number of tokens up to it


def workspace_bytes(Weights weights not None, *, int64_t context, batch=None, int threads=1) -> int:
    """Bytes of a Workspace before it is made."""
    batch = weights.batch if batch is None else batch
    if not (1 <= context <= _MOST and 1 <= batch <= _MOST_BATCH and threads >= 1):
        raise ValueError(f"context {context}, batch {batch} and threads {threads} must be in 1..{_MOST}, "
                         f"1..{_MOST_BATCH} and 1..{_MOST}")
    return bl_workspace_bytes(&weights.model, context, batch, min(threads, BL_MAX_WORKERS))


cdef class Workspace:
    """The scratch of a step. It holds nothing from one step to the next, so all sequences of a model can share one.

    context: longest Cache it can step. batch: most tokens computed at once, None: as many as pay on the weights' tier;
    it does not change any result.

    One thread uses it at a time; a second one is refused with RuntimeError.
    """

    cdef bl_workspace workspace
    cdef uint8_t *block
    cdef bl_chunk *chunks
    cdef int64_t chunk_room
    cdef object lock
    cdef readonly Weights weights
    cdef readonly Pool pool
    cdef readonly int64_t nbytes

    def __cinit__(self, Weights weights not None, Pool pool not None, *, int64_t context, batch=None):
        batch = weights.batch if batch is None else batch
        self.weights, self.pool, self.lock = weights, pool, threading.Lock()
        self.nbytes = workspace_bytes(weights, context=context, batch=batch, threads=pool.threads)
        cdef uint8_t *memory = _allocate(self.nbytes, &self.block)
        if memory is NULL:
            raise MemoryError(f"no memory for the scratch of steps of {batch} tokens and {context} positions, "
                              f"{self.nbytes:,} bytes; ask for a shorter context")
        bl_workspace_place(&self.workspace, &weights.model, context, batch, pool.threads, memory)

    def __dealloc__(self):
        free(self.chunks)
        free(self.block)

    @property
    def context(self) -> int:
        """Longest Cache it can step."""
        return self.workspace.context

    @property
    def batch(self) -> int:
        """Most tokens computed at once."""
        return self.workspace.batch

    def step(self, chunks not None, const int64_t[::1] rows=None, float[:, ::1] logits=None,
             float[:, :, ::1] hidden=None, *, probe=None):
        """Run *chunks*, each a pair (Cache, ids (n_i,)): the ids continue what the cache holds.

        Tokens are numbered from 0 to N - 1 over all chunks in order. rows: (m,), ascending, those whose logits are
        wanted. logits: float32 (m, vocab). hidden: float32 (layers + 1, N, embedding), filled with the input of layer
        0 and the output of each layer. probe: called as ``probe(layer, op, array)`` with a copy of every result, layer
        -1 outside the layers; what it raises is raised from here.

        Returns a bool per chunk: whether its last residual stream and its wanted logits are finite. Those caches have
        then moved on by n_i, the others have not. Every result is the one the sequence gets alone, bit for bit.

        Raises ValueError for an id outside the vocabulary, a full context, a cache given twice or of other weights, or
        a wrong shape, RuntimeError if a cache or the workspace is in use by another thread, or in a probe that runs on
        the same pool, and MemoryError if there are too few pages; no cache has moved.
        """
        if self.pool.probing and threading.get_ident() in self.pool.probing:
            raise RuntimeError("a probe cannot run a step on the pool that runs it: it would wait for itself")
        caches, lengths, ids = self._gather(list(chunks))
        wanted = np.array((), np.int64) if rows is None else np.array(rows)
        self._check_outputs(len(ids), wanted, logits, hidden)
        finite = np.ones(len(caches), bool)
        held = []
        try:
            _hold(self.lock, held, "this workspace is in use by another thread: wait for that, or make another one")
            self._check_room(caches, lengths, held)
            if len(ids):
                self._run(caches, lengths, ids, wanted, logits, hidden, probe)
                self._move_on(caches, finite)
        finally:
            _release(held)
        return finite

    cdef _gather(self, list chunks):
        """The caches, how many ids continue each, and a copy of all ids (N,), checked."""
        cdef bl_model *m = &self.weights.model
        cdef Cache cache
        cdef const int32_t[::1] ids
        cdef int64_t t
        caches, copies = [], []
        for cache, given in chunks:
            ids = given
            if cache is None or ids is None:
                raise TypeError("a chunk is a Cache and its ids, int32 (n,), not None")
            if cache.weights is not self.weights:
                raise ValueError("a cache is of other weights than this workspace")
            if cache.cache.context > self.workspace.context:
                raise ValueError(f"a cache has a context of {cache.cache.context}, this workspace steps at most "
                                 f"{self.workspace.context}")
            caches.append(cache)
            copies.append(np.array(given))
        if len(set(map(id, caches))) != len(caches):
            raise ValueError("a cache is given twice: give it all of its ids in one chunk")
        joined = np.concatenate(copies) if copies else np.empty(0, np.int32)
        ids = joined
        for t in range(ids.shape[0]):
            if not 0 <= ids[t] < m.vocab:
                raise ValueError(f"token {t} is {ids[t]}, the vocabulary has {m.vocab} ids")
        return caches, list(map(len, copies)), joined

    cdef int _check_outputs(self, int64_t n, const int64_t[::1] wanted, float[:, ::1] logits,
                            float[:, :, ::1] hidden) except -1:
        cdef bl_model *m = &self.weights.model
        cdef int64_t count = 0 if logits is None else logits.shape[0], last = -1, i
        if wanted.shape[0] != count:
            raise ValueError(f"{wanted.shape[0]} rows are wanted, logits has {count}")
        if count and logits.shape[1] != m.vocab:
            raise ValueError(f"logits is {count} x {logits.shape[1]}, expected {count} x {m.vocab}")
        for i in range(count):
            if not last < wanted[i] < n:
                raise ValueError(f"rows must ascend and be among the {n} tokens of the step")
            last = wanted[i]
        if hidden is not None and (hidden.shape[0] != m.layers + 1 or hidden.shape[1] != n or
                                   hidden.shape[2] != m.embedding):
            raise ValueError(f"hidden is {hidden.shape[0]} x {hidden.shape[1]} x {hidden.shape[2]}, expected "
                             f"{m.layers + 1} x {n} x {m.embedding}")
        return 0

    cdef int _check_room(self, list caches, list lengths, list held) except -1:
        """Take the lock of every cache, and the pages for its ids, which must fit."""
        cdef Cache cache
        for cache, n in zip(caches, lengths):
            cache._hold(held)
            cache._check_room(n)
        for cache, n in zip(caches, lengths):
            cache._reserve(n)
        return 0

    cdef int _fill(self, list caches, list lengths, const int32_t *ids) except -1:
        """The chunks as the engine takes them."""
        cdef Cache cache
        cdef int64_t i, count = len(caches)
        if count > self.chunk_room:
            room = realloc(self.chunks, <size_t>count * sizeof(bl_chunk))
            if room is NULL:
                raise MemoryError(f"no memory for {count} chunks")
            self.chunks, self.chunk_room = <bl_chunk *>room, count
        for i in range(count):
            cache = caches[i]
            self.chunks[i].cache, self.chunks[i].tokens, self.chunks[i].n = &cache.cache, ids, lengths[i]
            ids += self.chunks[i].n
        return 0

    cdef int _run(self, list caches, list lengths, const int32_t[::1] ids, const int64_t[::1] wanted,
                  float[:, ::1] logits, float[:, :, ::1] hidden, probe) except -1:
        cdef bl_step step
        self._fill(caches, lengths, &ids[0])
        watcher = _Watcher(probe)
        step.model, step.workspace, step.pool = &self.weights.model, &self.workspace, self.pool.pool
        step.chunks, step.chunk_count = self.chunks, len(caches)
        step.row_count = wanted.shape[0]
        step.rows = &wanted[0] if step.row_count else NULL
        step.logits = &logits[0, 0] if step.row_count else NULL
        step.hidden = NULL if hidden is None else &hidden[0, 0, 0]
        step.probe = NULL if probe is None else <bl_probe>_show
        step.probe_context = <void *>watcher
        failures = _registry.failures.count
        if probe is not None:
            self.pool.probing.add(threading.get_ident())
        with nogil:
            bl_forward(&step)
        self.pool.probing.discard(threading.get_ident())
        if watcher.error is not None:
            raise watcher.error
        _registry.failures.raise_since(failures)
        return 0

    cdef int _move_on(self, list caches, finite) except -1:
        cdef Cache cache
        cdef int64_t i
        for i in range(len(caches)):
            cache = caches[i]
            finite[i] = bool(self.chunks[i].finite)
            if self.chunks[i].finite:
                cache.cache.position += self.chunks[i].n
        return 0
