/* Dispatch and combine of a layer against a bare MPI_Alltoallv of the same rows, and against copying as many bytes;
 * declared in bench.h. Loads are even: expert after expert gets its turn.
 *
 * Rows that a plan leaves where they are cost their reader more than rows that lie beside him, so the comparison that
 * counts has each row read once by who received it, however it came. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

/* One direction: rows by plan, or rows that lie ready, rank by rank, to where they lie rank by rank. */
typedef struct way {
    em_exchange *plan;
    const em_shared *from;
    em_arrival came;
    int *count, *begin; /* [P] rows to each rank, and where they begin */
    int *from_count, *from_begin;
    int64_t sent, received;
    float *ready, *to; /* rows of D */
} way;

static int64_t lay_out(int ranks, const em_row_list *lists, int *count, int *begin)
{
    int64_t rows = 0;
    for (int r = 0; r < ranks; r++) {
        count[r] = lists[r].count;
        begin[r] = (int)rows;
        rows += count[r];
    }
    return rows;
}

/* rows [P]: of every rank's array, this rank's being filled here. */
static void open_way(em_bench *bench, way *w, em_exchange *plan, em_shared *array, const int64_t *rows)
{
    int P = bench->num_ranks;
    int64_t D = bench->config.emb_size;
    *w = (way){.plan = plan, .from = array, .count = em_alloc(4 * P, sizeof(int))};
    w->begin = w->count + P;
    w->from_count = w->begin + P;
    w->from_begin = w->from_count + P;
    w->sent = lay_out(P, plan->send, w->count, w->begin);
    w->received = lay_out(P, plan->receive, w->from_count, w->from_begin);
    int64_t most = w->sent > w->received ? w->sent : w->received;
    w->ready = em_alloc(most * D, sizeof(float));
    w->to = em_zeroed(w->received * D, sizeof(float));
    em_bench_inputs(bench, most * D, w->ready);
    em_bench_inputs(bench, rows[bench->rank] * D, em_shared_room(array, D, rows));
}

static void close_way(way *w)
{
    em_arrival_free(&w->came);
    free(w->count);
    free(w->ready);
    free(w->to);
}

/* ---- ways to move rows ---- */

typedef enum movement { BY_PLAN, BY_ALLTOALLV, BY_COPY, NUM_MOVEMENTS } movement;
static const char *const movement_names[] = {"dispatch and combine", "Alltoallv", "memory copy"};

static void call_alltoallv(const way *w, int64_t dim)
{
    MPI_Datatype row;
    MPI_Type_contiguous((int)dim, MPI_FLOAT, &row);
    MPI_Type_commit(&row);
    MPI_Alltoallv(w->ready, w->count, w->begin, row, w->to, w->from_count, w->from_begin, row, w->plan->comm);
    MPI_Type_free(&row);
}

static void move(way *w, movement how, int64_t dim)
{
    if (how == BY_PLAN) em_exchange_deliver(w->plan, dim, w->from, &w->came);
    if (how == BY_ALLTOALLV) call_alltoallv(w, dim);
    if (how == BY_COPY) memcpy(w->to, w->ready, (size_t)(w->received * dim) * sizeof(float));
}

/* The sum of all bits of what was received: it is read, and nothing else is done with it. */
static uint32_t read_rows(const way *w, movement how, int64_t dim)
{
    uint32_t sum = 0;
    for (int64_t i = 0; i < w->received; i++) {
        const uint32_t *row = (const void *)(how == BY_PLAN ? w->came.row[i] : w->to + i * dim);
        for (int64_t d = 0; d < dim; d++) sum += row[d];
    }
    return sum;
}

static volatile uint32_t sink; /* what was read is used */

/* Milliseconds of both directions, one after the other. */
static double time_both(em_bench *bench, way ways[2], movement how, bool read)
{
    enum { TURNS = 4 };
    int64_t dim = bench->config.emb_size;
    double start = em_bench_start(bench);
    for (int i = 0; i < 2 * TURNS; i++) {
        move(&ways[i % 2], how, dim);
        if (read) sink = read_rows(&ways[i % 2], how, dim);
    }
    return 1e3 * em_bench_stop(bench, start) / TURNS;
}

/* ---- figures ---- */

static void add_figures(em_bench *bench, const em_series ms[NUM_MOVEMENTS], bool read)
{
    for (int against = BY_ALLTOALLV; against < NUM_MOVEMENTS; against++) {
        em_figure *figure = em_figures_add(
            &bench->figures, em_bench_groups[EM_BENCH_EXCHANGE], "ms", &ms[BY_PLAN], "%s, %lld tokens%s, against %s",
            movement_names[BY_PLAN], (long long)bench->tokens, read ? ", rows read" : "", movement_names[against]);
        em_figure_limit(figure, em_series_median(&ms[against]), movement_names[against]);
        if (against == BY_ALLTOALLV && read && bench->aimed) em_figure_target(figure, 1.0, true);
    }
}

static void measure(em_bench *bench, way ways[2])
{
    for (int read = 1; read >= 0; read--) {
        em_series ms[NUM_MOVEMENTS] = {{.count = 0}};
        for (int run = -1; run < bench->runs; run++) {
            for (int i = 0; i < 2; i++) em_bench_inputs(bench, ways[i].sent * bench->config.emb_size, ways[i].ready);
            for (movement m = BY_PLAN; m < NUM_MOVEMENTS; m++) {
                double took = time_both(bench, ways, m, read == 1);
                if (run >= 0) em_series_add(&ms[m], took); /* the first warms up */
            }
        }
        add_figures(bench, ms, read == 1);
    }
}

static void measure_batch(em_bench *bench, em_shared *x, em_shared *parts)
{
    int64_t S = bench->config.num_selected_experts, E = bench->config.num_experts, T = bench->tokens;
    em_source source; /* its numbers weigh the same, of whatever type */
    em_source_generate(&source, &bench->config, bench->seed, EM_F32);
    em_layout layout = em_layout_named(bench->layout, &source, &bench->places);
    em_source_close(&source);
    em_covers covers = em_expert_covers(&layout);
    int32_t *expert = em_alloc(T * S, sizeof *expert);
    int64_t *own = em_alloc(bench->num_ranks, sizeof *own);
    for (int64_t key = 0; key < T * S; key++) expert[key] = (int32_t)(key % E);
    for (int r = 0; r < bench->num_ranks; r++) own[r] = em_range_size(em_layout_tokens(&layout, T, r));
    em_routing *routing = em_routing_make(bench->comm, &layout, &covers, 0, T, S, expert);
    way ways[2];
    open_way(bench, &ways[0], routing->dispatch, x, own);
    open_way(bench, &ways[1], routing->combine, parts, routing->outputs);
    measure(bench, ways);
    for (int i = 0; i < 2; i++) close_way(&ways[i]);
    em_routing_free(routing);
    em_covers_free(&covers);
    em_layout_free(&layout);
    free(expert);
    free(own);
}

void em_bench_exchange(em_bench *bench, em_status *status)
{
    em_bench_say(bench, "exchange");
    if (bench->num_ranks == 1) {
        em_bench_say(bench, "left out: one rank exchanges nothing; start several with mpirun");
        return;
    }
    em_shared *x = em_shared_open(bench->comm, status), *parts = x ? em_shared_open(bench->comm, status) : NULL;
    if (x && parts) measure_batch(bench, x, parts);
    em_shared_close(x);
    em_shared_close(parts);
    em_agree(bench->comm, status);
}
