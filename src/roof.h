/* Measures the roofs of this machine on all threads of a pool: how fast memory is read and bytes are multiplied. */
#ifndef BL_ROOF_H
#define BL_ROOF_H

#include "bitnet_lut/bitnet_lut.h"
#include "pool.h"

/* One measurement, shared by the workers of a pool. Without data it multiplies. */
typedef struct {
    const bl_tier *tier;
    const uint8_t *data;
    int64_t bytes, passes; /* passes over the data, or rounds of products, of every worker */
    uint64_t digest[BL_MAX_WORKERS];
} bl_roof_job;

void bl_roof_task(void *context, int worker, int workers);

#endif
