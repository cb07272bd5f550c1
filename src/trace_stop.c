/* A trace whose run stops, and goes on from a checkpoint; declared in trace.h. */
#include "trace_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int64_t em_trace_id(const em_trace *trace)
{
    return trace ? trace->id : 0;
}

/* ---- times, rows and memory of ranks ---- */

/* This rank's numbers of each phase of a layer, width a phase, to its place, and its place's to the file. row: of the
 * dataset. Several ranks at one place add up. */
static void put_phases(em_trace *trace, em_quantity quantity, int64_t row, int64_t width, const void *numbers)
{
    const em_dataset *data = &trace->data[quantity];
    int64_t count = EM_NUM_PHASES * width, all = trace->places * count, col = trace->rank % trace->places * count;
    if (trace->num_ranks == trace->places) {
        em_writer_put(trace->writer, data, all, row, 1, col, count, numbers, count);
        return;
    }
    char *mine = em_zeroed(all, 8), *sum = em_zeroed(all, 8);
    memcpy(mine + col * 8, numbers, (size_t)count * 8);
    MPI_Reduce(mine, sum, (int)all, data->type == EM_TYPE_F64 ? MPI_DOUBLE : MPI_INT64_T, MPI_SUM, 0, trace->comm);
    if (trace->rank == 0) em_writer_put(trace->writer, data, all, row, 1, 0, all, sum, all);
    free(mine);
    free(sum);
}

/* Of one layer, or, with layer num_layers, outside of them: to this row of each dataset. */
static void put_layer(em_trace *trace, const em_profile *profile, int64_t layer, int64_t row)
{
    bool outside = layer == profile->num_layers;
    int64_t bytes[EM_NUM_PHASES * EM_NUM_REACHES];
    const int64_t *rows = profile->rows + layer * EM_NUM_PHASES * EM_NUM_REACHES;
    for (int i = 0; i < EM_NUM_PHASES * EM_NUM_REACHES; i++)
        bytes[i] = rows[i] * trace->config.emb_size * (int64_t)sizeof(float);
    put_phases(trace, outside ? EM_OUTER_SECONDS : EM_PHASE_SECONDS, row, 1, profile->seconds + layer * EM_NUM_PHASES);
    put_phases(trace, outside ? EM_OUTER_EXCHANGE_ROWS : EM_EXCHANGE_ROWS, row, EM_NUM_REACHES, rows);
    put_phases(trace, outside ? EM_OUTER_EXCHANGE_BYTES : EM_EXCHANGE_BYTES, row, EM_NUM_REACHES, bytes);
}

/* The rows that all ranks dispatched in one layer, by place. */
static void put_dispatched(em_trace *trace, int64_t row, const int64_t *dispatched)
{
    int64_t P = trace->places;
    int64_t *mine = em_zeroed(P * P, sizeof *mine), *sum = em_zeroed(P * P, sizeof *sum);
    for (int r = 0; r < trace->num_ranks; r++) mine[trace->rank % P * P + r % P] += dispatched[r];
    MPI_Reduce(mine, sum, (int)(P * P), MPI_INT64_T, MPI_SUM, 0, trace->comm);
    if (trace->rank == 0) em_writer_put(trace->writer, &trace->data[EM_DISPATCH_ROWS], P, row * P, P, 0, P, sum, P);
    free(mine);
    free(sum);
}

/* Of several ranks at one place the most. */
static void put_memory(em_trace *trace)
{
    int64_t bytes[EM_NUM_MEMORIES] = {[EM_MEMORY_WEIGHTS] = trace->weights_bytes, [EM_MEMORY_PEAK] = em_memory_peak()};
    int64_t count = (int64_t)trace->places * EM_NUM_MEMORIES;
    int64_t *mine = em_zeroed(count, sizeof *mine), *most = em_zeroed(count, sizeof *most);
    memcpy(mine + trace->rank % trace->places * EM_NUM_MEMORIES, bytes, sizeof bytes);
    MPI_Reduce(mine, most, (int)count, MPI_INT64_T, MPI_MAX, 0, trace->comm);
    if (trace->rank == 0)
        em_writer_put(trace->writer, &trace->data[EM_MEMORY_BYTES], EM_NUM_MEMORIES, 0, trace->places, 0,
                      EM_NUM_MEMORIES, most, EM_NUM_MEMORIES);
    free(mine);
    free(most);
}

void em_trace_put_profile(em_trace *trace, const em_profile *profile)
{
    for (int64_t layer = 0; layer < profile->num_layers; layer++) {
        int64_t row = trace->layer_place[layer];
        if (row < 0) continue;
        put_layer(trace, profile, layer, row);
        if (trace->num_ranks != trace->places)
            put_dispatched(trace, row, profile->dispatched + layer * trace->num_ranks);
    }
    put_layer(trace, profile, profile->num_layers, 0);
    put_memory(trace);
}

/* ---- stopping ---- */

bool em_trace_sync(em_trace *trace, em_status *status)
{
    if (!trace) return true;
    if (!em_trace_drain(trace, status)) return false;
    em_bulk_sync(&trace->bulk, status);
    return em_agree(trace->comm, status);
}

bool em_trace_stop(em_trace *trace, const em_profile *profile, em_status *status)
{
    if (!trace) return true;
    if (!em_trace_sync(trace, status)) return false;
    em_trace_put_profile(trace, profile);
    if (trace->rank == 0) em_trace_put_count(trace, &trace->stopped, 1);
    em_trace_close_file(trace, status);
    return em_agree(trace->comm, status);
}

/* ---- going on ---- */

static bool find_counter(em_store *store, const char *name, em_dataset *data, int64_t *value, em_status *status)
{
    if (!em_store_find(store, name, data, status)) return false;
    if (data->rank != 0 || data->type != EM_TYPE_INT64 || data->offset < 0)
        return em_fail(status, EM_BAD_DATA, "%s: %s is not one 64-bit integer", em_store_path(store), name);
    return em_store_read_block(store, data, 0, 1, 0, 1, value, status);
}

static bool find_quantity(em_trace *trace, em_store *store, em_quantity quantity, em_status *status)
{
    const em_quantity_info *info = &em_quantities[quantity];
    em_dataset wanted = {.rank = info->num_axes}, *data = &trace->data[quantity];
    for (int i = 0; i < info->num_axes; i++) wanted.dims[i] = em_trace_axis_size(trace, info->axis[i]);
    snprintf(wanted.name, sizeof wanted.name, "/%s", info->name);
    if (!em_store_find(store, wanted.name, data, status)) return false;
    bool same = data->rank == wanted.rank && data->type == info->type && data->offset >= 0;
    for (int i = 0; same && i < wanted.rank; i++) same = data->dims[i] == wanted.dims[i];
    em_dims_text have, want;
    return same || em_fail(status, EM_BAD_DATA, "%s: %s has shape %s, but this run records %s", trace->path, data->name,
                           em_dims(data, have), em_dims(&wanted, want));
}

static bool check_format(em_store *store, em_status *status)
{
    char *format = NULL;
    if (em_store_has_attribute(store, "/", "format") && !em_store_get_text(store, "/", "format", &format, status))
        return false;
    if (!format || strcmp(format, "expertmesh-trace") != 0)
        em_fail(status, EM_BAD_DATA, "%s: not a trace", em_store_path(store));
    free(format);
    return status->code == EM_OK;
}

/* Is it the trace that the run wrote, and has it come as far? Where everything lies is noted. */
static bool read_structure(em_trace *trace, em_store *store, em_trace_place place, int64_t *resumes, int64_t *complete,
                           em_status *status)
{
    int64_t id, tokens, layers, step, stopped, ranks, kept = em_trace_kept_of(trace, place.rows);
    if (!check_format(store, status) || !find_counter(store, "/run_id", &trace->run_id, &id, status) ||
        !em_store_get_int(store, "/", "num_ranks", &ranks, status) ||
        !em_store_get_int(store, "/", "complete", complete, status))
        return false;
    if (id != place.id)
        return em_fail(status, EM_BAD_DATA, "%s: the trace of another run (its run_id is %lld, not %lld)", trace->path,
                       (long long)id, (long long)place.id);
    if (!find_counter(store, "/tokens_done", &trace->tokens_done, &tokens, status) ||
        !find_counter(store, "/layers_done", &trace->layers_done, &layers, status) ||
        !find_counter(store, "/step_tokens", &trace->step_tokens, &step, status) ||
        !find_counter(store, "/stopped", &trace->stopped, &stopped, status) ||
        !find_counter(store, "/resumes", &trace->resumes, resumes, status))
        return false;
    if (tokens < kept)
        return em_fail(status, EM_BAD_DATA,
                       "%s: it holds %lld whole tokens, but the checkpoint was made after %lld: this is an older copy",
                       trace->path, (long long)tokens, (long long)kept);
    trace->places = (int)ranks;
    bool good = true;
    for (em_quantity q = 0; good && q < EM_NUM_QUANTITIES; q++)
        good = !em_trace_keeps(trace, q) || find_quantity(trace, store, q, status);
    return good;
}

/* A run that went on to its end after the checkpoint: the trace is not complete any more. */
static bool reopen(const em_trace *trace, em_status *status)
{
    em_store *store = em_store_reopen(trace->path, status);
    bool good = store && em_store_put_int(store, "/", "complete", 0, status);
    return em_store_close(store, status) && good;
}

static bool find_file(em_trace *trace, em_trace_place place, int64_t *resumes, em_status *status)
{
    int64_t complete = 0;
    if (access(trace->path, R_OK) != 0)
        return em_fail(status, EM_NO_INPUT,
                       "%s: %s; it is the trace that the run is to go on with; --trace says where it is now",
                       trace->path, strerror(errno));
    em_store *store = em_store_open(trace->path, status);
    bool good = store && read_structure(trace, store, place, resumes, &complete, status);
    em_status ignored = {0};
    em_store_close(store, &ignored);
    return good && (complete == 0 || reopen(trace, status));
}

em_trace *em_trace_resume(MPI_Comm comm, const em_trace_request *request, const em_config *config, em_trace_place place,
                          em_status *status)
{
    int num_ranks;
    int64_t resumes = 0;
    MPI_Comm_size(comm, &num_ranks);
    em_trace *trace = em_trace_new(request, config, num_ranks);
    trace->comm = comm;
    trace->queue = em_trace_queue(request, config, num_ranks);
    trace->id = place.id;
    MPI_Comm_rank(comm, &trace->rank);
    if (trace->rank == 0) find_file(trace, place, &resumes, status);
    if (!em_trace_open_alike(trace, status)) {
        em_trace_free(trace);
        return NULL;
    }
    if (trace->rank == 0) { /* at each moment what they count is there */
        em_trace_put_count(trace, &trace->stopped, 0);
        em_trace_put_count(trace, &trace->resumes, resumes + 1);
        em_trace_put_count(trace, &trace->tokens_done, em_trace_kept_of(trace, place.rows));
        em_trace_put_count(trace, &trace->step_tokens, 0);
        em_trace_put_count(trace, &trace->layers_done, place.rows > 0 ? trace->kept_layers : 0);
    }
    return trace;
}
