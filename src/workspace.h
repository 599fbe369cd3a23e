/* Sizes that the scratch of a step is made of, and how arrays are placed in one piece of memory. */
#ifndef BL_WORKSPACE_H
#define BL_WORKSPACE_H

#include "bitnet_lut/bitnet_lut.h"
#include "shared/numerics.h"

enum { BL_ALIGN = 64 };

/* Elements of a row of keys or values. */
BL_INLINE int64_t bl_head_stride(const bl_model *m) { return bl_round_up(m->head_dim, BL_LANES); }

/* Which of an input's forms a reader takes: the index of the first one that takes the same. */
BL_INLINE int bl_form_of(const bl_matrix *const *readers, int reader)
{
    int form = 0;
    while (readers[form]->cell != readers[reader]->cell || readers[form]->norm != readers[reader]->norm) form++;
    return form;
}

/* Bytes of each of n prepared tokens that w reads. */
BL_INLINE int64_t bl_token_bytes_of(const bl_model *m, const bl_matrix *w, int64_t n)
{
    return w->type == BL_TERNARY ? w->cell->token_bytes(w->cols, n) : m->tier->dense_bytes(w->cols);
}

/* Ints from the dots of one token to those of the next, where workers share out the columns of a matrix. */
BL_INLINE int64_t bl_part_stride(const bl_matrix *w) { return bl_round_up(w->rows, w->kernel->panel); }

/* Memory from which arrays are taken one after the other; without a base they are only counted. */
typedef struct {
    uint8_t *base;
    int64_t used;
} bl_arena;

void *bl_take(bl_arena *arena, int64_t bytes);

#endif
