/* draws_body.h: the loops of draws.h, compiled once for each instruction set by the files that include it. They define
 * DRAWS, the name of the table.
 *
 * Philox-4x32-10 on as many counters at once as a register has 64-bit lanes. Each of a counter's four words is the lower
 * half of a lane, which is how processors multiply 32 x 32 bits into 64; upper halves hold what is left of products, and
 * are ignored. */
#include "draws.h"

#include <string.h>
#ifdef __SSE2__
#include <immintrin.h>
#endif

#if defined __AVX512F__
enum { LANES = 8 };
#elif defined __AVX2__
enum { LANES = 4 };
#else
enum { LANES = 2 };
#endif
typedef uint64_t lanes __attribute__((vector_size(LANES * 8)));

#define INLINE static inline __attribute__((always_inline))

/* Products of the lower halves. */
INLINE lanes multiply(lanes a, uint32_t b)
{
#if defined __AVX512F__
    return (lanes)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(b));
#elif defined __AVX2__
    return (lanes)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined __SSE2__
    return (lanes)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
    return (a & 0xffffffffU) * b;
#endif
}

/* The draws of LANES neighbouring blocks, in order: of each block's four words the lower half of a word first. */
INLINE void draw_blocks(const em_stream *stream, uint64_t block, uint16_t *out)
{
    lanes number, two[2];
    for (unsigned i = 0; i < LANES; i++) number[i] = block + i;
    lanes c0 = number, c1 = number >> 32, c2 = (lanes){0} + stream->tensor, c3 = (lanes){0} + stream->layer;
    uint32_t k0 = (uint32_t)stream->seed, k1 = (uint32_t)(stream->seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        lanes p0 = multiply(c0, 0xD2511F53U), p1 = multiply(c2, 0xCD9E8D57U);
        c0 = (p1 >> 32) ^ c1 ^ k0;
        c2 = (p0 >> 32) ^ c3 ^ k1;
        c1 = p1;
        c3 = p0;
        k0 += 0x9E3779B9U;
        k1 += 0xBB67AE85U;
    }
    two[0] = (c0 & 0xffffffffU) | c1 << 32;
    two[1] = (c2 & 0xffffffffU) | c3 << 32;
    for (int i = 0; i < LANES; i++)
        for (int half = 0; half < 2; half++) {
            uint64_t four = two[half][i];
            memcpy(out + i * EM_BLOCK_DRAWS + half * 4, &four, sizeof four);
        }
}

INLINE float number(uint16_t draw, em_rule rule)
{
    return rule.middle + ((float)draw - 32767.5F) * rule.step;
}

/* To nearest even; none is NaN. */
INLINE uint16_t number_bf16(uint16_t draw, em_rule rule)
{
    float value = number(draw, rule);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffU + (bits >> 16 & 1)) >> 16);
}

#define MAKE(name, type, expression)                                                                      \
    static void name(const em_stream *stream, uint64_t block, int64_t groups, em_rule rule, void *memory) \
    {                                                                                                     \
        type *out = memory;                                                                               \
        (void)rule;                                                                                       \
        for (; groups > 0; groups--, block += EM_GROUP_BLOCKS, out += EM_GROUP) {                         \
            uint16_t draw[EM_GROUP];                                                                      \
            for (int b = 0; b < EM_GROUP_BLOCKS; b += LANES)                                              \
                draw_blocks(stream, block + (uint64_t)b, draw + b * EM_BLOCK_DRAWS);                      \
            for (int i = 0; i < EM_GROUP; i++) out[i] = expression;                                       \
        }                                                                                                 \
    }
MAKE(u16, uint16_t, draw[i])
MAKE(f32, float, number(draw[i], rule))
MAKE(bf16, uint16_t, number_bf16(draw[i], rule))
MAKE(int8, int8_t, (int8_t)((draw[i] * 255 >> 16) - 127))

const em_draws DRAWS = {.u16 = u16, .f32 = f32, .bf16 = bf16, .int8 = int8};
