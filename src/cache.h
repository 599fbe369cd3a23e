/* Where the rows of a cache are. */
#ifndef BL_CACHE_H
#define BL_CACHE_H

#include "workspace.h"

typedef enum { BL_KEYS, BL_VALUES } bl_kv;

/* The keys or values of some heads. */
BL_INLINE bl_kv_rows bl_cache_rows(const bl_cache *cache, const bl_model *m, int64_t layer, int64_t kv_head,
                                   int64_t heads, bl_kv kv)
{
    const int64_t head_dim = bl_head_stride(m), strip = (layer * 2 + kv) * m->kv_heads + kv_head;
    return (bl_kv_rows){cache->pages, strip * bl_kv_strip_bytes(cache->kind, head_dim, BL_PAGE), cache->kind, head_dim,
                        heads};
}

/* Write head (head_dim), padded with zeros, as the row of a position. */
void bl_store_row(const bl_tier *tier, const bl_kv_rows *rows, bl_kv kv, int64_t position, const float *head);

#endif
