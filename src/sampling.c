#include "sampling.h"

#include <stdlib.h>
#include <string.h>

#include "pool.h"
#include "shared/numerics.h"

enum {
    BINS = 1024,         /* of logits by their distance from the largest, so that few need to be sorted, */
    BINS_OF_A_UNIT = 32, /* of which */
    LIKELY = 8           /* units hold the share of top_p in most rows */
};

typedef struct {
    float key;
    int32_t id;
} bl_ranked;

/* What is left to choose from, in order of ids. */
typedef struct {
    const bl_tier *tier;
    const float *all; /* logits by id */
    const float *logit;
    const float *key;  /* what a filter ranks by: the logits, or others */
    const int32_t *id; /* NULL while all are left */
    int64_t count;
    float peak;    /* the largest logit that is left */
    float highest; /* no key is above it */
    float *maxima; /* of parts of all logits */
    double *sums;  /* of weights, by blocks */
    bl_ranked *ranked;
    float *kept_logit, *kept_key;
    int32_t *kept_id;
} bl_choice;

static int64_t part_count(int64_t vocab) { return (vocab + BL_PART - 1) / BL_PART; }
static int64_t block_count(int64_t vocab) { return (vocab + BL_DRAW_BLOCK - 1) / BL_DRAW_BLOCK; }

int64_t bl_draw_bytes(int64_t vocab)
{
    const size_t token = sizeof(bl_ranked) + 2 * sizeof(float) + sizeof(int32_t);
    const int64_t bytes = block_count(vocab) * (int64_t)sizeof(double) + vocab * (int64_t)token +
                          part_count(vocab) * (int64_t)sizeof(float);
    return bl_round_up(bytes, 64);
}

static int64_t changed_bytes(int64_t vocab) { return bl_round_up(vocab * (int64_t)sizeof(float), 64); }

int64_t bl_draw_rows_bytes(int64_t vocab) { return bl_draw_bytes(vocab) + changed_bytes(vocab); }

static int has_nan(const bl_tier *tier, const float *logits, int64_t vocab)
{
    if (tier->finite(logits, vocab)) return 0;
    for (int64_t i = 0; i < vocab; i++)
        if (isnan(logits[i])) return 1;
    return 0;
}

/* All logits, before any filter; 0 if one is NaN or the largest is not finite. */
static int choose_all(bl_choice *all, const bl_tier *tier, const float *logits, int64_t vocab, void *scratch)
{
    *all = (bl_choice){.tier = tier, .all = logits, .logit = logits, .key = logits, .count = vocab, .sums = scratch};
    all->ranked = (bl_ranked *)(void *)(all->sums + block_count(vocab));
    all->kept_id = (int32_t *)(void *)(all->ranked + vocab);
    all->kept_logit = (float *)(void *)(all->kept_id + vocab);
    all->kept_key = all->kept_logit + vocab;
    all->maxima = all->kept_key + vocab;
    if (has_nan(tier, logits, vocab)) return 0;
    tier->part_maxima(all->maxima, logits, vocab);
    all->peak = all->maxima[0];
    for (int64_t p = 1; p < part_count(vocab); p++) all->peak = all->maxima[p] > all->peak ? all->maxima[p] : all->peak;
    all->highest = all->peak;
    return isfinite(all->peak);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int32_t id_at(const bl_choice *choice, int64_t i) { return choice->id ? choice->id[i] : (int32_t)i; }

/* The weights (BL_DRAW_BLOCK) of the block that begins at lo; returns their sum. */
static double weigh_block(const bl_choice *choice, float *weights, int64_t lo, float scale)
{
    const int64_t count = least(choice->count - lo, BL_DRAW_BLOCK);
    return choice->tier->weigh(weights, choice->logit + lo, count, choice->peak, scale);
}

/* The sum of all weights, and those of the blocks. */
static double add_weights(const bl_choice *choice, float scale)
{
    float weights[BL_DRAW_BLOCK];
    double total = 0.0;
    for (int64_t lo = 0; lo < choice->count; lo += BL_DRAW_BLOCK)
        total += choice->sums[lo / BL_DRAW_BLOCK] = weigh_block(choice, weights, lo, scale);
    return total;
}

/* ---- filters ----------------------------------------------------------------------------------------------------- */

/* Each keeps the first of a ranking, by keys and then by ids. */
static int by_rank(const void *a, const void *b)
{
    const bl_ranked *x = a, *y = b;
    if (x->key != y->key) return x->key < y->key ? 1 : -1;
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_id(const void *a, const void *b)
{
    const bl_ranked *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* Only the first `count` that were kept are left. */
static void choose_kept(bl_choice *choice, int64_t count)
{
    choice->key = choice->key == choice->logit ? choice->kept_logit : choice->kept_key;
    choice->logit = choice->kept_logit;
    choice->id = choice->kept_id;
    choice->count = count;
}

/* Keep the keys above bound, or equal to it if `equal`, at lo <= place < hi, after count others; returns how many are
 * kept then. */
static int64_t keep_part(bl_choice *choice, int64_t count, int64_t lo, int64_t hi, float bound, int equal)
{
    for (int64_t i = lo; i < hi; i++) {
        const float logit = choice->logit[i], key = choice->key[i];
        choice->kept_id[count] = id_at(choice, i);
        choice->kept_key[count] = key;
        choice->kept_logit[count] = logit;
        count += (key > bound) | ((key == bound) & equal);
    }
    return count;
}

/* Keep keys of at least that. */
static void keep_above(bl_choice *choice, float bound)
{
    const int by_maxima = choice->key == choice->all;
    int64_t count = 0;
    for (int64_t lo = 0; lo < choice->count; lo += BL_PART) {
        if (by_maxima && choice->maxima[lo / BL_PART] < bound) continue;
        count = keep_part(choice, count, lo, least(lo + BL_PART, choice->count), bound, 1);
    }
    choose_kept(choice, count);
}

/* Keep what ranks before `last`, and itself: of equal keys those until its place. */
static void keep_until(bl_choice *choice, bl_ranked last)
{
    int64_t lo = 0, hi = choice->count;
    while (lo < hi) {
        const int64_t middle = (lo + hi) / 2;
        if (id_at(choice, middle) <= last.id) lo = middle + 1;
        else hi = middle;
    }
    const int64_t count = keep_part(choice, 0, 0, lo, last.key, 1);
    choose_kept(choice, keep_part(choice, count, lo, choice->count, last.key, 0));
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

/* Rank the likeliest, at least count of all. At least so many reach the count-th largest maximum of parts. */
static void rank_likeliest(bl_choice *choice, int64_t count)
{
    const int64_t parts = part_count(choice->count);
    float bound = -1.0f / 0.0f;
    if (count <= parts) {
        memcpy(choice->kept_logit, choice->maxima, (size_t)parts * sizeof *choice->maxima);
        bound = select_largest(choice->kept_logit, parts, count);
    }
    keep_above(choice, bound);
    for (int64_t i = 0; i < choice->count; i++) choice->ranked[i] = (bl_ranked){choice->logit[i], choice->id[i]};
    qsort(choice->ranked, (size_t)choice->count, sizeof *choice->ranked, by_rank);
}

static void keep_likeliest(bl_choice *choice, int64_t count)
{
    rank_likeliest(choice, count);
    qsort(choice->ranked, (size_t)count, sizeof *choice->ranked, by_id);
    for (int64_t i = 0; i < count; i++) {
        choice->kept_logit[i] = choice->ranked[i].key;
        choice->kept_id[i] = choice->ranked[i].id;
    }
    choose_kept(choice, count);
}

/* bins (BL_DRAW_BLOCK) of the block that begins at lo; returns where it ends. */
static int64_t find_bins(const bl_choice *choice, int32_t *bins, int64_t lo)
{
    const int64_t count = least(choice->count - lo, BL_DRAW_BLOCK);
    const float *key = choice->key + lo, highest = choice->highest;
    for (int64_t i = 0; i < count; i++) {
        const float below = (highest - key[i]) * BINS_OF_A_UNIT;
        bins[i] = (int32_t)(below < BINS - 1 ? below : BINS - 1);
    }
    return lo + count;
}

/* mass (BINS, 4) = the weights of each bin. */
static void add_bins(const bl_choice *choice, double (*mass)[4])
{
    float weights[BL_DRAW_BLOCK];
    int32_t bins[BL_DRAW_BLOCK];
    memset(mass, 0, BINS * sizeof *mass);
    for (int64_t lo = 0; lo < choice->count; lo += BL_DRAW_BLOCK) {
        const int64_t hi = find_bins(choice, bins, lo);
        weigh_block(choice, weights, lo, 1.0f);
        for (int64_t i = lo; i < hi; i++) mass[bins[i - lo]][id_at(choice, i) & 3] += (double)weights[i - lo];
    }
}

/* Which of the BINS of a bin. */
static int part_of_bin(const bl_choice *choice, float key, int bin)
{
    const float part = ((choice->highest - key) * BINS_OF_A_UNIT - (float)bin) * BINS;
    return part < BINS - 1 ? (int)part : BINS - 1;
}

static double weight_of(const bl_choice *choice, int32_t id)
{
    return (double)bl_weight(choice->all[id] - choice->peak);
}

/* The one of the first members of ranked, all in a bin, with which the weights reach what is wanted; the last one if
 * they do not. Those passed rank before. */
static bl_ranked find_member(const bl_choice *choice, int64_t members, double passed, double wanted)
{
    int64_t last = 0;
    qsort(choice->ranked, (size_t)members, sizeof *choice->ranked, by_rank);
    for (; last < members - 1; last++) {
        passed += weight_of(choice, choice->ranked[last].id);
        if (passed >= wanted) break;
    }
    return choice->ranked[last];
}

/* ranked = the members of a bin; returns how many there are. */
static int64_t list_members(const bl_choice *choice, int bin)
{
    int32_t bins[BL_DRAW_BLOCK];
    int64_t members = 0;
    for (int64_t lo = 0; lo < choice->count; lo += BL_DRAW_BLOCK) {
        const int64_t hi = find_bins(choice, bins, lo);
        for (int64_t i = lo; i < hi; i++)
            if (bins[i - lo] == bin) choice->ranked[members++] = (bl_ranked){choice->key[i], id_at(choice, i)};
    }
    return members;
}

/* The same of a bin: it is cut into bins once more, of which only the one that matters is ranked. */
static bl_ranked find_last(const bl_choice *choice, int bin, double passed, double wanted)
{
    double mass[BINS][4] = {{0}};
    const int64_t members = list_members(choice, bin);
    int64_t count = 0;
    int last = 0;
    for (int64_t i = 0; i < members; i++) {
        const bl_ranked one = choice->ranked[i];
        const int part = part_of_bin(choice, one.key, bin);
        mass[part][one.id & 3] += weight_of(choice, one.id);
        last = part > last ? part : last;
    }
    for (int part = 0; part < last; part++) {
        const double sum = passed + ((mass[part][0] + mass[part][1]) + (mass[part][2] + mass[part][3]));
        if (sum >= wanted) last = part;
        else passed = sum;
    }
    for (int64_t i = 0; i < members; i++)
        if (part_of_bin(choice, choice->ranked[i].key, bin) == last) choice->ranked[count++] = choice->ranked[i];
    return find_member(choice, count, passed, wanted);
}

/* Keep the fewest whose weights reach what is wanted; 0 if the first bins do not. */
static int keep_mass(bl_choice *choice, double wanted, int bins)
{
    double mass[BINS][4], passed = 0.0;
    add_bins(choice, mass);
    for (int bin = 0; bin < bins; bin++) {
        const double sum = passed + ((mass[bin][0] + mass[bin][1]) + (mass[bin][2] + mass[bin][3]));
        if (sum >= wanted) {
            keep_until(choice, find_last(choice, bin, passed, wanted));
            return 1;
        }
        passed = sum;
    }
    return 0;
}

/* Rank by the logits, or by how near to *mean they are below the largest. */
static void rank_by(bl_choice *choice, const float *mean)
{
    const float *logit = choice->logit, peak = choice->peak;
    choice->key = mean ? choice->kept_key : logit;
    choice->highest = mean ? 0.0f : peak;
    for (int64_t i = 0; mean && i < choice->count; i++) choice->kept_key[i] = -fabsf((logit[i] - peak) - *mean);
}

/* Keep the fewest of a ranking whose weights reach what is wanted. What is far below the highest key is looked at only
 * if the rest does not reach it. */
static void keep_share(bl_choice *choice, double wanted, const float *mean)
{
    const bl_choice all = *choice;
    rank_by(choice, mean);
    if (!all.id) {
        keep_above(choice, choice->highest - LIKELY);
        if (keep_mass(choice, wanted, LIKELY * BINS_OF_A_UNIT)) return;
        *choice = all;
        rank_by(choice, mean);
    }
    keep_mass(choice, wanted, BINS);
}

static void keep_nucleus(bl_choice *choice, double top_p)
{
    keep_share(choice, top_p * add_weights(choice, 1.0f), NULL);
}

/* The sum of the products of weights and logits below the largest, of the block that begins at lo. */
static double add_products(const bl_choice *choice, const float *weights, int64_t lo)
{
    double lane[BL_LANES] = {0};
    const int64_t count = least(choice->count - lo, BL_DRAW_BLOCK);
    const float *logit = choice->logit + lo, peak = choice->peak;
    for (int64_t i = 0; i < count; i += BL_LANES)
        for (int64_t j = i; j < least(i + BL_LANES, count); j++)
            lane[j - i] += weights[j] > 0.0f ? (double)weights[j] * (double)(logit[j] - peak) : 0.0;
    for (int width = BL_LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++) lane[j] += lane[j + width];
    return lane[0];
}

/* Keep the fewest of those about as surprising as is to be expected that make a share of all weights. */
static void keep_typical(bl_choice *choice, double typical_p)
{
    float weights[BL_DRAW_BLOCK];
    double total = 0.0, products = 0.0;
    for (int64_t lo = 0; lo < choice->count; lo += BL_DRAW_BLOCK) {
        total += weigh_block(choice, weights, lo, 1.0f);
        products += add_products(choice, weights, lo);
    }
    const float mean = (float)(products / total);
    keep_share(choice, typical_p * total, &mean);
    choice->peak = choice->logit[0];
    for (int64_t i = 1; i < choice->count; i++) choice->peak = fmaxf(choice->logit[i], choice->peak);
    rank_by(choice, NULL);
}

/* ---- the draw ---------------------------------------------------------------------------------------------------- */

/* The first of the largest logits, which every filter keeps. */
static int64_t find_peak(const bl_choice *all)
{
    int64_t i = 0;
    while (all->maxima[i / BL_PART] < all->peak) i += BL_PART;
    while (all->logit[i] < all->peak) i++;
    return i;
}

/* The place at which a share of all weights is passed. */
static int64_t find_place(const bl_choice *choice, float scale, double uniform)
{
    const double wanted = uniform * add_weights(choice, scale);
    double passed = 0.0;
    int64_t last = 0;
    for (int64_t lo = 0; lo < choice->count; lo += BL_DRAW_BLOCK) {
        const double block = choice->sums[lo / BL_DRAW_BLOCK];
        if (passed + block > wanted) {
            float weights[BL_DRAW_BLOCK];
            double sum = passed;
            weigh_block(choice, weights, lo, scale);
            for (int64_t i = lo; i < least(lo + BL_DRAW_BLOCK, choice->count); i++) {
                sum += (double)weights[i - lo];
                if (weights[i - lo] > 0.0f) last = i;
                if (sum > wanted) return i;
            }
        }
        passed += block;
    }
    return last;
}

int64_t bl_draw(const bl_tier *tier, const float *logits, int64_t vocab, const bl_drawing *how, void *scratch)
{
    bl_choice choice;
    if (!choose_all(&choice, tier, logits, vocab, scratch)) return -1;
    if (how->temperature == 0.0) return find_peak(&choice);
    const double least_normal = 1.2e-38, most = 8e37; /* so that 1 / temperature is a normal number too */
    const double temperature = how->temperature < least_normal ? least_normal
                               : how->temperature > most       ? most
                                                               : how->temperature;
    if (how->top_k > 0 && how->top_k < vocab) keep_likeliest(&choice, how->top_k);
    if (how->typical_p < 1.0) keep_typical(&choice, how->typical_p);
    if (how->top_p < 1.0) keep_nucleus(&choice, how->top_p);
    if (how->log_min_p > -1.0 / 0.0) keep_above(&choice, (float)((double)choice.peak + how->log_min_p));
    return id_at(&choice, find_place(&choice, (float)(1.0 / temperature), how->uniform));
}

/* ---- rows of a step ---------------------------------------------------------------------------------------------- */

/* Rows that the workers of a pool share out. */
typedef struct {
    const bl_tier *tier;
    void *rows; /* bl_row or bl_score */
    int64_t count, vocab;
    uint8_t *scratch;
} bl_rows;

static void run_rows(bl_pool *pool, void (*run)(void *, int, int), bl_rows rows)
{
    if (pool && rows.count > 1) bl_pool_run(pool, run, &rows);
    else run(&rows, 0, 1);
}

static void draw_some(void *context, int worker, int workers)
{
    const bl_rows *rows = context;
    const int64_t vocab = rows->vocab;
    uint8_t *scratch = rows->scratch + worker * bl_draw_rows_bytes(vocab);
    float *changed = (float *)(void *)(scratch + bl_draw_bytes(vocab));
    for (int64_t i = worker; i < rows->count; i += workers) {
        bl_row *row = (bl_row *)rows->rows + i;
        if (row->changes) bl_change_row(row->changes, row->logits, vocab, changed, (int32_t *)(void *)scratch);
        row->id = bl_draw(rows->tier, row->changes ? changed : row->logits, vocab, &row->how, scratch);
    }
}

void bl_draw_rows(const bl_tier *tier, bl_pool *pool, bl_row *rows, int64_t count, int64_t vocab, void *scratch)
{
    run_rows(pool, draw_some, (bl_rows){tier, rows, count, vocab, scratch});
}

/* ---- scores ------------------------------------------------------------------------------------------------------ */

static void score_row(const bl_tier *tier, int64_t vocab, bl_score *score, void *scratch)
{
    bl_choice choice;
    score->is_finite = choose_all(&choice, tier, score->logits, vocab, scratch);
    if (!score->is_finite) return;
    score->peak = choice.peak;
    score->total = add_weights(&choice, 1.0f);
    if (score->count) rank_likeliest(&choice, score->count);
    for (int64_t i = 0; i < score->count; i++) score->top[i] = choice.ranked[i].id;
}

static void score_some(void *context, int worker, int workers)
{
    const bl_rows *rows = context;
    uint8_t *scratch = rows->scratch + worker * bl_draw_bytes(rows->vocab);
    for (int64_t i = worker; i < rows->count; i += workers)
        score_row(rows->tier, rows->vocab, (bl_score *)rows->rows + i, scratch);
}

void bl_score_rows(const bl_tier *tier, bl_pool *pool, bl_score *rows, int64_t count, int64_t vocab, void *scratch)
{
    run_rows(pool, score_some, (bl_rows){tier, rows, count, vocab, scratch});
}
