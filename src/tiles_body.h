/* tiles_body.h: the loops of tiles.h, compiled once for each instruction set by the files that include it. They define
 * TILES (the name of the table), TILES_NAME, TILES_WIDTHS (how many) and TILES_LIST: for each width W, in order, one
 * T(place, W, panels); and TILES_TURN where they have a turn of their own.
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

/* int8 panels hold four inputs beside each other: [K/4, 16, 4], and what is left as [K%4, 16]. A number becomes a float
 * without a shift or a conversion: its bits, as an unsigned number, in the middle of those of a power of two; minus that. */
INLINE v16 byte_of(u32x16 quad, uint32_t mask, uint32_t power, float offset)
{
    return (v16)((quad & mask) ^ power) - offset;
}

INLINE void int8_four(const char *w, v16 *four)
{
    u32x16 low = *(const u32x16 *)(const void *)w, high = low >> 16;
    four[0] = byte_of(low, 0xffU, 0x4b000080U, 8388608 + 128); /* 2^23: its last bit counts 1 */
    four[1] = byte_of(low, 0xff00U, 0x47008000U, 32768 + 128); /* 2^15: its last bit counts 1/256 */
    four[2] = byte_of(high, 0xffU, 0x4b000080U, 8388608 + 128);
    four[3] = byte_of(high, 0xff00U, 0x47008000U, 32768 + 128);
}

INLINE v16 int8_last(const char *w)
{
    return __builtin_convertvector(__builtin_convertvector(*(const i8x16 *)(const void *)w, i32x16), v16);
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

/* The 16 weights at one input of a panel of float32, or of those left at the end of the others. */
INLINE v16 one_input(em_storage storage, const char *panel, int64_t k)
{
    if (storage == EM_F32) return *(const v16 *)(const void *)(panel + k * 64);
    return storage == EM_BF16 ? bf16_last((const uint16_t *)(const void *)(panel + k * 32)) : int8_last(panel + k * 16);
}

/* A run of inputs of some panels: how it lies in memory. Few rows wait for the weights, so these are called for `ahead` bytes
 * before they are needed; at the end of the run, what comes next. */
typedef struct run {
    int64_t panel_bytes; /* from panel to panel */
    int64_t ahead;       /* bytes */
    int64_t turn;        /* from this input on, counted from a block's first, `ahead` lies beyond the run */
    int64_t skip;        /* bytes from there to what is needed next */
} run;

/* Weights of inputs k and on are called for from here on. */
INLINE const char *called_for(const run *r, const char *weights, int64_t k)
{
    return weights + r->ahead + (k < r->turn ? 0 : r->skip);
}

/* One block of tile(): inputs [0, K). */
INLINE void tile_block(em_storage storage, int P, int W, int64_t K, const char *w, const run *r, const float *x,
                       bool more, float *out, int64_t ldo)
{
    v16 sum[8][12], first[8], second[8], four[8][4];
    int64_t k = 0;
    UNROLL
    for (int p = 0; p < P; p++) {
        UNROLL
        for (int t = 0; t < W; t++) sum[p][t] = (v16){0};
    }
    for (; storage == EM_BF16 && k + 2 <= K; k += 2, x += 2 * W) {
        const char *call = called_for(r, w + k * 32, k);
        UNROLL
        for (int p = 0; p < P; p++) {
            const uint32_t *pair = (const uint32_t *)(const void *)(w + p * r->panel_bytes + k * 32);
            __builtin_prefetch(call + p * r->panel_bytes);
            first[p] = bf16_first(pair);
            second[p] = bf16_second(pair);
        }
        multiply_add(P, W, first, x, sum);
        multiply_add(P, W, second, x + W, sum);
    }
    for (; storage == EM_INT8 && k + 4 <= K; k += 4, x += 4 * W) {
        const char *call = called_for(r, w + k * 16, k);
        UNROLL
        for (int p = 0; p < P; p++) {
            int8_four(w + p * r->panel_bytes + k * 16, four[p]);
            __builtin_prefetch(call + p * r->panel_bytes);
            UNROLL
            for (int j = 0; j < 4; j++) {
                UNROLL
                for (int t = 0; t < W; t++) sum[p][t] += four[p][j] * x[j * W + t];
            }
        }
    }
    for (; k < K; k++, x += W) {
        const char *call = called_for(r, w + k * 64, k);
        UNROLL
        for (int p = 0; p < P; p++) {
            first[p] = one_input(storage, w + p * r->panel_bytes, k);
            __builtin_prefetch(call + p * r->panel_bytes);
        }
        multiply_add(P, W, first, x, sum);
    }
    UNROLL
    for (int p = 0; p < P; p++) {
        UNROLL
        for (int t = 0; t < W; t++) {
            v16 *place = (v16 *)(void *)(out + t * ldo + (ptrdiff_t)p * EM_PANEL), before = {0};
            if (more) before = *place;
            *place = before + sum[p][t];
        }
    }
}

INLINE void tile(em_storage storage, int P, int W, int64_t K, const char *w, int64_t panel_bytes, int64_t ahead,
                 int64_t next, const float *x, bool more, float *out, int64_t ldo)
{
    int64_t input = EM_PANEL * (storage == EM_F32 ? 4 : storage == EM_BF16 ? 2 : 1); /* bytes */
    run r = {.panel_bytes = panel_bytes, .ahead = ahead, .skip = next};
    for (int64_t k = 0; k < K; k += EM_BLOCK, out += W * ldo) {
        r.turn = K - k - r.ahead / input;
        tile_block(storage, P, W, K - k < EM_BLOCK ? K - k : EM_BLOCK, w + k * input, &r, x + k * W, more, out, ldo);
    }
}

static void expand(em_storage storage, int64_t K, const void *w, float *out)
{
    int64_t k = 0;
    for (; storage == EM_BF16 && k + 2 <= K; k += 2) {
        ((v16 *)(void *)out)[k] = bf16_first((const uint32_t *)w + k / 2 * EM_PANEL);
        ((v16 *)(void *)out)[k + 1] = bf16_second((const uint32_t *)w + k / 2 * EM_PANEL);
    }
    for (; storage == EM_INT8 && k + 4 <= K; k += 4) {
        v16 four[4];
        int8_four((const char *)w + k * EM_PANEL, four);
        for (int j = 0; j < 4; j++) ((v16 *)(void *)out)[k + j] = four[j];
    }
    for (; k < K; k++) ((v16 *)(void *)out)[k] = one_input(storage, w, k);
}

/* ---- panels ---- */

#ifndef TILES_TURN
#define TILES_TURN turn
typedef uint32_t u32x4 __attribute__((vector_size(16), aligned(1), may_alias));

#ifdef __clang__
#define PICK(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define PICK(a, b, i, j, k, l) __builtin_shuffle(a, b, (u32x4){i, j, k, l})
#endif

/* What is [4 rows, 4 units] becomes units of a panel. Returns the signs of all that is not finite, and other bits. */
INLINE u32x4 turn_four(uint32_t mask, const char *rows, int64_t stride, char *panel)
{
    u32x4 row[4], half[4], signs = {0};
    for (int i = 0; i < 4; i++) {
        row[i] = *(const u32x4 *)(const void *)(rows + i * stride);
        signs |= (row[i] & mask) + EM_ONE_MORE;
    }
    half[0] = PICK(row[0], row[1], 0, 4, 1, 5);
    half[1] = PICK(row[0], row[1], 2, 6, 3, 7);
    half[2] = PICK(row[2], row[3], 0, 4, 1, 5);
    half[3] = PICK(row[2], row[3], 2, 6, 3, 7);
    for (int i = 0; i < 2; i++) {
        u32x4 *at = (u32x4 *)(void *)(panel + (ptrdiff_t)i * 2 * EM_PANEL * 4);
        at[0] = PICK(half[i], half[i + 2], 0, 1, 4, 5);
        at[EM_PANEL / 4] = PICK(half[i], half[i + 2], 2, 3, 6, 7);
    }
    return signs;
}

/* 4 rows are read a cache line each, for 16 rows, often a power of two apart, would drive each other out. */
static bool turn(em_storage storage, int64_t units, const char *rows, int64_t stride, char *panel)
{
    uint32_t mask = em_unit_mask(storage);
    u32x4 signs = {0};
    for (int64_t j = 0; j < units; j += EM_PANEL)
        for (int64_t i = 0; i < EM_PANEL; i += 4)
            for (int64_t k = j; k < j + EM_PANEL; k += 4)
                signs |= turn_four(mask, rows + i * stride + k * 4, stride, panel + (k * EM_PANEL + i) * 4);
    return ((signs[0] | signs[1] | signs[2] | signs[3]) & EM_SIGNS) == 0;
}
#endif

/* ---- element by element ---- */

INLINE v16 choose(i32x16 mask, v16 yes, v16 no)
{
    return (v16)((mask & (i32x16)yes) | (~mask & (i32x16)no));
}

/* e^x: 2^n times a polynomial of what is left (Cephes, expf). 0 and infinity beyond what a float holds. */
INLINE v16 power_of_e(v16 x)
{
    const v16 rounder = (v16){0} + 12582912.0F; /* 1.5 * 2^23: adding it leaves a whole number in the last bits */
    v16 whole = x * 1.44269504088896341F + rounder, n = whole - rounder;
    v16 r = x - n * 0.693359375F + n * 2.12194440e-4F, p = r * 1.9875691500e-4F + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    v16 value = (v16)((u32x16)p + (((u32x16)whole - (u32x16)rounder) << 23));
    value = choose(x > 88.3F, (v16){0} + __builtin_inff(), value);
    return choose(x < -87.3F, (v16){0}, value);
}

/* tanh (Cephes, tanhf): a polynomial near 0, where 1 - 2 / (e^2x + 1) would lose digits. */
INLINE v16 tangent(v16 x)
{
    i32x16 sign = (i32x16)x & ((i32x16){0} + INT32_MIN);
    v16 size = (v16)((i32x16)x ^ sign), square = x * x, p = square * -5.70498872745e-3F + 2.06390887954e-2F;
    p = p * square - 5.37397155531e-2F;
    p = p * square + 1.33314422036e-1F;
    p = p * square - 3.33332819422e-1F;
    v16 near = p * square * x + x, far = 1.0F - 2.0F / (power_of_e(size + size) + 1.0F);
    return choose(size < 0.625F, near, (v16)((i32x16)far | sign));
}

/* 0.5 x (1 + tanh(u)) = x / (1 + e^-2u). */
INLINE v16 gelu_of(v16 x)
{
    return x / (1.0F + power_of_e(-1.5957691216057308F * (x + 0.044715F * (x * x * x))));
}

/* function(x) for count numbers in place, 16 at a time. */
#define EACH(count, x, function)                                                       \
    do {                                                                               \
        int64_t each = 0;                                                              \
        for (; each + 16 <= (count); each += 16) {                                     \
            v16 *place = (v16 *)(void *)((x) + each), in = *place;                     \
            *place = function;                                                         \
        }                                                                              \
        if (each < (count)) {                                                          \
            v16 in = {0};                                                              \
            __builtin_memcpy(&in, (x) + each, (size_t)((count)-each) * sizeof(float)); \
            in = function;                                                             \
            __builtin_memcpy((x) + each, &in, (size_t)((count)-each) * sizeof(float)); \
        }                                                                              \
    } while (0)

static void gelu(int64_t count, float *x)
{
    EACH(count, x, gelu_of(in));
}

static void soft_cap(int64_t count, float cap, float *x)
{
    EACH(count, x, cap * tangent(in / cap));
}

static void exp_minus(int64_t count, float less, float *x)
{
    EACH(count, x, power_of_e(in - less));
}

/* ---- activations of 16 and 8 bits ---- */

typedef uint16_t u16x16 __attribute__((vector_size(32), aligned(2), may_alias));

static void round_to_bf16(int64_t count, const float *x, uint16_t *out)
{
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        u32x16 bits = *(const u32x16 *)(const void *)(x + i), rounded = (bits + 0x7fffU + (bits >> 16 & 1U)) >> 16;
        i32x16 is_nan = (i32x16)((bits & 0x7fffffffU) > 0x7f800000U);
        rounded = (u32x16)((~is_nan & (i32x16)rounded) | (is_nan & (i32x16)(bits >> 16 | 0x40U)));
        *(u16x16 *)(out + i) = __builtin_convertvector(rounded, u16x16);
    }
    for (; i < count; i++) out[i] = em_f32_to_bf16(x[i]);
}

static float largest(int64_t count, const float *x)
{
    v16 most = {0};
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        v16 size = (v16)(*(const u32x16 *)(const void *)(x + i) & 0x7fffffffU);
        most = choose(size > most, size, most);
    }
    float result = 0;
    for (int lane = 0; lane < 16; lane++) result = most[lane] > result ? most[lane] : result;
    for (; i < count; i++) result = __builtin_fabsf(x[i]) > result ? __builtin_fabsf(x[i]) : result;
    return result;
}

/* out = x * first * second, to the nearest whole number, ties to even; at most 127 in size. */
static void round_to_int8(int64_t count, const float *x, float first, float second, int8_t *out)
{
    const v16 rounder = (v16){0} + 12582912.0F;
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        v16 whole = *(const v16 *)(const void *)(x + i) * first * second + rounder;
        *(i8x16 *)(out + i) = __builtin_convertvector((i32x16)((u32x16)whole - (u32x16)rounder), i8x16);
    }
    for (; i < count; i++) {
        volatile float whole = x[i] * first * second + 12582912.0F; /* not to be taken for x[i] * first * second */
        out[i] = (int8_t)(whole - 12582912.0F);
    }
}

/* y [rows, lanes] (+)= sums [blocks, rows, ld] times the scales of neuron and row, block after block. */
#define ADD(name, type, vector)                                                                                   \
    static void name(const em_sums *s)                                                                            \
    {                                                                                                             \
        int64_t block = s->rows * s->ld;                                                                          \
        for (int64_t r = 0; r < s->rows; r++) {                                                                   \
            const type *sum = (const type *)s->sums + r * s->ld;                                                  \
            float *y = s->y + r * s->ldy, row_scale = s->row_scale ? s->row_scale[r] : 1;                         \
            int64_t i = 0;                                                                                        \
            for (; i + 16 <= s->lanes; i += 16, sum += 16) {                                                      \
                v16 total = {0};                                                                                  \
                if (!s->first) total = *(const v16 *)(const void *)(y + i);                                       \
                for (int64_t b = 0; b < s->blocks; b++)                                                           \
                    total += __builtin_convertvector(*(const vector *)(const void *)(sum + b * block), v16) *     \
                             row_scale * *(const v16 *)(const void *)(s->scale + i);                              \
                *(v16 *)(void *)(y + i) = total;                                                                  \
            }                                                                                                     \
            for (; i < s->lanes; i++, sum++) {                                                                    \
                float total = s->first ? 0 : y[i];                                                                \
                for (int64_t b = 0; b < s->blocks; b++) total += (float)sum[b * block] * row_scale * s->scale[i]; \
                y[i] = total;                                                                                     \
            }                                                                                                     \
        }                                                                                                         \
    }
typedef int32_t i32x16_unaligned __attribute__((vector_size(64), aligned(4), may_alias));
ADD(add_floats, float, v16)
ADD(add_ints, int32_t, i32x16_unaligned)

#define ONE_TILE(storage, W, P, kind)                                                                              \
    static void kind##_##storage##_##W(int64_t K, const void *w, int64_t panel_bytes, int64_t ahead, int64_t next, \
                                       const float *x, bool more, float *out, int64_t ldo)                         \
    {                                                                                                              \
        tile(storage, P, W, K, w, panel_bytes, ahead, next, x, more, out, ldo);                                    \
    }
#define PAIR(P) ((P) < 2 ? (P) : 2)
#define THREE_TILES(storage, W, P)      \
    ONE_TILE(storage, W, P, large)      \
    ONE_TILE(storage, W, PAIR(P), pair) \
    ONE_TILE(storage, W, 1, single)
#define NINE_TILES(place, W, P) \
    THREE_TILES(EM_F32, W, P)   \
    THREE_TILES(EM_BF16, W, P)  \
    THREE_TILES(EM_INT8, W, P)
TILES_LIST(NINE_TILES)

#define WIDTH(place, W, P)  [place] = W,
#define PANELS(place, W, P) [place] = {P, PAIR(P), 1},
#define ENTRY(storage, place, W) \
    [storage][place] = {large_##storage##_##W, pair_##storage##_##W, single_##storage##_##W},
#define ENTRIES(place, W, P) ENTRY(EM_F32, place, W) ENTRY(EM_BF16, place, W) ENTRY(EM_INT8, place, W)

const em_tiles TILES = {
    .name = TILES_NAME,
    .num_widths = TILES_WIDTHS,
    .width = {TILES_LIST(WIDTH)},
    .panels = {TILES_LIST(PANELS)},
    .tile = {TILES_LIST(ENTRIES)},
    .expand = expand,
    .turn = TILES_TURN,
    .gelu = gelu,
    .soft_cap = soft_cap,
    .exp_minus = exp_minus,
    .round_to_bf16 = round_to_bf16,
    .largest = largest,
    .round_to_int8 = round_to_int8,
    .add_floats = add_floats,
    .add_ints = add_ints,
};
