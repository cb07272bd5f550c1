#include "trace_file.h"

#include "expertmesh/version.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int64_t em_trace_axis_size(const em_trace *trace, em_axis axis)
{
    const em_config *c = &trace->config;
    const int64_t size[EM_NUM_AXES] = {
        [EM_AXIS_LAYER] = trace->kept_layers,  [EM_AXIS_TOKEN] = trace->kept_tokens,
        [EM_AXIS_EMB] = c->emb_size,           [EM_AXIS_Q_HEAD] = c->num_q_heads,
        [EM_AXIS_KV_HEAD] = c->num_kv_heads,   [EM_AXIS_HEAD_DIM] = c->key_size,
        [EM_AXIS_EXPERT] = c->num_experts,     [EM_AXIS_CHOICE] = c->num_selected_experts,
        [EM_AXIS_NEURON] = c->ffn_size,        [EM_AXIS_VOCAB] = c->vocab_size,
        [EM_AXIS_SOURCE_RANK] = trace->places, [EM_AXIS_RANK] = trace->places,
        [EM_AXIS_PHASE] = EM_NUM_PHASES,       [EM_AXIS_MEMORY] = EM_NUM_MEMORIES,
        [EM_AXIS_STEP] = trace->steps,         [EM_AXIS_EVENT] = em_profile_room(c->num_layers),
        [EM_AXIS_FIELD] = EM_NUM_FIELDS,       [EM_AXIS_REACH] = EM_NUM_REACHES,
    };
    return size[axis];
}

bool em_trace_keeps(const em_trace *trace, em_quantity quantity)
{
    return !em_quantity_optional(quantity) || (trace->wanted >> quantity & 1) != 0;
}

static bool add_axis(em_trace *trace, em_store *store, em_axis axis, em_status *status)
{
    const char *name = em_axes[axis].name;
    int64_t size = em_trace_axis_size(trace, axis), *label = em_alloc(size, sizeof *label);
    for (int64_t i = 0; i < size; i++) label[i] = i;
    for (int64_t i = 0; axis == EM_AXIS_LAYER && i < trace->config.num_layers; i++)
        if (trace->layer_place[i] >= 0) label[trace->layer_place[i]] = i;
    for (int64_t i = 0; axis == EM_AXIS_TOKEN && i < trace->rows; i++)
        if (trace->token_place[i] >= 0) label[trace->token_place[i]] = i;
    const char *const *const words_of[EM_NUM_AXES] = {[EM_AXIS_PHASE] = em_phase_names,
                                                      [EM_AXIS_MEMORY] = em_memory_names,
                                                      [EM_AXIS_REACH] = em_reach_names,
                                                      [EM_AXIS_FIELD] = em_field_names};
    const char *const *words = words_of[axis];
    bool good = words ? em_store_add_word_axis(store, name, size, words, status)
                      : em_store_add_axis(store, name, size, label, status);
    free(label);
    return good && em_store_put_text(store, name, "long_name", em_axes[axis].long_name, status);
}

/* Only axes that some dataset has. */
static bool add_axes(em_trace *trace, em_store *store, const em_trace_request *request, em_status *status)
{
    bool used[EM_NUM_AXES] = {[EM_AXIS_VOCAB] = request->token_text != NULL}, good = true;
    for (em_quantity q = 0; q < EM_NUM_QUANTITIES; q++)
        for (int i = 0; i < em_quantities[q].num_axes; i++) used[em_quantities[q].axis[i]] |= em_trace_keeps(trace, q);
    for (em_axis a = 0; good && a < EM_NUM_AXES; a++) good = !used[a] || add_axis(trace, store, a, status);
    return good;
}

static bool add_quantity(em_trace *trace, em_store *store, em_quantity quantity, em_status *status)
{
    const em_quantity_info *info = &em_quantities[quantity];
    em_dataset *data = &trace->data[quantity];
    *data = (em_dataset){.type = info->type, .rank = info->num_axes};
    snprintf(data->name, sizeof data->name, "/%s", info->name);
    for (int i = 0; i < info->num_axes; i++) data->dims[i] = em_trace_axis_size(trace, info->axis[i]);
    bool good = em_store_add(store, data, status) &&
                em_store_put_text(store, data->name, "long_name", info->long_name, status) &&
                em_store_put_text(store, data->name, "units", info->units ? info->units : "1", status);
    if (good && info->tl_name) good = em_store_put_text(store, data->name, "tl_name", info->tl_name, status);
    for (int i = 0; good && i < info->num_axes; i++)
        good = em_store_attach(store, data->name, i, em_axes[info->axis[i]].name, status);
    return good;
}

static bool add_token_text(const em_trace *trace, em_store *store, const em_trace_request *request, em_status *status)
{
    if (!request->token_text) return true;
    return em_store_add_words(store, "token_text", trace->config.vocab_size, request->token_text, status) &&
           em_store_put_text(store, "token_text", "long_name", "piece of the tokenizer by token", status) &&
           em_store_attach(store, "token_text", 0, em_axes[EM_AXIS_VOCAB].name, status);
}

static bool add_counter(em_store *store, const char *name, const char *meaning, em_dataset *data, em_status *status)
{
    *data = (em_dataset){.type = EM_TYPE_INT64, .rank = 0};
    snprintf(data->name, sizeof data->name, "/%s", name);
    return em_store_add(store, data, status) && em_store_put_text(store, name, "long_name", meaning, status);
}

static bool put_provenance(const em_trace *trace, em_store *store, const em_trace_request *request, em_status *status)
{
    char host[256] = "", date[64], mpi[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    time_t now = time(NULL);
    gethostname(host, sizeof host - 1);
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime(&now));
    MPI_Get_library_version(mpi, &length);
    const char *job = getenv("SLURM_JOB_ID");
    char *config = em_config_json(&trace->config);
    bool good = em_store_put_text(store, "/", "format", "expertmesh-trace", status) &&
                em_store_put_int(store, "/", "format_version", 1, status) &&
                em_store_put_text(store, "/", "creator", "expertmesh", status) &&
                em_store_put_text(store, "/", "creator_version", EM_VERSION, status) &&
                em_store_put_text(store, "/", "git_revision", EM_GIT_REVISION, status) &&
                em_store_put_text(store, "/", "command_line", request->command_line, status) &&
                em_store_put_text(store, "/", "date_created", date, status) &&
                em_store_put_text(store, "/", "hostname", host, status) &&
                em_store_put_int(store, "/", "num_ranks", trace->num_ranks, status) &&
                em_store_put_text(store, "/", "mpi_library", mpi, status) &&
                em_store_put_int(store, "/", "seed", (int64_t)request->seed, status) &&
                em_store_put_text(store, "/", "weights", request->weights, status) &&
                em_store_put_text(store, "/", "config_json", config, status) &&
                em_store_put_int(store, "/", "complete", 0, status);
    if (good && request->layout) good = em_store_put_text(store, "/", "layout", request->layout, status);
    if (good && request->numerics) good = em_store_put_text(store, "/", "numerics", request->numerics, status);
    if (good && job) good = em_store_put_text(store, "/", "slurm_job_id", job, status);
    free(config);
    return good;
}

bool em_trace_create_structure(em_trace *trace, const char *path, const em_trace_request *request, em_status *status)
{
    em_store *store = em_store_create(path, status);
    bool good = store && put_provenance(trace, store, request, status) && add_axes(trace, store, request, status) &&
                add_token_text(trace, store, request, status);
    for (em_quantity q = 0; good && q < EM_NUM_QUANTITIES; q++)
        good = !em_trace_keeps(trace, q) || add_quantity(trace, store, q, status);
    good = good && add_counter(store, "run_id", "a random number of this run", &trace->run_id, status) &&
           add_counter(store, "layers_done", "layers that are whole for all tokens of the step at hand",
                       &trace->layers_done, status) &&
           add_counter(store, "step_tokens", "tokens of the step at hand; they follow the first tokens_done",
                       &trace->step_tokens, status) &&
           add_counter(store, "tokens_done", "tokens, in the order they were run, that are whole in every quantity",
                       &trace->tokens_done, status) &&
           add_counter(store, "stopped", "1: the run was stopped after a checkpoint, and can go on", &trace->stopped,
                       status) &&
           add_counter(store, "resumes", "how often the run went on from a checkpoint", &trace->resumes, status);
    return em_store_close(store, status) && good;
}
