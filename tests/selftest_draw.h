/* A draw of any settings from any logits stays in its memory, gives a token that may be drawn, and the same one on
 * every tier. */
#ifndef BL_SELFTEST_DRAW_H
#define BL_SELFTEST_DRAW_H

#include "sampling.h"
#include "selftest.h"

/* Some of them minus infinity, equal, or subnormal; the largest is finite. */
static float *random_logits(int64_t vocab)
{
    float *logits = room(vocab * 4);
    const float unit = random_below(8) ? 0.01f : 1e-42f;
    for (int64_t i = 0; i < vocab; i++)
        logits[i] = random_below(9) ? (float)(random_below(4001) - 2000) * unit : -INFINITY;
    logits[random_below((int)vocab)] = random_below(2) ? 1.0f : 30.0f;
    return logits;
}

static bl_drawing random_drawing(int64_t vocab)
{
    const bl_drawing how = {.top_k = random_below(2) ? random_below((int)vocab + 2) : 0,
                            .typical_p = random_below(2) ? 1.0 : (1 + random_below(1000)) / 1001.0,
                            .top_p = random_below(2) ? 1.0 : (1 + random_below(1000)) / 1001.0,
                            .log_min_p = random_below(2) ? -INFINITY : -random_below(30),
                            .temperature = random_below(100) * 0.02,
                            .uniform = random_below(1 << 20) * 0x1p-20};
    return how;
}

static int64_t draw_on(const bl_tier *tier, const float *logits, int64_t vocab, const bl_drawing *how)
{
    void *scratch = room(bl_draw_bytes(vocab));
    const int64_t id = bl_draw(tier, logits, vocab, how, scratch);
    free(scratch);
    return id;
}

/* The likeliest ids in their order, and the same total on every tier. */
static void check_score(const bl_tier *tier, const float *logits, int64_t vocab)
{
    const int64_t count = random_below((int)vocab + 1);
    bl_score score = {.logits = logits, .count = count, .top = room(count * 4)}, plain = {.logits = logits};
    void *scratch = room(bl_draw_bytes(vocab));
    bl_score_rows(&bl_tier_scalar, NULL, &plain, 1, vocab, scratch);
    bl_score_rows(tier, NULL, &score, 1, vocab, scratch);
    if (!plain.is_finite || !score.is_finite) FAIL("logits are not scored");
    if (score.total != plain.total || score.peak != plain.peak)
        FAIL("%s scores %lld logits otherwise than scalar", tier->name, (long long)vocab);
    for (int64_t i = 1; i < count; i++) {
        const float a = logits[score.top[i - 1]], b = logits[score.top[i]];
        if (a < b || (a == b && score.top[i - 1] >= score.top[i])) FAIL("%s ranks wrongly", tier->name);
    }
    free(scratch);
    free(score.top);
}

static void check_one_draw(int64_t vocab)
{
    float *logits = random_logits(vocab), peak = -INFINITY;
    for (int64_t i = 0; i < vocab; i++) peak = logits[i] > peak ? logits[i] : peak;
    const bl_drawing how = random_drawing(vocab);
    const int64_t id = draw_on(&bl_tier_scalar, logits, vocab, &how);
    if (id < 0 || id >= vocab || !(logits[id] > -INFINITY))
        FAIL("of %lld ids %lld is drawn", (long long)vocab, (long long)id);
    if (how.typical_p == 1.0 && logits[id] < (float)((double)peak + how.log_min_p)) FAIL("an id below min_p is drawn");
    int64_t better = 0;
    for (int64_t i = 0; i < vocab; i++) better += logits[i] > logits[id];
    if (how.top_k && better >= how.top_k) FAIL("an id beyond top_k is drawn");
    for (int i = 0; i < bl_tier_count; i++) {
        if (!runs_here(bl_tiers[i])) continue;
        if (draw_on(bl_tiers[i], logits, vocab, &how) != id)
            FAIL("%s draws another one of %lld ids than scalar", bl_tiers[i]->name, (long long)vocab);
        check_score(bl_tiers[i], logits, vocab);
    }
    logits[random_below((int)vocab)] = random_below(2) ? NAN : INFINITY;
    if (draw_on(&bl_tier_scalar, logits, vocab, &how) != -1) FAIL("an id is drawn from NaN or infinity");
    free(logits);
}

/* Maxima and weights, bit for bit. */
static void check_weights(const bl_tier *tier, int64_t n)
{
    const int64_t parts = (n + BL_PART - 1) / BL_PART;
    const float scale = (float)(1 + random_below(100)) * 0.05f;
    float *logits = random_logits(n), *maxima = room(2 * parts * 4), *weights = room(2 * n * 4);
    bl_tier_scalar.part_maxima(maxima, logits, n);
    tier->part_maxima(maxima + parts, logits, n);
    for (int64_t p = 0; p < parts; p++)
        if (maxima[p] != maxima[parts + p]) FAIL("%s finds another maximum", tier->name);
    const double sum = bl_tier_scalar.weigh(weights, logits, n, maxima[0], scale);
    if (tier->weigh(weights + n, logits, n, maxima[0], scale) != sum || memcmp(weights, weights + n, (size_t)n * 4))
        FAIL("%s weighs %lld logits otherwise than scalar", tier->name, (long long)n);
    free(weights);
    free(maxima);
    free(logits);
}

static int64_t *random_ids(int64_t count, int64_t vocab)
{
    int64_t *ids = room(count * 8);
    for (int64_t i = 0; i < count; i++) ids[i] = random_below((int)vocab);
    return ids;
}

/* A row with changes stays in its memory, and only what is named changes. */
static void check_changes(int64_t vocab)
{
    const double numbers[3] = {1.5, -0.25, -INFINITY};
    const int64_t length = random_below(40);
    int64_t *ids = random_ids(3, vocab), *history = random_ids(length, vocab);
    const bl_changes changes = {.bias = {2, ids, numbers},
                                .length = length,
                                .prompt = random_below((int)length + 1),
                                .history = history,
                                .repetition = random_below(2) ? 1.0f : 1.3f,
                                .presence = random_below(3) * 0.5,
                                .frequency = random_below(3) * 0.5,
                                .others = {1, ids + 2, numbers + 2}};
    float *logits = random_logits(vocab), *changed = room(vocab * 4);
    int32_t *marks = room(vocab * 4);
    uint8_t *named = room(vocab);
    memset(named, 0, (size_t)vocab);
    for (int64_t i = 0; i < 3; i++) named[ids[i]] = 1;
    for (int64_t i = 0; i < length; i++) named[history[i]] = 1;
    bl_change_row(&changes, logits, vocab, changed, marks);
    if (changed[ids[2]] != -INFINITY) FAIL("an id is not forbidden");
    for (int64_t i = 0; i < vocab; i++)
        if (!named[i] && changed[i] != logits[i]) FAIL("logit %lld changes", (long long)i);
    free(named);
    free(marks);
    free(changed);
    free(logits);
    free(history);
    free(ids);
}

static void check_draw(void)
{
    for (int64_t vocab = 1; vocab <= 200; vocab++) check_changes(vocab);
    for (int i = 0; i < bl_tier_count; i++)
        for (int64_t n = 1; n <= 200; n++)
            if (runs_here(bl_tiers[i])) check_weights(bl_tiers[i], n);
    for (int64_t vocab = 1; vocab <= 300; vocab++)
        for (int i = 0; i < 20; i++) check_one_draw(vocab);
    for (int i = 0; i < 20; i++) check_one_draw(1 + random_below(20000));
}

#endif
