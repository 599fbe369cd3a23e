/* A draw of any settings from any logits stays in its memory, and gives a token that may be drawn. */
#ifndef BL_SELFTEST_DRAW_H
#define BL_SELFTEST_DRAW_H

#include "sampling.h"
#include "selftest.h"

static void check_one_draw(int64_t vocab)
{
    float *logits = room(vocab * 4), peak = -INFINITY;
    for (int64_t i = 0; i < vocab; i++) {
        logits[i] = random_below(9) ? (float)(random_below(4001) - 2000) * 0.01f : -INFINITY;
        peak = logits[i] > peak ? logits[i] : peak;
    }
    if (!(peak > -INFINITY)) logits[0] = peak = 1.0f;
    const bl_drawing how = {.top_k = random_below(2) ? random_below((int)vocab + 2) : 0,
                            .top_p = random_below(2) ? 1.0 : (1 + random_below(1000)) / 1001.0,
                            .log_min_p = random_below(2) ? -INFINITY : -random_below(30),
                            .temperature = (1 + random_below(100)) * 0.02,
                            .uniform = random_below(1 << 20) * 0x1p-20};
    void *scratch = room(bl_draw_bytes(vocab));
    const int64_t id = bl_draw(logits, vocab, &how, scratch);
    if (id < 0 || id >= vocab || !(logits[id] > -INFINITY))
        FAIL("of %lld ids %lld is drawn", (long long)vocab, (long long)id);
    if ((double)logits[id] - (double)peak < how.log_min_p) FAIL("an id below min_p is drawn");
    int64_t better = 0;
    for (int64_t i = 0; i < vocab; i++) better += logits[i] > logits[id];
    if (how.top_k && better >= how.top_k) FAIL("an id beyond top_k is drawn");
    free(scratch);
    free(logits);
}

static void check_draw(void)
{
    for (int64_t vocab = 1; vocab <= 300; vocab++)
        for (int i = 0; i < 20; i++) check_one_draw(vocab);
    for (int i = 0; i < 20; i++) check_one_draw(1 + random_below(20000));
}

#endif
