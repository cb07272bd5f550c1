/* draws.h: the generator of random.h and the numbers made of its draws, once for each instruction set that is worth it.
 * Private to the library.
 *
 * Every set gives the same bits: the rounds are whole numbers, and the two float operations of a weight are never
 * contracted into one (-ffp-contract=off). */
#ifndef EXPERTMESH_DRAWS_H
#define EXPERTMESH_DRAWS_H

#include <stdint.h>

enum {
    EM_BLOCK_DRAWS = 8,  /* 16-bit draws in one block of 128 bits */
    EM_GROUP_BLOCKS = 8, /* blocks that are made at once */
    EM_GROUP = EM_BLOCK_DRAWS * EM_GROUP_BLOCKS
};

/* One stream of draws: key, and what does not change of the counter. */
typedef struct em_stream {
    uint64_t seed;
    uint32_t tensor, layer;
} em_stream;

/* What a draw u becomes as f32: middle + (u - 32767.5) * step. */
typedef struct em_rule {
    float middle, step;
} em_rule;

/* The draws of `groups` groups from a block on, as what the function's name says: out [groups, 64], any alignment. */
typedef struct em_draws {
    void (*u16)(const em_stream *stream, uint64_t block, int64_t groups, em_rule rule, void *out);
    void (*f32)(const em_stream *stream, uint64_t block, int64_t groups, em_rule rule, void *out);
    void (*bf16)(const em_stream *stream, uint64_t block, int64_t groups, em_rule rule, void *out);
    void (*int8)(const em_stream *stream, uint64_t block, int64_t groups, em_rule rule, void *out);
} em_draws;

extern const em_draws em_draws_plain;
#ifdef EM_TILES_X86
extern const em_draws em_draws_avx2, em_draws_avx512;
#endif

#endif
