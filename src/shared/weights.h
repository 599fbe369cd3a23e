/* What the draw of a token does with every logit. Included by every tier inside its target region. */

/* The largest of x (n): see `larger`. */
BL_INLINE float largest_of(const float *x, int64_t n)
{
    float max = x[0];
    int64_t i = 0;
    if (n >= BL_LANES) {
        f32x16 v = load(x);
        for (i = BL_LANES; i + BL_LANES <= n; i += BL_LANES) v = larger(v, load(x + i));
        max = largest(v);
    }
    for (; i < n; i++) max = x[i] > max ? x[i] : max;
    return max;
}

static void part_maxima(float *maxima, const float *x, int64_t n)
{
    int64_t i = 0;
    for (; i + BL_PART <= n; i += BL_PART) *maxima++ = largest_of(x + i, BL_PART);
    if (i < n) *maxima = largest_of(x + i, n - i);
}

static double weigh(float *weights, const float *x, int64_t n, float peak, float scale)
{
    for (int64_t i = 0; i < n; i++) weights[i] = bl_weight((x[i] - peak) * scale);
    double lane[BL_LANES] = {0};
    int64_t i = 0;
    for (; i + BL_LANES <= n; i += BL_LANES)
        for (int j = 0; j < BL_LANES; j++) lane[j] += (double)weights[i + j];
    for (int j = 0; i < n; i++, j++) lane[j] += (double)weights[i];
    for (int width = BL_LANES / 2; width; width /= 2)
        for (int j = 0; j < width; j++) lane[j] += lane[j + width];
    return lane[0];
}
