#include "expertmesh/model.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- what it needs ---- */

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Nodes in which sums come home: of the heads, here and in all; of one expert's slices, at most. */
typedef struct node_counts {
    int64_t heads_here, heads, slices_here, slices;
} node_counts;

static node_counts count_nodes(const em_layout *layout, int rank)
{
    em_cover heads = em_head_cover(layout);
    em_covers experts = em_expert_covers(layout);
    node_counts count = {em_cover_count(&heads, rank), heads.num_nodes, 0, 0};
    for (int64_t g = 0; g < experts.num_groups; g++) {
        count.slices_here = larger(count.slices_here, em_cover_count(&experts.cover[g], rank));
        count.slices = larger(count.slices, experts.cover[g].num_nodes);
    }
    em_cover_free(&heads);
    em_covers_free(&experts);
    return count;
}

em_need em_model_need(const em_source *source, const em_layout *layout, int rank, em_extent extent)
{
    const em_config *c = &source->config;
    int64_t T = extent.step_tokens, D = c->emb_size, S = c->num_selected_experts, C = c->key_size;
    int64_t own = em_range_size(em_layout_tokens(layout, T, rank));
    int64_t heads = em_layout_heads(layout, rank).count, kv_heads = em_layout_kv_heads(layout, rank).count;
    int64_t routed = 2 * T * S * em_layout_num_experts(layout, rank) / c->num_experts;
    if (routed > T * S) routed = T * S;
    node_counts nodes = count_nodes(layout, rank);
    /* a quarter more: see em_shared_room */
    int64_t parts = larger(T * nodes.heads_here, routed * nodes.slices_here) * D * 5 / 4;
    int64_t came = (larger(larger(T, routed), own * nodes.heads) + own * nodes.slices * S) * D;
    int64_t in_attention = T * C * (3 * heads + 2 * kv_heads);
    int64_t in_experts = routed * D + 256 * layout->slice_size * 2;
    int64_t in_output = T * em_layout_vocab_held(layout, rank);
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
    int64_t there = em_memory_available(), left = em_memory_left();
    gethostname(name, sizeof name - 1);
    em_bytes((double)mine, rank_text);
    em_bytes((double)weights, weights_text);
    if (mine > left)
        em_fail(status, EM_BAD_DATA,
                "the model does not fit: rank %d on %s needs %s (%s of it weights), but ulimit -v or -d leaves it %s; "
                "raise "
                "that, or use more ranks, fewer layers or a smaller storage type",
                rank, name, rank_text, weights_text, em_bytes((double)left, there_text));
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

bool em_loops_agree(MPI_Comm comm, int threads, em_status *status)
{
    em_isa isa;
    em_isa_choose(&isa, status);
    if (!em_agree(comm, status)) return false;
    int set = (int)isa;
    MPI_Allreduce(MPI_IN_PLACE, &set, 1, MPI_INT, MPI_MIN, comm);
    em_isa_use((em_isa)set);
    em_threads_use(threads > 0 ? threads : em_cores(comm));
    return true;
}

/* Collective. */
static bool can_compute(MPI_Comm comm, const em_source *source, em_manner manner, em_status *status)
{
    if (!em_loops_agree(comm, manner.threads, status)) return false;
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

bool em_model_open(em_model *model, MPI_Comm comm, const em_source *source, const em_layout *layout, em_extent extent,
                   em_manner manner, em_progress *progress, void *context, em_status *status)
{
    *model = (em_model){.config = source->config,
                        .layout = *layout,
                        .compute = manner.compute,
                        .numerics = manner.numerics,
                        .arrival = {.flat = manner.flat}};
    MPI_Comm_dup(comm, &model->comm);
    MPI_Errhandler handler = em_mpi_error_handler();
    MPI_Comm_set_errhandler(model->comm, handler);
    MPI_Errhandler_free(&handler);
    MPI_Comm_rank(model->comm, &model->rank);
    MPI_Comm_size(model->comm, &model->num_ranks);
    model->head_cover = em_head_cover(&model->layout);
    model->expert_covers = em_expert_covers(&model->layout);
    model->inputs = em_zeroed(2 + em_layout_heads(&model->layout, model->rank).count, sizeof(em_inputs));
    if (can_compute(model->comm, source, manner, status) && open_arrays(model, status) &&
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
    em_covers_free(&model->expert_covers);
    for (int64_t i = 0; i < 2 + em_layout_heads(&model->layout, model->rank).count; i++)
        em_inputs_free(&model->inputs[i]);
    free(model->inputs);
    for (int i = 0; i < EM_NUM_ROOMS; i++) em_room_free(&model->room[i]);
    em_arrival_free(&model->arrival);
    em_arrival_free(&model->home);
    em_shared_close(model->x);
    em_shared_close(model->parts);
    if (model->comm != MPI_COMM_NULL) MPI_Comm_free(&model->comm);
    *model = (em_model){.comm = MPI_COMM_NULL};
}
