#include "cache.h"

#include <string.h>

static int64_t bl_pages_of(int64_t positions) { return (positions + BL_PAGE - 1) / BL_PAGE; }

/* Bytes of the keys, or of the values, of all heads at so many positions. */
static int64_t bl_kv_bytes_of(const bl_model *m, bl_kv_kind kind, int64_t positions)
{
    return m->layers * m->kv_heads * positions * bl_kv_bytes(kind, bl_head_stride(m));
}

int64_t bl_page_bytes(const bl_model *m, bl_kv_kind kind) { return 2 * bl_kv_bytes_of(m, kind, BL_PAGE); }

void bl_page_copy(uint8_t *to, const uint8_t *from, const bl_model *m, bl_kv_kind kind, int64_t positions)
{
    const int64_t row = bl_kv_bytes(kind, bl_head_stride(m)), bytes = bl_page_bytes(m, kind);
    for (int64_t at = 0; at < bytes; at += BL_PAGE * row) memcpy(to + at, from + at, (size_t)(positions * row));
}

static int64_t bl_take_pages(bl_cache *cache, const bl_model *m, void *memory)
{
    bl_arena arena = {memory, 0};
    const int64_t count = bl_pages_of(cache->context), bytes = bl_page_bytes(m, cache->kind);
    cache->pages = bl_take(&arena, count * (int64_t)sizeof *cache->pages);
    for (int64_t i = 0; i < count; i++) {
        uint8_t *page = bl_take(&arena, bytes);
        if (memory) cache->pages[i] = page;
    }
    return arena.used;
}

int64_t bl_cache_bytes(const bl_model *m, bl_kv_kind kind, int64_t context)
{
    bl_cache counted = {.kind = kind, .context = context};
    return bl_take_pages(&counted, m, NULL);
}

void bl_cache_place(bl_cache *cache, const bl_model *m, bl_kv_kind kind, int64_t context, void *memory)
{
    *cache = (bl_cache){.kind = kind, .context = context};
    bl_take_pages(cache, m, memory);
}

void bl_cache_copy(bl_cache *to, const bl_cache *from, const bl_model *m)
{
    for (int64_t at = 0; at < from->position; at += BL_PAGE) {
        const int64_t left = from->position - at;
        bl_page_copy(to->pages[at / BL_PAGE], from->pages[at / BL_PAGE], m, from->kind,
                     left < BL_PAGE ? left : BL_PAGE);
    }
    to->position = from->position;
}

int64_t bl_rows_bytes(const bl_model *m, bl_kv_kind kind, int64_t positions)
{
    return 2 * bl_round_up(bl_kv_bytes_of(m, kind, positions), BL_ALIGN);
}

/* A head's rows in one page, and the same rows in a cache that is one piece of memory. */
typedef struct {
    uint8_t *in_page;
    int64_t in_rows, bytes;
} bl_strip;

static bl_strip bl_strip_at(const bl_cache *cache, const bl_model *m, int64_t positions, int64_t head, bl_kv kv,
                            int64_t at)
{
    const bl_kv_rows rows = bl_cache_rows(cache, m, 0, head, kv);
    const int64_t row = bl_kv_bytes(rows.kind, rows.head_dim), left = positions - at;
    const int64_t start = kv * bl_rows_bytes(m, rows.kind, positions) / 2 + (head * positions + at) * row;
    return (bl_strip){bl_row_at(&rows, at), start, (left < BL_PAGE ? left : BL_PAGE) * row};
}

void bl_cache_read(const bl_cache *cache, const bl_model *m, uint8_t *rows)
{
    for (int64_t i = 0; i < 2 * m->layers * m->kv_heads; i++)
        for (int64_t at = 0; at < cache->position; at += BL_PAGE) {
            const bl_strip strip = bl_strip_at(cache, m, cache->position, i / 2, i % 2 ? BL_VALUES : BL_KEYS, at);
            memcpy(rows + strip.in_rows, strip.in_page, (size_t)strip.bytes);
        }
}

void bl_cache_fill(bl_cache *cache, const bl_model *m, const uint8_t *rows, int64_t positions)
{
    for (int64_t i = 0; i < 2 * m->layers * m->kv_heads; i++)
        for (int64_t at = 0; at < positions; at += BL_PAGE) {
            const bl_strip strip = bl_strip_at(cache, m, positions, i / 2, i % 2 ? BL_VALUES : BL_KEYS, at);
            memcpy(strip.in_page, rows + strip.in_rows, (size_t)strip.bytes);
        }
    cache->position = positions;
}
