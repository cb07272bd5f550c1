#include "expertmesh/attention.h"

#include <stdlib.h>

void em_attention_project(const em_attention *a, int64_t T, const float *x, const float *rope, float *q, float *k,
                          float *v)
{
    int64_t C = a->config->key_size, D = a->config->emb_size;
    int64_t heads = em_range_size(a->heads), kv_heads = em_range_size(a->kv_heads);
    for (int64_t h = 0; h < heads; h++) em_matmul(T, &a->query[h], x, D, q + h * C, heads * C);
    for (int64_t h = 0; h < kv_heads; h++) {
        em_matmul(T, &a->key[h], x, D, k + h * C, kv_heads * C);
        em_matmul(T, &a->value[h], x, D, v + h * C, kv_heads * C);
    }
    em_rope(T, heads, C, rope, q, heads * C);
    em_rope(T, kv_heads, C, rope, k, kv_heads * C);
}

/* One head over n queries at positions first_position and on of a sequence. Rows of q and z lie ldq apart; k and v hold
 * the sequence from position 0 on, rows ldk apart. scores: room for [n, first_position + n]. */
static void attend_block(const em_config *config, int64_t n, int64_t first_position, const float *q, const float *k,
                         const float *v, int64_t ldq, int64_t ldk, float *scores, float *z)
{
    int64_t C = config->key_size, seen = first_position + n;
    em_product(n, seen, C, (float)config->attn_output_multiplier, q, ldq, k, ldk, scores, seen);
    for (int64_t t = 0; t < n; t++) {
        float *row = scores + t * seen;
        int64_t past = first_position + t + 1;
        em_soft_cap(past, (float)config->attn_logit_softcap, row);
        em_softmax(past, row);
        for (int64_t s = past; s < seen; s++) row[s] = 0;
    }
    em_product_plain(n, C, seen, scores, seen, v, ldk, z, ldq);
}

void em_attention_attend(const em_attention *a, const em_batch *step, const em_cache *cache, int64_t layer,
                         const float *q, float *z)
{
    enum { BLOCK = 128 }; /* queries at a time: bounds the scores to [128, sequence] */
    int64_t C = a->config->key_size, sharing = a->config->num_q_heads / a->config->num_kv_heads, longest = 0;
    int64_t ldq = em_range_size(a->heads) * C, ldk = cache->width;
    for (int64_t t = 0; t < step->num_tokens; t++)
        longest = step->position[t] >= longest ? step->position[t] + 1 : longest;
    float *scores = em_alloc(BLOCK * longest, sizeof(float));
    for (int64_t h = a->heads.begin; h < a->heads.end; h++) {
        int64_t mine = (h - a->heads.begin) * C, shared = (h / sharing - a->kv_heads.begin) * C, end;
        for (int64_t s = 0; s < step->num_sequences; s++)
            for (int64_t t = step->first_token[s]; t < step->first_token[s + 1]; t = end) {
                int64_t sequence = step->sequence[t];
                end = t + BLOCK < step->first_token[s + 1] ? t + BLOCK : step->first_token[s + 1];
                attend_block(a->config, end - t, step->position[t], q + t * ldq + mine,
                             em_cache_keys(cache, layer, sequence) + shared,
                             em_cache_values(cache, layer, sequence) + shared, ldq, ldk, scores, z + t * ldq + mine);
            }
    }
    free(scores);
}

/* One block of tokens on its way through attn_output. */
typedef struct output_block {
    const em_attention *attention;
    int64_t T;
    const float *z; /* [T, Hr*C] */
} output_block;

static void add_head(void *context, int64_t head, float *out)
{
    const output_block *b = context;
    const em_config *config = b->attention->config;
    int64_t mine = head - b->attention->heads.begin, width = em_range_size(b->attention->heads) * config->key_size;
    em_matmul(b->T, &b->attention->output[mine], b->z + mine * config->key_size, width, out, config->emb_size);
}

void em_attention_output(const em_attention *a, int64_t T, const float *z, int num_nodes, const em_range *nodes,
                         float *parts)
{
    enum { BLOCK = 256 }; /* tokens at a time: bounds the tree's buffers */
    int64_t D = a->config->emb_size, width = em_range_size(a->heads) * a->config->key_size;
    for (int node = 0; node < num_nodes; node++)
        for (int64_t t = 0; t < T; t += BLOCK) {
            int64_t rows = t + BLOCK < T ? BLOCK : T - t;
            output_block block = {a, rows, z + t * width};
            em_tree_sum(nodes[node], rows * D, add_head, &block, parts + (node * T + t) * D);
        }
}
