/* Which blocks of the weights a rank holds; declared in weights.h. */
#include "expertmesh/weights.h"

typedef struct walk {
    const em_config *config;
    const em_layout *layout;
    int rank;
    em_block_visit *visit;
    void *context;
} walk;

static em_range all_rows(const walk *w, em_tensor tensor)
{
    return (em_range){0, em_tensor_shape_of(w->config, tensor).rows};
}

static em_range all_cols(const walk *w, em_tensor tensor)
{
    return (em_range){0, em_tensor_shape_of(w->config, tensor).cols};
}

static bool visit_common(const walk *w, em_tensor tensor, int64_t layer)
{
    em_block block = {.tensor = tensor,
                      .layer = layer,
                      .rows = all_rows(w, tensor),
                      .cols = all_cols(w, tensor),
                      .repeated = w->rank != 0};
    return w->visit(w->context, &block);
}

static bool visit_embedding(const walk *w)
{
    em_units units = em_layout_vocab_units(w->layout, w->rank);
    bool go_on = true;
    for (int64_t i = 0; go_on && i < units.count; i++) {
        em_block block = {.tensor = EM_EMBEDDING,
                          .rows = em_layout_vocab_rows(w->layout, units.unit[i]),
                          .cols = all_cols(w, EM_EMBEDDING),
                          .place = i};
        go_on = w->visit(w->context, &block);
    }
    return go_on;
}

static bool visit_head(const walk *w, int64_t layer, int64_t head, int64_t place)
{
    int64_t C = w->config->key_size;
    em_range run = {head * C, (head + 1) * C};
    em_block query = {EM_ATTN_QUERY, layer, 0, run, all_cols(w, EM_ATTN_QUERY), place, false};
    em_block output = {EM_ATTN_OUTPUT, layer, 0, all_rows(w, EM_ATTN_OUTPUT), run, place, false};
    return w->visit(w->context, &query) && w->visit(w->context, &output);
}

static bool visit_kv_head(const walk *w, int64_t layer, int64_t head, int64_t place)
{
    int64_t C = w->config->key_size;
    em_range run = {head * C, (head + 1) * C};
    bool repeated = em_layout_kv_owner(w->layout, head) != w->rank;
    em_block key = {EM_ATTN_KEY, layer, 0, run, all_cols(w, EM_ATTN_KEY), place, repeated};
    em_block value = {EM_ATTN_VALUE, layer, 0, run, all_cols(w, EM_ATTN_VALUE), place, repeated};
    return w->visit(w->context, &key) && w->visit(w->context, &value);
}

static bool visit_ffn_unit(const walk *w, int64_t layer, int64_t unit, int64_t place)
{
    int64_t expert = unit / w->layout->slices_per_expert, slice = unit % w->layout->slices_per_expert;
    em_range neurons = em_layout_neurons(w->layout, slice), one = {0, 1};
    bool repeated = em_layout_ffn_owner(w->layout, unit) != w->rank;
    em_block gate = {EM_FFN_GATE, layer, expert, neurons, all_cols(w, EM_FFN_GATE), place, repeated};
    em_block up = {EM_FFN_UP, layer, expert, neurons, all_cols(w, EM_FFN_UP), place, repeated};
    em_block down = {EM_FFN_DOWN, layer, expert, all_rows(w, EM_FFN_DOWN), neurons, place, repeated};
    em_block up_bias = {EM_FFN_UP_BIAS, layer, expert, one, neurons, place, repeated};
    em_block down_bias = {EM_FFN_DOWN_BIAS, layer, expert, one, all_cols(w, EM_FFN_DOWN_BIAS), place, repeated};
    if (!w->visit(w->context, &up) || !w->visit(w->context, &down)) return false;
    if (w->config->ffn_kind == EM_FFN_GLU) return w->visit(w->context, &gate);
    /* the second layer's bias is added once, by the expert's first slice */
    return w->visit(w->context, &up_bias) && (slice > 0 || w->visit(w->context, &down_bias));
}

static bool visit_layer(const walk *w, int64_t layer)
{
    static const em_tensor common[] = {EM_ATTN_NORM_PRE, EM_ATTN_NORM_POST, EM_FFN_NORM_PRE, EM_FFN_NORM_POST,
                                       EM_ROUTER};
    em_units heads = em_layout_heads(w->layout, w->rank), kv_heads = em_layout_kv_heads(w->layout, w->rank);
    em_units units = em_layout_ffn_units(w->layout, w->rank);
    bool go_on = true;
    for (size_t i = 0; go_on && i < sizeof common / sizeof *common; i++) go_on = visit_common(w, common[i], layer);
    for (int64_t i = 0; go_on && i < heads.count; i++) go_on = visit_head(w, layer, heads.unit[i], i);
    for (int64_t i = 0; go_on && i < kv_heads.count; i++) go_on = visit_kv_head(w, layer, kv_heads.unit[i], i);
    for (int64_t i = 0; go_on && i < units.count; i++) go_on = visit_ffn_unit(w, layer, units.unit[i], i);
    return go_on;
}

bool em_weights_blocks(const em_config *config, const em_layout *layout, int rank, em_block_visit *visit, void *context)
{
    walk w = {config, layout, rank, visit, context};
    if (!visit_embedding(&w) || !visit_common(&w, EM_FINAL_NORM, 0)) return false;
    for (int64_t layer = 0; layer < config->num_layers; layer++)
        if (!visit_layer(&w, layer)) return false;
    return true;
}
