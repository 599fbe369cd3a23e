/* Where the rows of a cache are. */
#ifndef BL_CACHE_H
#define BL_CACHE_H

#include "workspace.h"

/* Byte offset, in keys or values, of a head's row at a position. */
BL_INLINE int64_t bl_cache_offset(const bl_cache *cache, const bl_model *m, int64_t layer, int64_t kv_head,
                                  int64_t position)
{
    const int64_t row = (layer * m->kv_heads + kv_head) * cache->context + position;
    return row * bl_kv_bytes(cache->kind, bl_head_stride(m));
}

#endif
