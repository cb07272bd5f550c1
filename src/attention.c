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

/* One head over one block of queries [first, end) of a sequence that began at `begin`. Rows of q and z lie ldq apart, of
 * k and v ldk. scores: room for [end - first, end - begin]. */
static void attend_block(const em_config *config, int64_t begin, int64_t first, int64_t end, const float *q,
                         const float *k, const float *v, int64_t ldq, int64_t ldk, float *scores, float *z)
{
    int64_t C = config->key_size, seen = end - begin;
    em_product(end - first, seen, C, (float)config->attn_output_multiplier, q + first * ldq, ldq, k + begin * ldk, ldk,
               scores, seen);
    for (int64_t t = first; t < end; t++) {
        float *row = scores + (t - first) * seen;
        int64_t past = t - begin + 1;
        em_soft_cap(past, (float)config->attn_logit_softcap, row);
        em_softmax(past, row);
        for (int64_t s = past; s < seen; s++) row[s] = 0;
    }
    em_product_plain(end - first, C, seen, scores, seen, v + begin * ldk, ldk, z + first * ldq, ldq);
}

void em_attention_attend(const em_attention *a, const em_batch *batch, const float *q, const float *k, const float *v,
                         float *z)
{
    enum { BLOCK = 128 }; /* queries at a time: bounds the scores to [128, sequence] */
    int64_t C = a->config->key_size, sharing = a->config->num_q_heads / a->config->num_kv_heads, longest = 0;
    int64_t ldq = em_range_size(a->heads) * C, ldk = em_range_size(a->kv_heads) * C;
    for (int64_t s = 0; s < batch->num_sequences; s++) {
        int64_t length = batch->first_token[s + 1] - batch->first_token[s];
        longest = length > longest ? length : longest;
    }
    float *scores = em_alloc(BLOCK * longest, sizeof(float));
    for (int64_t h = a->heads.begin; h < a->heads.end; h++) {
        int64_t mine = h - a->heads.begin, shared = h / sharing - a->kv_heads.begin;
        for (int64_t s = 0; s < batch->num_sequences; s++) {
            int64_t begin = batch->first_token[s], end = batch->first_token[s + 1];
            for (int64_t first = begin; first < end; first += BLOCK)
                attend_block(a->config, begin, first, first + BLOCK < end ? first + BLOCK : end, q + mine * C,
                             k + shared * C, v + shared * C, ldq, ldk, scores, z + mine * C);
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
