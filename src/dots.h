/* dots.h: products of inputs of 16 or 8 bits, by the instructions that multiply them as they are. Private to the library.
 *
 * The inputs of a row lie one after another; the weights of 16 neurons, in steps of 64 bytes a neuron: two (bf16) or four
 * (int8) inputs beside each other, [inputs / 2, 16, 2] or [inputs / 4, 16, 4], as panels have them. A step is a tile of
 * AMX, or so many vectors of AVX-512. Sums of bf16 are float32, in one order for every row; of int8, exact. */
#ifndef EXPERTMESH_DOTS_H
#define EXPERTMESH_DOTS_H

#include "expertmesh/kernels.h"

#include "tiles.h"

enum { EM_STEP = 64, EM_STEP_PANEL = EM_STEP * EM_PANEL }; /* bytes of a row, of a panel */
enum { EM_TOGETHER = 8, EM_STRIP = 32 };                   /* most panels and rows of one call */

/* Most inputs in one block of a sum of such inputs. */
enum { EM_DOT_BLOCK = 4 * EM_BLOCK };

/* What one thread needs while it multiplies. */
typedef struct em_scratch {
    float weights[EM_TOGETHER * EM_DOT_BLOCK * EM_PANEL]; /* a block of weights made float32, or in whole steps */
    float sums[EM_STRIP * EM_TOGETHER * EM_PANEL];        /* a strip of rows times a block, or ints */
    float scale[EM_TOGETHER * EM_PANEL];                  /* of its neurons */
} em_scratch;

/* The calling thread's. */
em_scratch *em_thread_scratch(void);

/* sums [rows, 16 * panels], floats or ints: rows (up to 32 can be read) of `steps` steps, ldx bytes apart, times panels
 * that are panel_bytes apart. Few rows call for weights before they are needed: after the last panels, for what lies `next`
 * bytes behind the end of the first panel's. */
typedef void em_dots(int64_t rows, int64_t steps, int panels, const char *w, int64_t panel_bytes, int64_t next,
                     const char *x, int64_t ldx, void *sums);

#ifdef EM_TILES_X86
em_dots em_dots_bf16_avx512, em_dots_int8_avx512, em_dots_bf16_amx, em_dots_int8_amx;
#endif

/* What the set in use has for it; NULL: nothing. */
em_dots *em_dots_in_use(em_compute compute);

#endif
