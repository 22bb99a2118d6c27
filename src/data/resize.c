/* resize.c - separable resampling: rows first, then columns, each rounded to 8 bits, with filter taps in fixed point.
 * That is Pillow's arithmetic to the bit, so that a network sees what the one it was compared with saw. A filter that
 * shrinks is widened by the scale (antialiasing); taps outside the picture are left out and the rest sum to one.
 * All sums are of integers: the instruction set changes the speed and nothing else. */
#include "data/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define TAP_BITS 22 /* fraction bits of a tap: 32, less 8 of the pixel, less 2 for sums beyond 0 .. 255 */
#define HALF (1 << (TAP_BITS - 1))
#define ROWS 4      /* rows that share each load of a tap */
#define OVERREAD 13 /* bytes that a row's last load may reach past its last pixel */

/* memory of a Resizer */
enum { TAPS_X, TAPS_Y, LAST_ROWS, BETWEEN };

/* Taps of one axis: output i is the sum of taps[i * span + k] * input[first[i] + k], k < used[i] <= span. */
typedef struct {
    int count, span;
    int *first, *used; /* [count] */
    int32_t *taps;     /* [count, span], zero from used on */
} Axis;

void resizer_free(Resizer *r) {
    for (size_t i = 0; i < COUNTOF(r->memory); i++) free(r->memory[i]);
    *r = (Resizer){0};
}

/* At least `bytes` of memory, old contents lost; grows only, so that a steady stream of pictures stops allocating. */
static bool memory_for(Resizer *r, void **out, int which, size_t bytes, Err *err) {
    if (r->room[which] < bytes) {
        free(r->memory[which]);
        r->memory[which] = NULL, r->room[which] = 0;
        if (!mem_try(&r->memory[which], bytes, err)) return false;
        r->room[which] = bytes;
    }
    *out = r->memory[which];
    return true;
}

static double filter_value(ResizeFilter filter, double x) {
    x = fabs(x);
    if (filter == FILTER_BILINEAR) return x < 1 ? 1 - x : 0;
    const double a = -0.5; /* Keys' cubic */
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static void make_taps(int32_t *taps, double *weight, int used, int span, int first, double centre, double wide,
                      ResizeFilter filter) {
    double sum = 0;
    for (int k = 0; k < used; k++) {
        weight[k] = filter_value(filter, (k + first - centre + 0.5) * (1 / wide));
        sum += weight[k];
    }
    for (int k = 0; k < span; k++) {
        double exact = k < used && sum != 0 ? weight[k] / sum * (1 << TAP_BITS) : 0;
        taps[k] = (int32_t)(exact < 0 ? exact - 0.5 : exact + 0.5);
    }
}

/* Taps of outputs begin .. begin + count - 1, when `in` samples become `out`. */
static bool make_axis(Axis *axis, Resizer *r, int which, int in, int out, int begin, int count, ResizeFilter filter,
                      Err *err) {
    double scale = (double)in / out, wide = MAX(scale, 1.0), reach = (filter == FILTER_BICUBIC ? 2 : 1) * wide;
    int span = ROUND_UP((int)MIN(ceil(reach) * 2 + 1, in), 2); /* even: taps are taken in pairs */
    size_t n = (size_t)count, taps = 0, bytes = 0;
    void *memory;
    if (!size_mul(n, (size_t)span, &taps) || !size_mul(taps, sizeof(int32_t), &bytes) ||
        !size_add(bytes, (size_t)span * sizeof(double) + 2 * n * sizeof(int), &bytes))
        return err_set(err, EXIT_MEMORY, "memory: no room to scale %d to %d pixels - use smaller pictures", in, out);
    if (!memory_for(r, &memory, which, bytes, err)) return false;
    double *weight = memory; /* [span], of the output at hand */
    *axis = (Axis){.count = count, .span = span, .taps = (int32_t *)(weight + span)};
    axis->first = (int *)(axis->taps + taps);
    axis->used = axis->first + n;
    for (int i = 0; i < count; i++) {
        double centre = (begin + i + 0.5) * scale;
        int first = MAX((int)(centre - reach + 0.5), 0), end = MIN((int)(centre + reach + 0.5), in);
        axis->first[i] = first, axis->used[i] = end - first;
        make_taps(axis->taps + (size_t)i * (size_t)span, weight, end - first, span, first, centre, wide, filter);
    }
    return true;
}

/* One pass over rows and one over columns, in plain C and with AVX2: sums of integers, so the bytes are the same.
 * rows: ROWS rows of RGB, each from the axis' sample 0 on, to rows of out, stride bytes apart. It may read OVERREAD
 * bytes past a row; a tap of zero meets them.
 * columns: out[x] = sum over k < used of tap[k] * in[k * stride + x], x < samples. */
typedef struct {
    void (*rows)(uint8_t *out, size_t stride, const uint8_t *const *in, const Axis *axis);
    void (*columns)(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *tap, int used, size_t samples);
} Passes;

static inline uint8_t to_byte(int32_t sum) {
    sum >>= TAP_BITS;
    return (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
}

static void rows_plain(uint8_t *out, size_t stride, const uint8_t *const *in, const Axis *axis) {
    for (int r = 0; r < ROWS; r++)
        for (int i = 0; i < axis->count; i++) {
            const int32_t *tap = axis->taps + (size_t)i * (size_t)axis->span;
            const uint8_t *at = in[r] + 3 * (size_t)axis->first[i];
            int32_t red = HALF, green = HALF, blue = HALF;
            for (int k = 0; k < axis->used[i]; k++, at += 3)
                red += at[0] * tap[k], green += at[1] * tap[k], blue += at[2] * tap[k];
            uint8_t *to = out + (size_t)r * stride + 3 * (size_t)i;
            to[0] = to_byte(red), to[1] = to_byte(green), to[2] = to_byte(blue);
        }
}

/* samples [x, x + 16) with a fixed count inside, which compilers vectorise; the rest one by one */
static void columns_plain(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *tap, int used,
                          size_t samples) {
    size_t x = 0;
    for (; x + 16 <= samples; x += 16) {
        int32_t sums[16];
        for (int c = 0; c < 16; c++) sums[c] = HALF;
        for (int k = 0; k < used; k++)
            for (int c = 0; c < 16; c++) sums[c] += in[(size_t)k * stride + x + (size_t)c] * tap[k];
        for (int c = 0; c < 16; c++) out[x + (size_t)c] = to_byte(sums[c]);
    }
    for (; x < samples; x++) {
        int32_t sum = HALF;
        for (int k = 0; k < used; k++) sum += in[(size_t)k * stride + x] * tap[k];
        out[x] = to_byte(sum);
    }
}

#if defined(__x86_64__)
#define AVX2 __attribute__((target("avx2"))) static

/* Two taps of a pixel fill a vector as R G B . R G B . and meet at the end. */
AVX2 void rows_avx2(uint8_t *out, size_t stride, const uint8_t *const *in, const Axis *axis) {
    const __m256i widen = _mm256_setr_epi8(0, -1, -1, -1, 1, -1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1, /* pixel k */
                                           3, -1, -1, -1, 4, -1, -1, -1, 5, -1, -1, -1, -1, -1, -1, -1);
    const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    for (int i = 0; i < axis->count; i++) {
        const int32_t *tap = axis->taps + (size_t)i * (size_t)axis->span;
        size_t at = 3 * (size_t)axis->first[i];
        __m256i sums[ROWS] = {0};
        for (int k = 0; k < axis->used[i]; k += 2, at += 6) {
            __m256i taps = _mm256_castsi128_si256(_mm_loadl_epi64((const __m128i *)(tap + k)));
            taps = _mm256_permutevar8x32_epi32(taps, halves);
#pragma GCC unroll 4
            for (int r = 0; r < ROWS; r++) {
                __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(in[r] + at)));
                __m256i pixels = _mm256_shuffle_epi8(twice, widen);
                sums[r] = _mm256_add_epi32(sums[r], _mm256_mullo_epi32(pixels, taps));
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < ROWS; r++) {
            __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums[r]), _mm256_extracti128_si256(sums[r], 1));
            sum = _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(HALF)), TAP_BITS);
            sum = _mm_packs_epi32(sum, sum); /* both packs saturate: below 0 to 0, above 255 to 255 */
            int rgb = _mm_cvtsi128_si32(_mm_packus_epi16(sum, sum));
            memcpy(out + (size_t)r * stride + 3 * (size_t)i, &rgb, 3);
        }
    }
}

AVX2 void columns_avx2(uint8_t *out, const uint8_t *in, size_t stride, const int32_t *tap, int used, size_t samples) {
    size_t x = 0;
    for (; x + 16 <= samples; x += 16) {
        __m256i low = _mm256_set1_epi32(HALF), high = low;
        const uint8_t *at = in + x;
        for (int k = 0; k < used; k++, at += stride) {
            __m256i taps = _mm256_set1_epi32(tap[k]);
            __m256i a = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)at));
            __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(at + 8)));
            low = _mm256_add_epi32(low, _mm256_mullo_epi32(a, taps));
            high = _mm256_add_epi32(high, _mm256_mullo_epi32(b, taps));
        }
        /* packs work within halves: a0-3 b0-3 | a4-7 b4-7, put in order before the last one */
        __m256i words = _mm256_packs_epi32(_mm256_srai_epi32(low, TAP_BITS), _mm256_srai_epi32(high, TAP_BITS));
        words = _mm256_permute4x64_epi64(words, 0xd8);
        _mm_storeu_si128((__m128i *)(out + x),
                         _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    }
    if (x < samples) columns_plain(out + x, in + x, stride, tap, used, samples - x);
}
#endif

static Passes passes_here(bool plain) {
#if defined(__x86_64__)
    if (!plain && __builtin_cpu_supports("avx2")) return (Passes){rows_avx2, columns_avx2};
#endif
    (void)plain;
    return (Passes){rows_plain, columns_plain};
}

/* The rows of the cutting that the window needs, each scaled, to between. */
static bool scale_rows(uint8_t *between, size_t stride, Resizer *r, const Image *image, Box from, const Axis *axis,
                       int begin, int end, Passes passes, Err *err) {
    size_t row_bytes = 3 * (size_t)from.width, line = 3 * (size_t)image->width;
    const uint8_t *limit = image->pixels + line * (size_t)image->height;
    void *memory;
    if (!memory_for(r, &memory, LAST_ROWS, ROWS * (row_bytes + OVERREAD), err)) return false;
    for (int y = begin; y < end; y += ROWS) {
        const uint8_t *rows[ROWS];
        for (int k = 0; k < ROWS; k++) { /* past the end the last row is done again; between has room for it */
            rows[k] = image->pixels + line * (size_t)(from.y + MIN(y + k, end - 1)) + 3 * (size_t)from.x;
            if ((size_t)(limit - rows[k]) >= row_bytes + OVERREAD) continue;
            uint8_t *copy = (uint8_t *)memory + (size_t)k * (row_bytes + OVERREAD);
            rows[k] = memcpy(copy, rows[k], row_bytes);
        }
        passes.rows(between + stride * (size_t)(y - begin), stride, rows, axis);
    }
    return true;
}

bool resize(Resizer *r, uint8_t *out, const Image *image, Box from, int width, int height, Box window,
            ResizeFilter filter, Err *err) {
    CHECK(from.x >= 0 && from.y >= 0 && from.width > 0 && from.height > 0 && from.x <= image->width - from.width &&
              from.y <= image->height - from.height,
          "the cutting leaves the picture");
    CHECK(window.x >= 0 && window.y >= 0 && window.width > 0 && window.height > 0 && window.x <= width - window.width &&
              window.y <= height - window.height,
          "the window leaves the result");
    Axis across, down;
    if (!make_axis(&across, r, TAPS_X, from.width, width, window.x, window.width, filter, err) ||
        !make_axis(&down, r, TAPS_Y, from.height, height, window.y, window.height, filter, err))
        return false;
    Passes passes = passes_here(r->plain);
    int begin = down.first[0], end = down.first[down.count - 1] + down.used[down.count - 1];
    size_t stride = 3 * (size_t)window.width, bytes = 0;
    void *between;
    if (!size_mul(stride, (size_t)ROUND_UP(end - begin, ROWS), &bytes))
        return err_set(err, EXIT_MEMORY, "memory: no room to scale %d rows - use smaller pictures", end - begin);
    if (!memory_for(r, &between, BETWEEN, bytes, err) ||
        !scale_rows(between, stride, r, image, from, &across, begin, end, passes, err))
        return false;
    for (int y = 0; y < window.height; y++)
        passes.columns(out + stride * (size_t)y, (uint8_t *)between + stride * (size_t)(down.first[y] - begin), stride,
                       down.taps + (size_t)y * (size_t)down.span, down.used[y], stride);
    return true;
}
