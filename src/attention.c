#include "expertmesh/attention.h"

#include "expertmesh/standing.h"

#include <stdlib.h>
#include <string.h>

/* All projections of a block of tokens at once, so that threads share them evenly. */
static void project_block(const em_attention *a, int64_t T, const float *const *x, float *q, float *k, float *v)
{
    int64_t C = a->config->key_size, heads = a->heads.count, kv_heads = a->kv_heads.count;
    em_product *product = em_alloc(heads + 2 * kv_heads, sizeof *product);
    int64_t count = 0;
    for (int64_t h = 0; h < heads; h++) product[count++] = (em_product){&a->query[h], q + h * C, heads * C};
    for (int64_t h = 0; h < kv_heads; h++) {
        product[count++] = (em_product){&a->key[h], k + h * C, kv_heads * C};
        product[count++] = (em_product){&a->value[h], v + h * C, kv_heads * C};
    }
    em_inputs_pack(&a->inputs[0], a->compute, T, a->config->emb_size, x);
    em_products(&a->inputs[0], count, product);
    free(product);
}

void em_attention_project(const em_attention *a, int64_t T, const float *const *x, const float *rope, float *q,
                          float *k, float *v)
{
    int64_t C = a->config->key_size, heads = a->heads.count, kv_heads = a->kv_heads.count;
    for (int64_t t = 0; t < T; t += EM_ROW_BLOCK)
        project_block(a, t + EM_ROW_BLOCK < T ? EM_ROW_BLOCK : T - t, x + t, q + t * heads * C, k + t * kv_heads * C,
                      v + t * kv_heads * C);
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

/* Queries that look at the keys and values of one head of one sequence: `rows` of them, the r-th at position
 * first + r / heads. */
typedef struct look {
    int64_t sequence, kv_head; /* kv_head: counted from the rank's first */
    int64_t rows, heads, first;
    const float *q; /* rows ldq apart */
    float *z;
    int64_t ldq;
} look;

/* A weight of 0 keeps out the value of a later token, unless that is NaN or infinite: of a row whose sum is not finite,
 * the sum over its own past alone. */
static void sum_past_alone(int64_t past, const em_cache *cache, int64_t layer, const look *l, const float *scores,
                           int64_t width, float *sum)
{
    if (em_first_not_finite(cache->key_size, sum) < 0) return;
    em_panel_product(1, cache->value_panels, past, em_cache_values(cache, layer, l->sequence, l->kv_head),
                     em_cache_room(cache, l->sequence) * EM_PANEL, scores, width, sum, cache->value_panels * EM_PANEL);
}

/* scores: room for [rows, positions in whole panels]; sums: for [rows, C in whole panels]. */
static void attend_rows(const em_attention *a, const em_cache *cache, int64_t layer, const look *l, float *scores,
                        float *sums)
{
    int64_t C = a->config->key_size, seen = l->first + (l->rows - 1) / l->heads + 1;
    int64_t panels = (seen + EM_PANEL - 1) / EM_PANEL, width = panels * EM_PANEL;
    int64_t value_width = cache->value_panels * EM_PANEL;
    em_panel_product(l->rows, panels, C, em_cache_keys(cache, layer, l->sequence, l->kv_head), C * EM_PANEL, l->q,
                     l->ldq, scores, width);
    for (int64_t r = 0; r < l->rows; r++) weigh(a->config, l->first + r / l->heads + 1, width, scores + r * width);
    em_panel_product(l->rows, cache->value_panels, seen, em_cache_values(cache, layer, l->sequence, l->kv_head),
                     em_cache_room(cache, l->sequence) * EM_PANEL, scores, width, sums, value_width);
    for (int64_t r = 0; r < l->rows; r++) {
        int64_t past = l->first + r / l->heads + 1;
        if (past < seen) sum_past_alone(past, cache, layer, l, scores + r * width, width, sums + r * value_width);
        memcpy(l->z + r * l->ldq, sums + r * value_width, (size_t)C * sizeof(float));
    }
}

/* The query heads here that share a key/value head, by place: those from `begin` on, which follow each other. */
static em_range sharing(const em_attention *a, int64_t kv_head, int64_t begin)
{
    int64_t size = a->config->num_q_heads / a->config->num_kv_heads, end = begin;
    while (end < a->heads.count && a->heads.unit[end] / size == kv_head) end++;
    return (em_range){begin, end};
}

enum { QUERIES = 96 }; /* at a time: bounds the scores */

/* Tokens [t, end) of one sequence: of a single one, the heads that share a key/value head are the rows; else each head's
 * tokens. Returns how many looks were added. */
static int64_t list_looks(const em_attention *a, const em_batch *step, int64_t t, int64_t end, const float *q, float *z,
                          look *looks)
{
    int64_t C = a->config->key_size, ldq = a->heads.count * C, count = 0;
    em_range heads = {0, 0};
    for (int64_t k = 0; k < a->kv_heads.count; k++) {
        heads = sharing(a, a->kv_heads.unit[k], heads.end);
        look l = {step->sequence[t], k, end - t, 1, step->position[t], q + t * ldq, z + t * ldq, ldq};
        int64_t past = heads.end;
        if (end - t == 1) {
            l.rows = l.heads = em_range_size(heads);
            l.ldq = C;
            past = heads.begin + 1;
        }
        for (int64_t h = heads.begin; h < past; h++) {
            looks[count] = l;
            looks[count].q += h * C;
            looks[count++].z += h * C;
        }
    }
    return count;
}

void em_attention_attend(const em_attention *a, const em_batch *step, const em_cache *cache, int64_t layer,
                         const float *q, float *z)
{
    int64_t heads = a->heads.count, longest = 0, blocks = 0, count = 0, end;
    for (int64_t t = 0; t < step->num_tokens; t++)
        longest = step->position[t] >= longest ? step->position[t] + 1 : longest;
    for (int64_t s = 0; s < step->num_sequences; s++)
        blocks += (step->first_token[s + 1] - step->first_token[s] + QUERIES - 1) / QUERIES;
    look *looks = em_alloc(blocks * heads, sizeof *looks);
    for (int64_t s = 0; s < step->num_sequences; s++)
        for (int64_t t = step->first_token[s]; t < step->first_token[s + 1]; t = end) {
            end = t + QUERIES < step->first_token[s + 1] ? t + QUERIES : step->first_token[s + 1];
            count += list_looks(a, step, t, end, q, z, looks + count);
        }
    int64_t most = 0, value_width = cache->value_panels * EM_PANEL;
    for (int64_t i = 0; i < count; i++) most = looks[i].rows > most ? looks[i].rows : most;
#pragma omp parallel num_threads(count > 1 ? em_threads() : 1)
    {
        float *scores = em_alloc(most * (longest + EM_PANEL), sizeof(float));
        float *sums = em_alloc(most * value_width, sizeof(float));
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count; i++) {
            em_beat();
            attend_rows(a, cache, layer, &looks[i], scores, sums);
        }
        free(scores);
        free(sums);
    }
    free(looks);
}

/* Some neurons of attn_output at work on a block of tokens: all heads of a node, one after another, summed while they are
 * in the cache. */
typedef struct output_block {
    const em_attention *attention;
    int64_t rows, width; /* neurons at a time */
    int64_t first_panel, past_panel;
} output_block;

/* Panels of attn_output at a time: of many rows, as many as the sums find room for; of few, long runs of weights, which
 * memory gives faster. */
static int64_t panels_together(int64_t rows, int64_t panels)
{
    enum { FEW = 16, TOGETHER = 8 };
    int64_t share = (panels + em_threads() - 1) / em_threads();
    return rows > FEW || share < TOGETHER ? TOGETHER : (share + TOGETHER - 1) / TOGETHER * TOGETHER;
}

static void add_head(void *context, int64_t head, float *out)
{
    const output_block *b = context;
    int64_t mine = em_units_place(b->attention->heads, head);
    em_product_panels(&b->attention->inputs[1 + mine], &b->attention->output[mine], b->first_panel, b->past_panel, out,
                      b->width);
}

/* The block's neurons for one node: out [rows, D]. */
static void add_heads(output_block *b, em_range node, float *out)
{
    int64_t D = b->attention->config->emb_size, count = b->rows * b->width, begin = b->first_panel * EM_PANEL;
    int64_t lanes = D - begin < b->width ? D - begin : b->width;
    float *sums = em_zeroed((1 + em_tree_depth(node)) * count, sizeof *sums); /* lanes past D are added, too */
    em_tree_sum(node, count, add_head, b, sums, sums + count);
    for (int64_t t = 0; t < b->rows; t++)
        memcpy(out + t * D + begin, sums + t * b->width, (size_t)lanes * sizeof(float));
    free(sums);
}

void em_attention_output(const em_attention *a, int64_t T, const float *z, int num_nodes, const em_range *nodes,
                         float *parts)
{
    int64_t D = a->config->emb_size, C = a->config->key_size, heads = a->heads.count;
    int64_t panels = (D + EM_PANEL - 1) / EM_PANEL;
    for (int64_t t = 0; t < T; t += EM_ROW_BLOCK) {
        int64_t rows = t + EM_ROW_BLOCK < T ? EM_ROW_BLOCK : T - t, together = panels_together(rows, panels);
        int several = rows * D * C > 1 << 18 ? em_threads() : 1;
#pragma omp parallel num_threads(several)
        {
#pragma omp for
            for (int64_t h = 0; h < heads; h++) {
                const float *row[EM_ROW_BLOCK];
                for (int64_t i = 0; i < rows; i++) row[i] = z + ((t + i) * heads + h) * C;
                em_inputs_pack(&a->inputs[1 + h], a->compute, rows, C, row);
            }
#pragma omp for collapse(2)
            for (int node = 0; node < num_nodes; node++)
                for (int64_t panel = 0; panel < panels; panel += together) {
                    int64_t past = panel + together < panels ? panel + together : panels;
                    output_block block = {a, rows, together * EM_PANEL, panel, past};
                    add_heads(&block, nodes[node], parts + (node * T + t) * D);
                }
        }
    }
}
