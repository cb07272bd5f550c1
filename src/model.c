#include "expertmesh/model.h"

#include "expertmesh/attention.h"
#include "expertmesh/embedding.h"
#include "expertmesh/experts.h"
#include "expertmesh/router.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- what it needs ---- */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

em_need em_model_need(const em_source *source, const em_layout *layout, int rank, em_extent extent)
{
    const em_config *c = &source->config;
    int64_t T = extent.step_tokens, D = c->emb_size, S = c->num_selected_experts, C = c->key_size;
    int64_t own = em_range_size(em_layout_tokens(layout, T, rank));
    int64_t heads = em_range_size(em_layout_heads(layout, rank));
    int64_t kv_heads = em_range_size(em_layout_kv_heads(layout, rank));
    em_range experts = em_layout_experts(layout, rank);
    int64_t routed = 2 * T * S * em_range_size(experts) / c->num_experts;
    if (routed > T * S) routed = T * S;
    em_range nodes[EM_TREE_MAX_NODES];
    int64_t here = em_tree_cover(c->num_q_heads, em_layout_heads(layout, rank), nodes), all = 0;
    for (int r = 0; r < layout->num_ranks; r++) all += em_tree_cover(c->num_q_heads, em_layout_heads(layout, r), nodes);
    int64_t parts = larger(T * D * here, routed * D) * 5 / 4; /* a quarter more: see em_shared_room */
    int64_t came = larger(larger(T, routed), own * larger(all, 3 * S)) * D;
    int64_t in_attention = T * C * (3 * heads + 2 * kv_heads);
    int64_t in_experts = routed * D + 256 * layout->slice_size * 2;
    int64_t in_output = T * em_range_size(em_embedding_held(layout, rank));
    int64_t packed = em_inputs_bytes(T, larger(D, layout->slice_size)) * 2 + em_threads_bytes(em_threads());
    int64_t most = larger(larger(in_attention, in_experts), in_output);
    return (em_need){em_weights_held(source, layout, rank),
                     (own * D * 3 + T * 1024 + parts + came + most) * (int64_t)sizeof(float) + packed,
                     em_cache_bytes(c, layout, rank, extent.tokens, extent.num_sequences, extent.lasting),
                     extent.trace};
}

/* Every host must have what its ranks need together, before any of them allocates. */
static bool check_memory(MPI_Comm comm, const em_source *source, const em_layout *layout, int rank, em_extent extent,
                         em_status *status)
{
    MPI_Comm host;
    int on_host;
    char name[256] = "";
    em_bytes_text rank_text, weights_text, host_text, there_text;
    em_need need = em_model_need(source, layout, rank, extent);
    int64_t weights = need.weights.owned + need.weights.repeated, sum;
    int64_t mine = weights + need.activations + need.cache + need.trace;
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &host);
    MPI_Comm_size(host, &on_host);
    MPI_Allreduce(&mine, &sum, 1, MPI_INT64_T, MPI_SUM, host);
    MPI_Comm_free(&host);
    int64_t there = em_memory_available(), limit = em_memory_limit();
    gethostname(name, sizeof name - 1);
    em_bytes((double)mine, rank_text);
    em_bytes((double)weights, weights_text);
    if (mine > limit)
        em_fail(status, EM_BAD_DATA,
                "the model does not fit: rank %d needs %s (%s of it weights), but ulimit -v leaves a process %s; raise "
                "it, or use "
                "more ranks, fewer layers or a smaller storage type",
                rank, rank_text, weights_text, em_bytes((double)limit, there_text));
    if (sum > there)
        em_fail(status, EM_BAD_DATA,
                "the model does not fit: rank %d needs %s (%s of it weights), all %d on host %s need %s, but it has %s "
                "free; "
                "use more hosts, fewer layers or a smaller storage type",
                rank, rank_text, weights_text, on_host, name, em_bytes((double)sum, host_text),
                em_bytes((double)there, there_text));
    return em_agree(comm, status);
}

/* Faster ways to compute are for weights of few bits, as they are stored. */
static bool check_storage(const em_source *source, em_compute compute, em_status *status)
{
    for (em_tensor t = EM_FIRST_LAYER_TENSOR; compute != EM_COMPUTE_F32 && t < EM_NUM_TENSORS; t++)
        for (int64_t layer = 0; layer < em_tensor_layers(&source->config, t); layer++) {
            em_storage storage = em_source_form(source, t, layer)->storage;
            em_tensor_path path;
            if (!em_tensor_shape_of(&source->config, t).quantised || em_compute_fit(compute, storage) == compute)
                continue;
            return em_fail(status, EM_USAGE, "--compute %s is for weights stored as %s, but %s is stored as %s",
                           em_compute_name(compute), em_compute_name(compute), em_tensor_path_of(t, layer, path),
                           em_storage_name(storage));
        }
    return true;
}

/* One set of loops for all ranks: the plainest that any of them has chosen. */
static bool agree_on_loops(MPI_Comm comm, const em_source *source, em_manner manner, em_status *status)
{
    em_isa isa;
    em_isa_choose(&isa, status);
    if (!em_agree(comm, status)) return false;
    int set = (int)isa;
    MPI_Allreduce(MPI_IN_PLACE, &set, 1, MPI_INT, MPI_MIN, comm);
    em_isa_use((em_isa)set);
    em_threads_use(manner.threads > 0 ? manner.threads : em_cores(comm));
    if (check_storage(source, manner.compute, status)) em_compute_here(manner.compute, status);
    return em_agree(comm, status);
}

/* Arrays for the rows that ranks read of each other; they grow with the first step. */
static bool open_arrays(em_model *model, em_status *status)
{
    model->x = em_shared_open(model->comm, status);
    if (model->x) model->parts = em_shared_open(model->comm, status);
    return model->parts != NULL;
}

bool em_model_open(em_model *model, MPI_Comm comm, const em_source *source, em_extent extent, em_manner manner,
                   em_progress *progress, void *context, em_status *status)
{
    *model = (em_model){.config = source->config, .compute = manner.compute};
    MPI_Comm_dup(comm, &model->comm);
    MPI_Errhandler handler = em_mpi_error_handler();
    MPI_Comm_set_errhandler(model->comm, handler);
    MPI_Errhandler_free(&handler);
    MPI_Comm_rank(model->comm, &model->rank);
    MPI_Comm_size(model->comm, &model->num_ranks);
    model->layout = em_layout_make(&model->config, model->num_ranks);
    model->head_cover = em_head_cover(&model->layout);
    model->expert_cover = em_expert_covers(&model->layout);
    model->inputs = em_zeroed(2 + em_range_size(em_layout_heads(&model->layout, model->rank)), sizeof(em_inputs));
    if (agree_on_loops(model->comm, source, manner, status) && open_arrays(model, status) &&
        check_memory(model->comm, source, &model->layout, model->rank, extent, status)) {
        em_weights_load(&model->weights, source, &model->layout, model->rank, progress, context, status);
        if (em_agree(model->comm, status)) return true;
    }
    em_model_close(model);
    return false;
}

void em_model_close(em_model *model)
{
    em_weights_free(&model->weights);
    em_cover_free(&model->head_cover);
    for (int64_t e = 0; model->expert_cover && e < model->config.num_experts; e++)
        em_cover_free(&model->expert_cover[e]);
    free(model->expert_cover);
    for (int64_t i = 0; i < 2 + em_range_size(em_layout_heads(&model->layout, model->rank)); i++)
        em_inputs_free(&model->inputs[i]);
    free(model->inputs);
    em_arrival_free(&model->arrival);
    em_shared_close(model->x);
    em_shared_close(model->parts);
    if (model->comm != MPI_COMM_NULL) MPI_Comm_free(&model->comm);
    *model = (em_model){.comm = MPI_COMM_NULL};
}

void em_outcome_free(em_outcome *outcome)
{
    free(outcome->token);
    free(outcome->logit);
    free(outcome->scores);
    *outcome = (em_outcome){0};
}

/* ---- one step ---- */

/* What the stages of one step share. Arrays are this rank's; T_r tokens are its own. */
typedef struct em_pass {
    em_model *model;
    const em_step *step;
    const em_batch *batch; /* the step's tokens */
    em_cache *cache;
    em_trace *trace;
    em_profile *profile;
    int64_t T, own, first; /* tokens in all, here, and the first of those here */
    float *h;              /* [T_r, D] the residual stream */
    float *x;              /* [T_r, D] a norm of it, in model->x */
    float *delta;          /* [T_r, D] what a stage adds */
    float *rope;           /* [T, C] */
    em_exchange *gather, *sum_home;
} em_pass;

static const em_matrix *blocks_of(const em_pass *pass, em_tensor tensor, int64_t layer)
{
    return em_weights_of(&pass->model->weights, tensor, layer);
}

/* This rank's part of an array: rows[rank] of D. rows [P]. */
static float *make_room(em_pass *pass, em_shared *array, const int64_t *rows)
{
    return em_shared_room(array, pass->model->config.emb_size, rows);
}

/* Bring rows to where they are needed; first wait for all, so that waiting and bringing are told apart. Returns where each
 * lies, until the next delivery. */
static const float *const *deliver(em_pass *pass, int64_t layer, em_phase phase, em_exchange *plan,
                                   const em_shared *from)
{
    em_model *m = pass->model;
    em_exchange_wait(m->comm);
    em_profile_lap(pass->profile, layer, EM_PHASE_WAIT);
    em_exchange_deliver(plan, m->config.emb_size, from, &m->arrival);
    em_profile_lap(pass->profile, layer, phase);
    em_profile_sent(pass->profile, layer, phase, em_exchange_rows_to_others(plan));
    return m->arrival.row;
}

static void norm(em_pass *pass, em_tensor tensor, int64_t layer, const float *x, float *y)
{
    const em_config *config = &pass->model->config;
    em_rms_norm(pass->own, config->emb_size, x, em_weights_common(&pass->model->weights, tensor, layer),
                config->rms_norm_eps, y);
}

/* Record a quantity of this rank's own tokens, width numbers each. */
static void record(em_pass *pass, em_quantity quantity, int64_t layer, int64_t width, const void *data)
{
    if (pass->trace && pass->own > 0)
        em_trace_put(pass->trace, quantity, layer, pass->step->first_row + pass->first, pass->own, 0, width, data,
                     width);
}

static void embed(em_pass *pass)
{
    em_model *m = pass->model;
    const em_batch *b = pass->batch;
    const em_matrix *blocks = blocks_of(pass, EM_EMBEDDING, 0);
    em_stand(-1, "embedding");
    em_exchange *plan = em_plan_embedding(m->comm, &m->layout, b->num_tokens, b->token_id);
    int64_t D = m->config.emb_size, *rows = em_zeroed(m->num_ranks, sizeof *rows);
    for (int64_t t = 0; t < b->num_tokens; t++) rows[em_layout_vocab_owner(&m->layout, b->token_id[t])]++;
    float *found = make_room(pass, m->parts, rows);
    free(rows);
    em_embedding_look_up(&m->config, &m->layout, m->rank, blocks, b->num_tokens, b->token_id, found);
    em_profile_lap(pass->profile, m->config.num_layers, EM_PHASE_EMBEDDING);
    const float *const *row = deliver(pass, m->config.num_layers, EM_PHASE_EMBEDDING, plan, m->parts);
    for (int64_t t = 0; t < pass->own; t++) memcpy(pass->h + t * D, row[t], (size_t)D * sizeof(float));
    em_exchange_free(plan);
}

/* ---- attention ---- */

/* Queries, keys, values and results of the heads here: T tokens, all heads of this rank beside each other. */
typedef struct head_state {
    float *q, *k, *v, *z;
} head_state;

static void record_heads(em_pass *pass, int64_t layer, const em_attention *a, const head_state *s)
{
    int64_t C = pass->model->config.key_size, T = pass->T, row = pass->step->first_row;
    int64_t width = em_range_size(a->heads) * C, kv_width = 0;
    if (width == 0 || !pass->trace) return;
    /* a key/value head is recorded by its owner, even where others repeat it */
    em_range own = {a->kv_heads.end, a->kv_heads.end};
    for (int64_t h = a->kv_heads.end - 1; h >= a->kv_heads.begin; h--)
        if (em_layout_kv_owner(&pass->model->layout, h) == pass->model->rank) own.begin = h;
    kv_width = em_range_size(a->kv_heads) * C;
    int64_t skip = (own.begin - a->kv_heads.begin) * C;
    em_trace_put(pass->trace, EM_ATTN_Q, layer, row, T, a->heads.begin * C, width, s->q, width);
    em_trace_put(pass->trace, EM_ATTN_Z, layer, row, T, a->heads.begin * C, width, s->z, width);
    if (em_range_size(own) == 0) return;
    em_trace_put(pass->trace, EM_ATTN_K, layer, row, T, own.begin * C, em_range_size(own) * C, s->k + skip, kv_width);
    em_trace_put(pass->trace, EM_ATTN_V, layer, row, T, own.begin * C, em_range_size(own) * C, s->v + skip, kv_width);
}

/* The heads here at work on x, T rows of D: parts [nodes here, T, D]. */
static void run_heads(em_pass *pass, int64_t layer, const float *const *x, float *parts)
{
    em_model *m = pass->model;
    const em_cover *cover = &m->head_cover;
    em_attention a = {.config = &m->config,
                      .heads = em_layout_heads(&m->layout, m->rank),
                      .kv_heads = em_layout_kv_heads(&m->layout, m->rank),
                      .query = blocks_of(pass, EM_ATTN_QUERY, layer),
                      .key = blocks_of(pass, EM_ATTN_KEY, layer),
                      .value = blocks_of(pass, EM_ATTN_VALUE, layer),
                      .output = blocks_of(pass, EM_ATTN_OUTPUT, layer),
                      .compute = m->compute,
                      .inputs = m->inputs};
    int64_t width = pass->T * em_range_size(a.heads) * m->config.key_size;
    int64_t kv_width = pass->T * em_range_size(a.kv_heads) * m->config.key_size;
    head_state s = {em_alloc(width, sizeof(float)), em_alloc(kv_width, sizeof(float)),
                    em_alloc(kv_width, sizeof(float)), em_alloc(width, sizeof(float))};
    em_attention_project(&a, pass->T, x, pass->rope, s.q, s.k, s.v);
    em_cache_put(pass->cache, layer, pass->batch, s.k, s.v);
    em_attention_attend(&a, pass->batch, pass->cache, layer, s.q, s.z);
    em_attention_output(&a, pass->T, s.z, cover->first_node[m->rank + 1] - cover->first_node[m->rank],
                        cover->node + cover->first_node[m->rank], parts);
    em_profile_lap(pass->profile, layer, EM_PHASE_ATTENTION);
    record_heads(pass, layer, &a, &s);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);
    free(s.q);
    free(s.k);
    free(s.v);
    free(s.z);
}

/* The sums of the heads here: [nodes here, T, D]. */
static float *room_for_sums(em_pass *pass)
{
    em_model *m = pass->model;
    const int *first = m->head_cover.first_node;
    int64_t *rows = em_alloc(m->num_ranks, sizeof *rows);
    for (int r = 0; r < m->num_ranks; r++) rows[r] = (first[r + 1] - first[r]) * pass->T;
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
    const float **part = em_alloc(cover->num_nodes, sizeof *part);
    float *sum = em_alloc(D, sizeof *sum);
    for (int64_t t = 0; t < pass->own; t++) {
        for (int node = 0; node < cover->num_nodes; node++) part[node] = home[node * pass->own + t];
        em_rms_norm(1, D, em_tree_finish(m->config.num_q_heads, cover->node, D, part, sum), scale,
                    m->config.rms_norm_eps, pass->delta + t * D);
    }
    free(part);
    free(sum);
}

static void attend(em_pass *pass, int64_t layer)
{
    em_model *m = pass->model;
    em_stand((int)layer, "attention");
    norm(pass, EM_ATTN_NORM_PRE, layer, pass->h, pass->x);
    em_profile_lap(pass->profile, layer, EM_PHASE_ATTENTION);
    const float *const *x = deliver(pass, layer, EM_PHASE_GATHER, pass->gather, m->x);
    float *parts = room_for_sums(pass);
    if (em_range_size(em_layout_heads(&m->layout, m->rank)) > 0) run_heads(pass, layer, x, parts);
    finish_heads(pass, layer, deliver(pass, layer, EM_PHASE_SUM, pass->sum_home, m->parts));
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
    norm(pass, EM_FFN_NORM_PRE, layer, pass->h, pass->x);
    em_router_choose(&m->config, pass->own, pass->x, em_weights_common(&m->weights, EM_ROUTER, layer), logits, probs,
                     chosen, weight);
    em_profile_lap(pass->profile, layer, EM_PHASE_ROUTER);
    record(pass, EM_FFN_IN, layer, m->config.emb_size, pass->x);
    record(pass, EM_ROUTER_LOGITS, layer, E, logits);
    record(pass, EM_ROUTER_PROBS, layer, E, probs);
    record(pass, EM_EXPERT_INDICES, layer, S, chosen);
    record(pass, EM_EXPERT_WEIGHTS, layer, S, weight);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);

    int32_t *expert = share_choices(pass, chosen);
    em_routing *routing = em_routing_make(m->comm, &m->layout, m->expert_cover, pass->T, S, expert);
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
    float *sum = em_alloc(D, sizeof *sum);
    memset(pass->delta, 0, (size_t)(pass->own * D) * sizeof(float));
    for (int64_t key = 0; key < pass->own * S; key++) {
        const em_range *nodes = m->expert_cover[routing->own_expert[key]].node;
        const float *whole = em_tree_finish(slices, nodes, D, home + routing->first_part[key], sum);
        em_add_scaled(D, weight[key], whole, pass->delta + key / S * D);
    }
    free(sum);
}

/* rows [R], each of D, to outputs [num_outputs, D]. */
static void run_experts(em_pass *pass, int64_t layer, const em_routing *routing, const float *const *rows,
                        float *outputs)
{
    em_model *m = pass->model;
    em_experts experts = {.config = &m->config,
                          .layout = &m->layout,
                          .rank = m->rank,
                          .covers = m->expert_cover,
                          .gate = blocks_of(pass, EM_FFN_GATE, layer),
                          .up = blocks_of(pass, EM_FFN_UP, layer),
                          .down = blocks_of(pass, EM_FFN_DOWN, layer),
                          .up_bias = blocks_of(pass, EM_FFN_UP_BIAS, layer),
                          .down_bias = blocks_of(pass, EM_FFN_DOWN_BIAS, layer),
                          .compute = m->compute,
                          .inputs = m->inputs};
    hidden_record context = {pass, routing, layer};
    bool recorded = em_trace_wants(pass->trace, EM_FFN_HIDDEN, layer);
    em_experts_run(&experts, routing->first_row, rows, routing->first_output, outputs, recorded ? record_hidden : NULL,
                   &context);
    em_profile_lap(pass->profile, layer, EM_PHASE_EXPERTS);
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
    const float *const *rows = deliver(pass, layer, EM_PHASE_DISPATCH, routing->dispatch, m->x);
    em_stand((int)layer, "experts");
    run_experts(pass, layer, routing, rows, make_room(pass, m->parts, routing->outputs));

    em_stand((int)layer, "combine");
    weigh_choices(pass, routing, weight, deliver(pass, layer, EM_PHASE_COMBINE, routing->combine, m->parts));
    norm(pass, EM_FFN_NORM_POST, layer, pass->delta, pass->delta);
    em_add(pass->own * D, pass->delta, pass->h);
    em_profile_lap(pass->profile, layer, EM_PHASE_COMBINE);
    record_exchange(pass, layer, routing);
    free(weight);
    em_routing_free(routing);
}

static bool run_layer(em_pass *pass, int64_t layer, em_status *status)
{
    int64_t D = pass->model->config.emb_size;
    record(pass, EM_RESID_PRE, layer, D, pass->h);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);
    attend(pass, layer);
    record(pass, EM_ATTN_OUT, layer, D, pass->delta);
    record(pass, EM_RESID_MID, layer, D, pass->h);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);
    feed_forward(pass, layer);
    record(pass, EM_FFN_OUT, layer, D, pass->delta);
    record(pass, EM_RESID_POST, layer, D, pass->h);
    bool good = em_trace_layer(pass->trace, layer, status);
    em_profile_lap(pass->profile, layer, EM_PHASE_TRACE);
    return good;
}

/* ---- output ---- */

/* One rank's best next tokens of one run. */
typedef struct best {
    int32_t token[EM_NUM_BEST]; /* -1: fewer than that here */
    float logit[EM_NUM_BEST];
} best;

static best best_of(em_range held, const float *logits)
{
    best found;
    int64_t n = em_range_size(held);
    int32_t index[EM_NUM_BEST];
    em_top(n, logits, EM_NUM_BEST, index);
    for (int i = 0; i < EM_NUM_BEST; i++) {
        found.token[i] = index[i] < 0 ? -1 : (int32_t)held.begin + index[i];
        found.logit[i] = index[i] < 0 ? 0 : logits[index[i]];
    }
    return found;
}

/* Everyone's best of one run, rank by rank, merged; of equals the lower token comes first, as ranks ascend. */
static void merge_best(int num_ranks, int64_t stride, const best *all, int num_best, int32_t *token, float *logit)
{
    int *next = em_zeroed(num_ranks, sizeof *next);
    for (int i = 0; i < num_best; i++) {
        int from = -1;
        for (int r = 0; r < num_ranks; r++) {
            const best *b = &all[r * stride];
            if (next[r] == EM_NUM_BEST || b->token[next[r]] < 0) continue;
            float theirs = b->logit[next[r]], best_so_far = from < 0 ? 0 : all[from * stride].logit[next[from]];
            if (from < 0 || theirs > best_so_far || (isnan(best_so_far) && !isnan(theirs))) from = r;
        }
        token[i] = all[from * stride].token[next[from]];
        logit[i] = all[from * stride].logit[next[from]++];
    }
    free(next);
}

/* logits [T, Vr] of all tokens, or of the last of each sequence: row s lies at last_row[s]. */
static void find_best(em_pass *pass, em_range held, const float *logits, const int64_t *last_row, em_outcome *outcome)
{
    em_model *m = pass->model;
    int64_t N = pass->batch->num_sequences;
    best *mine = em_alloc(N, sizeof *mine), *all = em_alloc(N * m->num_ranks, sizeof *all);
    for (int64_t s = 0; s < N; s++) mine[s] = best_of(held, logits + last_row[s] * em_range_size(held));
    int64_t *count = em_alloc(m->num_ranks, sizeof *count);
    for (int r = 0; r < m->num_ranks; r++) count[r] = N;
    em_exchange_all(m->comm, count, (int)sizeof *mine, mine, all);
    *outcome = (em_outcome){.num_sequences = N};
    outcome->num_best = m->config.vocab_size < EM_NUM_BEST ? (int)m->config.vocab_size : EM_NUM_BEST;
    outcome->token = em_zeroed(N * EM_NUM_BEST, sizeof(int32_t));
    outcome->logit = em_zeroed(N * EM_NUM_BEST, sizeof(float));
    for (int64_t s = 0; s < N; s++)
        merge_best(m->num_ranks, N, all + s, outcome->num_best, outcome->token + s * EM_NUM_BEST,
                   outcome->logit + s * EM_NUM_BEST);
    free(count);
    free(mine);
    free(all);
}

/* The scores of the whole vocabulary after each run, on rank 0. */
static void bring_scores(em_pass *pass, const float *logits, const int64_t *last_row, em_outcome *outcome)
{
    em_model *m = pass->model;
    int64_t N = pass->batch->num_sequences, *width = em_alloc(m->num_ranks, sizeof *width);
    for (int r = 0; r < m->num_ranks; r++) width[r] = em_range_size(em_embedding_held(&m->layout, r));
    float *mine = em_alloc(N * width[m->rank], sizeof *mine);
    for (int64_t s = 0; s < N; s++)
        memcpy(mine + s * width[m->rank], logits + last_row[s] * width[m->rank], (size_t)width[m->rank] * sizeof *mine);
    if (m->rank == 0) outcome->scores = em_alloc(N * m->config.vocab_size, sizeof(float));
    em_exchange_columns(m->comm, N, width, mine, outcome->scores);
    free(mine);
    free(width);
}

/* The last norm; every row to the vocabulary's owners; scores recorded where they are made, the best of them home. */
static void output(em_pass *pass, em_outcome *outcome)
{
    em_model *m = pass->model;
    const em_batch *b = pass->batch;
    int64_t outer = m->config.num_layers, D = m->config.emb_size;
    em_range held = em_embedding_held(&m->layout, m->rank);
    em_stand(-1, "output");
    norm(pass, EM_FINAL_NORM, 0, pass->h, pass->x);
    em_profile_lap(pass->profile, outer, EM_PHASE_OUTPUT);
    record(pass, EM_FINAL_HIDDEN, 0, D, pass->x);
    em_profile_lap(pass->profile, outer, EM_PHASE_TRACE);

    bool *needs = em_alloc(m->num_ranks, sizeof *needs);
    for (int r = 0; r < m->num_ranks; r++) needs[r] = em_range_size(em_layout_vocab_units(&m->layout, r)) > 0;
    em_exchange *plan = em_plan_gather(m->comm, &m->layout, pass->T, needs);
    const float *const *x = deliver(pass, outer, EM_PHASE_OUTPUT, plan, m->x);

    bool recorded = em_trace_wants(pass->trace, EM_LOGITS, 0);
    int64_t N = b->num_sequences, rows = recorded ? pass->T : N, *last_row = em_alloc(N, sizeof *last_row);
    const float **last = em_alloc(N, sizeof *last);
    for (int64_t s = 0; s < N; s++) {
        int64_t t = b->first_token[s + 1] - 1;
        last_row[s] = recorded ? t : s;
        last[s] = needs[m->rank] ? x[t] : NULL;
    }
    float *logits = em_alloc(rows * em_range_size(held), sizeof(float));
    em_embedding_logits(&m->config, &m->layout, m->rank, blocks_of(pass, EM_EMBEDDING, 0), rows, recorded ? x : last,
                        m->compute, &m->inputs[0], logits);
    free(last);
    find_best(pass, held, logits, last_row, outcome);
    if (pass->step->all_scores) bring_scores(pass, logits, last_row, outcome);
    em_profile_lap(pass->profile, outer, EM_PHASE_OUTPUT);
    if (recorded && em_range_size(held) > 0)
        em_trace_put(pass->trace, EM_LOGITS, 0, pass->step->first_row, pass->T, held.begin, em_range_size(held), logits,
                     em_range_size(held));
    em_profile_lap(pass->profile, outer, EM_PHASE_TRACE);
    free(logits);
    free(last_row);
    free(needs);
    em_exchange_free(plan);
}

static void open_pass(em_pass *pass)
{
    em_model *m = pass->model;
    em_range own = em_layout_tokens(&m->layout, pass->batch->num_tokens, m->rank);
    int64_t size = em_range_size(own) * m->config.emb_size;
    pass->T = pass->batch->num_tokens;
    pass->own = em_range_size(own);
    pass->first = own.begin;
    pass->h = em_alloc(size, sizeof(float));
    int64_t *rows = em_alloc(m->num_ranks, sizeof *rows);
    for (int r = 0; r < m->num_ranks; r++)
        rows[r] = em_range_size(em_layout_tokens(&m->layout, pass->batch->num_tokens, r));
    pass->x = make_room(pass, m->x, rows);
    free(rows);
    pass->delta = em_alloc(size, sizeof(float));
    pass->rope = em_alloc(pass->T * m->config.key_size, sizeof(float));
    em_rope_table(pass->T, m->config.key_size, pass->batch->position, m->config.rope_base, pass->rope);
    bool *needs = em_alloc(m->num_ranks, sizeof *needs);
    for (int r = 0; r < m->num_ranks; r++) needs[r] = em_range_size(em_layout_heads(&m->layout, r)) > 0;
    pass->gather = em_plan_gather(m->comm, &m->layout, pass->T, needs);
    pass->sum_home = em_plan_sum_home(m->comm, &m->layout, pass->T, &m->head_cover);
    free(needs);
}

static void close_pass(em_pass *pass)
{
    free(pass->h);
    free(pass->delta);
    free(pass->rope);
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
        output(&pass, outcome);
        good = em_trace_step_done(trace, step->first_row + step->tokens->num_tokens, status);
        em_profile_lap(profile, L, EM_PHASE_TRACE);
    }
    close_pass(&pass);
    em_stand(-1, NULL);
    return good;
}
