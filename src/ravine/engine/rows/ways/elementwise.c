/* Batch normalisation, ReLU and 2 x 2 maximum pooling of images in training, forward and back, in as few passes
 * over memory as they need. Images lie channels last, [R, C] with R = N H W; C is a multiple of 16. Numbers are
 * float32 or, where `low`, bfloat16; what is computed with them is float32.
 *
 * Sums are those of blocks of rows, whatever the number of threads, and then joined in float64: equal inputs
 * give equal bits on any number of threads.
 */

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define BLOCK 4096 /* numbers of a block: it stays in the first cache between two passes */
#define UNROLLED 4 /* sums side by side: one would wait for itself */
#define INLINE static inline __attribute__((always_inline))

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t integers __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

INLINE floats get(const void *from, long i, int low) {
    floats v;
    if (low) {
        halves h;
        memcpy(&h, (const uint16_t *)from + i, sizeof h);
        bits b = __builtin_convertvector(h, bits) << 16;
        memcpy(&v, &b, sizeof v);
    } else
        memcpy(&v, (const float *)from + i, sizeof v);
    return v;
}

INLINE floats choose(integers where, floats a, floats b) {
    return (floats)((where & (integers)a) | (~where & (integers)b));
}

/* To the nearest bfloat16, ties to even; NaN stays NaN. */
INLINE void put(void *to, long i, int low, floats v) {
    if (low) {
#ifdef __AVX512BF16__
        const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
#else
        bits b = (bits)v, rounded = b + 0x7fff + ((b >> 16) & 1), nan = (bits)(v != v);
        halves h = __builtin_convertvector(((nan & (b | 0x400000)) | (~nan & rounded)) >> 16, halves);
#endif
        memcpy((uint16_t *)to + i, &h, sizeof h);
    } else
        memcpy((float *)to + i, &v, sizeof v);
}

/* What passes a ReLU whose output (or input) was `y`: as PyTorch, nothing where y <= 0. */
INLINE floats passed(floats y, floats g) { return choose(y <= 0, (floats){0}, g); }

INLINE long block_rows(long channels) { return BLOCK / channels > 16 ? BLOCK / channels : 16; }

long blocks(long rows, long channels) { return (rows + block_rows(channels) - 1) / block_rows(channels); }

/* --- batch normalisation ---------------------------------------------------------------------------- */

typedef struct {
    long rows, channels;
    int low;
    const void *x;                       /* [R, C] */
    const float *weight, *bias;          /* [C], or null: 1 and 0 */
    float *mean, *deviation, *scale, *shift; /* [C]: of the batch, 1 / deviation; y = scale x + shift */
    float *partial;                      /* [blocks, 2, C] */
    long threads;
} norm;

/* Mean and sum of squares around it of each channel of each block. */
INLINE void block_moments(const norm *n, const int low) {
    const long channels = n->channels, size = block_rows(channels), count = blocks(n->rows, channels);
#pragma omp parallel for num_threads(n->threads) if (n->threads > 1) schedule(static)
    for (long k = 0; k < count; k++) {
        const long from = k * size, to = from + size < n->rows ? from + size : n->rows;
        for (long c = 0; c < channels; c += LANES) {
            /* around the block's first row, which is one of the samples: no digits are lost that matter */
            const floats first = get(n->x, from * channels + c, low);
            floats sums[UNROLLED] = {{0}}, squares[UNROLLED] = {{0}};
            for (long r = from; r < to; r += UNROLLED)
                for (int j = 0; j < UNROLLED && r + j < to; j++) {
                    const floats d = get(n->x, (r + j) * channels + c, low) - first;
                    sums[j] += d;
                    squares[j] += d * d;
                }
            const floats sum = sums[0] + sums[1] + sums[2] + sums[3], mean = sum / (float)(to - from);
            const floats square = squares[0] + squares[1] + squares[2] + squares[3];
            put(n->partial, 2 * k * channels + c, 0, first + mean);
            put(n->partial, (2 * k + 1) * channels + c, 0, square - sum * mean);
        }
    }
}

/* What follows from the moments of the blocks, joined as by Chan et al., 1979: all of `norm` that is by channel, and
 * the averages over training, where they are kept (with the variance by n - 1). */
static void join_moments(const norm *n, float *running_mean, float *running_variance, double momentum, double epsilon) {
    const long channels = n->channels, size = block_rows(channels), count = blocks(n->rows, channels);
    const double rows = n->rows;
    for (long c = 0; c < channels; c++) {
        double mean = 0.0, variance = 0.0;
        for (long k = 0; k < count; k++)
            mean += (k + 1 < count ? size : n->rows - k * size) / rows * n->partial[2 * k * channels + c];
        for (long k = 0; k < count; k++) {
            const double d = n->partial[2 * k * channels + c] - mean, many = k + 1 < count ? size : n->rows - k * size;
            variance += (n->partial[(2 * k + 1) * channels + c] + many * d * d) / rows;
        }
        const double deviation = 1.0 / sqrt(variance + epsilon), scale = deviation * (n->weight ? n->weight[c] : 1.0);
        n->mean[c] = mean, n->deviation[c] = deviation, n->scale[c] = scale;
        n->shift[c] = (n->bias ? n->bias[c] : 0.0) - mean * scale;
        if (running_mean) running_mean[c] += momentum * (mean - running_mean[c]);
        if (running_variance) running_variance[c] += momentum * (variance * (rows / (rows - 1)) - running_variance[c]);
    }
}

INLINE void scaled(const norm *n, void *y, const void *added, const int low, const int rectified) {
    const long channels = n->channels, size = block_rows(channels), count = blocks(n->rows, channels);
#pragma omp parallel for num_threads(n->threads) if (n->threads > 1) schedule(static)
    for (long k = 0; k < count; k++) {
        const long from = k * size, to = from + size < n->rows ? from + size : n->rows;
        for (long c = 0; c < channels; c += LANES) {
            const floats scale = get(n->scale, c, 0), shift = get(n->shift, c, 0);
            for (long i = from * channels + c; i < to * channels; i += channels) {
                floats v = get(n->x, i, low) * scale + shift;
                if (added) v += get(added, i, low);
                put(y, i, low, rectified ? passed(v, v) : v);
            }
        }
    }
}

/* y = scale x + shift, of the moments of x; or the ReLU of this, or of this and what is added. */
void normalise(const norm *n, void *y, const void *added, int rectified, float *running_mean, float *running_variance,
               double momentum, double epsilon) {
    n->low ? block_moments(n, 1) : block_moments(n, 0);
    join_moments(n, running_mean, running_variance, momentum, epsilon);
    if (n->low)
        added ? scaled(n, y, added, 1, 1) : rectified ? scaled(n, y, 0, 1, 1) : scaled(n, y, 0, 1, 0);
    else
        added ? scaled(n, y, added, 0, 1) : rectified ? scaled(n, y, 0, 0, 1) : scaled(n, y, 0, 0, 0);
}

typedef struct {
    const void *g, *y; /* [R, C]: the gradient at the output; that of the ReLU after a sum, or null */
    int rectified;     /* whether ReLU follows at once: its output is not 0 where scale x + shift is not */
    void *passed, *dx; /* [R, C]: the gradient at the sum, or null; at x */
    float *dweight, *dbias;           /* [C] */
    float *curve, *constant;          /* [C]: dx = scale g + curve (x - mean) + constant */
} backward;

/* Sums of g and g (x - mean) of each channel of each block. */
INLINE void block_sums(const norm *n, const backward *b, const int low, const int rectified, const int summed) {
    const long channels = n->channels, size = block_rows(channels), count = blocks(n->rows, channels);
#pragma omp parallel for num_threads(n->threads) if (n->threads > 1) schedule(static)
    for (long k = 0; k < count; k++) {
        const long from = k * size, to = from + size < n->rows ? from + size : n->rows;
        for (long c = 0; c < channels; c += LANES) {
            const floats mean = get(n->mean, c, 0), scale = get(n->scale, c, 0), shift = get(n->shift, c, 0);
            floats sums[2] = {{0}}, products[2] = {{0}};
            for (long r = from; r < to; r += 2)
                for (int j = 0; j < 2 && r + j < to; j++) {
                    const long i = (r + j) * channels + c;
                    const floats x = get(n->x, i, low);
                    floats g = get(b->g, i, low);
                    if (summed) {
                        g = passed(get(b->y, i, low), g);
                        put(b->passed, i, low, g);
                    } else if (rectified)
                        g = passed(x * scale + shift, g);
                    sums[j] += g;
                    products[j] += g * (x - mean);
                }
            put(n->partial, 2 * k * channels + c, 0, sums[0] + sums[1]);
            put(n->partial, (2 * k + 1) * channels + c, 0, products[0] + products[1]);
        }
    }
}

/* Gradients of weight and bias; how dx depends on x. */
static void join_sums(const norm *n, const backward *b) {
    const long channels = n->channels, count = blocks(n->rows, channels);
    for (long c = 0; c < channels; c++) {
        double sum = 0.0, product = 0.0;
        for (long k = 0; k < count; k++) {
            sum += n->partial[2 * k * channels + c];
            product += n->partial[(2 * k + 1) * channels + c];
        }
        const double deviation = n->deviation[c];
        b->dbias[c] = sum;
        b->dweight[c] = product * deviation;
        b->curve[c] = -n->scale[c] * deviation * deviation * product / n->rows;
        b->constant[c] = -n->scale[c] * sum / n->rows;
    }
}

INLINE void inputs(const norm *n, const backward *b, const void *slope, const int low, const int rectified) {
    const long channels = n->channels, size = block_rows(channels), count = blocks(n->rows, channels);
#pragma omp parallel for num_threads(n->threads) if (n->threads > 1) schedule(static)
    for (long k = 0; k < count; k++) {
        const long from = k * size, to = from + size < n->rows ? from + size : n->rows;
        for (long c = 0; c < channels; c += LANES) {
            const floats mean = get(n->mean, c, 0), scale = get(n->scale, c, 0), shift = get(n->shift, c, 0);
            const floats curve = get(b->curve, c, 0), constant = get(b->constant, c, 0);
            for (long i = from * channels + c; i < to * channels; i += channels) {
                const floats x = get(n->x, i, low), g = get(slope, i, low);
                const floats before = rectified ? passed(x * scale + shift, g) : g;
                put(b->dx, i, low, scale * before + curve * (x - mean) + constant);
            }
        }
    }
}

void normalise_backward(const norm *n, const backward *b) {
    const void *slope = b->y ? b->passed : b->g;
    if (n->low)
        b->y ? block_sums(n, b, 1, 0, 1) : b->rectified ? block_sums(n, b, 1, 1, 0) : block_sums(n, b, 1, 0, 0);
    else
        b->y ? block_sums(n, b, 0, 0, 1) : b->rectified ? block_sums(n, b, 0, 1, 0) : block_sums(n, b, 0, 0, 0);
    join_sums(n, b);
    if (n->low)
        b->rectified && !b->y ? inputs(n, b, slope, 1, 1) : inputs(n, b, slope, 1, 0);
    else
        b->rectified && !b->y ? inputs(n, b, slope, 0, 1) : inputs(n, b, slope, 0, 0);
}

/* --- ReLU -------------------------------------------------------------------------------------------- */

/* Entries are counted in vectors: a multiple of 16, in any order. Of bfloat16 the sign tells, as a whole number's. */
#define NEGATIVE(h) ((h) < 0 && (h) <= (int16_t)0xff80) /* to minus infinity: NaN lies beyond */

void relu(const void *x, void *y, long vectors, int low, long threads) {
#pragma omp parallel for simd num_threads(threads) if (parallel : threads > 1) schedule(static)
    for (long i = 0; i < vectors * LANES; i++)
        if (low) {
            const int16_t v = ((const int16_t *)x)[i];
            ((int16_t *)y)[i] = NEGATIVE(v) ? 0 : v;
        } else {
            const float v = ((const float *)x)[i];
            ((float *)y)[i] = v < 0 ? 0 : v;
        }
}

void relu_backward(const void *g, const void *y, void *dx, long vectors, int low, long threads) {
#pragma omp parallel for simd num_threads(threads) if (parallel : threads > 1) schedule(static)
    for (long i = 0; i < vectors * LANES; i++)
        if (low) {
            const int16_t v = ((const int16_t *)y)[i];
            ((int16_t *)dx)[i] = v == 0 || NEGATIVE(v) ? 0 : ((const int16_t *)g)[i];
        } else
            ((float *)dx)[i] = ((const float *)y)[i] <= 0 ? 0 : ((const float *)g)[i];
}

/* --- maxima of 2 x 2 entries ------------------------------------------------------------------------- */

typedef struct {
    long images, height, width, channels; /* of the input; the output has height / 2 and width / 2 */
} maps;

/* Both precisions are compared as whole numbers: the sign bit apart, a larger number has larger bits. NaN is
 * above all. Of equals the first is taken, as by PyTorch. */
#define POOL(name, type, top, infinity)                                                                        \
    INLINE type ordered_##name(type v) {                                                                       \
        const type size = v & top;                                                                             \
        return size > infinity ? top : v < 0 ? (type)(v ^ top) : v;                                            \
    }                                                                                                          \
    static void pool_##name(const type *restrict x, long row, long channels, type *restrict y) {               \
        _Pragma("omp simd simdlen(16)") for (long c = 0; c < channels; c++) {                                                                  \
            const type a = ordered_##name(x[c]), b = ordered_##name(x[c + channels]);                          \
            const type d = ordered_##name(x[c + row]), e = ordered_##name(x[c + row + channels]);              \
            const type f = a > b ? a : b, g = d > e ? d : e, largest = f > g ? f : g;                          \
            y[c] = largest < 0 ? (type)(largest ^ top) : largest;                                              \
        }                                                                                                      \
    }                                                                                                          \
    static void pool_backward_##name(const type *restrict g, const type *restrict x, long row, long channels,       \
                                     type *restrict dx) {                                                      \
        _Pragma("omp simd simdlen(16)") for (long c = 0; c < channels; c++) {                                                                  \
            const type a = ordered_##name(x[c]), b = ordered_##name(x[c + channels]);                          \
            const type d = ordered_##name(x[c + row]), e = ordered_##name(x[c + row + channels]);              \
            const type f = a > b ? a : b, h = d > e ? d : e;                                                   \
            const type slope = g[c], upper = f < h ? 0 : slope, lower = f < h ? slope : 0;                     \
            dx[c] = a < b ? 0 : upper, dx[c + channels] = a < b ? upper : 0;                                   \
            dx[c + row] = d < e ? 0 : lower, dx[c + row + channels] = d < e ? lower : 0;                       \
        }                                                                                                      \
    }

POOL(low, int16_t, 0x7fff, 0x7f80)
POOL(high, int32_t, 0x7fffffff, 0x7f800000)

void pool(const maps *m, const void *x, void *y, int low, long threads) {
    const long high = m->height / 2, wide = m->width / 2, lines = m->images * high, channels = m->channels;
    const long row = m->width * channels;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (long l = 0; l < lines; l++) {
        const long line = (l / high * m->height + 2 * (l % high)) * row, to = l * wide * channels;
        for (long i = 0; i < wide * channels; i += channels)
            if (low)
                pool_low((const int16_t *)x + line + 2 * i, row, channels, (int16_t *)y + to + i);
            else
                pool_high((const int32_t *)x + line + 2 * i, row, channels, (int32_t *)y + to + i);
    }
}

/* dx, with zeros in what no maximum is taken of: the last line or column of an odd number. */
void pool_backward(const maps *m, const void *g, const void *x, void *dx, int low, long threads) {
    const long high = m->height / 2, wide = m->width / 2, lines = m->images * high, channels = m->channels;
    const long row = m->width * channels, size = low ? 2 : 4, odd = (m->width % 2) * channels * size;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (long l = 0; l < lines; l++) {
        const long line = (l / high * m->height + 2 * (l % high)) * row, from = l * wide * channels;
        for (long i = 0; i < wide * channels; i += channels) {
            const long at = line + 2 * i;
            if (low)
                pool_backward_low((const int16_t *)g + from + i, (const int16_t *)x + at, row, channels, (int16_t *)dx + at);
            else
                pool_backward_high((const int32_t *)g + from + i, (const int32_t *)x + at, row, channels, (int32_t *)dx + at);
        }
        for (long edge = 1; edge <= 2; edge++) memset((char *)dx + (line + edge * row) * size - odd, 0, odd);
        if (m->height % 2 && l % high == high - 1) memset((char *)dx + (line + 2 * row) * size, 0, row * size);
    }
}
