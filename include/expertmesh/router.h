/* expertmesh/router.h: which experts a token goes to. No MPI; runs where the token lives.
 *
 * Router logits in float32, softmax over all E experts, the best S of them with their probabilities as they are (not
 * renormalised), ties to the lower expert: as in Grok-1's released code, or with the differences that numerics says. */
#ifndef EXPERTMESH_ROUTER_H
#define EXPERTMESH_ROUTER_H

#include "expertmesh/kernels.h"
#include "expertmesh/numerics.h"

#ifdef __cplusplus
extern "C" {
#endif

/* x [T, D], router [E, D] -> logits [T, E] (soft-capped, if they are), probs [T, E], expert [T, S] best first, weight [T, S]. */
void em_router_choose(const em_config *config, const em_numerics *numerics, int64_t T, const float *x,
                      const float *router, float *logits, float *probs, int32_t *expert, float *weight);

#ifdef __cplusplus
}
#endif
#endif
