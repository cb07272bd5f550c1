#include "expertmesh/cache.h"

#include <stdlib.h>
#include <string.h>

static int64_t width_of(const em_config *config, const em_layout *layout, int rank)
{
    return em_range_size(em_layout_kv_heads(layout, rank)) * config->key_size;
}

int64_t em_cache_bytes(const em_config *config, const em_layout *layout, int rank, int64_t slots, bool lasting)
{
    return 2 * (lasting ? config->num_layers : 1) * slots * width_of(config, layout, rank) * (int64_t)sizeof(float);
}

void em_cache_open(em_cache *cache, const em_config *config, const em_layout *layout, int rank, int64_t num_sequences,
                   const int64_t *capacity, bool lasting)
{
    *cache = (em_cache){.num_sequences = num_sequences,
                        .width = width_of(config, layout, rank),
                        .kept_layers = lasting ? config->num_layers : 1};
    cache->first_slot = em_zeroed(num_sequences + 1, sizeof(int64_t));
    for (int64_t s = 0; s < num_sequences; s++) cache->first_slot[s + 1] = cache->first_slot[s] + capacity[s];
    cache->key = em_alloc(cache->kept_layers, sizeof(float *));
    cache->value = em_alloc(cache->kept_layers, sizeof(float *));
    for (int64_t layer = 0; layer < cache->kept_layers; layer++) {
        cache->key[layer] = em_alloc(cache->first_slot[num_sequences] * cache->width, sizeof(float));
        cache->value[layer] = em_alloc(cache->first_slot[num_sequences] * cache->width, sizeof(float));
    }
}

void em_cache_close(em_cache *cache)
{
    for (int64_t layer = 0; layer < cache->kept_layers; layer++) {
        free(cache->key[layer]);
        free(cache->value[layer]);
    }
    free(cache->key);
    free(cache->value);
    free(cache->first_slot);
    *cache = (em_cache){0};
}

void em_cache_put(em_cache *cache, int64_t layer, const em_batch *step, const float *k, const float *v)
{
    for (int64_t t = 0; t < step->num_tokens; t++) {
        int64_t slot = cache->first_slot[step->sequence[t]] + step->position[t];
        size_t bytes = (size_t)cache->width * sizeof(float);
        memcpy(cache->key[layer % cache->kept_layers] + slot * cache->width, k + t * cache->width, bytes);
        memcpy(cache->value[layer % cache->kept_layers] + slot * cache->width, v + t * cache->width, bytes);
    }
}

const float *em_cache_keys(const em_cache *cache, int64_t layer, int64_t sequence)
{
    return cache->key[layer % cache->kept_layers] + cache->first_slot[sequence] * cache->width;
}

const float *em_cache_values(const em_cache *cache, int64_t layer, int64_t sequence)
{
    return cache->value[layer % cache->kept_layers] + cache->first_slot[sequence] * cache->width;
}
