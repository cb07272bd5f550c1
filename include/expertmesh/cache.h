/* expertmesh/cache.h: keys and values of the tokens that were run, kept by the owners of the heads. No MPI.
 *
 * A slot holds one token's keys (after RoPE) or values of this rank's key/value heads. Each sequence has its slots in one
 * run, as many as it may ever have tokens. */
#ifndef EXPERTMESH_CACHE_H
#define EXPERTMESH_CACHE_H

#include "expertmesh/batch.h"
#include "expertmesh/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct em_cache {
    int64_t num_sequences;
    int64_t *first_slot;  /* [num_sequences + 1] */
    int64_t width;        /* Kr*C, numbers in a slot */
    int64_t kept_layers;  /* all, or 1 where no step looks back at an earlier one */
    float **key, **value; /* [kept_layers] each [slots, width] */
} em_cache;

/* Room for capacity[s] tokens of each sequence. lasting: later steps look back (generation, or prompts in chunks). */
void em_cache_open(em_cache *cache, const em_config *config, const em_layout *layout, int rank, int64_t num_sequences,
                   const int64_t *capacity, bool lasting);
void em_cache_close(em_cache *cache);

/* Bytes that em_cache_open takes for so many slots. */
int64_t em_cache_bytes(const em_config *config, const em_layout *layout, int rank, int64_t slots, bool lasting);

/* Keep a step's keys and values k, v [T, Kr*C] of one layer. */
void em_cache_put(em_cache *cache, int64_t layer, const em_batch *step, const float *k, const float *v);

/* The keys and values of a sequence in one layer, from position 0 on; rows `width` apart. */
const float *em_cache_keys(const em_cache *cache, int64_t layer, int64_t sequence);
const float *em_cache_values(const em_cache *cache, int64_t layer, int64_t sequence);

#ifdef __cplusplus
}
#endif
#endif
