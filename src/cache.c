#include "cache.h"

#include <string.h>

static int64_t bl_pages_of(int64_t positions) { return (positions + BL_PAGE - 1) / BL_PAGE; }

/* ---- rows -------------------------------------------------------------------------------------------------------- */

/* Where element k of a row is in a strip of BL_KV_Q8: see bl_kv_rows. */
BL_INLINE int64_t bl_q8_offset(bl_kv kv, int64_t head_dim, int64_t row, int64_t k)
{
    if (kv == BL_KEYS) return row / 16 * 16 * head_dim + k / 4 * 64 + row % 16 * 4 + k % 4;
    return row / 4 * 4 * head_dim + 4 * k + row % 4;
}

static void bl_store_q8(const bl_tier *tier, const bl_kv_rows *rows, bl_kv kv, int64_t position, const float *head)
{
    const int64_t n = rows->head_dim, row = position % BL_PAGE;
    uint8_t *strip = rows->pages[position / BL_PAGE] + rows->offset;
    int8_t q[BL_Q8_MOST];
    const float max = tier->quantize(q, head, n);
    memcpy(strip + BL_PAGE * n + row * (int64_t)sizeof max, &max, sizeof max);
    for (int64_t k = 0; k < n; k++) strip[bl_q8_offset(kv, n, row, k)] = (uint8_t)q[k];
}

void bl_store_row(const bl_tier *tier, const bl_kv_rows *rows, bl_kv kv, int64_t position, const float *head)
{
    const int64_t bytes = bl_kv_bytes(rows->kind, rows->head_dim);
    uint8_t *row = rows->pages[position / BL_PAGE] + rows->offset + position % BL_PAGE * bytes;
    switch (rows->kind) {
    case BL_KV_F16: tier->store_f16((uint16_t *)(void *)row, head, rows->head_dim); break;
    case BL_KV_Q8: bl_store_q8(tier, rows, kv, position, head); break;
    default: memcpy(row, head, (size_t)bytes);
    }
}

/* ---- strips ------------------------------------------------------------------------------------------------------ */

/* Where a head's positions from some one on, the first of a group, are in memory for so many positions: the scales
 * stand behind all rows. */
typedef struct { uint8_t *rows, *scales; } bl_strip;

static bl_strip bl_strip_at(uint8_t *start, const bl_kv_format *format, int64_t head_dim, int64_t room, int64_t at)
{
    const int64_t row = head_dim * format->element_bytes;
    return (bl_strip){start + at * row, start + room * row + at * format->scale_bytes};
}

static void bl_copy_strip(bl_strip to, bl_strip from, const bl_kv_format *format, int64_t head_dim, int64_t positions)
{
    memcpy(to.rows, from.rows, (size_t)(bl_round_up(positions, format->group) * head_dim * format->element_bytes));
    memcpy(to.scales, from.scales, (size_t)(positions * format->scale_bytes));
}

/* Rows from `count` on of the group that they share with rows before are zero, whatever was there. */
static void bl_clear_rest(bl_strip strip, bl_kv_kind kind, bl_kv kv, int64_t head_dim, int64_t count)
{
    const bl_kv_format *format = &bl_kv_formats[kind];
    for (int64_t row = count; row < bl_round_up(count, format->group); row++) {
        for (int64_t k = 0; k < head_dim; k++) strip.rows[bl_q8_offset(kv, head_dim, row, k)] = 0;
        memset(strip.scales + row * format->scale_bytes, 0, (size_t)format->scale_bytes);
    }
}

/* ---- pages ------------------------------------------------------------------------------------------------------- */

int64_t bl_page_bytes(const bl_model *m, bl_kv_kind kind)
{
    return 2 * m->layers * m->kv_heads * bl_kv_strip_bytes(kind, bl_head_stride(m), BL_PAGE);
}

void bl_page_copy(uint8_t *to, const uint8_t *from, const bl_model *m, bl_kv_kind kind, int64_t positions)
{
    const bl_kv_format *format = &bl_kv_formats[kind];
    const int64_t head_dim = bl_head_stride(m), strip = bl_kv_strip_bytes(kind, head_dim, BL_PAGE);
    for (int64_t at = 0; at < bl_page_bytes(m, kind); at += strip)
        bl_copy_strip(bl_strip_at(to + at, format, head_dim, BL_PAGE, 0),
                      bl_strip_at((uint8_t *)from + at, format, head_dim, BL_PAGE, 0), format, head_dim, positions);
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

/* ---- without pages ----------------------------------------------------------------------------------------------- */

int64_t bl_rows_bytes(const bl_model *m, bl_kv_kind kind, int64_t positions)
{
    const int64_t strips = m->layers * m->kv_heads * bl_kv_strip_bytes(kind, bl_head_stride(m), positions);
    return 2 * bl_round_up(strips, BL_ALIGN);
}

/* Copy a cache to its rows without pages, which are a strip of all positions for each head, or back. */
static void bl_copy_rows(const bl_cache *cache, const bl_model *m, uint8_t *flat, int64_t positions, int into_cache)
{
    const bl_kv_format *format = &bl_kv_formats[cache->kind];
    const int64_t head_dim = bl_head_stride(m), room = bl_round_up(positions, format->group);
    for (int64_t i = 0; i < 2 * m->layers * m->kv_heads; i++) {
        const bl_kv kv = i / m->kv_heads % 2 ? BL_VALUES : BL_KEYS;
        const int64_t layer = i / m->kv_heads / 2, head = i % m->kv_heads;
        const int64_t offset = bl_cache_rows(cache, m, layer, head, 1, kv).offset;
        uint8_t *strip = flat + kv * bl_rows_bytes(m, cache->kind, positions) / 2 +
                         (layer * m->kv_heads + head) * bl_kv_strip_bytes(cache->kind, head_dim, positions);
        for (int64_t at = 0; at < positions; at += BL_PAGE) {
            const int64_t count = positions - at < BL_PAGE ? positions - at : BL_PAGE;
            const bl_strip page = bl_strip_at(cache->pages[at / BL_PAGE] + offset, format, head_dim, BL_PAGE, 0);
            const bl_strip rows = bl_strip_at(strip, format, head_dim, room, at);
            bl_copy_strip(into_cache ? page : rows, into_cache ? rows : page, format, head_dim, count);
            if (!into_cache) bl_clear_rest(rows, cache->kind, kv, head_dim, count);
        }
    }
}

void bl_cache_read(const bl_cache *cache, const bl_model *m, uint8_t *rows)
{
    bl_copy_rows(cache, m, rows, cache->position, 0);
}

void bl_cache_fill(bl_cache *cache, const bl_model *m, const uint8_t *rows, int64_t positions)
{
    bl_copy_rows(cache, m, (uint8_t *)rows, positions, 1);
    cache->position = positions;
}
