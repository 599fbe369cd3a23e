"""The weights of a model: their memory, checked against its config, as the engine reads it."""

import numpy as np

from libc.math cimport sqrtf
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free

from cengine cimport BL_RELU2, BL_SILU, bl_layer, bl_matrix, bl_model
from ckernels cimport (
    BL_TERNARY,
    bl_dense_packed_bytes,
    bl_is_block_type,
    bl_row_bytes,
    bl_tier_count,
    bl_tiers,
)


cdef class Weights:
    """The tensors of a model, checked against its config; immutable, and shared by any number of sessions.

    config: a ModelConfig. tensors: by GGUF name, TernaryMatrix, PackedMatrix, DenseMatrix or StripMatrix for two
    dimensions and float32 arrays for one. Biases, ``*_norm_in`` in front of a matrix, norms of queries and keys and
    norms after a block are used where they are present. isa: the tier that computes. threads: how many repack the block
    types of dense matrices into strips; strip_bytes counts what they then take.
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
        for i in range(bl_tier_count):
            if bl_tiers[i].name.decode() == isa:
                self.model.tier = bl_tiers[i]
        self.layers = <bl_layer *>calloc(max(config.block_count, 1), sizeof(bl_layer))
        if self.layers is NULL:
            raise MemoryError(f"no memory for the table of {config.block_count} layers")
        self._set_config(config)
        self._set_tensors(config, tensors)

    def __dealloc__(self):
        free(self.layers)

    @property
    def batch(self) -> int:
        """Most tokens computed at once that pay on this tier."""
        return self.model.tier.batch

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
        m.embedding_scale = config.embedding_scale
        m.score_scale = <float>1.0 / sqrtf(<float>config.head_dim)
        if config.attention_scale is not None:
            m.score_scale = config.attention_scale
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

    cdef const float *_optional(self, tensors, str name, int64_t length) except? NULL:
        return self._vector(tensors, name, length) if name in tensors else NULL

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
        stem = name.removesuffix(".weight")
        to.bias = self._optional(tensors, stem + ".bias", rows)
        to.norm = self._optional(tensors, stem + "_norm_in.weight", cols)
        return 0

    cdef int _ternary(self, bl_matrix *to, matrix, str name) except -1:
        cdef Cell cell = self._kernel(matrix.kernel)
        if not matrix.packed.flags.c_contiguous:
            raise ValueError(f"{name}: packed is not C-contiguous")
        cdef const uint8_t[::1] data = matrix.packed.reshape(-1)
        to.type = BL_TERNARY
        to.kernel, to.cell = cell.kernel, cell.cell
        to.scale = self._floats(matrix.scale)
        to.scales = len(matrix.scale)
        if to.scales not in (1, to.rows):
            raise ValueError(f"{name} has {to.scales} scales for {to.rows} rows")
        if data.shape[0] != cell.packed_bytes(to.rows, to.cols):
            raise ValueError(f"{name} has {data.shape[0]} bytes, kernel {matrix.kernel} needs "
                             f"{cell.packed_bytes(to.rows, to.cols)}")
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
            layer.q_norm = self._optional(tensors, block + "attn_q_norm.weight", m.head_dim)
            layer.k_norm = self._optional(tensors, block + "attn_k_norm.weight", m.head_dim)
            layer.attn_post_norm = self._optional(tensors, block + "post_attention_norm.weight", m.embedding)
            layer.ffn_post_norm = self._optional(tensors, block + "post_ffw_norm.weight", m.embedding)
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
        return 0
