/* Choosing a token from logits. */
#ifndef BL_SAMPLING_H
#define BL_SAMPLING_H

#include "bitnet_lut/bitnet_lut.h"

/* How a token is drawn: of what top_k keeps, what typical_p keeps of that, and so on with top_p and min_p. */
typedef struct {
    int64_t top_k;      /* 0 keeps all */
    double typical_p;   /* 1 keeps all */
    double top_p;       /* 1 keeps all */
    double log_min_p;   /* the logarithm of min_p; -infinity keeps all */
    double temperature; /* 0 takes the likeliest, of equal ones the first */
    double uniform;     /* the random number, in [0, 1) */
} bl_drawing;

/* Bytes of scratch for a vocabulary, a multiple of 64. */
int64_t bl_draw_bytes(int64_t vocab);

enum { BL_DRAW_BLOCK = 1024 };

/* The id that is drawn from logits (vocab); -1 if the largest is not finite or one is NaN. A filter keeps the first
 * tokens of a ranking by keys, and of equal ones by ids; the draw takes those kept in order of their ids. Keys are the
 * logits, for typical_p -|(logit - largest) - mean|, where mean is that of (logit - largest) by the weights of what is
 * left, rounded to float32: the surprise of a token is as far from the entropy. It may drop the largest logit; largest
 * is then that of the others. min_p keeps logits of at least largest + log_min_p, in float64, rounded to float32.
 *
 * Weights are exp(logit - largest), for the draw exp((logit - largest) * (1 / temperature)), in float32 by bl_weight.
 * They are added up in float64: all of them by blocks of BL_DRAW_BLOCK in order of ids, each in 16 lanes, as are the
 * products for the mean, without those of weight 0; for top_p and typical_p by 1024 bins, 32 to a unit below the
 * largest key, or below 0 for typical_p, each in four lanes by id modulo 4, the bin that reaches the share by 1024 bins
 * of itself in the same way, and the one of those that does, or the last, one by one; for the draw by those blocks, and
 * then one by one. */
int64_t bl_draw(const bl_tier *tier, const float *logits, int64_t vocab, const bl_drawing *how, void *scratch);

typedef struct {
    int64_t count;
    const int64_t *ids;    /* (count) */
    const double *numbers; /* (count), each added to the logit of its id in float64 */
} bl_additions;

/* What is done to logits before a draw, in this order; each step rounds to float32. */
typedef struct {
    bl_additions bias;
    int64_t length, prompt;     /* of history, the first ones of which were not generated */
    const int64_t *history;     /* (length) */
    float repetition;           /* divides the positive logits of ids in history, multiplies the others; 1: off */
    double presence, frequency; /* taken off those of generated ids, once and as often as they are there */
    bl_additions others;        /* of minus infinity: forbid */
    const uint8_t *allowed;     /* (vocab), 0 forbids an id; NULL: all are allowed */
} bl_changes;

/* changed (vocab) = logits (vocab) with the changes. marks (vocab) is scratch. */
void bl_change_row(const bl_changes *changes, const float *logits, int64_t vocab, float *changed, int32_t *marks);

typedef struct {
    const float *logits;       /* (vocab) */
    const bl_changes *changes; /* NULL: none */
    bl_drawing how;
    int64_t id; /* result, as bl_draw gives it */
} bl_row;

/* Bytes of scratch of a worker that draws from rows, a multiple of 64. */
int64_t bl_draw_rows_bytes(int64_t vocab);

/* Draw from every row, each on one worker of the pool, or all on the calling thread if pool is NULL. scratch has
 * bl_draw_rows_bytes for each worker, but not for more than there are rows. */
void bl_draw_rows(const bl_tier *tier, bl_pool *pool, bl_row *rows, int64_t count, int64_t vocab, void *scratch);

/* What the log-probabilities of a row are made of: that of an id is logit - peak - log(total), in float64. */
typedef struct {
    const float *logits; /* (vocab) */
    int64_t count;       /* at most vocab */
    int32_t *top;        /* results: (count) the ids of the likeliest, likeliest first, */
    float peak;          /* the largest logit, */
    double total;        /* and the sum of the weights exp(logit - peak), added up as for a draw; */
    int is_finite;       /* 0, and no other result, if the largest logit is not finite or one is NaN */
} bl_score;

/* Score rows as bl_draw_rows draws from them; scratch has bl_draw_bytes for each worker. */
void bl_score_rows(const bl_tier *tier, bl_pool *pool, bl_score *rows, int64_t count, int64_t vocab, void *scratch);

#endif
