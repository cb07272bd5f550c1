/* A trace that is written behind the run: at every moment what it counts is whole, on slow disks and with a small queue;
 * a disk that is full on one rank ends the run on all. Events come behind by a bounded number of steps and seconds. */
#include "suite.h"

#include "disk.h"
#include "expertmesh/layout.h"
#include "expertmesh/trace.h"
#include "expertmesh/writer.h"
#include "scratch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LAYERS = 3, STEPS = 6, PROMPT = 24, NEXT = 8, D = 32768, V = 2000, SPARE = 2 };
enum { ROWS = PROMPT + (STEPS - 1) * NEXT, QUEUE = 2 * EM_WRITER_BLOCK };

static int64_t first_row(int64_t step)
{
    return step == 0 ? 0 : PROMPT + (step - 1) * NEXT;
}

/* What a quantity holds at a place. */
static float value_of(em_quantity quantity, int64_t layer, int64_t token, int64_t col)
{
    return (float)((quantity * 7919 + layer * 104729 + token * 1299709 + col * 31) % 1000003);
}

static em_config make_config(void)
{
    em_config config = em_preset_find("tiny")->config;
    config.num_layers = LAYERS;
    config.emb_size = D;
    config.vocab_size = V;
    return config;
}

/* The tokens of a step: one sequence. */
static em_batch make_step(int64_t step)
{
    em_batch batch = {0};
    for (int64_t t = first_row(step); t < first_row(step + 1); t++)
        em_batch_add_next(&batch, (int32_t)(t * 3 % V), 0, (int32_t)t);
    return batch;
}

/* The name of a file that all ranks share, of rank 0's folder. */
static const char *shared_path(const char *name)
{
    static char path[300];
    if (suite_rank() == 0) snprintf(path, sizeof path, "%s", scratch_path(name));
    MPI_Bcast(path, sizeof path, MPI_CHAR, 0, MPI_COMM_WORLD);
    return path;
}

static em_trace *create(const char *path, const em_config *config, em_status *status)
{
    em_trace_request request = {.path = path,
                                .force = true,
                                .wanted = 1U << EM_RESID_POST | 1U << EM_ATTN_OUT | 1U << EM_LOGITS,
                                .rows = ROWS + SPARE,
                                .queue = QUEUE,
                                .weights = "none",
                                .command_line = "test"};
    CU_ASSERT_EQUAL(em_trace_queue(&request, config, suite_size()), QUEUE);
    em_batch prompts = make_step(0);
    em_trace *trace = em_trace_create(MPI_COMM_WORLD, &request, config, &prompts, status);
    em_batch_free(&prompts);
    return trace;
}

/* A block of a quantity. */
static void put(em_trace *trace, em_quantity quantity, int64_t layer, em_range rows, em_range cols)
{
    int64_t n = em_range_size(rows), width = em_range_size(cols);
    float *data = em_alloc(n * width, sizeof *data);
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < width; c++)
            data[i * width + c] = value_of(quantity, layer, rows.begin + i, cols.begin + c);
    em_trace_put(trace, quantity, layer, rows.begin, n, cols.begin, width, data, width);
    free(data);
}

/* This rank's tokens of a step's, or its columns of a row. */
static em_range share_of(int64_t begin, int64_t count)
{
    em_range share = em_share(count, suite_size(), suite_rank());
    return (em_range){begin + share.begin, begin + share.end};
}

/* ---- what is in the file ---- */

typedef struct counts {
    int64_t layers, step, tokens;
} counts;

static int64_t count_in(em_store *store, const char *name)
{
    em_dataset data;
    em_status status = {0};
    int64_t count = -1;
    CU_ASSERT(em_store_find(store, name, &data, &status) &&
              em_store_read_block(store, &data, 0, 1, 0, 1, &count, &status));
    return count;
}

/* The three at one moment: read until none has changed. */
static counts counts_in(em_store *store)
{
    counts now = {-1, -1, -1}, before;
    do {
        before = now;
        now =
            (counts){count_in(store, "/layers_done"), count_in(store, "/step_tokens"), count_in(store, "/tokens_done")};
    } while (memcmp(&before, &now, sizeof now) != 0);
    return now;
}

/* Numbers of some tokens of a layer that are not the formula's. */
static int64_t wrong_in(em_store *store, em_quantity quantity, int64_t layer, int64_t first, int64_t past)
{
    em_dataset data;
    em_status status = {0};
    char *name = em_text("/%s", em_quantities[quantity].name);
    CU_ASSERT(em_store_find(store, name, &data, &status));
    int64_t width = data.dims[data.rank - 1], wrong = 0;
    float *row = em_alloc(width, sizeof *row);
    for (int64_t t = first; t < past; t++) {
        CU_ASSERT(em_store_read_block(store, &data, layer * (ROWS + SPARE) + t, 1, 0, width, row, &status));
        for (int64_t c = 0; c < width; c++) wrong += row[c] != value_of(quantity, layer, t, c);
    }
    free(row);
    free(name);
    return wrong;
}

/* What the file counts must be whole. Returns the counts. Rank 0. */
static counts check_counted(const char *path, counts checked)
{
    em_status status = {0};
    em_store *store = em_store_open(path, &status);
    counts now = counts_in(store);
    int64_t wrong = 0;
    CU_ASSERT(now.tokens >= checked.tokens && now.tokens + now.step <= ROWS);
    for (int64_t layer = 0; layer < LAYERS; layer++) {
        int64_t past = layer < now.layers ? now.tokens + now.step : now.tokens;
        wrong += wrong_in(store, EM_RESID_POST, layer, checked.tokens, past);
        wrong += wrong_in(store, EM_ATTN_OUT, layer, checked.tokens, past);
    }
    CU_ASSERT_EQUAL(wrong + wrong_in(store, EM_LOGITS, 0, checked.tokens, now.tokens), 0);
    em_store_close(store, &status);
    return now;
}

/* ---- runs ---- */

/* What a rank computes and puts in a step. */
static bool run_step(em_trace *trace, int64_t step, const char *path, counts *seen, em_status *status)
{
    int64_t row = first_row(step), past = first_row(step + 1);
    em_batch tokens = make_step(step);
    bool good = true;
    em_trace_step(trace, &tokens, row);
    for (int64_t layer = 0; good && layer < LAYERS; layer++) {
        put(trace, EM_RESID_POST, layer, share_of(row, past - row), (em_range){0, D});
        put(trace, EM_ATTN_OUT, layer, (em_range){row, past}, share_of(0, D));
        good = em_trace_layer(trace, layer, status);
        if (suite_rank() == 0) *seen = check_counted(path, *seen);
    }
    if (good) {
        put(trace, EM_LOGITS, 0, (em_range){row, past}, share_of(0, V));
        good = em_trace_step_done(trace, past, status);
    }
    em_batch_free(&tokens);
    return good;
}

/* A run on which each rank's disk has its faults. */
static counts run_all(const char *path, disk_faults faults, em_status *status)
{
    em_config config = make_config();
    em_profile profile;
    counts seen = {0};
    bool good = true;
    em_trace *trace = create(path, &config, status);
    em_profile_open(&profile, LAYERS, config.num_experts, suite_size());
    disk_set(faults);
    for (int64_t step = 0; good && step < STEPS; step++) good = run_step(trace, step, path, &seen, status);
    if (good) em_trace_finish(trace, &profile, ROWS, status);
    em_trace_free(trace);
    disk_set((disk_faults){0});
    em_profile_close(&profile);
    MPI_Barrier(MPI_COMM_WORLD);
    return suite_rank() == 0 ? check_counted(path, (counts){0}) : seen;
}

static void check_complete(const char *path, counts seen)
{
    em_status status = {0};
    em_dataset data;
    int64_t complete = 0;
    float rest[SPARE * V];
    em_store *store = em_store_open(path, &status);
    CU_ASSERT(seen.layers == LAYERS && seen.step == 0 && seen.tokens == ROWS);
    CU_ASSERT(em_store_get_int(store, "/", "complete", &complete, &status) && complete == 1);
    CU_ASSERT(em_store_find(store, "/logits", &data, &status) &&
              em_store_read_block(store, &data, ROWS, SPARE, 0, V, rest, &status));
    for (int i = 0; i < SPARE * V; i++)
        if (!isnan(rest[i])) CU_ASSERT_EQUAL(i, -1);
    em_store_close(store, &status);
}

/* Several times the queue passes through it; slow on all ranks, on the first, on the last, or on none. */
static void test_slow_disks(void)
{
    int last = suite_size() - 1;
    for (int slow = 0; slow < 4; slow++) {
        em_status status = {0};
        bool here = slow == 1 || (slow == 2 && suite_rank() == 0) || (slow == 3 && suite_rank() == last);
        const char *path = shared_path("slow.h5");
        counts seen = run_all(path, (disk_faults){.slow = here ? 300 : 0}, &status);
        CU_ASSERT_STRING_EQUAL(status.text, "");
        if (suite_rank() == 0) check_complete(path, seen);
    }
}

/* From one of its writes on the disk of one rank is full: all ranks hear the same of it. */
static void test_full_disk(void)
{
    for (long full = 1; full < 50; full = full * 3 + 1) {
        int victim = (int)(full % suite_size());
        em_status status = {0};
        disk_faults faults = {.slow = 50, .full = suite_rank() == victim ? full : 0};
        counts seen = run_all(shared_path("full.h5"), faults, &status);
        CU_ASSERT_EQUAL(status.code, EM_CANNOT_WRITE);
        CU_ASSERT_PTR_NOT_NULL(strstr(status.text, "cannot be written: No space left on device"));
        CU_ASSERT(suite_rank() != 0 || seen.tokens < ROWS);
        MPI_Barrier(MPI_COMM_WORLD);
    }
}

/* A small trace has a small queue; what a run holds is never more than the bound. */
static void test_queue(void)
{
    em_config config = make_config();
    em_trace_request request = {.path = "none.h5", .rows = 2};
    CU_ASSERT(em_trace_queue(&request, &config, 1) < 8 * EM_WRITER_BLOCK);
    CU_ASSERT(em_trace_queue(&request, &config, 1) >= em_trace_bytes(&request, &config, 1));
    request = (em_trace_request){.path = "none.h5", .rows = 1000000, .wanted = UINT64_MAX};
    CU_ASSERT_EQUAL(em_trace_queue(&request, &config, 1), EM_TRACE_QUEUE);
    request.path = NULL;
    CU_ASSERT_EQUAL(em_trace_queue(&request, &config, 1), 0);
}

/* ---- events ---- */

/* What a rank did in a step, in which it had so many events. From step `late` on all is 2 s later; again: the step is run anew. */
enum { LATE = 2 };
static em_event event_of(int64_t step, int rank, int64_t i, int64_t late, bool again)
{
    double begin = 1e-3 * (double)step + 1e-6 * (double)i + (step >= late ? LATE : 0) + (again ? 10 : 0);
    return (em_event){begin, begin + 5e-7, i % (LAYERS + 1), (em_phase)(i % EM_NUM_PHASES), i * 3 + rank};
}

static int64_t events_of(int64_t step, int rank, bool again)
{
    return 1 + (step * 7 + rank + (again ? 3 : 0)) % em_profile_room(LAYERS);
}

static em_trace_request events_request(const char *path, int64_t steps)
{
    return (em_trace_request){.path = path,
                              .force = true,
                              .wanted = UINT64_C(1) << EM_STEP_ROWS | UINT64_C(1) << EM_EVENTS |
                                        UINT64_C(1) << EM_CLOCK_ERROR | UINT64_C(1) << EM_CLOCK_DRIFT,
                              .rows = steps,
                              .steps = steps,
                              .weights = "none",
                              .command_line = "test"};
}

/* A step of one token. */
static void run_event_step(em_trace *trace, em_profile *profile, int rank, int64_t step, int64_t late, bool again)
{
    em_status status = {0};
    em_batch tokens = {0};
    em_batch_add_next(&tokens, 1, 0, (int32_t)step);
    em_trace_step(trace, &tokens, step);
    bool good = true;
    for (int64_t layer = 0; layer < LAYERS; layer++) good = good && em_trace_layer(trace, layer, &status);
    CU_ASSERT(good && em_trace_step_done(trace, step + 1, &status));
    profile->num_events = events_of(step, rank, again);
    for (int64_t i = 0; i < profile->num_events; i++) profile->event[i] = event_of(step, rank, i, late, again);
    em_trace_events(trace, profile, step, 1);
    em_batch_free(&tokens);
}

static double *read_all(em_store *store, const char *name, em_dataset *data)
{
    em_status status = {0};
    CU_ASSERT(em_store_find(store, name, data, &status));
    int64_t width = data->dims[data->rank - 1], rows = em_dataset_count(data) / width;
    double *all = em_alloc(rows * width, sizeof *all);
    CU_ASSERT(em_store_read_block(store, data, 0, rows, 0, width, all, &status));
    return all;
}

/* Of a rank the first steps whose every event is in the file; the first of these may be any number of the run anew. wrong:
 * steps after those of which something else than nothing is there. */
static int64_t steps_in(const char *path, int rank, int64_t late, int64_t anew, int64_t *wrong)
{
    em_status status = {0};
    em_dataset data;
    em_store *store = em_store_open(path, &status);
    double *all = read_all(store, "/events", &data);
    int64_t steps = data.dims[1], room = data.dims[2], whole = 0;
    CU_ASSERT(data.rank == 4 && rank < data.dims[0] && room == em_profile_room(LAYERS) &&
              data.dims[3] == EM_NUM_FIELDS);
    *wrong = 0;
    for (int64_t step = 0; step < steps; step++) {
        const double *field = all + (rank * steps + step) * room * EM_NUM_FIELDS;
        int64_t there = 0, blank = 0, has = events_of(step, rank, step >= anew);
        for (int64_t i = 0; i < room; i++, field += EM_NUM_FIELDS) {
            em_event e = event_of(step, rank, i, late, step >= anew);
            bool none = field[0] == 0 && field[1] == 0 && field[2] == 0 && field[3] == 0 && field[4] == 0;
            double layer = e.layer < LAYERS ? (double)e.layer : -1;
            blank += none;
            there += i < has ? field[0] == e.begin && field[1] == e.end && field[2] == (double)e.phase &&
                                   field[3] == layer && field[4] == (double)e.rows
                             : none;
        }
        if (there == room && whole == step)
            whole++;
        else if (blank < room)
            ++*wrong;
    }
    free(all);
    em_store_close(store, &status);
    return whole;
}

/* So many steps are in the file soon, and no part of another. */
static void wait_for_steps(const char *path, int64_t steps, int64_t late)
{
    int64_t wrong, there = steps_in(path, suite_rank(), late, INT64_MAX, &wrong);
    for (int tries = 0; tries < 2000 && there < steps; tries++) {
        usleep(10000);
        there = steps_in(path, suite_rank(), late, INT64_MAX, &wrong);
    }
    CU_ASSERT_EQUAL(there, steps);
    CU_ASSERT_EQUAL(wrong, 0);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* Events are put when there are many, or the first of them is old, or all is to be there; each in its place. */
static void test_events(void)
{
    int64_t most = em_trace_event_steps(LAYERS), late = most + 3, synced = most + 10, steps = most + 15, wrong;
    em_config config = make_config();
    em_profile profile;
    em_status status = {0};
    const char *path = shared_path("events.h5");
    em_trace_request request = events_request(path, steps + SPARE);
    em_batch prompts = {0};
    em_batch_add_next(&prompts, 1, 0, 0);
    CU_ASSERT(most > 10);
    em_trace *trace = em_trace_create(MPI_COMM_WORLD, &request, &config, &prompts, &status);
    em_profile_open(&profile, LAYERS, config.num_experts, suite_size());
    for (int64_t step = 0; step < steps; step++) {
        run_event_step(trace, &profile, suite_rank(), step, late, false);
        /* the marks of a step let the writer begin with what was put before */
        if (step == most - 1) wait_for_steps(path, 0, late);
        if (step == most) wait_for_steps(path, most, late);
        if (step == late + 1) wait_for_steps(path, late + 1, late);
        if (step != synced) continue;
        CU_ASSERT(em_trace_sync(trace, &status));
        CU_ASSERT_EQUAL(steps_in(path, suite_rank(), late, INT64_MAX, &wrong), synced + 1);
        MPI_Barrier(MPI_COMM_WORLD);
    }
    CU_ASSERT(em_trace_finish(trace, &profile, steps, &status));
    CU_ASSERT_STRING_EQUAL(status.text, "");
    em_trace_free(trace);
    wait_for_steps(path, steps, late);
    em_profile_close(&profile);
    em_batch_free(&prompts);
}

/* Ranks [0, count) run steps [first, past), of a new trace or of one that goes on. */
static int64_t run_ranks(const char *path, int count, int64_t first, int64_t past, int64_t id)
{
    enum { ALL = 12 };
    em_config config = make_config();
    em_profile profile;
    em_status status = {0};
    em_trace_request request = events_request(path, ALL);
    em_batch prompts = {0};
    em_batch_add_next(&prompts, 1, 0, 0);
    MPI_Comm comm;
    MPI_Comm_split(MPI_COMM_WORLD, suite_rank() < count ? 0 : MPI_UNDEFINED, suite_rank(), &comm);
    if (comm != MPI_COMM_NULL) {
        em_trace *trace = id ? em_trace_resume(comm, &request, &config, (em_trace_place){id, first}, &status)
                             : em_trace_create(comm, &request, &config, &prompts, &status);
        CU_ASSERT_PTR_NOT_NULL(trace);
        em_profile_open(&profile, LAYERS, config.num_experts, count);
        for (int64_t step = first; trace && step < past; step++)
            run_event_step(trace, &profile, suite_rank(), step, INT64_MAX, id != 0);
        CU_ASSERT(trace && em_trace_stop(trace, &profile, &status));
        CU_ASSERT_STRING_EQUAL(status.text, "");
        id = em_trace_id(trace);
        em_trace_free(trace);
        em_profile_close(&profile);
        MPI_Comm_free(&comm);
    }
    em_batch_free(&prompts);
    MPI_Bcast(&id, 1, MPI_INT64_T, 0, MPI_COMM_WORLD);
    return id;
}

/* Steps are run again, from a checkpoint, on fewer or on more ranks: where nobody was, nothing is told. */
static void test_events_again(void)
{
    enum { FIRST = 8, FROM = 5, PAST = 11 };
    int size = suite_size(), fewer = size > 1 ? size - 1 : 1;
    for (int turn = 0; turn < 2; turn++) {
        int before = turn ? fewer : size, after = turn ? size : fewer;
        int64_t wrong = 0;
        const char *path = shared_path("again.h5");
        int64_t id = run_ranks(path, before, 0, FIRST, 0);
        run_ranks(path, after, FROM, PAST, id);
        if (suite_rank() < before)
            CU_ASSERT_EQUAL(steps_in(path, suite_rank(), INT64_MAX, FROM, &wrong), suite_rank() < after ? PAST : FROM);
        CU_ASSERT_EQUAL(wrong, 0);
        MPI_Barrier(MPI_COMM_WORLD);
    }
}

int main(int argc, char **argv)
{
    const suite_test tests[] = {
        {"slow disks", test_slow_disks}, {"full disk", test_full_disk},       {"queue", test_queue},
        {"events", test_events},         {"events again", test_events_again}, {NULL, NULL}};
    int code = suite_main(argc, argv, "trace", tests);
    scratch_remove();
    return code;
}
