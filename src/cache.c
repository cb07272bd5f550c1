#include "expertmesh/cache.h"

#include <stdlib.h>
#include <string.h>

static int64_t panels_of(int64_t count)
{
    return (count + EM_PANEL - 1) / EM_PANEL;
}

int64_t em_cache_bytes(const em_config *config, const em_layout *layout, int rank, int64_t tokens,
                       int64_t num_sequences, bool lasting)
{
    const double most = 1e15; /* added up over thousands of ranks it is still a number */
    int64_t slots = tokens + num_sequences * (EM_PANEL - 1), heads = em_layout_kv_heads(layout, rank).count;
    int64_t in_slot = heads * (config->key_size + panels_of(config->key_size) * EM_PANEL) * (int64_t)sizeof(float);
    double bytes = (double)(lasting ? config->num_layers : 1) * (double)slots * (double)in_slot;
    return (int64_t)(bytes < most ? bytes : most);
}

void em_cache_open(em_cache *cache, const em_config *config, const em_layout *layout, int rank, int64_t num_sequences,
                   const int64_t *capacity, bool lasting)
{
    *cache = (em_cache){.num_sequences = num_sequences,
                        .key_size = config->key_size,
                        .value_panels = panels_of(config->key_size),
                        .kv_heads = em_layout_kv_heads(layout, rank).count,
                        .kept_layers = lasting ? config->num_layers : 1};
    cache->first_slot = em_zeroed(num_sequences + 1, sizeof(int64_t));
    for (int64_t s = 0; s < num_sequences; s++)
        cache->first_slot[s + 1] = cache->first_slot[s] + panels_of(capacity[s]) * EM_PANEL;
    int64_t slots = cache->first_slot[num_sequences] * cache->kv_heads;
    cache->key = em_alloc(cache->kept_layers, sizeof(float *));
    cache->value = em_alloc(cache->kept_layers, sizeof(float *));
    for (int64_t layer = 0; layer < cache->kept_layers; layer++) {
        /* zeroed: products run over whole panels, and what lies beyond the sequence must not be NaN */
        cache->key[layer] = em_zeroed(slots * cache->key_size, sizeof(float));
        cache->value[layer] = em_zeroed(slots * cache->value_panels * EM_PANEL, sizeof(float));
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

int64_t em_cache_room(const em_cache *cache, int64_t sequence)
{
    return cache->first_slot[sequence + 1] - cache->first_slot[sequence];
}

static float *keys(const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head)
{
    return cache->key[layer % cache->kept_layers] +
           (cache->first_slot[sequence] * cache->kv_heads + em_cache_room(cache, sequence) * kv_head) * cache->key_size;
}

static float *values(const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head)
{
    return cache->value[layer % cache->kept_layers] +
           (cache->first_slot[sequence] * cache->kv_heads + em_cache_room(cache, sequence) * kv_head) *
               cache->value_panels * EM_PANEL;
}

const float *em_cache_keys(const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head)
{
    return keys(cache, layer, sequence, kv_head);
}

const float *em_cache_values(const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head)
{
    return values(cache, layer, sequence, kv_head);
}

/* Keys and values k, v [C] of one position. */
static void set_position(em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head, int64_t position,
                         const float *k, const float *v)
{
    int64_t C = cache->key_size, room = em_cache_room(cache, sequence);
    float *key = keys(cache, layer, sequence, kv_head) + position / EM_PANEL * C * EM_PANEL + position % EM_PANEL;
    float *value = values(cache, layer, sequence, kv_head) + position * EM_PANEL;
    for (int64_t c = 0; c < C; c++) {
        key[c * EM_PANEL] = k[c];
        value[c / EM_PANEL * room * EM_PANEL + c % EM_PANEL] = v[c];
    }
}

void em_cache_put(em_cache *cache, int64_t layer, const em_batch *step, const float *k, const float *v)
{
    int64_t C = cache->key_size;
    for (int64_t t = 0; t < step->num_tokens; t++)
        for (int64_t h = 0; h < cache->kv_heads; h++, k += C, v += C)
            set_position(cache, layer, step->sequence[t], h, step->position[t], k, v);
}

void em_cache_get(const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head, int64_t count, float *k,
                  float *v)
{
    int64_t C = cache->key_size, room = em_cache_room(cache, sequence);
    for (int64_t position = 0; position < count; position++) {
        const float *key = keys(cache, layer, sequence, kv_head) + position / EM_PANEL * C * EM_PANEL;
        const float *value = values(cache, layer, sequence, kv_head) + position * EM_PANEL;
        for (int64_t c = 0; c < C; c++) {
            k[position * C + c] = key[c * EM_PANEL + position % EM_PANEL];
            v[position * C + c] = value[c / EM_PANEL * room * EM_PANEL + c % EM_PANEL];
        }
    }
}

void em_cache_set(em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head, int64_t count, const float *k,
                  const float *v)
{
    for (int64_t position = 0; position < count; position++)
        set_position(cache, layer, sequence, kv_head, position, k + position * cache->key_size,
                     v + position * cache->key_size);
}
