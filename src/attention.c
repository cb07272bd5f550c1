#include "expertmesh/attention.h"

#include <stdlib.h>
#include <string.h>

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

/* Scores of one query over the positions of a row, made weights: of the `past` that it may look at; 0 for the rest. */
static void weigh(const em_config *config, int64_t past, int64_t room, float *row)
{
    for (int64_t s = 0; s < past; s++) row[s] *= (float)config->attn_output_multiplier;
    em_soft_cap(past, (float)config->attn_logit_softcap, row);
    em_softmax(past, row);
    memset(row + past, 0, (size_t)(room - past) * sizeof(float));
}

/* Rows of queries of heads that share a key/value head: `rows` of them, ldq apart, row r at position first + r / heads.
 * scores: room for [rows, positions in whole panels]; sums: for [rows, C in whole panels]. */
static void attend_rows(const em_attention *a, const em_cache *cache, int64_t layer, int64_t sequence, int64_t kv_head,
                        int64_t rows, int64_t heads, int64_t first, const float *q, int64_t ldq, float *scores,
                        float *sums, float *z)
{
    int64_t C = a->config->key_size, seen = first + (rows - 1) / heads + 1, panels = (seen + EM_PANEL - 1) / EM_PANEL;
    int64_t width = panels * EM_PANEL, value_width = cache->value_panels * EM_PANEL;
    em_panel_product(rows, panels, C, em_cache_keys(cache, layer, sequence, kv_head), C * EM_PANEL, q, ldq, scores,
                     width);
    for (int64_t r = 0; r < rows; r++) weigh(a->config, first + r / heads + 1, width, scores + r * width);
    em_panel_product(rows, cache->value_panels, seen, em_cache_values(cache, layer, sequence, kv_head),
                     em_cache_room(cache, sequence) * EM_PANEL, scores, width, sums, value_width);
    for (int64_t r = 0; r < rows; r++) memcpy(z + r * ldq, sums + r * value_width, (size_t)C * sizeof(float));
}

/* The query heads here that share a key/value head, counted from the rank's first. */
static em_range sharing(const em_attention *a, int64_t kv_head)
{
    int64_t size = a->config->num_q_heads / a->config->num_kv_heads;
    int64_t begin = kv_head * size, end = begin + size;
    begin = begin > a->heads.begin ? begin : a->heads.begin;
    end = end < a->heads.end ? end : a->heads.end;
    return (em_range){begin - a->heads.begin, end - a->heads.begin};
}

void em_attention_attend(const em_attention *a, const em_batch *step, const em_cache *cache, int64_t layer,
                         const float *q, float *z)
{
    enum { BLOCK = 96 }; /* queries at a time: bounds the scores */
    int64_t C = a->config->key_size, ldq = em_range_size(a->heads) * C, longest = 0, end;
    for (int64_t t = 0; t < step->num_tokens; t++)
        longest = step->position[t] >= longest ? step->position[t] + 1 : longest;
    int64_t most = em_range_size(a->heads) > BLOCK ? em_range_size(a->heads) : BLOCK;
    float *scores = em_alloc(most * (longest + EM_PANEL), sizeof(float));
    float *sums = em_alloc(most * cache->value_panels * EM_PANEL, sizeof(float));
    for (int64_t k = a->kv_heads.begin; k < a->kv_heads.end; k++)
        for (int64_t s = 0; s < step->num_sequences; s++)
            for (int64_t t = step->first_token[s]; t < step->first_token[s + 1]; t = end) {
                int64_t mine = k - a->kv_heads.begin, sequence = step->sequence[t], first = step->position[t];
                em_range heads = sharing(a, k);
                end = t + BLOCK < step->first_token[s + 1] ? t + BLOCK : step->first_token[s + 1];
                if (end - t == 1) /* one token: the heads are the rows */
                    attend_rows(a, cache, layer, sequence, mine, em_range_size(heads), em_range_size(heads), first,
                                q + t * ldq + heads.begin * C, C, scores, sums, z + t * ldq + heads.begin * C);
                for (int64_t h = heads.begin; end - t > 1 && h < heads.end; h++)
                    attend_rows(a, cache, layer, sequence, mine, end - t, 1, first, q + t * ldq + h * C, ldq, scores,
                                sums, z + t * ldq + h * C);
            }
    free(scores);
    free(sums);
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
