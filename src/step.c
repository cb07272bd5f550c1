/* One step: a batch of tokens through all layers; declared in model.h. */
#include "pass.h"

#include "expertmesh/attention.h"
#include "expertmesh/embedding.h"
#include "expertmesh/experts.h"
#include "expertmesh/router.h"
#include "expertmesh/standing.h"

#include <stdlib.h>
#include <string.h>

const em_matrix *em_pass_blocks(const em_pass *pass, em_tensor tensor, int64_t layer)
{
    return em_weights_of(&pass->model->weights, tensor, layer);
}

/* This rank's part of an array: rows[rank] of D. rows [P]. */
static float *make_room(em_pass *pass, em_shared *array, const int64_t *rows)
{
    return em_shared_room(array, pass->model->config.emb_size, rows);
}

const float *const *em_pass_deliver(em_pass *pass, int64_t layer, em_phase phase, em_exchange *plan,
                                    const em_shared *from)
{
    em_model *m = pass->model;
    em_exchange_wait(m->comm);
    em_profile_lap(pass->profile, layer, EM_PHASE_WAIT);
    em_exchange_deliver(plan, m->config.emb_size, from, &m->arrival);
    em_profile_lap(pass->profile, layer, phase);
    em_profile_rows(pass->profile, layer, phase, m->arrival.traffic.inside, m->arrival.traffic.between);
    return m->arrival.row;
}

void em_pass_norm(em_pass *pass, em_tensor tensor, int64_t layer, const float *x, float *y)
{
    const em_config *config = &pass->model->config;
    em_rms_norm(pass->own, config->emb_size, x, em_weights_common(&pass->model->weights, tensor, layer),
                config->rms_norm_eps, y);
}

void em_pass_record(em_pass *pass, em_quantity quantity, int64_t layer, int64_t width, const void *data)
{
    if (pass->trace && pass->own > 0)
        em_trace_put(pass->trace, quantity, layer, pass->step->first_row + pass->first, pass->own, 0, width, data,
                     width);
}

static void embed(em_pass *pass)
{
    em_model *m = pass->model;
    const em_batch *b = pass->batch;
    const em_matrix *blocks = em_pass_blocks(pass, EM_EMBEDDING, 0);
    em_stand(-1, "embedding");
    em_exchange *plan = em_plan_embedding(m->comm, &m->layout, b->num_tokens, b->token_id);
    int64_t D = m->config.emb_size, *rows = em_zeroed(m->num_ranks, sizeof *rows);
    for (int64_t t = 0; t < b->num_tokens; t++) rows[em_layout_vocab_owner(&m->layout, b->token_id[t])]++;
    float *found = make_room(pass, m->parts, rows);
    free(rows);
    em_embedding_look_up(&m->config, &m->layout, m->rank, blocks, b->num_tokens, b->token_id, found);
    em_profile_lap(pass->profile, m->config.num_layers, EM_PHASE_EMBEDDING);
    const float *const *row = em_pass_deliver(pass, m->config.num_layers, EM_PHASE_EMBEDDING, plan, m->parts);
    for (int64_t t = 0; t < pass->own; t++) memcpy(pass->h + t * D, row[t], (size_t)D * sizeof(float));
    em_profile_lap(pass->profile, m->config.num_layers, EM_PHASE_EMBEDDING); /* fresh memory takes long */
    em_exchange_free(plan);
}

/* ---- attention ---- */

/* Queries, keys, values and results of the heads here: T tokens, all heads of this rank beside each other. */
typedef struct head_state {
    float *q, *k, *v, *z;
} head_state;

/* Record C numbers of each head: data [T, heads of `units`]. Only heads that `owned` says, or all where it is NULL. */
static void record_units(em_pass *pass, em_quantity quantity, int64_t layer, em_units units, const bool *owned,
                         const float *data)
{
    int64_t C = pass->model->config.key_size, width = units.count * C;
    for (int64_t i = 0, run; i < units.count; i += run) {
        bool kept = !owned || owned[i];
        int64_t most = em_units_run(units, i);
        for (run = 1; run < most && (!owned || owned[i + run] == kept);) run++;
        if (kept)
            em_trace_put(pass->trace, quantity, layer, pass->step->first_row, pass->T, units.unit[i] * C, run * C,
                         data + i * C, width);
    }
}

static void record_heads(em_pass *pass, int64_t layer, const em_attention *a, const head_state *s)
{
    const em_model *m = pass->model;
    if (!pass->trace) return;
    /* a key/value head is recorded by its owner, even where others repeat it */
    bool *owned = em_alloc(a->kv_heads.count, sizeof *owned);
    for (int64_t k = 0; k < a->kv_heads.count; k++)
        owned[k] = em_layout_kv_owner(&m->layout, a->kv_heads.unit[k]) == m->rank;
    record_units(pass, EM_ATTN_Q, layer, a->heads, NULL, s->q);
    record_units(pass, EM_ATTN_Z, layer, a->heads, NULL, s->z);
    record_units(pass, EM_ATTN_K, layer, a->kv_heads, owned, s->k);
    record_units(pass, EM_ATTN_V, layer, a->kv_heads, owned, s->v);
    free(owned);
}

/* The nodes that a rank sums, left to right. Returns how many. */
static int own_nodes(const em_cover *cover, int rank, em_range *nodes)
{
    int count = 0;
    for (int i = 0; i < cover->num_nodes; i++)
        if (cover->rank[i] == rank) nodes[count++] = cover->node[i];
    return count;
}

/* The heads here at work on x, T rows of D: parts [nodes here, T, D]. */
static void run_heads(em_pass *pass, int64_t layer, const float *const *x, float *parts)
{
    em_model *m = pass->model;
    em_attention a = {.config = &m->config,
                      .heads = em_layout_heads(&m->layout, m->rank),
                      .kv_heads = em_layout_kv_heads(&m->layout, m->rank),
                      .query = em_pass_blocks(pass, EM_ATTN_QUERY, layer),
                      .key = em_pass_blocks(pass, EM_ATTN_KEY, layer),
                      .value = em_pass_blocks(pass, EM_ATTN_VALUE, layer),
                      .output = em_pass_blocks(pass, EM_ATTN_OUTPUT, layer),
                      .compute = m->compute,
                      .inputs = m->inputs};
    int64_t width = pass->T * a.heads.count * m->config.key_size;
    int64_t kv_width = pass->T * a.kv_heads.count * m->config.key_size;
    float *all = em_room_for(&m->room[EM_ROOM_HEADS], 2 * (width + kv_width), sizeof(float));
    head_state s = {all, all + width, all + width + kv_width, all + width + 2 * kv_width};
    em_attention_project(&a, pass->T, x, pass->rope, s.q, s.k, s.v);
    em_cache_put(pass->cache, layer, pass->batch, s.k, s.v);
    em_attention_attend(&a, pass->batch, pass->cache, layer, s.q, s.z);
    em_range *nodes = em_alloc(a.heads.count, sizeof *nodes);
    em_attention_output(&a, pass->T, s.z, own_nodes(&m->head_cover, m->rank, nodes), nodes, parts);
    free(nodes);
    em_profile_lap(pass->profile, layer, EM_PHASE_ATTENTION);
    record_heads(pass, layer, &a, &s);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);
}

/* The sums of the heads here: [nodes here, T, D]. */
static float *room_for_sums(em_pass *pass)
{
    em_model *m = pass->model;
    int64_t *rows = em_zeroed(m->num_ranks, sizeof *rows);
    for (int node = 0; node < m->head_cover.num_nodes; node++) rows[m->head_cover.rank[node]] += pass->T;
    float *parts = make_room(pass, m->parts, rows);
    free(rows);
    return parts;
}

/* delta [T_r, D] = the norm of each token's sum over all heads. home: parts [all nodes, T_r], each of D. */
static void finish_heads(em_pass *pass, int64_t layer, const float *const *home)
{
    em_model *m = pass->model;
    const em_cover *cover = &m->head_cover;
    int64_t D = m->config.emb_size;
    const float *scale = em_weights_common(&m->weights, EM_ATTN_NORM_POST, layer);
    float factor = m->numerics.scale_attn_output ? (float)m->config.attn_output_multiplier : 1;
#pragma omp parallel num_threads(pass->own > 1 ? em_threads() : 1)
    {
        const float **part = em_alloc(cover->num_nodes, sizeof *part);
        float *sum = em_alloc(D, sizeof *sum);
#pragma omp for
        for (int64_t t = 0; t < pass->own; t++) {
            for (int node = 0; node < cover->num_nodes; node++) part[node] = home[node * pass->own + t];
            float *out = pass->delta + t * D;
            memcpy(out, em_tree_finish(m->config.num_q_heads, cover->node, D, part, sum), (size_t)D * sizeof(float));
            for (int64_t d = 0; factor != 1 && d < D; d++) out[d] *= factor;
            em_rms_norm(1, D, out, scale, m->config.rms_norm_eps, out);
        }
        free(part);
        free(sum);
    }
}

static void attend(em_pass *pass, int64_t layer)
{
    em_model *m = pass->model;
    em_stand((int)layer, "gather");
    em_pass_norm(pass, EM_ATTN_NORM_PRE, layer, pass->h, pass->x);
    em_profile_lap(pass->profile, layer, EM_PHASE_ATTENTION);
    const float *const *x = em_pass_deliver(pass, layer, EM_PHASE_GATHER, pass->gather, m->x);
    em_stand((int)layer, "attention");
    float *parts = room_for_sums(pass);
    if (em_layout_heads(&m->layout, m->rank).count > 0) run_heads(pass, layer, x, parts);
    em_stand((int)layer, "sum");
    finish_heads(pass, layer, em_pass_deliver(pass, layer, EM_PHASE_SUM, pass->sum_home, m->parts));
    em_add(pass->own * m->config.emb_size, pass->delta, pass->h);
    em_profile_lap(pass->profile, layer, EM_PHASE_SUM);
}

/* ---- experts ---- */

/* Everyone's choices: expert [T, S] from each owner's. */
static int32_t *share_choices(em_pass *pass, const int32_t *mine)
{
    em_model *m = pass->model;
    int64_t S = m->config.num_selected_experts, *count = em_alloc(m->num_ranks, sizeof *count);
    for (int r = 0; r < m->num_ranks; r++) count[r] = em_range_size(em_layout_tokens(&m->layout, pass->T, r)) * S;
    int32_t *all = em_alloc(pass->T * S, sizeof *all);
    em_exchange_all(m->comm, count, (int)sizeof *all, mine, all);
    free(count);
    return all;
}

/* Choose experts for this rank's tokens; weight [T_r, S] is filled; returns where everyone's rows go. */
static em_routing *route(em_pass *pass, int64_t layer, float *weight)
{
    em_model *m = pass->model;
    int64_t E = m->config.num_experts, S = m->config.num_selected_experts;
    float *logits = em_alloc(pass->own * E, sizeof(float)), *probs = em_alloc(pass->own * E, sizeof(float));
    int32_t *chosen = em_alloc(pass->own * S, sizeof(int32_t));
    em_pass_norm(pass, EM_FFN_NORM_PRE, layer, pass->h, pass->x);
    em_router_choose(&m->config, &m->numerics, pass->own, pass->x, em_weights_common(&m->weights, EM_ROUTER, layer),
                     logits, probs, chosen, weight);
    em_profile_lap(pass->profile, layer, EM_PHASE_ROUTER);
    em_pass_record(pass, EM_FFN_IN, layer, m->config.emb_size, pass->x);
    em_pass_record(pass, EM_ROUTER_LOGITS, layer, E, logits);
    em_pass_record(pass, EM_ROUTER_PROBS, layer, E, probs);
    em_pass_record(pass, EM_EXPERT_INDICES, layer, S, chosen);
    em_pass_record(pass, EM_EXPERT_WEIGHTS, layer, S, weight);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);

    int32_t *expert = share_choices(pass, chosen);
    em_routing *routing =
        em_routing_make(m->comm, &m->layout, &m->expert_covers, pass->step->first_row, pass->T, S, expert);
    for (int64_t key = 0; key < pass->T * S; key++) pass->profile->load[layer * E + expert[key]]++;
    free(logits);
    free(probs);
    free(chosen);
    free(expert);
    em_profile_lap(pass->profile, layer, EM_PHASE_ROUTER);
    return routing;
}

typedef struct hidden_record {
    em_pass *pass;
    const em_routing *routing;
    int64_t layer;
} hidden_record;

static void record_hidden(void *context, em_range neurons, int64_t first_row, int64_t rows, const float *hidden)
{
    const hidden_record *r = context;
    const em_config *config = &r->pass->model->config;
    int64_t S = config->num_selected_experts, n = em_range_size(neurons);
    em_profile_lap(r->pass->profile, r->layer, EM_PHASE_EXPERTS);
    for (int64_t i = 0; i < rows; i++) {
        int64_t key = r->routing->row_key[first_row + i];
        em_trace_put(r->pass->trace, EM_FFN_HIDDEN, r->layer, r->pass->step->first_row + key / S, 1,
                     key % S * config->ffn_size + neurons.begin, n, hidden + i * n, n);
    }
    em_profile_lap(r->pass->profile, r->layer, EM_PHASE_TRACE);
}

/* delta [T_r, D] = each token's experts, in order of choice: parts, summed along the tree, times the router's weight.
 * home: parts [num_parts], each of D. */
static void weigh_choices(em_pass *pass, const em_routing *routing, const float *weight, const float *const *home)
{
    em_model *m = pass->model;
    int64_t D = m->config.emb_size, S = m->config.num_selected_experts, slices = m->layout.slices_per_expert;
    memset(pass->delta, 0, (size_t)(pass->own * D) * sizeof(float));
#pragma omp parallel num_threads(pass->own > 1 ? em_threads() : 1)
    {
        float *sum = em_alloc(D, sizeof *sum);
#pragma omp for
        for (int64_t t = 0; t < pass->own; t++)
            for (int64_t key = t * S; key < (t + 1) * S; key++) {
                const em_range *nodes = m->expert_covers.cover[routing->own_group[key]].node;
                const float *whole = em_tree_finish(slices, nodes, D, home + routing->first_part[key], sum);
                em_add_scaled(D, weight[key], whole, pass->delta + t * D);
            }
        free(sum);
    }
}

/* Outputs set out for home as they come. */
static void send_outputs(void *combine, int64_t rows)
{
    em_exchange_advance(combine, rows);
}

static void run_experts(em_pass *pass, int64_t layer, const em_routing *routing, const float *const *rows,
                        float *outputs)
{
    em_model *m = pass->model;
    em_experts experts = {.config = &m->config,
                          .layout = &m->layout,
                          .rank = m->rank,
                          .covers = &m->expert_covers,
                          .gate = em_pass_blocks(pass, EM_FFN_GATE, layer),
                          .up = em_pass_blocks(pass, EM_FFN_UP, layer),
                          .down = em_pass_blocks(pass, EM_FFN_DOWN, layer),
                          .up_bias = em_pass_blocks(pass, EM_FFN_UP_BIAS, layer),
                          .down_bias = em_pass_blocks(pass, EM_FFN_DOWN_BIAS, layer),
                          .compute = m->compute,
                          .numerics = &m->numerics,
                          .inputs = m->inputs,
                          .rooms = &m->room[EM_ROOM_EXPERTS],
                          .done = send_outputs,
                          .done_context = routing->combine};
    em_exchange_begin(routing->combine, m->config.emb_size, m->parts, &m->home);
    hidden_record context = {pass, routing, layer};
    bool recorded = em_trace_wants(pass->trace, EM_FFN_HIDDEN, layer);
    em_experts_run(&experts, routing->first_row, rows, routing->first_output, outputs, recorded ? record_hidden : NULL,
                   &context);
    em_exchange_advance(routing->combine, INT64_MAX); /* all are made */
    em_profile_lap(pass->profile, layer, EM_PHASE_EXPERTS);
}

/* The outputs of all experts are home. */
static const float *const *end_combine(em_pass *pass, int64_t layer, const em_routing *routing)
{
    em_model *m = pass->model;
    em_exchange_wait(m->comm);
    em_profile_lap(pass->profile, layer, EM_PHASE_WAIT);
    em_exchange_end(routing->combine, &m->home);
    em_profile_lap(pass->profile, layer, EM_PHASE_COMBINE);
    em_profile_rows(pass->profile, layer, EM_PHASE_COMBINE, m->home.traffic.inside, m->home.traffic.between);
    return m->home.row;
}

/* Counts grow from step to step. */
static void record_exchange(em_pass *pass, int64_t layer, const em_routing *routing)
{
    int P = pass->model->num_ranks;
    int64_t *rows = pass->profile->dispatched + layer * P;
    for (int r = 0; r < P; r++) rows[r] += routing->dispatch->send[r].count;
    em_trace_exchange(pass->trace, layer, rows, pass->profile->load + layer * pass->model->config.num_experts);
}

static void feed_forward(em_pass *pass, int64_t layer)
{
    em_model *m = pass->model;
    int64_t D = m->config.emb_size;
    em_stand((int)layer, "router");
    float *weight = em_alloc(pass->own * m->config.num_selected_experts, sizeof(float));
    em_routing *routing = route(pass, layer, weight);

    em_stand((int)layer, "dispatch");
    const float *const *rows = em_pass_deliver(pass, layer, EM_PHASE_DISPATCH, routing->dispatch, m->x);
    em_stand((int)layer, "experts");
    run_experts(pass, layer, routing, rows, make_room(pass, m->parts, routing->outputs));

    em_stand((int)layer, "combine");
    weigh_choices(pass, routing, weight, end_combine(pass, layer, routing));
    em_pass_norm(pass, EM_FFN_NORM_POST, layer, pass->delta, pass->delta);
    em_add(pass->own * D, pass->delta, pass->h);
    em_profile_lap(pass->profile, layer, EM_PHASE_COMBINE);
    record_exchange(pass, layer, routing);
    free(weight);
    em_routing_free(routing);
}

static bool run_layer(em_pass *pass, int64_t layer, em_status *status)
{
    int64_t D = pass->model->config.emb_size;
    em_pass_record(pass, EM_RESID_PRE, layer, D, pass->h);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);
    attend(pass, layer);
    em_pass_record(pass, EM_ATTN_OUT, layer, D, pass->delta);
    em_pass_record(pass, EM_RESID_MID, layer, D, pass->h);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);
    feed_forward(pass, layer);
    em_pass_record(pass, EM_FFN_OUT, layer, D, pass->delta);
    em_pass_record(pass, EM_RESID_POST, layer, D, pass->h);
    bool good = em_trace_layer(pass->trace, layer, status);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);
    return good;
}

/* ---- the step ---- */

static void open_pass(em_pass *pass)
{
    em_model *m = pass->model;
    em_range own = em_layout_tokens(&m->layout, pass->batch->num_tokens, m->rank);
    int64_t size = em_range_size(own) * m->config.emb_size;
    pass->T = pass->batch->num_tokens;
    pass->own = em_range_size(own);
    pass->first = own.begin;
    pass->h = em_room_for(&m->room[EM_ROOM_H], size, sizeof(float));
    int64_t *rows = em_alloc(m->num_ranks, sizeof *rows);
    for (int r = 0; r < m->num_ranks; r++)
        rows[r] = em_range_size(em_layout_tokens(&m->layout, pass->batch->num_tokens, r));
    pass->x = make_room(pass, m->x, rows);
    free(rows);
    pass->delta = em_room_for(&m->room[EM_ROOM_DELTA], size, sizeof(float));
    pass->rope = em_room_for(&m->room[EM_ROOM_ROPE], pass->T * m->config.key_size, sizeof(float));
    em_rope_table(pass->T, m->config.key_size, pass->batch->position, m->config.rope_base, pass->rope);
    bool *needs = em_alloc(m->num_ranks, sizeof *needs);
    for (int r = 0; r < m->num_ranks; r++) needs[r] = em_layout_heads(&m->layout, r).count > 0;
    pass->gather = em_plan_gather(m->comm, &m->layout, pass->T, needs);
    pass->sum_home = em_plan_sum_home(m->comm, &m->layout, pass->T, &m->head_cover);
    free(needs);
}

static void close_pass(em_pass *pass)
{
    em_exchange_free(pass->gather);
    em_exchange_free(pass->sum_home);
}

bool em_model_step(em_model *model, const em_step *step, em_cache *cache, em_trace *trace, em_profile *profile,
                   em_outcome *outcome, em_progress *progress, void *context, em_status *status)
{
    em_pass pass = {
        .model = model, .step = step, .batch = step->tokens, .cache = cache, .trace = trace, .profile = profile};
    int64_t L = model->config.num_layers;
    bool good = true;
    em_profile_start(profile);
    em_trace_step(trace, step->tokens, step->first_row);
    open_pass(&pass);
    embed(&pass);
    for (int64_t layer = 0; good && layer < L; layer++) {
        good = run_layer(&pass, layer, status);
        if (good && progress) progress(context, (double)(layer + 1), (double)L);
    }
    if (good) {
        em_pass_output(&pass, outcome);
        good = em_trace_step_done(trace, step->first_row + step->tokens->num_tokens, status);
        em_profile_lap(profile, L, EM_PHASE_TRACE);
        em_trace_events(trace, profile, step->number, step->tokens->num_tokens);
    }
    close_pass(&pass);
    em_stand(-1, NULL);
    return good;
}
