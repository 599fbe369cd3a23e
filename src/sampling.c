#include "sampling.h"

#include <stdlib.h>

#include "shared/numerics.h"

enum {
    PART = 64,          /* logits whose maximum stands for them while the likeliest are looked for */
    BINS = 1024,        /* of logits by their distance from the largest, */
    BINS_OF_A_UNIT = 32 /* so that few need to be sorted */
};

typedef struct {
    float logit;
    int32_t id;
} bl_ranked;

/* What is left to choose from, in order of ids. */
typedef struct {
    const float *logit;
    const int32_t *id; /* NULL while all are left */
    int64_t count;
    float peak; /* the largest logit */
    float *kept_logit;
    int32_t *kept_id;
    float *weights;
    bl_ranked *ranked;
} bl_choice;

int64_t bl_draw_bytes(int64_t vocab)
{
    return vocab * (int64_t)(sizeof(float) + sizeof(int32_t) + sizeof(float) + sizeof(bl_ranked));
}

static int32_t id_at(const bl_choice *choice, int64_t i) { return choice->id ? choice->id[i] : (int32_t)i; }

BL_INLINE float bl_weight(float x)
{
    const float weight = bl_exp(x);
    return x < -87.0f ? 0.0f : weight;
}

/* weights = exp((logit - peak) / temperature), or 0 below e^-87. */
static void weigh(const bl_choice *choice, float temperature)
{
    for (int64_t i = 0; i < choice->count; i++)
        choice->weights[i] = bl_weight((choice->logit[i] - choice->peak) / temperature);
}

/* The largest of values, in lanes: one after the other would wait for each comparison. */
static float find_largest(const float *values, int64_t count)
{
    float lane[BL_LANES];
    for (int j = 0; j < BL_LANES; j++) lane[j] = values[0];
    int64_t i = 0;
    for (; i + BL_LANES <= count; i += BL_LANES)
        for (int j = 0; j < BL_LANES; j++) lane[j] = values[i + j] > lane[j] ? values[i + j] : lane[j];
    for (int j = 0; i < count; i++, j++) lane[j] = values[i] > lane[j] ? values[i] : lane[j];
    for (int j = 1; j < BL_LANES; j++) lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
}

/* The sum of weights in 16 lanes. */
static double sum_lanes(const float *weights, int64_t count)
{
    double lane[BL_LANES] = {0};
    int64_t i = 0;
    for (; i + BL_LANES <= count; i += BL_LANES)
        for (int j = 0; j < BL_LANES; j++) lane[j] += (double)weights[i + j];
    for (int j = 0; i < count; i++, j++) lane[j] += (double)weights[i];
    for (int width = BL_LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++) lane[j] += lane[j + width];
    return lane[0];
}

/* ---- filters ----------------------------------------------------------------------------------------------------- */

/* Each keeps the first of a ranking, by logits and then by ids. */
static int by_rank(const void *a, const void *b)
{
    const bl_ranked *x = a, *y = b;
    if (x->logit != y->logit) return x->logit < y->logit ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_id(const void *a, const void *b)
{
    const bl_ranked *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

static void choose_kept(bl_choice *choice, int64_t count)
{
    choice->logit = choice->kept_logit;
    choice->id = choice->kept_id;
    choice->count = count;
}

/* Keep what ranks before `last`, and itself. */
static void keep_until(bl_choice *choice, bl_ranked last)
{
    int64_t count = 0;
    for (int64_t i = 0; i < choice->count; i++) {
        const float logit = choice->logit[i];
        const int32_t id = id_at(choice, i);
        choice->kept_logit[count] = logit;
        choice->kept_id[count] = id;
        count += logit > last.logit || (logit == last.logit && id <= last.id);
    }
    choose_kept(choice, count);
}

/* The count-th largest of values, which change places: Hoare's selection. */
static float select_largest(float *values, int64_t n, int64_t count)
{
    int64_t lo = 0, hi = n - 1;
    while (lo < hi) {
        const float pivot = values[(lo + hi) / 2];
        int64_t i = lo, j = hi;
        while (i <= j) {
            while (values[i] > pivot) i++;
            while (values[j] < pivot) j--;
            if (i > j) break;
            const float swapped = values[i];
            values[i++] = values[j];
            values[j--] = swapped;
        }
        if (count - 1 <= j) hi = j;
        else if (count - 1 >= i) lo = i;
        else break;
    }
    return values[count - 1];
}

/* A logit that at least count of them reach: the count-th largest of the maxima of parts. */
static float find_bound(const bl_choice *choice, int64_t count)
{
    const int64_t number = (choice->count + PART - 1) / PART;
    if (count > number) return -1.0f / 0.0f;
    float *maxima = choice->weights;
    for (int64_t p = 0; p < number; p++) {
        const int64_t left = choice->count - p * PART;
        maxima[p] = find_largest(choice->logit + p * PART, left < PART ? left : PART);
    }
    return select_largest(maxima, number, count);
}

static void keep_likeliest(bl_choice *choice, int64_t count)
{
    const float bound = find_bound(choice, count);
    int64_t reached = 0;
    for (int64_t i = 0; i < choice->count; i++)
        if (choice->logit[i] >= bound) choice->ranked[reached++] = (bl_ranked){choice->logit[i], id_at(choice, i)};
    qsort(choice->ranked, (size_t)reached, sizeof *choice->ranked, by_rank);
    qsort(choice->ranked, (size_t)count, sizeof *choice->ranked, by_id);
    for (int64_t i = 0; i < count; i++) {
        choice->kept_logit[i] = choice->ranked[i].logit;
        choice->kept_id[i] = choice->ranked[i].id;
    }
    choose_kept(choice, count);
}

static int bin_of(const bl_choice *choice, int64_t i)
{
    const float below = (choice->peak - choice->logit[i]) * BINS_OF_A_UNIT;
    return below < BINS - 1 ? (int)below : BINS - 1;
}

/* Keep the fewest that make a share of all weights. Bins are added up from the largest logits on; only the one in which
 * the share is reached is ranked. */
static void keep_nucleus(bl_choice *choice, double top_p)
{
    double mass[4][BINS] = {{0}}, passed = 0.0;
    weigh(choice, 1.0f);
    const double wanted = top_p * sum_lanes(choice->weights, choice->count);
    for (int64_t i = 0; i < choice->count; i++) mass[i % 4][bin_of(choice, i)] += (double)choice->weights[i];
    for (int bin = 0; bin < BINS; bin++) {
        const double sum = passed + ((mass[0][bin] + mass[1][bin]) + (mass[2][bin] + mass[3][bin]));
        if (sum < wanted) {
            passed = sum;
            continue;
        }
        int64_t members = 0;
        for (int64_t i = 0; i < choice->count; i++) {
            choice->ranked[members] = (bl_ranked){choice->logit[i], id_at(choice, i)};
            members += bin_of(choice, i) == bin;
        }
        qsort(choice->ranked, (size_t)members, sizeof *choice->ranked, by_rank);
        int64_t last = 0;
        for (; last < members - 1; last++) {
            passed += (double)bl_weight(choice->ranked[last].logit - choice->peak);
            if (passed >= wanted) break;
        }
        keep_until(choice, choice->ranked[last]);
        return;
    }
}

static void keep_above(bl_choice *choice, double log_min_p)
{
    int64_t count = 0;
    for (int64_t i = 0; i < choice->count; i++) {
        const float logit = choice->logit[i];
        choice->kept_id[count] = id_at(choice, i);
        choice->kept_logit[count] = logit;
        count += (double)logit - (double)choice->peak >= log_min_p;
    }
    choose_kept(choice, count);
}

/* ---- the draw ---------------------------------------------------------------------------------------------------- */

/* The place among weights at which a share of their sum is passed. */
static int64_t find_place(const float *weights, int64_t count, double uniform)
{
    double total = 0.0, passed = 0.0;
    for (int64_t lo = 0; lo < count; lo += BL_DRAW_BLOCK)
        total += sum_lanes(weights + lo, count - lo < BL_DRAW_BLOCK ? count - lo : BL_DRAW_BLOCK);
    const double wanted = uniform * total;
    int64_t last = 0;
    for (int64_t lo = 0; lo < count; lo += BL_DRAW_BLOCK) {
        const int64_t hi = count - lo < BL_DRAW_BLOCK ? count : lo + BL_DRAW_BLOCK;
        const double block = sum_lanes(weights + lo, hi - lo);
        double sum = passed;
        for (int64_t i = lo; i < hi && passed + block > wanted; i++) {
            sum += (double)weights[i];
            if (weights[i] > 0.0f) last = i;
            if (sum > wanted) return i;
        }
        passed += block;
    }
    return last;
}

int64_t bl_draw(const float *logits, int64_t vocab, const bl_drawing *how, void *scratch)
{
    const float least = 1.2e-38f, most = 3.4e38f; /* normal numbers: zero / zero is NaN, as is infinity / infinity */
    const float temperature = how->temperature < least  ? least
                              : how->temperature > most ? most
                                                        : (float)how->temperature;
    bl_choice choice = {.logit = logits, .count = vocab, .peak = find_largest(logits, vocab), .ranked = scratch};
    choice.kept_logit = (float *)(void *)(choice.ranked + vocab);
    choice.weights = choice.kept_logit + vocab;
    choice.kept_id = (int32_t *)(void *)(choice.weights + vocab);
    if (how->top_k > 0 && how->top_k < vocab) keep_likeliest(&choice, how->top_k);
    if (how->top_p < 1.0) keep_nucleus(&choice, how->top_p);
    if (how->log_min_p > -1.0 / 0.0) keep_above(&choice, how->log_min_p);
    weigh(&choice, temperature);
    return id_at(&choice, find_place(choice.weights, choice.count, how->uniform));
}
