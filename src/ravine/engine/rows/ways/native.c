/* The gradient of P dense networks with ReLU between their layers and softmax cross-entropy: a member
 * after the other, so that what a layer gives is still in the caches where the next one needs it.
 *
 * Activations are feature-major, [H, B], as in dense.py: every loop below runs along contiguous samples.
 * Members are divided among the threads; where there are fewer members than threads, the samples of
 * each member are, and then the rows of its weights' gradients. Products are the BLAS's that PyTorch
 * brings: sgemm_ is handed over by native.py.
 */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

typedef void (*sgemm)(const char *, const char *, const long *, const long *, const long *, const float *,
                      const float *, const long *, const float *, const long *, const float *, float *, const long *);

typedef struct {
    sgemm gemm;
    int (*library_threads)(int);           /* of the calling thread's products; gives what was set */
    long members, layers, parameters;      /* P, L, D */
    const long *units;                     /* [L + 1]: inputs first */
    const long *weights, *biases;          /* [L]: places in a row of theta; -1: no bias */
    const unsigned char *rectified;        /* [L]: whether ReLU follows */
    const float *theta;                    /* [P, D] */
    float *grad;                           /* [P, D] */
    float *losses;                         /* [P] */
} network;

typedef struct {
    long samples;          /* B */
    const float *x;        /* [B, I] */
    const int64_t *y;      /* [B]: classes */
    const float *weight;   /* [P, B], or null: one each */
    float mean, scale, kept; /* the mean is the sum times `mean`; grad = kept * grad + scale * gradient */
} batch;

/* Row-major C [m, n] = alpha A B + beta C; ta, tb: the factor is stored transposed. */
static void product(sgemm gemm, int ta, int tb, long m, long n, long k, float alpha, const float *a, long lda,
                    const float *b, long ldb, float beta, float *c, long ldc) {
    gemm(tb ? "T" : "N", ta ? "T" : "N", &n, &m, &k, &alpha, b, &ldb, a, &lda, &beta, c, &ldc);
}

/* exp for x <= 0, in one form that compilers turn into vectors: 2^n e^r with |r| <= log(2) / 2 and the
 * polynomial of Cephes' expf; within 2e-7 of the truth, 0 below exp(-87), NaN of NaN. */
static inline float exponential(float x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    float bounded = x < -87.0f ? -87.0f : x;
    float shifted = bounded * 1.44269504f + shift, n = shifted - shift;
    float r = bounded - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (int32_t)((uint32_t)bits << 23) + 0x3f800000;
    float power;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0f ? 0.0f : p * power;
}

/* From scores z [K, B] of samples b..e to the gradient of the sum of weighted losses, in place; that sum. */
static double cross_entropy(const batch *given, const float *weight, long classes, float *z, long b, long e) {
    const long n = given->samples;
    float largest[64], total[64], factor[64];
    double sum = 0.0;
    for (long from = b; from < e; from += 64) {
        const long width = e - from < 64 ? e - from : 64;
        float *scores = z + from;
        memcpy(largest, scores, width * sizeof(float));
        for (long k = 1; k < classes; k++)
            for (long i = 0; i < width; i++) {
                float v = scores[k * n + i];
                largest[i] = v > largest[i] ? v : largest[i];
            }
        for (long i = 0; i < width; i++) total[i] = 0.0f;
        for (long i = 0; i < width; i++) {
            factor[i] = weight ? weight[from + i] : 1.0f;
            sum -= (double)factor[i] * (scores[given->y[from + i] * n + i] - largest[i]);
        }
        for (long k = 0; k < classes; k++)
            for (long i = 0; i < width; i++) {
                float p = exponential(scores[k * n + i] - largest[i]);
                scores[k * n + i] = p;
                total[i] += p;
            }
        for (long i = 0; i < width; i++) {
            sum += (double)factor[i] * logf(total[i]);
            factor[i] *= given->mean;
            total[i] = factor[i] / total[i];
        }
        for (long k = 0; k < classes; k++)
            for (long i = 0; i < width; i++) scores[k * n + i] *= total[i];
        for (long i = 0; i < width; i++) scores[given->y[from + i] * n + i] -= factor[i];
    }
    return sum;
}

/* Forward and back through the samples b..e of member p: activations and their gradients into `held`. */
static double through(const network *net, const batch *given, long p, float **held, float **slopes, long b, long e) {
    const long n = given->samples, width = e - b, last = net->layers - 1;
    const float *theta = net->theta + p * net->parameters;
    for (long l = 0; l <= last; l++) {
        const long in = net->units[l], out = net->units[l + 1];
        const float *w = theta + net->weights[l];
        if (l == 0)
            product(net->gemm, 0, 1, out, width, in, 1, w, in, given->x + b * in, in, 0, held[0] + b, n);
        else
            product(net->gemm, 0, 0, out, width, in, 1, w, in, held[l - 1] + b, n, 0, held[l] + b, n);
        for (long j = 0; j < out; j++) {
            const float bias = net->biases[l] < 0 ? 0.0f : theta[net->biases[l] + j];
            float *row = held[l] + j * n + b;
            if (net->rectified[l])
                for (long i = 0; i < width; i++) row[i] = row[i] + bias < 0.0f ? 0.0f : row[i] + bias;
            else
                for (long i = 0; i < width; i++) row[i] += bias;
        }
    }
    const float *weight = given->weight ? given->weight + p * n : 0;
    const double sum = cross_entropy(given, weight, net->units[last + 1], held[last], b, e);
    float *g = held[last]; /* the scores have become their gradient */
    for (long l = last; l > 0; l--) {
        const long in = net->units[l], out = net->units[l + 1];
        product(net->gemm, 1, 0, in, width, out, 1, theta + net->weights[l], in, g + b, n, 0, slopes[l - 1] + b, n);
        g = slopes[l - 1];
        if (net->rectified[l - 1])
            for (long j = 0; j < in; j++) {
                const float *a = held[l - 1] + j * n + b;
                float *row = g + j * n + b;
                for (long i = 0; i < width; i++) row[i] = a[i] <= 0.0f ? 0.0f : row[i];
            }
    }
    return sum;
}

/* The gradients of part t of `parts` of each layer's units, from all samples. */
static void collect(const network *net, const batch *given, long p, float **held, float **slopes, long t, long parts) {
    const long n = given->samples, last = net->layers - 1;
    float *grad = net->grad + p * net->parameters;
    for (long l = 0; l <= last; l++) {
        const long in = net->units[l], out = net->units[l + 1], b = out * t / parts, e = out * (t + 1) / parts;
        const float *g = (l == last ? held[last] : slopes[l]) + b * n;
        float *into = grad + net->weights[l] + b * in;
        if (b == e) continue;
        if (l == 0)
            product(net->gemm, 0, 0, e - b, in, n, given->scale, g, n, given->x, in, given->kept, into, in);
        else
            product(net->gemm, 0, 1, e - b, in, n, given->scale, g, n, held[l - 1], n, given->kept, into, in);
        if (net->biases[l] < 0) continue;
        for (long j = b; j < e; j++) {
            const float *row = g + (j - b) * n;
            float *slot = grad + net->biases[l] + j, sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (long i = 0; i < n; i++) sum += row[i];
            *slot = (given->kept ? given->kept * *slot : 0.0f) + given->scale * sum;
        }
    }
}

/* Where the activations and gradients of each layer lie in a thread's part of the workspace. */
static void divide(const network *net, long n, float *space, float **held, float **slopes) {
    for (long l = 0; l < net->layers; l++, space += net->units[l] * n) held[l] = space;
    for (long l = 0; l + 1 < net->layers; l++, space += net->units[l] * n) slopes[l] = space;
}

/* Numbers of a thread's workspace. */
long workspace(const network *net, long samples) {
    long total = 0;
    for (long l = 1; l <= net->layers; l++) total += (l < net->layers ? 2 : 1) * net->units[l];
    return total * samples;
}

/* Losses and gradients of all members; -1, and nothing is changed, where a class is none. */
int gradients(const network *net, const batch *given, float *space, long threads) {
    const long n = given->samples, classes = net->units[net->layers], size = workspace(net, n);
    const int whole = net->members >= threads; /* members to each thread; else their samples */
    double part[threads];
    for (long i = 0; i < n; i++)
        if (given->y[i] < 0 || given->y[i] >= classes) return -1;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const long t = omp_get_thread_num(), team = omp_get_num_threads();
        const int before = net->library_threads(1);
        float *held[net->layers], *slopes[net->layers];
        divide(net, n, space + (whole ? t * size : 0), held, slopes);
        if (whole)
            for (long p = net->members * t / team; p < net->members * (t + 1) / team; p++) {
                net->losses[p] = given->mean * through(net, given, p, held, slopes, 0, n);
                collect(net, given, p, held, slopes, 0, 1);
            }
        else
            for (long p = 0; p < net->members; p++) {
                part[t] = through(net, given, p, held, slopes, n * t / team, n * (t + 1) / team);
#pragma omp barrier
                collect(net, given, p, held, slopes, t, team);
                if (t == 0) {
                    double sum = 0.0;
                    for (long i = 0; i < team; i++) sum += part[i];
                    net->losses[p] = given->mean * sum;
                }
#pragma omp barrier
            }
        net->library_threads(before);
    }
    return 0;
}
