#include "workspace.h"

#include "pass.h"

/* In a self-test under AddressSanitizer the bytes between two arrays are poisoned, so that it sees any access there. */
#ifndef BL_RED_ZONE
#define BL_RED_ZONE 0
#endif
#if BL_RED_ZONE
#include <sanitizer/asan_interface.h>
#endif

void *bl_take(bl_arena *arena, int64_t bytes)
{
    uint8_t *array = arena->base ? arena->base + arena->used : NULL;
    const int64_t taken = bl_round_up(bytes, BL_ALIGN) + BL_RED_ZONE;
#if BL_RED_ZONE
    if (array) __asan_poison_memory_region(array + bytes, (size_t)(taken - bytes));
#endif
    arena->used += taken;
    return array;
}

static int64_t bl_widest_input(const bl_model *m)
{
    const int64_t attention = m->heads * m->head_dim;
    const int64_t widest = m->embedding > attention ? m->embedding : attention;
    return m->ffn > widest ? m->ffn : widest;
}

/* Scores, queries and results of attention that one worker does together; or an input that it makes for itself, before
 * and after the norm of a matrix. */
static int64_t bl_scratch_floats(const bl_model *m, int64_t context)
{
    const int64_t queries = BL_MAX_QUERIES * (bl_score_stride(context) + 2 * bl_head_stride(m));
    const int64_t inputs = 2 * bl_widest_input(m);
    return bl_round_up(queries > inputs ? queries : inputs, BL_LANES);
}

/* What the inputs of a model need. */
typedef struct {
    int64_t forms;      /* most forms in which one is read */
    int64_t form_bytes; /* of 1 to batch tokens in the largest form */
    int64_t part_ints;  /* of a worker for its part of the dots of all readers */
} bl_input_sizes;

static void bl_measure_input(bl_input_sizes *sizes, const bl_model *m, const bl_matrix *const *readers, int count,
                             int64_t batch)
{
    int64_t ints = 0;
    for (int r = 0; r < count; r++) {
        const bl_matrix *w = readers[r];
        if (w->type == BL_TERNARY && w->cell->gemm_share) ints += BL_OWN_TOKENS * bl_part_stride(w);
        if (bl_form_of(readers, r) != r) continue;
        if (sizes->forms < r + 1) sizes->forms = r + 1;
        for (int64_t n = 1; n <= batch; n++) {
            const int64_t bytes = n * bl_token_bytes_of(m, w, n);
            if (sizes->form_bytes < bytes) sizes->form_bytes = bytes;
        }
    }
    if (sizes->part_ints < ints) sizes->part_ints = ints;
}

static bl_input_sizes bl_measure_inputs(const bl_model *m, int64_t batch)
{
    const bl_matrix *const head[] = {&m->head};
    bl_input_sizes sizes = {0};
    bl_measure_input(&sizes, m, head, 1, batch);
    for (int64_t l = 0; l < m->layers; l++) {
        const bl_layer *y = &m->layer[l];
        const bl_matrix *const readers[] = {&y->q, &y->k, &y->v, &y->o, &y->gate, &y->up, &y->down};
        bl_measure_input(&sizes, m, readers, 3, batch);
        bl_measure_input(&sizes, m, readers + 3, 1, batch);
        bl_measure_input(&sizes, m, readers + 4, 2, batch);
        bl_measure_input(&sizes, m, readers + 6, 1, batch);
    }
    sizes.form_bytes = bl_round_up(sizes.form_bytes, BL_ALIGN);
    return sizes;
}

/* Take the arrays of a workspace whose sizes are set. */
static void bl_take_arrays(bl_workspace *w, const bl_model *m, int workers, bl_arena *arena)
{
    const int64_t floats = sizeof(float), batch = w->batch * floats, widest = bl_widest_input(m);
    const int64_t attention = m->heads * m->head_dim, kv = m->kv_heads * m->head_dim;
    w->places = bl_take(arena, w->batch * (int64_t)sizeof *w->places);
    w->wanted = bl_take(arena, w->batch * (int64_t)sizeof *w->wanted);
    w->x = bl_take(arena, batch * m->embedding);
    w->input = bl_take(arena, batch * widest);
    w->prepared = bl_take(arena, w->forms * w->form_bytes);
    w->own_prepared = bl_take(arena, workers * w->forms * w->own_bytes);
    w->quantized = bl_take(arena, workers * widest);
    w->act_max = bl_take(arena, w->forms * batch);
    w->own_act_max = bl_take(arena, workers * BL_LANES * floats);
    w->parts = bl_take(arena, workers * w->part_ints * (int64_t)sizeof *w->parts);
    w->q = bl_take(arena, batch * attention);
    w->k = bl_take(arena, batch * kv);
    w->v = bl_take(arena, batch * kv);
    w->mixed = bl_take(arena, batch * attention);
    w->gate = bl_take(arena, batch * m->ffn);
    w->up = bl_take(arena, batch * m->ffn);
    w->out = bl_take(arena, batch * m->embedding);
    w->cosine = bl_take(arena, batch * (m->rope_dim / 2));
    w->sine = bl_take(arena, batch * (m->rope_dim / 2));
    w->scores = bl_take(arena, m->heads * bl_score_stride(w->context) * floats);
    w->totals = bl_take(arena, m->heads * floats);
    w->worker_scratch = bl_take(arena, workers * w->scratch_floats * floats);
}

static int64_t bl_lay_out(bl_workspace *w, const bl_model *m, int64_t context, int64_t batch, int workers, void *memory)
{
    bl_arena arena = {memory, 0};
    w->context = context;
    w->batch = batch;
    w->quantized_stride = bl_widest_input(m);
    w->scratch_floats = bl_scratch_floats(m, context);
    const bl_input_sizes all = bl_measure_inputs(m, batch), own = bl_measure_inputs(m, BL_OWN_TOKENS);
    w->forms = all.forms;
    w->form_bytes = all.form_bytes;
    w->own_bytes = own.form_bytes;
    w->part_ints = own.part_ints;
    bl_take_arrays(w, m, workers, &arena);
    return arena.used;
}

int64_t bl_workspace_bytes(const bl_model *m, int64_t context, int64_t batch, int workers)
{
    bl_workspace counted;
    return bl_lay_out(&counted, m, context, batch, workers, NULL);
}

void bl_workspace_place(bl_workspace *w, const bl_model *m, int64_t context, int64_t batch, int workers, void *memory)
{
    bl_lay_out(w, m, context, batch, workers, memory);
}
