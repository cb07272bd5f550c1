/* expertmesh/cache.h: keys and values of the tokens that were run, kept by the owners of the heads. No MPI.
 *
 * They lie as products want them, in panels of 16 (kernels.h): the keys of 16 neighbouring positions beside each other,
 * for the scores; 16 neighbouring elements of the values beside each other, for their weighted sum. Each sequence has
 * room for as many tokens as it may ever have. */
#ifndef EXPERTMESH_CACHE_H
#define EXPERTMESH_CACHE_H

#include "expertmesh/batch.h"
#include "expertmesh/kernels.h"
#include "expertmesh/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct em_cache {
    int64_t num_sequences;
    int64_t *first_slot;  /* [num_sequences + 1] positions before a sequence's, each rounded up to whole panels */
    int64_t key_size;     /* C */
    int64_t value_panels; /* of 16 elements, in C */
    int64_t kv_heads;     /* Kr, of this rank */
    int64_t kept_layers;  /* all, or 1 where no step looks back at an earlier one */
    float **key;          /* [kept_layers] each, by sequence, [Kr, positions / 16, C, 16] */
    float **value;        /* [kept_layers] each, by sequence, [Kr, value_panels, positions, 16] */
} em_cache;

/* Room for capacity[s] tokens of each sequence. lasting: later steps look back (generation, or prompts in chunks). */
void em_cache_open(em_cache *cache, const em_config *config, const em_layout *layout, int rank, int64_t num_sequences,
                   const int64_t *capacity, bool lasting);
void em_cache_close(em_cache *cache);

/* Bytes that em_cache_open takes for so many tokens in so many sequences, at most. */
int64_t em_cache_bytes(const em_config *config, const em_layout *layout, int rank, int64_t tokens,
                       int64_t num_sequences, bool lasting);

/* Keep a step's keys (after RoPE) and values k, v [T, Kr*C] of one layer. */
void em_cache_put(em_cache *cache, int64_t layer, const em_batch *step, const float *k, const float *v);

/* The first `count` positions of a sequence in one layer, of one of this rank's heads: keys and values k, v [count, C], out of
 * the cache and back into it. */
void em_cache_get(const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head, int64_t count, float *k,
                  float *v);
void em_cache_set(em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head, int64_t count, const float *k,
                  const float *v);

/* The room that a sequence has, in positions; the panels of one of its heads: keys [positions / 16, C, 16], values
 * [value_panels, positions, 16]. */
int64_t em_cache_room(const em_cache *cache, int64_t sequence);
const float *em_cache_keys(const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head);
const float *em_cache_values(const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head);

#ifdef __cplusplus
}
#endif
#endif
