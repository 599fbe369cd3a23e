#include "native.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BL_LINE = 64, /* bytes of a cache line */
    BL_MOST_LAYERS = 1024,
    BL_BYTES_OF_SCALE = 32 /* behind an I2_S tensor, of which the first four are the scale */
};

/* ---- errors and memory ------------------------------------------------------------------------------------------- */

static int fail(bl_native *n, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(n->error, sizeof n->error, format, arguments);
    va_end(arguments);
    return 0;
}

void *bl_native_keep(bl_native *n, uint64_t bytes)
{
    uint8_t *block = bytes < SIZE_MAX - 2 * BL_LINE ? calloc((size_t)bytes + 2 * BL_LINE, 1) : NULL;
    if (!block) {
        fail(n, "no memory for %llu bytes", (unsigned long long)bytes);
        return NULL;
    }
    memcpy(block, &n->kept, sizeof n->kept);
    n->kept = block;
    return block + 2 * BL_LINE - (uintptr_t)block % BL_LINE;
}

void bl_native_close(bl_native *n)
{
    for (void *block = n->kept, *next; block; block = next) {
        memcpy(&next, block, sizeof next);
        free(block);
    }
    n->kept = NULL;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* A number of the architecture; fallback, unless it is 0, where the file has none. */
static int read_count(bl_native *n, const char *name, int64_t most, int64_t fallback, int64_t *to)
{
    char key[160];
    bl_gguf_value value;
    uint32_t count = (uint32_t)fallback;
    snprintf(key, sizeof key, "%s.%s", n->prefix, name);
    const int found = bl_gguf_key(&n->file, key, &value);
    if (found && value.kind == BL_GGUF_U32) memcpy(&count, value.data, 4);
    else if (found || !fallback) return fail(n, "key %s is missing or not a uint32", key);
    if (!count || count > most) return fail(n, "key %s is %u, it must be in 1..%lld", key, count, (long long)most);
    *to = count;
    return 1;
}

static int read_real(bl_native *n, const char *name, float fallback, float *to)
{
    char key[160];
    bl_gguf_value value;
    *to = fallback;
    snprintf(key, sizeof key, "%s.%s", n->prefix, name);
    const int found = bl_gguf_key(&n->file, key, &value);
    if (found && value.kind == BL_GGUF_F32) memcpy(to, value.data, 4);
    else if (found || fallback == 0.0f) return fail(n, "key %s is missing or not a float32", key);
    return (*to >= 1e-30f && *to <= 1e30f) || fail(n, "key %s is %g, which is out of range", key, (double)*to);
}

/* Copy the text of a key, cut to a number of bytes with the zero at its end; "" if there is none. */
static int read_text(bl_native *n, const char *key, char *text, size_t bytes)
{
    bl_gguf_value value;
    text[0] = 0;
    if (!bl_gguf_key(&n->file, key, &value)) return 1;
    if (value.kind != BL_GGUF_STRING) return fail(n, "key %s is not a string", key);
    const size_t length = value.count < bytes ? (size_t)value.count : bytes - 1;
    memcpy(text, value.data, length);
    text[length] = 0;
    return 1;
}

static int read_family(bl_native *n)
{
    static const char *const known[] = {"bitnet-b1.58", "bitnet-25", "bitnet", "llama", "qwen2"};
    char name[32], key[160];
    bl_model *m = &n->model;
    if (!read_text(n, "general.architecture", n->prefix, sizeof n->prefix)) return 0;
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(known[i], n->prefix)) i++;
    if (i == sizeof known / sizeof *known) return fail(n, "general.architecture %s is not supported", n->prefix);
    m->rope_interleaved = !strcmp(n->prefix, "llama");
    m->activation = i < 2 && m->vocab != 32002 ? BL_RELU2 : BL_SILU; /* where nothing says it */
    snprintf(key, sizeof key, "%s.hidden_activation", n->prefix);
    if (!read_text(n, key, name, sizeof name)) return 0;
    if (!strcmp(name, "relu2")) m->activation = BL_RELU2;
    else if (!strcmp(name, "silu")) m->activation = BL_SILU;
    else if (name[0]) return fail(n, "key %s is %s, only relu2 and silu are supported", key, name);
    return 1;
}

/* Rotations are by the plain angles: scaled by 1, or not at all. */
static int check_rope(bl_native *n)
{
    static const char *const factors[] = {"rope.scaling.factor", "rope.scale_linear"};
    char name[32], key[160];
    float factor;
    snprintf(key, sizeof key, "%s.rope.scaling.type", n->prefix);
    if (!read_text(n, key, name, sizeof name)) return 0;
    if (name[0] && strcmp(name, "none") && strcmp(name, "linear"))
        return fail(n, "key %s is %s, which is not supported", key, name);
    for (int i = 0; i < 2; i++) {
        snprintf(key, sizeof key, "%s.%s", n->prefix, factors[i]);
        bl_gguf_value value;
        if (!bl_gguf_key(&n->file, key, &value)) continue;
        if (value.kind != BL_GGUF_F32) return fail(n, "key %s is not a float32", key);
        memcpy(&factor, value.data, sizeof factor);
        if (factor != 0.0f && factor != 1.0f) return fail(n, "key %s is %g, only 1 is supported", key, (double)factor);
    }
    return 1;
}

/* The strings of the vocabulary; their number is its size. */
static int read_vocabulary(bl_native *n)
{
    bl_gguf_value value;
    if (!bl_gguf_key(&n->file, "tokenizer.ggml.tokens", &value) || value.kind != BL_GGUF_ARRAY ||
        value.element != BL_GGUF_STRING || !value.count || value.count > INT32_MAX)
        return fail(n, "tokenizer.ggml.tokens is missing or not an array of strings");
    n->model.vocab = (int64_t)value.count;
    n->pieces = bl_native_keep(n, value.count * sizeof *n->pieces);
    if (!n->pieces) return 0;
    const uint8_t *at = value.data;
    for (uint64_t i = 0, length; i < value.count; i++, at += 8 + length) {
        n->pieces[i] = at;
        memcpy(&length, at, 8);
    }
    return 1;
}

const uint8_t *bl_native_piece(const bl_native *n, int32_t token, uint64_t *length)
{
    memcpy(length, n->pieces[token], 8);
    return n->pieces[token] + 8;
}

static int read_sizes(bl_native *n)
{
    bl_model *m = &n->model;
    const int64_t most = BL_MAX_COLS; /* of a row */
    float theta;
    if (!read_count(n, "block_count", BL_MOST_LAYERS, 0, &m->layers) ||
        !read_count(n, "embedding_length", most, 0, &m->embedding) ||
        !read_count(n, "feed_forward_length", most, 0, &m->ffn) ||
        !read_count(n, "attention.head_count", most, 0, &m->heads) ||
        !read_count(n, "attention.head_count_kv", m->heads, m->heads, &m->kv_heads) ||
        !read_count(n, "attention.key_length", most, m->embedding / m->heads, &m->head_dim) ||
        !read_count(n, "rope.dimension_count", m->head_dim, m->head_dim, &m->rope_dim) ||
        !read_real(n, "rope.freq_base", 10000.0f, &theta) ||
        !read_real(n, "attention.layer_norm_rms_epsilon", 0.0f, &m->eps))
        return 0;
    if (m->heads % m->kv_heads || m->head_dim % 2 || m->rope_dim % 2 || m->heads * m->head_dim > most)
        return fail(n, "%lld heads, %lld for keys, of %lld elements, %lld rotated, do not fit together",
                    (long long)m->heads, (long long)m->kv_heads, (long long)m->head_dim, (long long)m->rope_dim);
    float *frequency = bl_native_keep(n, (uint64_t)m->rope_dim / 2 * sizeof *frequency);
    if (!frequency) return 0;
    for (int64_t i = 0; i < m->rope_dim / 2; i++)
        frequency[i] = (float)(1.0 / pow((double)theta, (double)(2 * i) / (double)m->rope_dim));
    m->inverse_frequency = frequency;
    m->embedding_scale = 1.0f;
    m->score_scale = 1.0f / sqrtf((float)m->head_dim);
    return 1;
}

/* ---- tensors ----------------------------------------------------------------------------------------------------- */

/* Find a tensor, and count it as one that the graph has. */
static int find_tensor(bl_native *n, const char *name, bl_gguf_tensor *tensor)
{
    const int found = bl_gguf_tensor_of(&n->file, name, tensor);
    n->tensors_read += (uint64_t)found;
    return found;
}

/* A vector of floats. One that is not needed and not there is NULL. */
static int read_vector(bl_native *n, const char *name, int64_t length, int needed, const float **to)
{
    bl_gguf_tensor tensor;
    *to = NULL;
    if (!find_tensor(n, name, &tensor)) return !needed || fail(n, "tensor %s is missing", name);
    if (tensor.type != 0 || tensor.dims != 1 || tensor.shape[0] != (uint64_t)length ||
        tensor.room < (uint64_t)length * sizeof **to)
        return fail(n, "tensor %s is not %lld float32 within the file", name, (long long)length);
    *to = (const float *)(const void *)tensor.data;
    return 1;
}

/* How a type of tensor is read: as a type of matrix, ternary ones by a kernel, others as rows or in strips. */
typedef struct {
    uint32_t id;
    bl_type type;
    int kernel, in_strips;
} bl_file_type;

static const bl_file_type *find_type(uint32_t id)
{
    static const bl_file_type types[] = {
        {0, BL_F32, 0, 0},
        {1, BL_F16, 0, 0},
        {30, BL_BF16, 0, 0},
        {2, BL_Q4_0, 0, 0},
        {8, BL_Q8_0, 0, 0},
        {14, BL_Q6_K, 0, 0},
        {1506, BL_Q6_K, 0, 1},
        {1507, BL_Q8_0, 0, 1},
        {1508, BL_Q4_0, 0, 1},
        {36, BL_TERNARY, BL_I2_S, 0},
        {1505, BL_TERNARY, BL_TL5, 0},
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].id == id) return &types[i];
    return NULL;
}

/* Scales of a ternary matrix, behind its packed bytes; the counts of negatives of TL5 must not make sums overflow. */
static int read_ternary(bl_native *n, const char *name, int kernel, const bl_gguf_tensor *tensor, bl_matrix *to)
{
    const int64_t packed = bl_kernels[kernel]->packed_bytes(to->rows, to->cols), groups = (to->cols + 4) / 5;
    const int64_t scales = kernel == BL_TL5 ? to->rows : 1;
    const int64_t behind = kernel == BL_TL5 ? scales * (int64_t)sizeof(float) : BL_BYTES_OF_SCALE;
    if (tensor->room < (uint64_t)(packed + behind)) return fail(n, "tensor %s ends beyond the file", name);
    if (kernel == BL_I2_S && to->cols % BL_BLOCK)
        return fail(n, "tensor %s has rows of %lld, I2_S is read in whole blocks of 128", name, (long long)to->cols);
    const int32_t *negatives = (const int32_t *)(const void *)tensor->data;
    for (int64_t row = 0; kernel == BL_TL5 && row < bl_round_up(to->rows, bl_kernels[kernel]->panel); row++)
        if (negatives[row] < 0 || negatives[row] > groups)
            return fail(n, "tensor %s: row %lld has %d negative groups of %lld", name, (long long)row,
                        (int)negatives[row], (long long)groups);
    to->kernel = bl_kernels[kernel];
    to->cell = bl_cell_of(n->model.tier, kernel);
    to->scale = (const float *)(const void *)(tensor->data + packed);
    to->scales = scales;
    return 1;
}

/* A dense matrix: as it lies, or packed into strips if its rows of blocks are not only looked up. */
static int read_dense(bl_native *n, const char *name, const bl_file_type *type, const bl_gguf_tensor *tensor,
                      int looked_up, bl_matrix *to)
{
    const int64_t block = !bl_is_block_type(type->type) ? 1 : type->type == BL_Q6_K ? 256 : 32;
    if (to->cols % block) return fail(n, "tensor %s has rows of %lld, not in whole blocks", name, (long long)to->cols);
    const int64_t packed = bl_dense_packed_bytes(type->type, to->rows, to->cols);
    const int64_t bytes = type->in_strips ? packed : to->rows * bl_row_bytes(type->type, to->cols);
    if (tensor->room < (uint64_t)bytes) return fail(n, "tensor %s ends beyond the file", name);
    to->in_strips = type->in_strips || (bl_is_block_type(type->type) && !looked_up);
    if (!to->in_strips || type->in_strips) return 1;
    uint8_t *strips = bl_native_keep(n, (uint64_t)packed);
    if (!strips) return 0;
    bl_pack_blocks(strips, tensor->data, type->type, to->rows, to->cols, 0, to->rows);
    to->data = strips;
    return 1;
}

static int read_matrix(bl_native *n, const char *name, int64_t rows, int64_t cols, int looked_up, bl_matrix *to)
{
    bl_gguf_tensor tensor;
    if (!find_tensor(n, name, &tensor)) return fail(n, "tensor %s is missing", name);
    if (tensor.dims != 2 || tensor.shape[0] != (uint64_t)cols || tensor.shape[1] != (uint64_t)rows)
        return fail(n, "tensor %s is not of shape %lld x %lld", name, (long long)rows, (long long)cols);
    const bl_file_type *type = find_type(tensor.type);
    if (!type) return fail(n, "tensor %s has type %u, convert the file to tl5 first", name, tensor.type);
    *to = (bl_matrix){.type = type->type, .rows = rows, .cols = cols, .data = tensor.data};
    if (type->type != BL_TERNARY) return read_dense(n, name, type, &tensor, looked_up, to);
    return looked_up ? fail(n, "tensor %s is ternary, it must not be", name)
                     : read_ternary(n, name, type->kernel, &tensor, to);
}

/* A linear layer of a block, with its bias. */
static int read_linear(bl_native *n, int64_t block, const char *part, int64_t rows, int64_t cols, bl_matrix *to)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", (int)block, part);
    if (!read_matrix(n, name, rows, cols, 0, to)) return 0;
    snprintf(name, sizeof name, "blk.%d.%s.bias", (int)block, part);
    return read_vector(n, name, rows, 0, &to->bias);
}

static int read_norm(bl_native *n, int64_t block, const char *part, int64_t length, int needed, const float **to)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight", (int)block, part);
    return read_vector(n, name, length, needed, to);
}

static int read_layer(bl_native *n, int64_t l)
{
    const bl_model *m = &n->model;
    bl_layer *y = &n->layers[l];
    const int64_t e = m->embedding, attention = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    const int sub_norms = !strncmp(n->prefix, "bitnet", 6);
    return read_norm(n, l, "attn_norm", e, 1, &y->attn_norm) && read_norm(n, l, "ffn_norm", e, 1, &y->ffn_norm) &&
           read_norm(n, l, "attn_sub_norm", attention, sub_norms, &y->attn_sub_norm) &&
           read_norm(n, l, "ffn_sub_norm", m->ffn, sub_norms, &y->ffn_sub_norm) &&
           read_linear(n, l, "attn_q", attention, e, &y->q) && read_linear(n, l, "attn_k", kv, e, &y->k) &&
           read_linear(n, l, "attn_v", kv, e, &y->v) && read_linear(n, l, "attn_output", e, attention, &y->o) &&
           read_linear(n, l, "ffn_gate", m->ffn, e, &y->gate) && read_linear(n, l, "ffn_up", m->ffn, e, &y->up) &&
           read_linear(n, l, "ffn_down", e, m->ffn, &y->down);
}

static int read_tensors(bl_native *n)
{
    bl_model *m = &n->model;
    bl_gguf_tensor tensor;
    const int tied = !bl_gguf_tensor_of(&n->file, "output.weight", &tensor);
    const char *head = tied ? "token_embd.weight" : "output.weight";
    n->layers = bl_native_keep(n, (uint64_t)m->layers * sizeof *n->layers);
    if (!n->layers) return 0;
    m->layer = n->layers;
    if (!read_matrix(n, "token_embd.weight", m->vocab, m->embedding, 1, &m->token_embedding) ||
        !read_matrix(n, head, m->vocab, m->embedding, 0, &m->head) ||
        !read_vector(n, "output_norm.weight", m->embedding, 1, &m->output_norm))
        return 0;
    for (int64_t l = 0; l < m->layers; l++)
        if (!read_layer(n, l)) return 0;
    const uint64_t unread = n->file.tensor_count - (n->tensors_read - (uint64_t)tied);
    if (unread) return fail(n, "tensors of a graph that only Python runs: %llu", (unsigned long long)unread);
    return 1;
}

int bl_native_open(bl_native *n, const uint8_t *bytes, uint64_t size, const bl_tier *tier)
{
    n->model.tier = tier;
    const char *wrong = bl_gguf_open(&n->file, bytes, size);
    if (wrong) return fail(n, "%s", wrong);
    return read_vocabulary(n) && read_family(n) && check_rope(n) && read_sizes(n) && read_tensors(n);
}
