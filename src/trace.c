#include "trace_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

bool em_output_check(const char *path, bool force, em_status *status)
{
    struct stat info;
    char *copy = em_text("%s", path);
    const char *folder = dirname(copy);
    if (path[0] == '\0')
        em_fail(status, EM_CANNOT_WRITE, "the name of the output file is empty");
    else if (stat(folder, &info) != 0)
        em_fail(status, EM_CANNOT_WRITE, "%s: its folder %s: %s", path, folder, strerror(errno));
    else if (!S_ISDIR(info.st_mode))
        em_fail(status, EM_CANNOT_WRITE, "%s: %s is not a folder", path, folder);
    else if (stat(path, &info) == 0 && !S_ISREG(info.st_mode))
        em_fail(status, EM_CANNOT_WRITE, "%s: not a plain file", path);
    else if (stat(path, &info) == 0 && !force)
        em_fail(status, EM_CANNOT_WRITE, "%s: is there already; --force replaces it", path);
    else if (access(folder, W_OK) != 0)
        em_fail(status, EM_CANNOT_WRITE, "%s: its folder %s: %s", path, folder, strerror(errno));
    free(copy);
    return status->code == EM_OK;
}

/* ---- creating ---- */

/* Places of the kept things among all. */
static int64_t *place_kept(int64_t all, const int64_t *kept, int64_t num_kept)
{
    int64_t *place = em_alloc(all, sizeof *place);
    for (int64_t i = 0; i < all; i++) place[i] = kept ? -1 : i;
    for (int64_t i = 0; kept && i < num_kept; i++) place[kept[i]] = i;
    return place;
}

static bool open_file(em_trace *trace, const char *path, em_status *status)
{
    if (!em_bulk_open(&trace->bulk, path, status)) return false;
    trace->writer = em_writer_start(&trace->bulk, trace->queue);
    return true;
}

/* With everything that was put in it, and on the disk. */
bool em_trace_close_file(em_trace *trace, em_status *status)
{
    em_writer_drain(trace->writer, status);
    em_writer_stop(trace->writer);
    trace->writer = NULL;
    em_bulk_close(&trace->bulk, status);
    return status->code == EM_OK;
}

void em_trace_put_count(em_trace *trace, const em_dataset *counter, int64_t count)
{
    em_writer_put(trace->writer, counter, 1, 0, 1, 0, 1, &count, 1);
}

static void put_tokens(em_trace *trace, const em_batch *tokens, int64_t row)
{
    em_trace_put(trace, EM_TOKEN_IDS, 0, row, tokens->num_tokens, 0, 1, tokens->token_id, 1);
    em_trace_put(trace, EM_SEQUENCE, 0, row, tokens->num_tokens, 0, 1, tokens->sequence, 1);
    em_trace_put(trace, EM_POSITION, 0, row, tokens->num_tokens, 0, 1, tokens->position, 1);
}

/* Everything that is known before the run, under a name of its own; then the final name. */
static void create_file(em_trace *trace, const em_trace_request *request, const em_batch *prompts, em_status *status)
{
    char *partial = em_text("%s.partial", trace->path);
    if (em_trace_create_structure(trace, partial, request, status) && open_file(trace, partial, status)) {
        em_bulk_reserve(&trace->bulk, status);
        em_trace_put_count(trace, &trace->run_id, trace->id);
        put_tokens(trace, prompts, 0);
        em_trace_close_file(trace, status);
    }
    if (status->code == EM_OK && rename(partial, trace->path) != 0)
        em_fail(status, EM_CANNOT_WRITE, "%s: cannot be renamed to %s: %s", partial, trace->path, strerror(errno));
    if (status->code != EM_OK) unlink(partial);
    free(partial);
}

/* What a request keeps, counted. */
static em_trace counted(const em_trace_request *request, const em_config *config, int num_ranks)
{
    return (em_trace){.num_ranks = num_ranks,
                      .places = num_ranks,
                      .wanted = request->wanted,
                      .config = *config,
                      .rows = request->rows,
                      .weights_bytes = request->weights_bytes,
                      .steps = request->steps,
                      .kept_layers = request->layers ? request->num_layers : config->num_layers,
                      .kept_tokens = request->tokens ? request->num_tokens : request->rows,
                      .bulk = {.file = -1}};
}

/* What a request keeps, without a file. Freed with em_trace_free. */
em_trace *em_trace_new(const em_trace_request *request, const em_config *config, int num_ranks)
{
    em_trace *trace = em_alloc(1, sizeof *trace);
    *trace = counted(request, config, num_ranks);
    trace->path = em_text("%s", request->path);
    trace->layer_place = place_kept(config->num_layers, request->layers, request->num_layers);
    trace->token_place = place_kept(request->rows, request->tokens, request->num_tokens);
    return trace;
}

int64_t em_trace_bytes(const em_trace_request *request, const em_config *config, int num_ranks)
{
    const double most = 1e17; /* still a number where it is added to others */
    em_trace trace = counted(request, config, num_ranks);
    double sum = 0;
    for (em_quantity q = 0; q < EM_NUM_QUANTITIES; q++) {
        double bytes = (double)em_type_bytes(em_quantities[q].type);
        for (int i = 0; i < em_quantities[q].num_axes; i++)
            bytes *= (double)em_trace_axis_size(&trace, em_quantities[q].axis[i]);
        if (em_trace_keeps(&trace, q)) sum += bytes;
    }
    return (int64_t)(sum < most ? sum : most);
}

int64_t em_trace_queue(const em_trace_request *request, const em_config *config, int num_ranks)
{
    if (!request->path) return 0;
    int64_t most = request->queue > 0 ? request->queue : EM_TRACE_QUEUE;
    int64_t all = em_trace_bytes(request, config, num_ranks) + 4 * EM_WRITER_BLOCK;
    return all < most ? all : most;
}

/* Open what rank 0 created: a file of this name in another folder, or on another host's disk, is not it. */
static void open_same_file(em_trace *trace, em_status *status)
{
    int64_t id = 0;
    int file = open(trace->path, O_RDONLY | O_CLOEXEC);
    bool same =
        file >= 0 && pread(file, &id, sizeof id, (off_t)trace->run_id.offset) == (ssize_t)sizeof id && id == trace->id;
    if (file >= 0) close(file);
    if (same)
        open_file(trace, trace->path, status);
    else
        em_fail(status, EM_CANNOT_WRITE,
                "%s: rank %d does not see the file that rank 0 created; it must be on a file system "
                "that all ranks share",
                trace->path, trace->rank);
}

bool em_trace_open_alike(em_trace *trace, em_status *status)
{
    if (!em_agree(trace->comm, status)) return false;
    MPI_Bcast(trace->data, (int)sizeof trace->data, MPI_BYTE, 0, trace->comm);
    MPI_Bcast(&trace->run_id, (int)sizeof trace->run_id, MPI_BYTE, 0, trace->comm);
    MPI_Bcast(&trace->id, 1, MPI_INT64_T, 0, trace->comm);
    MPI_Bcast(&trace->places, 1, MPI_INT, 0, trace->comm);
    open_same_file(trace, status);
    return em_agree(trace->comm, status);
}

em_trace *em_trace_create(MPI_Comm comm, const em_trace_request *request, const em_config *config,
                          const em_batch *prompts, em_status *status)
{
    int num_ranks;
    MPI_Comm_size(comm, &num_ranks);
    em_trace *trace = em_trace_new(request, config, num_ranks);
    trace->comm = comm;
    trace->queue = em_trace_queue(request, config, num_ranks);
    MPI_Comm_rank(comm, &trace->rank);
    if (trace->rank == 0) getrandom(&trace->id, sizeof trace->id, 0);
    if (trace->rank == 0 && em_output_check(request->path, request->force, status))
        create_file(trace, request, prompts, status);
    if (em_trace_open_alike(trace, status)) return trace;
    em_trace_free(trace);
    return NULL;
}

/* ---- recording ---- */

bool em_trace_wants(const em_trace *trace, em_quantity quantity, int64_t layer)
{
    if (!trace || !em_trace_keeps(trace, quantity)) return false;
    return em_quantities[quantity].axis[0] != EM_AXIS_LAYER || trace->layer_place[layer] >= 0;
}

/* Numbers that a quantity holds a token. */
static int64_t width_of(const em_trace *trace, em_quantity quantity)
{
    const em_quantity_info *info = &em_quantities[quantity];
    int64_t width = 1;
    for (int i = info->axis[0] == EM_AXIS_LAYER ? 2 : 1; i < info->num_axes; i++)
        width *= trace->data[quantity].dims[i];
    return width;
}

void em_trace_put(em_trace *trace, em_quantity quantity, int64_t layer, int64_t row, int64_t rows, int64_t col,
                  int64_t cols, const void *data, int64_t stride)
{
    if (!em_trace_wants(trace, quantity, layer)) return;
    const em_dataset *to = &trace->data[quantity];
    bool layered = em_quantities[quantity].axis[0] == EM_AXIS_LAYER;
    int64_t first_row = layered ? trace->layer_place[layer] * trace->kept_tokens : 0;
    int64_t width = width_of(trace, quantity), end = row + rows, run;
    for (int64_t t = row; t < end; t += run) {
        int64_t place = trace->token_place[t];
        for (run = 1; t + run < end && place >= 0 && trace->token_place[t + run] == place + run;) run++;
        if (place < 0) continue;
        em_writer_put(trace->writer, to, width, first_row + place, run, col, cols,
                      (const char *)data + (t - row) * stride * (int64_t)em_type_bytes(to->type), stride);
    }
}

void em_trace_exchange(em_trace *trace, int64_t layer, const int64_t *dispatch_rows, const int64_t *expert_load)
{
    if (!trace || trace->layer_place[layer] < 0) return;
    int64_t P = trace->places, E = trace->config.num_experts, place = trace->layer_place[layer];
    if (trace->num_ranks == trace->places)
        em_writer_put(trace->writer, &trace->data[EM_DISPATCH_ROWS], P, place * P + trace->rank, 1, 0, P, dispatch_rows,
                      P);
    if (trace->rank == 0) em_writer_put(trace->writer, &trace->data[EM_EXPERT_LOAD], E, place, 1, 0, E, expert_load, E);
}

/* ---- counting ---- */

/* The counter may say so when every rank has passed the newest mark. On rank 0 only. */
static void count_later(em_trace *trace, const em_dataset *counter, int64_t value)
{
    if (trace->rank != 0) return;
    if (trace->num_due == trace->room) {
        int room = trace->room > 0 ? 2 * trace->room : 64;
        trace->due = em_grow(trace->due, trace->num_due, room, sizeof *trace->due);
        trace->room = room;
    }
    trace->due[trace->num_due++] = (due_count){trace->marks, counter, value};
}

/* All ranks have passed so many marks. */
static void count_passed(em_trace *trace, int64_t passed)
{
    int count = 0;
    for (; count < trace->num_due && trace->due[count].mark <= passed; count++)
        em_trace_put_count(trace, trace->due[count].counter, trace->due[count].value);
    trace->num_due -= count;
    memmove(trace->due, trace->due + count, (size_t)trace->num_due * sizeof *trace->due);
}

/* After this all ranks know how far all have come, or that one failed; none waits for a disk. */
static bool agree_passed(em_trace *trace, em_status *status)
{
    int64_t passed = em_writer_passed(trace->writer, status);
    MPI_Allreduce(MPI_IN_PLACE, &passed, 1, MPI_INT64_T, MPI_MIN, trace->comm);
    if (passed < 0) return em_agree(trace->comm, status);
    if (trace->num_due > 0) count_passed(trace, passed);
    return true;
}

/* How many of the first rows are kept. */
int64_t em_trace_kept_of(const em_trace *trace, int64_t rows)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < rows; i++) kept += trace->token_place[i] >= 0;
    return kept;
}

void em_trace_step(em_trace *trace, const em_batch *tokens, int64_t first_row)
{
    if (!trace || trace->rank != 0) return;
    count_later(trace, &trace->layers_done, 0);
    count_later(trace, &trace->step_tokens,
                em_trace_kept_of(trace, first_row + tokens->num_tokens) - em_trace_kept_of(trace, first_row));
    put_tokens(trace, tokens, first_row);
}

bool em_trace_layer(em_trace *trace, int64_t layer, em_status *status)
{
    if (!trace || trace->layer_place[layer] < 0) return true;
    trace->marks = em_writer_mark(trace->writer);
    count_later(trace, &trace->layers_done, trace->layer_place[layer] + 1);
    return agree_passed(trace, status);
}

bool em_trace_step_done(em_trace *trace, int64_t rows, em_status *status)
{
    if (!trace) return true;
    trace->marks = em_writer_mark(trace->writer);
    count_later(trace, &trace->step_tokens, 0);
    count_later(trace, &trace->tokens_done, em_trace_kept_of(trace, rows));
    return agree_passed(trace, status);
}

/* ---- events ---- */

static int64_t event_width(const em_trace *trace)
{
    return em_profile_room(trace->config.num_layers) * EM_NUM_FIELDS;
}

/* Nobody is at the places past this run's ranks, whoever was there when the held steps were run before. */
static void put_nobody(em_trace *trace, int64_t width)
{
    const em_held_events *held = &trace->held;
    double *none = em_zeroed(held->steps * width, sizeof *none);
    for (int place = trace->num_ranks; place < trace->places; place++)
        em_writer_put(trace->writer, &trace->data[EM_EVENTS], width, place * trace->steps + held->first, held->steps, 0,
                      width, none, width);
    free(none);
}

/* Of a rank all steps lie beside each other in the file: one write. */
static void put_events(em_trace *trace)
{
    em_held_events *held = &trace->held;
    int64_t width = event_width(trace);
    if (held->steps == 0) return;
    em_writer_put(trace->writer, &trace->data[EM_EVENTS], width, trace->rank * trace->steps + held->first, held->steps,
                  0, width, held->event, width);
    if (trace->rank == 0 && trace->num_ranks < trace->places) put_nobody(trace, width);
    if (trace->rank == 0)
        em_writer_put(trace->writer, &trace->data[EM_STEP_ROWS], 1, held->first, held->steps, 0, 1, held->tokens, 1);
    held->steps = 0;
}

static void hold_events(em_held_events *held, int64_t width, const em_profile *profile, int64_t step, int64_t tokens)
{
    if (held->steps == 0) {
        held->first = step;
        held->since = profile->event->begin;
    }
    held->tokens[held->steps] = tokens;
    double *field = held->event + held->steps * width;
    for (const em_event *e = profile->event; e < profile->event + profile->num_events; e++, field += EM_NUM_FIELDS) {
        field[EM_FIELD_BEGIN] = e->begin - profile->clock.origin;
        field[EM_FIELD_END] = e->end - profile->clock.origin;
        field[EM_FIELD_PHASE] = e->phase;
        field[EM_FIELD_LAYER] = e->layer < profile->num_layers ? (double)e->layer : -1;
        field[EM_FIELD_ROWS] = (double)e->rows;
    }
    held->steps++;
    memset(field, 0, (size_t)(held->event + held->steps * width - field) * sizeof *field);
}

void em_trace_events(em_trace *trace, const em_profile *profile, int64_t step, int64_t tokens)
{
    if (!trace || !em_trace_keeps(trace, EM_EVENTS) || trace->rank >= trace->places || profile->num_events == 0) return;
    em_held_events *held = &trace->held;
    int64_t width = event_width(trace), most = em_trace_event_steps(trace->config.num_layers);
    if (!held->event) {
        held->event = em_alloc(most * width, sizeof *held->event);
        held->tokens = em_alloc(most, sizeof *held->tokens);
    }
    if (step != held->first + held->steps) put_events(trace);
    hold_events(held, width, profile, step, tokens);
    double age = profile->event[profile->num_events - 1].end - held->since;
    if (held->steps == most || age >= EM_TRACE_EVENTS_SECONDS) put_events(trace);
}

bool em_trace_drain(em_trace *trace, em_status *status)
{
    put_events(trace);
    em_writer_drain(trace->writer, status);
    if (!agree_passed(trace, status)) return false;
    em_writer_drain(trace->writer, status); /* the counts */
    return em_agree(trace->comm, status);
}

/* ---- the end ---- */

/* Has a quantity a place for each token? */
static bool has_tokens(em_quantity quantity)
{
    const em_quantity_info *info = &em_quantities[quantity];
    return info->axis[0] == EM_AXIS_TOKEN || (info->num_axes > 1 && info->axis[1] == EM_AXIS_TOKEN);
}

/* NaN or -1 in the rows of one quantity that no token reached. */
static void blank_rows(em_trace *trace, em_quantity quantity, int64_t first, int64_t past)
{
    enum { PIECE = 1 << 16 };
    const em_dataset *data = &trace->data[quantity];
    int64_t width = width_of(trace, quantity), size = (int64_t)em_type_bytes(data->type);
    bool layered = em_quantities[quantity].axis[0] == EM_AXIS_LAYER;
    char *blank = em_alloc(PIECE, 4);
    for (int i = 0; i < PIECE; i++) {
        const float missing = __builtin_nanf("");
        const int32_t none = -1;
        memcpy(blank + i * size, data->type == EM_TYPE_F32 ? (const void *)&missing : (const void *)&none, 4);
    }
    for (int64_t layer = 0; layer < (layered ? trace->kept_layers : 1); layer++) {
        int64_t begin = (layer * trace->kept_tokens + first) * width, end = begin + (past - first) * width;
        for (int64_t i = begin; i < end; i += PIECE) {
            int64_t count = i + PIECE < end ? PIECE : end - i;
            em_writer_put(trace->writer, data, 1, i, count, 0, 1, blank, 1);
        }
    }
    free(blank);
}

/* How far the ranks' clocks agreed. Collective. */
static void put_clock(em_trace *trace, const em_clock *clock)
{
    if (!em_trace_keeps(trace, EM_CLOCK_ERROR)) return;
    double drift = em_clock_drift(clock, trace->comm);
    if (trace->rank >= trace->places) return;
    em_writer_put(trace->writer, &trace->data[EM_CLOCK_ERROR], 1, trace->rank, 1, 0, 1, &clock->error, 1);
    em_writer_put(trace->writer, &trace->data[EM_CLOCK_DRIFT], 1, trace->rank, 1, 0, 1, &drift, 1);
}

/* What a run that ended early did not reach. */
static void blank_rest(em_trace *trace, int64_t rows)
{
    int64_t first = em_trace_kept_of(trace, rows);
    for (em_quantity q = 0; trace->rank == 0 && first < trace->kept_tokens && q < EM_NUM_QUANTITIES; q++)
        if (em_trace_keeps(trace, q) && has_tokens(q)) blank_rows(trace, q, first, trace->kept_tokens);
}

bool em_trace_finish(em_trace *trace, const em_profile *profile, int64_t rows, em_status *status)
{
    if (!trace) return true;
    if (!em_trace_drain(trace, status)) return false; /* every step is whole: now it is counted */
    blank_rest(trace, rows);
    em_trace_put_profile(trace, profile);
    put_clock(trace, &profile->clock);
    em_trace_close_file(trace, status);
    if (!em_agree(trace->comm, status)) return false;
    if (trace->rank == 0) {
        em_store *store = em_store_reopen(trace->path, status);
        if (store) em_store_put_int(store, "/", "complete", 1, status);
        em_store_close(store, status);
    }
    return em_agree(trace->comm, status);
}

void em_trace_free(em_trace *trace)
{
    if (!trace) return;
    em_writer_stop(trace->writer);
    if (trace->bulk.file >= 0) close(trace->bulk.file);
    free(trace->due);
    free(trace->held.event);
    free(trace->held.tokens);
    free(trace->path);
    free(trace->layer_place);
    free(trace->token_place);
    free(trace);
}
