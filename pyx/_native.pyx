"""The C library with its arguments checked: kernels and tiers on arrays, roofs of the machine, weights, steps.

One extension module, so that every tier is compiled once and its parts share their types without a C API between
modules, which abi3 would make slower and free-threading harder to get right.
"""

include "kernels.pxi"
include "ops.pxi"
include "roofs.pxi"
include "pool.pxi"
include "weights.pxi"
include "cache.pxi"
include "step.pxi"
include "probe.pxi"
include "sampling.pxi"
