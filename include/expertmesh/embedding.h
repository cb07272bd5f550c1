/* expertmesh/embedding.h: the tied embedding, at both ends of the model. No MPI.
 *
 * blocks: this rank's vocabulary units, one matrix [rows of the unit, D] each (em_weights_of EM_EMBEDDING). */
#ifndef EXPERTMESH_EMBEDDING_H
#define EXPERTMESH_EMBEDDING_H

#include "expertmesh/kernels.h"
#include "expertmesh/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Look up the tokens whose rows are here: out [n, D] in global token order, times embedding_multiplier_scale. Returns n.
 * out NULL: only counts. */
int64_t em_embedding_look_up(const em_config *config, const em_layout *layout, int rank, const em_matrix *blocks,
                             int64_t T, const int32_t *token_id, float *out);

/* Next-token scores over the vocabulary held here: logits [T, Vr] = x, T rows of D, times those of the vocabulary, unit
 * by unit, times output_multiplier_scale. Vr: the rank's rows (em_layout_vocab_held). inputs: scratch. */
void em_embedding_logits(const em_config *config, const em_layout *layout, int rank, const em_matrix *blocks, int64_t T,
                         const float *const *x, em_compute compute, em_inputs *inputs, float *logits);

#ifdef __cplusplus
}
#endif
#endif
