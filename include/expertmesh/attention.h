/* expertmesh/attention.h: the attention heads of one rank. No MPI.
 *
 *   x [T, D] --project--> q [T, Hr*C], k, v [T, Kr*C] --attend--> z [T, Hr*C] --output--> partial sums [nodes, T, D]
 *
 * Hr and Kr are the rank's query and key/value heads, perhaps 0. Each head's arithmetic is the same calls wherever it
 * lives; what the heads add to the residual is summed along the tree (tree.h). */
#ifndef EXPERTMESH_ATTENTION_H
#define EXPERTMESH_ATTENTION_H

#include "expertmesh/cache.h"
#include "expertmesh/kernels.h"
#include "expertmesh/tree.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One layer's heads of one rank. All borrowed. */
typedef struct em_attention {
    const em_config *config;
    em_units heads, kv_heads; /* those here; of the query heads each has its key/value head here */
    const em_matrix *query;   /* [Hr] each [C, D] */
    const em_matrix *key;     /* [Kr] each [C, D] */
    const em_matrix *value;   /* [Kr] each [C, D] */
    const em_matrix *output;  /* [Hr] each [D, C] */
    em_compute compute;       /* of the four */
    em_inputs *inputs;        /* [1 + Hr] scratch */
} em_attention;

/* Queries, keys and values of all tokens, RoPE applied to the first two. x[t]: a token's row [D]; rope [T, C] from
 * em_rope_table. */
void em_attention_project(const em_attention *attention, int64_t T, const float *const *x, const float *rope, float *q,
                          float *k, float *v);

/* Causal attention of a step's tokens within each sequence: softmax of cap * tanh(multiplier * q.k / cap) over the past in
 * the cache, which holds this step's keys and values already, times v. q and z [T, Hr*C]. */
void em_attention_attend(const em_attention *attention, const em_batch *step, const em_cache *cache, int64_t layer,
                         const float *q, float *z);

/* What the heads of each node add: parts [num_nodes, T, D], summed in tree order. */
void em_attention_output(const em_attention *attention, int64_t T, const float *z, int num_nodes, const em_range *nodes,
                         float *parts);

#ifdef __cplusplus
}
#endif
#endif
