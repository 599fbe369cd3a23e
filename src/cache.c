#include "cache.h"

#include <string.h>

static int64_t bl_take_rows(bl_cache *cache, const bl_model *m, void *memory)
{
    bl_arena arena = {memory, 0};
    const int64_t bytes = bl_cache_offset(cache, m, m->layers, 0, 0);
    cache->keys = bl_take(&arena, bytes);
    cache->values = bl_take(&arena, bytes);
    return arena.used;
}

int64_t bl_cache_bytes(const bl_model *m, bl_kv_kind kind, int64_t context)
{
    bl_cache counted = {.kind = kind, .context = context};
    return bl_take_rows(&counted, m, NULL);
}

void bl_cache_place(bl_cache *cache, const bl_model *m, bl_kv_kind kind, int64_t context, void *memory)
{
    *cache = (bl_cache){.kind = kind, .context = context};
    bl_take_rows(cache, m, memory);
}

void bl_cache_copy(bl_cache *to, const bl_cache *from, const bl_model *m)
{
    const size_t used = (size_t)(from->position * bl_kv_bytes(from->kind, bl_head_stride(m)));
    for (int64_t head = 0; head < m->layers * m->kv_heads; head++) {
        const int64_t target = bl_cache_offset(to, m, 0, head, 0), source = bl_cache_offset(from, m, 0, head, 0);
        memcpy(to->keys + target, from->keys + source, used);
        memcpy(to->values + target, from->values + source, used);
    }
    to->position = from->position;
}
