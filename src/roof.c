/* The work of one thread that measures a roof. */
#include "roof.h"

void bl_roof_task(void *context, int worker, int workers)
{
    bl_roof_job *job = context;
    if (!job->data) {
        job->digest[worker] = job->tier->roof_multiply(job->passes);
        return;
    }
    const int64_t units = job->bytes / BL_ROOF_UNIT;
    const int64_t lo = units * worker / workers * BL_ROOF_UNIT, hi = units * (worker + 1) / workers * BL_ROOF_UNIT;
    uint64_t digest = 0;
    for (int64_t pass = 0; pass < job->passes; pass++) digest ^= job->tier->roof_read(job->data + lo, hi - lo);
    job->digest[worker] = digest;
}
