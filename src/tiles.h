/* tiles.h: the innermost loops of a product, once for each instruction set that is worth it. Private to the library.
 *
 * A matrix lies in panels of 16 neurons: at each input k the 16 weights are beside each other, so one vector holds a
 * weight of 16 neurons, and the inputs of a few rows are spread over it one by one. Every neuron's sum runs over k in
 * order, in one place: its bits do not depend on how many rows or neurons are worked on together. Advantage: a row's
 * result is the same alone, in a batch, or generated token by token; and one layout serves one row, which is limited by
 * memory, and hundreds, which are limited by the multipliers. Cost: rows of a matrix are not contiguous in memory. */
#ifndef EXPERTMESH_TILES_H
#define EXPERTMESH_TILES_H

#include "expertmesh/kernels.h"

/* Most inputs in one block of a sum of float32 inputs: so many that a tile of rows stays in the first cache (of 256, 512 and
 * 1,024, 256 rows ran at 187, 177 and 171 GFLOP/s on one core of a Xeon, Sapphire Rapids). */
enum { EM_BLOCK = 256 };

enum { EM_MAX_WIDTHS = 5, EM_TILE_KINDS = 3, EM_MAX_TILE = 24 * EM_PANEL };

/* out [blocks, width, panels * 16], rows ldo apart, = (more: +=) the sums over inputs [0, K), block by block, of `panels`
 * neighbouring panels, panel_bytes apart, for `width` rows whose inputs lie beside each other: x [K, width]. Rows wait for the
 * weights, which are called for `ahead` bytes before they are needed; where those of a panel end, `next` bytes further. */
typedef void em_tile(int64_t K, const void *w, int64_t panel_bytes, int64_t ahead, int64_t next, const float *x,
                     bool more, float *out, int64_t ldo);

/* Sums of blocks of inputs on their way to y. */
typedef struct em_sums {
    int64_t blocks, rows, lanes; /* lanes: neurons */
    const void *sums;            /* [blocks, rows, ld] floats, or ints of int8 */
    int64_t ld;
    const float *scale;     /* [lanes] */
    const float *row_scale; /* [rows]; NULL: 1 */
    bool first;             /* y holds nothing yet */
    float *y;
    int64_t ldy;
} em_sums;

/* Is one of the numbers in a unit of 32 bits not finite? Its exponent's bits are all 1: then its upper 16 bits, without the
 * sign, and EM_ONE_MORE reach the sign. So a unit under its storage's mask and EM_ONE_MORE have one of EM_SIGNS in their sum. */
enum { EM_ONE_MORE = 0x00800080 };
#define EM_SIGNS 0x80008000U
static inline uint32_t em_unit_mask(em_storage storage)
{
    return storage == EM_F32 ? 0x7fff0000U : storage == EM_BF16 ? 0x7fff7fffU : 0;
}

typedef struct em_tiles {
    const char *name;
    int num_widths;
    int width[EM_MAX_WIDTHS];                 /* rows that one tile works on, largest first; the last is 1 */
    int panels[EM_MAX_WIDTHS][EM_TILE_KINDS]; /* that a tile of this width works on, most first; the last is 1 */
    em_tile *tile[EM_NUM_STORAGES][EM_MAX_WIDTHS][EM_TILE_KINDS];
    /* out [K, 16] = a panel's weights as float32 (int8: without scale). */
    void (*expand)(em_storage storage, int64_t K, const void *w, float *out);
    /* panel [units, 16] = 16 rows, `stride` bytes apart, of as many units of 32 bits, which are one number of the storage, or
     * as many as lie together; units: a multiple of 16. False where a number is not finite. */
    bool (*turn)(em_storage storage, int64_t units, const char *rows, int64_t stride, char *panel);
    /* In place over count numbers: kernels.h; and e^(x - less). */
    void (*gelu)(int64_t count, float *x);
    void (*soft_cap)(int64_t count, float cap, float *x);
    void (*exp_minus)(int64_t count, float less, float *x);
    /* Activations of fewer bits: to the nearest bf16; the largest size of count numbers (NaN is passed over); x * first *
     * second to the nearest whole number. */
    void (*round_to_bf16)(int64_t count, const float *x, uint16_t *out);
    float (*largest)(int64_t count, const float *x);
    void (*round_to_int8)(int64_t count, const float *x, float first, float second, int8_t *out);
    void (*add_floats)(const em_sums *sums), (*add_ints)(const em_sums *sums);
} em_tiles;

/* The set in use. */
const em_tiles *em_tiles_in_use(void);

extern const em_tiles em_tiles_plain;
#ifdef EM_TILES_X86
extern const em_tiles em_tiles_avx2, em_tiles_avx512;
#endif

#endif
