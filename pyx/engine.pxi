"""Weights and Session: they own the memory, check everything, and call the engine once per step."""

import threading

import numpy as np

from bitnet_lut import _registry
from bitnet_lut.errors import NumericsError

from libc.stdint cimport int32_t, int64_t, uint8_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from cengine cimport (
    BL_OWN_TOKENS,
    BL_RELU2,
    BL_SILU,
    bl_cache,
    bl_forward,
    bl_head_stride,
    bl_layer,
    bl_matrix,
    bl_model,
    bl_op,
    bl_op_names,
    bl_place,
    bl_pool,
    bl_pool_free,
    bl_pool_init,
    bl_prepared_bytes,
    bl_probe,
    bl_scratch_floats,
    bl_state,
    bl_step,
    bl_widest_input,
)
from ckernels cimport (
    BL_BF16,
    BL_F16,
    BL_F32,
    BL_Q4_0,
    BL_Q6_K,
    BL_Q8_0,
    BL_KV_F16,
    BL_KV_F32,
    BL_LANES,
    BL_TERNARY,
    BL_TIER_COUNT,
    bl_cell,
    bl_dense_packed_bytes,
    bl_is_block_type,
    bl_kernel,
    bl_kv_bytes,
    bl_round_up,
    bl_row_bytes,
    bl_tiers,
)

# Types of dense matrices, and the columns in one of their blocks.
cdef dict _DENSE = {
    "f32": (BL_F32, 1), "f16": (BL_F16, 1), "bf16": (BL_BF16, 1), "q8_0": (BL_Q8_0, 32), "q4_0": (BL_Q4_0, 32),
    "q6_k": (BL_Q6_K, 256),
}
cdef int64_t _ALIGN = 64
cdef int64_t _MOST = (1 << 31) - 1  # positions or tokens: sizes in bytes then stay within 64 bits


cdef class Pool:
    """A team of *threads* threads, the calling one included; see include/bitnet_lut/pool.h."""

    cdef bl_pool *pool

    def __cinit__(self, int threads):
        if threads < 1:
            raise ValueError(f"threads is {threads}, it must be at least 1")
        self.pool = <bl_pool *>calloc(1, sizeof(bl_pool))
        if self.pool is NULL:
            raise MemoryError("no memory for a thread pool")
        bl_pool_init(self.pool, threads)

    def __dealloc__(self):
        if self.pool is not NULL:
            with nogil:
                bl_pool_free(self.pool)
            free(self.pool)

    @property
    def threads(self) -> int:
        """Threads at work, the caller included."""
        return self.pool.workers


cdef class Weights:
    """The tensors of a model, checked against its config; immutable, and shared by any number of sessions.

    config: a ModelConfig. tensors: by GGUF name, TernaryMatrix, PackedMatrix, DenseMatrix or StripMatrix for two
    dimensions and float32 arrays for one. isa: the tier that computes. threads: that bring the block types of dense
    matrices into strips; strip_bytes counts what they then take.
    """

    cdef bl_model model
    cdef bl_layer *layers
    cdef list _kept
    cdef dict _kernels
    cdef int _threads
    cdef readonly object config
    cdef readonly str isa
    cdef readonly int64_t strip_bytes

    def __cinit__(self, config not None, tensors not None, *, str isa not None, int threads=1):
        self._kept, self._kernels = [], {}
        self.config = config
        self.isa = isa
        self._threads = threads
        missing = missing_features(isa)
        if missing:
            raise ValueError(f"isa {isa!r} needs {', '.join(missing)}, which this machine lacks")
        cdef int i
        for i in range(BL_TIER_COUNT):
            if bl_tiers[i].name.decode() == isa:
                self.model.tier = bl_tiers[i]
        self.layers = <bl_layer *>calloc(max(config.block_count, 1), sizeof(bl_layer))
        if self.layers is NULL:
            raise MemoryError(f"no memory for the table of {config.block_count} layers")
        self._set_config(config)
        self._set_tensors(config, tensors)

    def __dealloc__(self):
        free(self.layers)

    cdef int _set_config(self, config) except -1:
        cdef bl_model *m = &self.model
        m.layers = config.block_count
        m.embedding = config.embedding_length
        m.ffn = config.feed_forward_length
        m.heads = config.head_count
        m.kv_heads = config.head_count_kv
        m.head_dim = config.head_dim
        m.rope_dim = config.rope_dim
        m.vocab = config.vocab_size
        m.eps = config.rms_eps
        m.activation = BL_RELU2 if config.activation == "relu2" else BL_SILU
        m.rope_interleaved = config.rope_kind == "norm"
        m.layer = self.layers
        if config.rope_dim > config.head_dim or config.rope_dim % 2 or config.head_count % config.head_count_kv:
            raise ValueError(f"rope_dim {config.rope_dim}, head_dim {config.head_dim}, heads {config.head_count} and "
                             f"kv heads {config.head_count_kv} do not fit together")
        exponents = np.arange(0, config.rope_dim, 2) / max(config.rope_dim, 1)
        m.inverse_frequency = self._floats((1.0 / config.rope_theta**exponents).astype(np.float32))
        return 0

    cdef const float *_floats(self, array) except? NULL:
        """Pointer to a float32 vector that is kept as long as these weights."""
        cdef const float[::1] view = array
        self._kept.append(array)
        return &view[0] if view.shape[0] else NULL

    cdef const float *_vector(self, tensors, str name, int64_t length) except? NULL:
        vector = tensors[name]
        if vector.shape != (length,):
            raise ValueError(f"{name} has shape {vector.shape}, the config asks for ({length},)")
        return self._floats(vector)

    cdef int _matrix(self, bl_matrix *to, tensors, str name, int64_t rows, int64_t cols,
                     bint looked_up=False) except -1:
        """Check a matrix, and lay it out to be multiplied with, or to have its rows looked up."""
        matrix = tensors[name]
        if (matrix.rows, matrix.cols) != (rows, cols):
            raise ValueError(f"{name} is {matrix.rows} x {matrix.cols}, the config asks for {rows} x {cols}")
        to.rows, to.cols = rows, cols
        if hasattr(matrix, "packed"):
            if looked_up:
                raise ValueError(f"{name} is ternary, which is supported for the linear layers only")
            self._ternary(to, matrix, name)
        else:
            self._dense(to, matrix, name, looked_up)
        self._kept.append(matrix)
        bias = tensors.get(name.removesuffix("weight") + "bias")
        if bias is not None:
            to.bias = self._vector(tensors, name.removesuffix("weight") + "bias", rows)
        return 0

    cdef int _ternary(self, bl_matrix *to, matrix, str name) except -1:
        kernel = self._kernel(matrix.kernel)
        if not matrix.packed.flags.c_contiguous:
            raise ValueError(f"{name}: packed is not C-contiguous")
        cdef const uint8_t[::1] data = matrix.packed.reshape(-1)
        to.type = BL_TERNARY
        to.kernel = <const bl_kernel *><uintptr_t>kernel.kernel_address
        to.cell = <const bl_cell *><uintptr_t>kernel.cell_address
        to.scale = self._floats(matrix.scale)
        to.scales = len(matrix.scale)
        if to.scales not in (1, to.rows):
            raise ValueError(f"{name} has {to.scales} scales for {to.rows} rows")
        if data.shape[0] != kernel.packed_bytes(to.rows, to.cols):
            raise ValueError(f"{name} has {data.shape[0]} bytes, kernel {matrix.kernel} needs "
                             f"{kernel.packed_bytes(to.rows, to.cols)}")
        to.data = &data[0]
        return 0

    cdef int _dense(self, bl_matrix *to, matrix, str name, bint looked_up) except -1:
        if matrix.type not in _DENSE:
            raise ValueError(f"{name} has type {matrix.type!r}, which is not one of {', '.join(_DENSE)}")
        to.type, block = _DENSE[matrix.type]
        if to.cols % block:
            raise ValueError(f"{name} has {to.cols} columns, {matrix.type} needs whole blocks of {block}")
        if hasattr(matrix, "strips"):
            if not bl_is_block_type(to.type):
                raise ValueError(f"{name} has type {matrix.type}, which is not laid out in strips")
            return self._strips(to, matrix.strips, name)
        cdef const uint8_t[:, ::1] data = matrix.data
        if data.shape[0] != to.rows or data.shape[1] != bl_row_bytes(to.type, to.cols):
            raise ValueError(f"{name} has {data.shape[0]} x {data.shape[1]} bytes, its type needs "
                             f"{to.rows} x {bl_row_bytes(to.type, to.cols)}")
        to.data = &data[0, 0]
        if bl_is_block_type(to.type) and not looked_up:
            packed = pack_dense(matrix.type, matrix.data, to.cols, threads=self._threads)
            self._kept.append(packed)
            self.strip_bytes += packed.nbytes
            self._strips(to, packed, name)
        return 0

    cdef int _strips(self, bl_matrix *to, array, str name) except -1:
        cdef const uint8_t[::1] strips = array
        if strips.shape[0] != bl_dense_packed_bytes(to.type, to.rows, to.cols):
            raise ValueError(f"{name} has {strips.shape[0]} bytes of strips, its type needs "
                             f"{bl_dense_packed_bytes(to.type, to.rows, to.cols)}")
        to.data, to.in_strips = &strips[0], True
        return 0

    def _kernel(self, str name not None) -> Cell:
        """The kernel of that name on this tier, made once."""
        if name not in self._kernels:
            self._kernels[name] = Cell(name, isa=self.isa)
        return self._kernels[name]

    cdef int _set_tensors(self, config, tensors) except -1:
        cdef bl_model *m = &self.model
        cdef bl_layer *layer
        cdef int64_t i
        cdef int64_t attention = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim
        self._matrix(&m.token_embedding, tensors, "token_embd.weight", m.vocab, m.embedding, looked_up=True)
        self._matrix(&m.head, tensors, config.head_name, m.vocab, m.embedding)
        m.output_norm = self._vector(tensors, "output_norm.weight", m.embedding)
        for i in range(m.layers):
            layer = &self.layers[i]
            block = f"blk.{i}."
            layer.attn_norm = self._vector(tensors, block + "attn_norm.weight", m.embedding)
            layer.ffn_norm = self._vector(tensors, block + "ffn_norm.weight", m.embedding)
            if config.sub_norms:
                layer.attn_sub_norm = self._vector(tensors, block + "attn_sub_norm.weight", attention)
                layer.ffn_sub_norm = self._vector(tensors, block + "ffn_sub_norm.weight", m.ffn)
            self._matrix(&layer.q, tensors, block + "attn_q.weight", attention, m.embedding)
            self._matrix(&layer.k, tensors, block + "attn_k.weight", kv, m.embedding)
            self._matrix(&layer.v, tensors, block + "attn_v.weight", kv, m.embedding)
            self._matrix(&layer.o, tensors, block + "attn_output.weight", m.embedding, attention)
            self._matrix(&layer.gate, tensors, block + "ffn_gate.weight", m.ffn, m.embedding)
            self._matrix(&layer.up, tensors, block + "ffn_up.weight", m.ffn, m.embedding)
            self._matrix(&layer.down, tensors, block + "ffn_down.weight", m.embedding, m.ffn)
            self._share_input(block, &layer.q, &layer.k)
            self._share_input(block, &layer.q, &layer.v)
            self._share_input(block, &layer.gate, &layer.up)
        return 0

    cdef int _share_input(self, str block, const bl_matrix *a, const bl_matrix *b) except -1:
        if BL_TERNARY in (a.type, b.type) and a.cell != b.cell:
            raise ValueError(f"{block}: matrices that share an input must be ternary together, with one kernel, or not "
                             "at all")
        return 0


def session_bytes(Weights weights not None, int64_t context, *, bint kv_f16=True, int64_t batch=64, int threads=1):
    """Bytes of a Session before it is made: ``(KV cache, scratch)``."""
    cdef bl_state state
    cdef bl_cache kept
    cdef bl_place *places
    if not (1 <= context <= _MOST and 1 <= batch <= _MOST and threads >= 1):
        raise ValueError(f"context {context}, batch {batch} and threads {threads} must be in 1..{_MOST}")
    return _lay_out(weights, &kept, &state, &places, context, kv_f16, batch, threads, NULL)


cdef int64_t _carve(uint8_t *base, int64_t *used, void **to, int64_t nbytes):
    """Give *to* the next 64-byte aligned piece of the arena at base (which may be NULL, to count only)."""
    to[0] = base + used[0] if base is not NULL else NULL
    used[0] += bl_round_up(nbytes, _ALIGN)
    return 0


cdef _lay_out(Weights weights, bl_cache *c, bl_state *s, bl_place **places, int64_t context, bint kv_f16,
              int64_t batch, int workers, uint8_t *base):
    """Place cache and scratch in one arena; returns the bytes of each."""
    cdef bl_model *m = &weights.model
    cdef int64_t widest = bl_widest_input(m), attention = m.heads * m.head_dim, kv = m.kv_heads * m.head_dim
    cdef int64_t used = 0, cache, stride = bl_head_stride(m)
    cache = m.layers * m.kv_heads * context * stride * (2 if kv_f16 else 4)
    c.context, c.kind = context, BL_KV_F16 if kv_f16 else BL_KV_F32
    s.context, s.batch = context, batch
    _carve(base, &used, &c.keys, cache)
    _carve(base, &used, &c.values, cache)
    cache = used
    _carve(base, &used, <void **>places, batch * sizeof(bl_place))
    _carve(base, &used, <void **>&s.x, batch * m.embedding * 4)
    _carve(base, &used, <void **>&s.input, batch * widest * 4)
    _carve(base, &used, <void **>&s.prepared, bl_prepared_bytes(m, batch))
    s.own_bytes = bl_round_up(bl_prepared_bytes(m, BL_OWN_TOKENS), _ALIGN)
    _carve(base, &used, <void **>&s.own_prepared, workers * s.own_bytes)
    _carve(base, &used, <void **>&s.quantized, workers * widest)
    _carve(base, &used, <void **>&s.act_max, batch * 4)
    _carve(base, &used, <void **>&s.own_act_max, workers * BL_LANES * 4)
    _carve(base, &used, <void **>&s.q, batch * attention * 4)
    _carve(base, &used, <void **>&s.k, batch * kv * 4)
    _carve(base, &used, <void **>&s.v, batch * kv * 4)
    _carve(base, &used, <void **>&s.mixed, batch * attention * 4)
    _carve(base, &used, <void **>&s.gate, batch * m.ffn * 4)
    _carve(base, &used, <void **>&s.up, batch * m.ffn * 4)
    _carve(base, &used, <void **>&s.out, batch * m.embedding * 4)
    _carve(base, &used, <void **>&s.cosine, batch * m.rope_dim * 2)
    _carve(base, &used, <void **>&s.sine, batch * m.rope_dim * 2)
    _carve(base, &used, <void **>&s.scores, m.heads * context * 4)
    _carve(base, &used, <void **>&s.totals, m.heads * 4)
    _carve(base, &used, <void **>&s.worker_scratch, workers * bl_scratch_floats(m, context) * 4)
    return cache, used - cache


class _Watcher:
    """A probe, and the first exception it raised: C cannot hand it on."""

    def __init__(self, probe):
        self.probe = probe
        self.error = None


cdef void _show(void *context, int64_t layer, bl_op op, const float *data, int64_t n, int64_t width) noexcept with gil:
    """Hand a copy of an op's result to the Python probe."""
    cdef float[:, ::1] view
    watcher = <object>context
    if watcher.error is not None:
        return
    try:
        array = np.empty((n, width), np.float32)
        view = array
        memcpy(&view[0, 0], data, n * width * 4)
        watcher.probe(layer, bl_op_names[<int>op].decode(), array)
    except BaseException as error:
        watcher.error = error


class _FirstBad:
    """A probe that remembers the first result that is not finite."""

    def __init__(self):
        self.found = None

    def __call__(self, layer, op, array):
        if self.found is None and not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            where = op if layer < 0 else f"layer {layer}, {op}"
            self.found = f"{array[row, column]} first appeared in {where}, token {row} of its batch, element {column}"


cdef class Session:
    """The KV cache, the position and the scratch of one sequence.

    context: positions the cache can hold. batch: most tokens computed at once; it does not change any result. The
    session is used by one thread at a time; a second one is refused.
    """

    cdef bl_cache cache
    cdef bl_state state
    cdef bl_place *places
    cdef uint8_t *arena
    cdef readonly Weights weights
    cdef readonly Pool pool
    cdef readonly int64_t position
    cdef object _lock

    def __cinit__(self, Weights weights not None, Pool pool not None, int64_t context, *, bint kv_f16=True,
                  int64_t batch=64):
        self.weights, self.pool, self._lock = weights, pool, threading.Lock()
        cache, scratch = session_bytes(weights, context, kv_f16=kv_f16, batch=batch, threads=pool.threads)
        self.arena = <uint8_t *>calloc(cache + scratch + _ALIGN, 1)
        if self.arena is NULL:
            raise MemoryError(f"no memory for a session of {context} positions: KV cache {cache:,} bytes, scratch "
                              f"{scratch:,} bytes; ask for a shorter context")
        _lay_out(weights, &self.cache, &self.state, &self.places, context, kv_f16, batch, pool.threads,
                 <uint8_t *><uintptr_t>bl_round_up(<uintptr_t>self.arena, _ALIGN))

    def __dealloc__(self):
        free(self.arena)

    @property
    def context(self) -> int:
        """Positions the cache can hold."""
        return self.state.context

    def step(self, const int32_t[::1] ids not None, float[:, ::1] logits=None, float[:, :, ::1] hidden=None, *,
             probe=None):
        """Run *ids* (n,) at the current position and move it on by n.

        logits: float32 (m, vocab), filled for the last m tokens. hidden: float32 (layers + 1, n, embedding), filled
        with the input of layer 0 and the output of each layer. probe: called as ``probe(layer, op, array)`` with a
        copy of every result, layer -1 outside the layers; what it raises is raised from here.

        Raises ValueError for an id outside the vocabulary, a full context or a wrong shape, and NumericsError if the
        result is not finite; the position then stays where it was.
        """
        self._check(ids, logits, hidden)
        if not self._lock.acquire(False):
            raise RuntimeError("this session is in use by another thread: give every thread a session of its own")
        try:
            if ids.shape[0] and not self._run(ids, logits, hidden, probe):
                first = _FirstBad()
                self._run(ids, logits, hidden, first)
                raise NumericsError(f"the forward pass at position {self.position} is not finite: {first.found}")
            self.position += ids.shape[0]
        finally:
            self._lock.release()

    cdef int _check(self, const int32_t[::1] ids, float[:, ::1] logits, float[:, :, ::1] hidden) except -1:
        cdef bl_model *m = &self.weights.model
        cdef int64_t n = ids.shape[0], t
        if self.position + n > self.state.context:
            raise ValueError(f"{n} tokens at position {self.position} do not fit the context of {self.state.context}")
        for t in range(n):
            if not 0 <= ids[t] < m.vocab:
                raise ValueError(f"token {t} is {ids[t]}, the vocabulary has {m.vocab} ids")
        if logits is not None and (logits.shape[0] > n or logits.shape[1] != m.vocab):
            raise ValueError(f"logits is {logits.shape[0]} x {logits.shape[1]}, expected at most {n} x {m.vocab}")
        if hidden is not None and (hidden.shape[0] != m.layers + 1 or hidden.shape[1] != n or
                                   hidden.shape[2] != m.embedding):
            raise ValueError(f"hidden is {hidden.shape[0]} x {hidden.shape[1]} x {hidden.shape[2]}, expected "
                             f"{m.layers + 1} x {n} x {m.embedding}")
        return 0

    cdef bint _run(self, const int32_t[::1] ids, float[:, ::1] logits, float[:, :, ::1] hidden, probe) except -1:
        """All tokens, a batch at a time; whether everything stayed finite."""
        cdef int64_t n = ids.shape[0], done = 0, without, vocab = self.weights.model.vocab, t
        cdef int finite = 1
        cdef bl_step step
        without = n if logits is None else n - logits.shape[0]
        step.model, step.state, step.pool = &self.weights.model, &self.state, self.pool.pool
        step.places = self.places
        step.probe = NULL if probe is None else <bl_probe>_show
        watcher = _Watcher(probe)
        step.probe_context = <void *>watcher
        step.hidden_stride = n * self.weights.model.embedding
        failures = _registry.failures.count
        with nogil:
            while done < n and finite:
                step.tokens = &ids[done]
                step.n = min(self.state.batch, n - done)
                for t in range(step.n):
                    self.places[t].cache, self.places[t].position = &self.cache, self.position + done + t
                step.logit_tokens = min(step.n, max(done + step.n - without, 0))
                step.logits = NULL
                if step.logit_tokens:
                    step.logits = &logits[0, 0] + (done + step.n - step.logit_tokens - without) * vocab
                step.hidden = NULL
                if hidden is not None:
                    step.hidden = &hidden[0, done, 0]
                finite = bl_forward(&step)
                done += step.n
        if watcher.error is not None:
            raise watcher.error
        _registry.failures.raise_since(failures)
        return finite

    def rewind(self, int64_t position):
        """Go back to an earlier *position*; what came after is forgotten. Raises ValueError for one not reached yet."""
        if not 0 <= position <= self.position:
            raise ValueError(f"cannot rewind to {position}, the session is at {self.position}")
        self.position = position

    def fork(self) -> Session:
        """A new session that continues from here on its own; the used part of the cache is copied."""
        cdef Session other = Session(self.weights, self.pool, self.state.context, kv_f16=self.cache.kind == BL_KV_F16,
                                     batch=self.state.batch)
        cdef bl_model *m = &self.weights.model
        cdef int64_t i, row = bl_kv_bytes(self.cache.kind, bl_head_stride(m))
        cdef int64_t from_head = self.state.context * row
        with nogil:
            for i in range(m.layers * m.kv_heads):
                memcpy(<uint8_t *>other.cache.keys + i * from_head, <uint8_t *>self.cache.keys + i * from_head,
                       self.position * row)
                memcpy(<uint8_t *>other.cache.values + i * from_head, <uint8_t *>self.cache.values + i * from_head,
                       self.position * row)
        other.position = self.position
        return other


def step_together(list sessions not None, const int32_t[::1] ids not None, float[:, ::1] logits not None):
    """Run one token of each of several sequences, *ids* (n,), at once; each result is that of running alone.

    sessions: n different ones of the same weights and pool, n at most the batch of each. logits: float32 (n, vocab).

    Raises ValueError for an id outside the vocabulary, a full context or a wrong shape, and NumericsError if a result
    is not finite; all positions then stay where they were.
    """
    cdef Session first = max(sessions, key=_context_of), session
    cdef int64_t n = len(sessions), t
    cdef bl_step step
    if len(set(map(id, sessions))) != n or not 1 <= n <= first.state.batch:
        raise ValueError(f"{n} sessions: they must be different ones, 1 to {first.state.batch}")
    if ids.shape[0] != n or logits.shape[0] != n:
        raise ValueError(f"{n} sessions, {ids.shape[0]} ids and {logits.shape[0]} rows of logits do not fit together")
    for t in range(n):
        session = sessions[t]
        if session.weights is not first.weights or session.pool is not first.pool:
            raise ValueError("sessions that step together must be of one model")
        session._check(ids[t:t + 1], logits[t:t + 1], None)
    step.model, step.state, step.pool = &first.weights.model, &first.state, first.pool.pool
    step.tokens, step.places, step.n = &ids[0], first.places, n
    step.logits, step.logit_tokens = &logits[0, 0], n
    step.hidden, step.hidden_stride, step.probe, step.probe_context = NULL, 0, NULL, NULL
    held = []
    try:
        for session in sessions:
            if not session._lock.acquire(False):
                raise RuntimeError("a session is in use by another thread: give every thread sessions of its own")
            held.append(session)
        for t in range(n):
            session = sessions[t]
            first.places[t].cache, first.places[t].position = &session.cache, session.position
        failures = _registry.failures.count
        with nogil:
            finite = bl_forward(&step)
        _registry.failures.raise_since(failures)
        if not finite:
            bad = np.flatnonzero(~np.isfinite(np.asarray(logits)).all(axis=1))
            raise NumericsError(f"the forward pass of {n} sequences is not finite, in those of index {bad.tolist()}: "
                                "step each alone to see where")
        for session in sessions:
            session.position += 1
    finally:
        for session in held:
            session._lock.release()


def _context_of(Session session not None):
    return session.state.context
