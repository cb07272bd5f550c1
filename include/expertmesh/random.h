/* expertmesh/random.h: random weights that are a pure function of (seed, tensor, layer, index).
 *
 * A counter-based generator, Philox-4x32-10 (Salmon et al. 2011, Random123): any part of any tensor can be made by
 * itself, in any order, so a rank makes just what it owns and a model larger than any memory needs no file.
 * Advantage: no state, no order. Cost: ten rounds of multiplication for every eight numbers.
 *
 * Key = seed. Counter = (block number, low and high; tensor; layer). One block of 128 bits is eight 16-bit draws u, for
 * eight neighbours in the tensor seen as one row-major array over all experts. With a = sqrt(3 / inputs), which gives a
 * neuron's weighted sum of unit inputs a variance of 1:
 *   matrix, f32    (u - 32767.5) * a / 32768, uniform in (-a, a)
 *   matrix, bf16   the same, rounded to nearest even
 *   matrix, int8   q = floor(255 u / 65536) - 127, every row's one scale a / 127
 *   norm           1 + (u - 32767.5) * 0.1 / 32768
 *   bias           (u - 32767.5) * 0.1 / 32768 */
#ifndef EXPERTMESH_RANDOM_H
#define EXPERTMESH_RANDOM_H

#include "expertmesh/kernels.h"
#include "expertmesh/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* count 16-bit draws from place first on. */
void em_random_draws(uint64_t seed, em_tensor tensor, int64_t layer, int64_t first, int64_t count, uint16_t *out);

/* Fill rows x cols of one expert's part of a tensor (allocated by the caller with a storage; scales [rows, 1]). */
void em_random_fill(const em_config *config, uint64_t seed, em_tensor tensor, int64_t layer, int64_t expert,
                    em_range rows, em_range cols, em_matrix *out);

#ifdef __cplusplus
}
#endif
#endif
