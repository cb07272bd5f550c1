/* tiles_body.h: the loops of tiles.h, compiled once for each instruction set by the files that include it. They define
 * TILES (the name of the table), TILES_NAME and TILES_LIST: for each width W, in order, one T(place, W, panels).
 *
 * A vector of 16 floats is written in the compiler's own vector type: one register with AVX-512, two with AVX2, four
 * else. The loops over panels and rows have constant bounds and unroll completely, so that sums stay in registers. */
#include "tiles.h"

typedef float v16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t u32x16 __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t i32x16 __attribute__((vector_size(64)));
typedef int8_t i8x16 __attribute__((vector_size(16), aligned(1), may_alias));

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* The 16 weights at one input of an int8 panel. */
INLINE v16 int8_weights(const int8_t *w)
{
#ifdef __AVX512F__
    return (v16)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)w)));
#else
    return __builtin_convertvector(__builtin_convertvector(*(const i8x16 *)w, i32x16), v16);
#endif
}

/* sum[p][t] += w[p] * x[t] for 16 neurons at once. Rows outside: then one input at a time is spread over a register. */
INLINE void multiply_add(int P, int W, const v16 *w, const float *x, v16 sum[][12])
{
    UNROLL
    for (int t = 0; t < W; t++) {
        UNROLL
        for (int p = 0; p < P; p++) sum[p][t] += w[p] * x[t];
    }
}

/* bf16 panels hold two inputs beside each other: [K/2, 16, 2], and a last odd one as [16]. */
INLINE v16 bf16_first(const uint32_t *pair)
{
    return (v16)(*(const u32x16 *)pair << 16);
}

INLINE v16 bf16_second(const uint32_t *pair)
{
    return (v16)(*(const u32x16 *)pair & 0xffff0000U);
}

INLINE v16 bf16_last(const uint16_t *w)
{
    v16 value;
    for (int i = 0; i < EM_PANEL; i++) {
        uint32_t bits = (uint32_t)w[i] << 16;
        __builtin_memcpy((float *)&value + i, &bits, sizeof bits);
    }
    return value;
}

INLINE void tile(em_storage storage, int P, int W, int64_t K, const char *w, int64_t panel_bytes, const float *x,
                 float *out)
{
    v16 sum[8][12];
    v16 first[8], second[8];
    UNROLL
    for (int p = 0; p < P; p++) {
        UNROLL
        for (int t = 0; t < W; t++) sum[p][t] = (v16){0};
    }
    if (storage == EM_BF16) {
        for (int64_t k = 0; k + 2 <= K; k += 2, x += 2 * W) {
            UNROLL
            for (int p = 0; p < P; p++) {
                const uint32_t *pair = (const uint32_t *)(const void *)(w + p * panel_bytes + k * 32);
                first[p] = bf16_first(pair);
                second[p] = bf16_second(pair);
            }
            multiply_add(P, W, first, x, sum);
            multiply_add(P, W, second, x + W, sum);
        }
        if (K % 2 == 1) {
            UNROLL
            for (int p = 0; p < P; p++)
                first[p] = bf16_last((const uint16_t *)(const void *)(w + p * panel_bytes + (K - 1) * 32));
            multiply_add(P, W, first, x, sum);
        }
    } else {
        for (int64_t k = 0; k < K; k++, x += W) {
            UNROLL
            for (int p = 0; p < P; p++) {
                const char *at = w + p * panel_bytes + k * EM_PANEL * (storage == EM_F32 ? 4 : 1);
                first[p] = storage == EM_F32 ? *(const v16 *)(const void *)at : int8_weights((const int8_t *)at);
            }
            multiply_add(P, W, first, x, sum);
        }
    }
    UNROLL
    for (int p = 0; p < P; p++) {
        UNROLL
        for (int t = 0; t < W; t++) *(v16 *)(void *)(out + (p * W + t) * EM_PANEL) = sum[p][t];
    }
}

static void expand(em_storage storage, int64_t K, const void *w, float *out)
{
    if (storage == EM_F32) {
        for (int64_t k = 0; k < K; k++) ((v16 *)(void *)out)[k] = ((const v16 *)w)[k];
    } else if (storage == EM_BF16) {
        for (int64_t k = 0; k + 2 <= K; k += 2) {
            ((v16 *)(void *)out)[k] = bf16_first((const uint32_t *)w + k / 2 * EM_PANEL);
            ((v16 *)(void *)out)[k + 1] = bf16_second((const uint32_t *)w + k / 2 * EM_PANEL);
        }
        if (K % 2 == 1) ((v16 *)(void *)out)[K - 1] = bf16_last((const uint16_t *)w + (K - 1) * EM_PANEL);
    } else {
        for (int64_t k = 0; k < K; k++) ((v16 *)(void *)out)[k] = int8_weights((const int8_t *)w + k * EM_PANEL);
    }
}

#define ONE_TILE(kind, storage, P, W)                                                                             \
    static void kind##_##storage##_##W(int64_t K, const void *w, int64_t panel_bytes, const float *x, float *out) \
    {                                                                                                             \
        tile(storage, P, W, K, w, panel_bytes, x, out);                                                           \
    }
#define THREE_TILES(kind, P, W)   \
    ONE_TILE(kind, EM_F32, P, W)  \
    ONE_TILE(kind, EM_BF16, P, W) \
    ONE_TILE(kind, EM_INT8, P, W)
#define LARGE_TILES(place, W, P) THREE_TILES(large, P, W)
#define SMALL_TILES(place, W, P) THREE_TILES(small, 1, W)
TILES_LIST(LARGE_TILES)
TILES_LIST(SMALL_TILES)

#define WIDTH(place, W, P)  [place] = W,
#define PANELS(place, W, P) [place] = P,
#define ENTRIES(kind, place, W) \
    [EM_F32][place] = kind##_EM_F32_##W, [EM_BF16][place] = kind##_EM_BF16_##W, [EM_INT8][place] = kind##_EM_INT8_##W,
#define LARGE(place, W, P) ENTRIES(large, place, W)
#define SMALL(place, W, P) ENTRIES(small, place, W)

const em_tiles TILES = {
    .name = TILES_NAME,
    .num_widths = TILES_WIDTHS,
    .width = {TILES_LIST(WIDTH)},
    .panels = {TILES_LIST(PANELS)},
    .large = {TILES_LIST(LARGE)},
    .small = {TILES_LIST(SMALL)},
    .expand = expand,
};
