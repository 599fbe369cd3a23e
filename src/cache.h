/* Where the rows of a cache are. */
#ifndef BL_CACHE_H
#define BL_CACHE_H

#include "workspace.h"

typedef enum { BL_KEYS, BL_VALUES } bl_kv;

/* Bytes of whole groups of rows that hold so many positions of a head. */
BL_INLINE int64_t bl_kv_strip_bytes(bl_kv_kind kind, int64_t head_dim, int64_t positions)
{
    const bl_kv_format *format = &bl_kv_formats[kind];
    return bl_round_up(positions, format->group) * (head_dim * format->element_bytes + format->scale_bytes);
}

/* The keys or values of a head. */
BL_INLINE bl_kv_rows bl_cache_rows(const bl_cache *cache, const bl_model *m, int64_t layer, int64_t kv_head, bl_kv kv)
{
    const int64_t head_dim = bl_head_stride(m), part = (layer * m->kv_heads + kv_head) * 2 + kv;
    return (bl_kv_rows){cache->pages, part * bl_kv_strip_bytes(cache->kind, head_dim, BL_PAGE), cache->kind, head_dim};
}

/* Write head (head_dim), padded with zeros, as the row of a position. */
void bl_store_row(const bl_tier *tier, const bl_kv_rows *rows, bl_kv kv, int64_t position, const float *head);

#endif
