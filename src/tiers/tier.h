/* What every tier includes before it opens its target region: nothing that is defined here uses more than the baseline,
 * and all of it may be inlined into a tier. */
#ifndef BL_TIER_H
#define BL_TIER_H

#include <string.h>

#include "bitnet_lut/bitnet_lut.h"
#include "kernels/i2_s.h"
#include "kernels/tl1.h"
#include "kernels/tl2.h"
#include "kernels/tl5.h"
#include "shared/blocks.h"
#include "shared/numerics.h"
#include "target.h"

/* Weights are fetched this many bytes ahead of their use: further than the hardware does, which stops at the end of a
 * page. prefetch_near brings them into the nearest cache, which is a tenth faster than prefetch, into the second one,
 * for a token or a few (Zen 5); what is decoded for many tokens would only displace them there. Panels or rows that are
 * read together are fetched in the order of their addresses, which is a tenth faster than fetching each ahead of
 * itself. */
enum { BL_AHEAD = 8192 };

/* Sums of roof_multiply that do not wait for each other, as variables: compilers keep an array of them in memory. */
#define BL_ROOF_CHAINS(F) F(a) F(b) F(c) F(d) F(e) F(f) F(g) F(h) F(i) F(j) F(k) F(l)
enum { BL_ROOF_CHAIN_COUNT = 12 };

#endif
