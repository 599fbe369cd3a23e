/* Where the rows of a cache are. */
#ifndef BL_CACHE_H
#define BL_CACHE_H

#include "workspace.h"

typedef enum { BL_KEYS, BL_VALUES } bl_kv;

/* The keys or values of a head. */
BL_INLINE bl_kv_rows bl_cache_rows(const bl_cache *cache, const bl_model *m, int64_t layer, int64_t kv_head, bl_kv kv)
{
    const int64_t head_dim = bl_head_stride(m), part = (layer * m->kv_heads + kv_head) * 2 + kv;
    return (bl_kv_rows){cache->pages, part * BL_PAGE * bl_kv_bytes(cache->kind, head_dim), cache->kind, head_dim};
}

/* Its row at a position. */
BL_INLINE uint8_t *bl_row_at(const bl_kv_rows *rows, int64_t position)
{
    return rows->pages[position / BL_PAGE] + rows->offset +
           position % BL_PAGE * bl_kv_bytes(rows->kind, rows->head_dim);
}

#endif
