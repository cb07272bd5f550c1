/* The dot products of AVX-512-BF16 and AVX-512-VNNI: for 16 neurons, two inputs or four at once. */
#include "dots.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

enum { VECTORS = EM_STEP_PANEL / 64, LD = EM_TOGETHER * EM_PANEL };

/* Rows wait for the weights, which are called for so many vectors before they are needed: 4 to 16 rows run a fifth faster. */
enum { AHEAD = 2 * VECTORS };

INLINE __m512i inputs_at(const char *x)
{
    int32_t bits;
    memcpy(&bits, x, sizeof bits);
    return _mm512_set1_epi32(bits);
}

/* A vector, and a call for the one that is `ahead` bytes further. */
INLINE __m512i weights_at(const char *w, int64_t ahead)
{
    __builtin_prefetch(w + ahead);
    return _mm512_loadu_si512(w);
}

/* Two inputs of a row, the second first, as the instruction adds them. */
INLINE void bf16_tile(int W, int P, int64_t steps, const char *w, int64_t panel_bytes, int64_t next, const char *x,
                      int64_t ldx, float *sums)
{
    __m512 sum[8][8];
    UNROLL
    for (int r = 0; r < W; r++) {
        UNROLL
        for (int p = 0; p < P; p++) sum[r][p] = _mm512_setzero_ps();
    }
    for (int64_t k = 0; k < steps * VECTORS; k++) {
        int64_t ahead = AHEAD * 64 + (k < steps * VECTORS - AHEAD ? 0 : next);
        __m512i weights[8];
        UNROLL
        for (int p = 0; p < P; p++) weights[p] = weights_at(w + p * panel_bytes + k * 64, ahead);
        UNROLL
        for (int r = 0; r < W; r++) {
            __m512bh in = (__m512bh)inputs_at(x + r * ldx + k * 4);
            UNROLL
            for (int p = 0; p < P; p++) sum[r][p] = _mm512_dpbf16_ps(sum[r][p], in, (__m512bh)weights[p]);
        }
    }
    UNROLL
    for (int r = 0; r < W; r++) {
        UNROLL
        for (int p = 0; p < P; p++) _mm512_storeu_ps(sums + r * LD + p * EM_PANEL, sum[r][p]);
    }
}

/* The instruction wants weights without sign: 128 more than they are. So each sum begins at what `sums` holds: -128
 * times the sum of the row's inputs. */
INLINE void int8_tile(int W, int P, int64_t steps, const char *w, int64_t panel_bytes, int64_t next, const char *x,
                      int64_t ldx, int32_t *sums)
{
    __m512i sum[8][8], flip = _mm512_set1_epi8(-128);
    UNROLL
    for (int r = 0; r < W; r++) {
        UNROLL
        for (int p = 0; p < P; p++) sum[r][p] = _mm512_set1_epi32(sums[r * LD]);
    }
    for (int64_t k = 0; k < steps * VECTORS; k++) {
        int64_t ahead = AHEAD * 64 + (k < steps * VECTORS - AHEAD ? 0 : next);
        __m512i weights[8];
        UNROLL
        for (int p = 0; p < P; p++)
            weights[p] = _mm512_xor_si512(weights_at(w + p * panel_bytes + k * 64, ahead), flip);
        UNROLL
        for (int r = 0; r < W; r++) {
            __m512i in = inputs_at(x + r * ldx + k * 4);
            UNROLL
            for (int p = 0; p < P; p++) sum[r][p] = _mm512_dpbusd_epi32(sum[r][p], weights[p], in);
        }
    }
    UNROLL
    for (int r = 0; r < W; r++) {
        UNROLL
        for (int p = 0; p < P; p++) _mm512_storeu_si512(sums + r * LD + p * EM_PANEL, sum[r][p]);
    }
}

/* Rows in tiles of 8, 4, 2 and 1, with as many panels as leave the sums in registers; of few rows 4, for memory gives fewer
 * runs of weights faster. */
#define TILES(name, tile, type, W, P)                                                                                  \
    static void name##_##W(int64_t steps, int panels, const char *w, int64_t panel_bytes, int64_t next, const char *x, \
                           int64_t ldx, type *sums)                                                                    \
    {                                                                                                                  \
        int64_t bytes = steps * EM_STEP_PANEL;                                                                         \
        for (int p = 0, step; p < panels; p += step) {                                                                 \
            const char *at = w + p * panel_bytes;                                                                      \
            step = p + P <= panels ? P : 1;                                                                            \
            int64_t then = p + step < panels ? step * panel_bytes - bytes : next - p * panel_bytes;                    \
            if (step == P)                                                                                             \
                tile(W, P, steps, at, panel_bytes, then, x, ldx, sums + p * EM_PANEL);                                 \
            else                                                                                                       \
                tile(W, 1, steps, at, panel_bytes, then, x, ldx, sums + p * EM_PANEL);                                 \
        }                                                                                                              \
    }
#define DOT(name, tile, type)                                                                                        \
    TILES(name, tile, type, 8, 2)                                                                                    \
    TILES(name, tile, type, 4, 4)                                                                                    \
    TILES(name, tile, type, 2, 4)                                                                                    \
    TILES(name, tile, type, 1, 4)                                                                                    \
    void name(int64_t rows, int64_t steps, int panels, const char *w, int64_t panel_bytes, int64_t next,             \
              const char *x, int64_t ldx, void *sums)                                                                \
    {                                                                                                                \
        for (int64_t r = 0, width; r < rows; r += width) {                                                           \
            int64_t left = rows - r;                                                                                 \
            width = left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;                                               \
            (width == 8   ? name##_8                                                                                 \
             : width == 4 ? name##_4                                                                                 \
             : width == 2 ? name##_2                                                                                 \
                          : name##_1)(steps, panels, w, panel_bytes, next, x + r * ldx, ldx, (type *)sums + r * LD); \
        }                                                                                                            \
    }

DOT(em_dots_bf16_avx512, bf16_tile, float)

static em_dots int8_rows;
DOT(int8_rows, int8_tile, int32_t)

void em_dots_int8_avx512(int64_t rows, int64_t steps, int panels, const char *w, int64_t panel_bytes, int64_t next,
                         const char *x, int64_t ldx, void *sums)
{
    const __m512i ones = _mm512_set1_epi8(1);
    for (int64_t r = 0; r < rows; r++) {
        __m512i all = _mm512_setzero_si512();
        for (int64_t k = 0; k < steps; k++)
            all = _mm512_dpbusd_epi32(all, ones, _mm512_loadu_si512(x + r * ldx + k * EM_STEP));
        int32_t *start = (int32_t *)sums + r * LD, less = -128 * _mm512_reduce_add_epi32(all);
        for (int p = 0; p < panels; p++) start[p * EM_PANEL] = less;
    }
    int8_rows(rows, steps, panels, w, panel_bytes, next, x, ldx, sums);
}
