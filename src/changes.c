/* What is done to logits before a token is drawn from them. */
#include <string.h>

#include "sampling.h"

static void add(const bl_additions *additions, float *logits)
{
    for (int64_t i = 0; i < additions->count; i++) {
        float *logit = &logits[additions->ids[i]];
        *logit = (float)((double)*logit + additions->numbers[i]);
    }
}

static void penalize_repeated(const bl_changes *changes, float *logits, int32_t *is_done)
{
    for (int64_t i = 0; i < changes->length; i++) is_done[changes->history[i]] = 0;
    for (int64_t i = 0; i < changes->length; i++) {
        const int64_t id = changes->history[i];
        const float logit = logits[id];
        if (!is_done[id]) logits[id] = logit > 0.0f ? logit / changes->repetition : logit * changes->repetition;
        is_done[id] = 1;
    }
}

static void penalize_generated(const bl_changes *changes, float *logits, int32_t *times)
{
    for (int64_t i = changes->prompt; i < changes->length; i++) times[changes->history[i]] = 0;
    for (int64_t i = changes->prompt; i < changes->length; i++) times[changes->history[i]]++;
    for (int64_t i = changes->prompt; i < changes->length; i++) {
        const int64_t id = changes->history[i];
        const double off = changes->presence + changes->frequency * times[id];
        if (times[id]) logits[id] = (float)((double)logits[id] - off);
        times[id] = 0;
    }
}

void bl_change_row(const bl_changes *changes, const float *logits, int64_t vocab, float *changed, int32_t *marks)
{
    memcpy(changed, logits, (size_t)vocab * sizeof *changed);
    add(&changes->bias, changed);
    if (changes->repetition != 1.0f) penalize_repeated(changes, changed, marks);
    if (changes->presence != 0.0 || changes->frequency != 0.0) penalize_generated(changes, changed, marks);
    add(&changes->others, changed);
    if (changes->allowed)
        for (int64_t i = 0; i < vocab; i++) changed[i] = changes->allowed[i] ? changed[i] : -1.0f / 0.0f;
}
