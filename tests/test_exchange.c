/* Rows between ranks. Element d of row i on rank r is a formula of (r, i, d), so each rank can say what it must receive. */
#include "plans.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

/* Floats that this rank sent, seen by MPI. */
static int64_t sent_floats;

int MPI_Isend(const void *buffer, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request *request)
{
    int bytes;
    MPI_Type_size(type, &bytes);
    sent_floats += (int64_t)count * bytes / (int64_t)sizeof(float);
    return PMPI_Isend(buffer, count, type, to, tag, comm, request);
}

static float element(int rank, int64_t row, int64_t d)
{
    return (float)(rank * 100003 + row * 307 + d);
}

static float *rows_of_rank(int rank, int64_t rows, int64_t dim)
{
    float *x = em_alloc(rows * dim, sizeof *x);
    for (int64_t i = 0; i < rows * dim; i++) x[i] = element(rank, i / dim, i % dim);
    return x;
}

/* How many rows p sends to q: uneven, and none for some pairs. */
static int rows_between(int p, int q)
{
    return (3 * p + 5 * q) % 4 == 0 ? 0 : (7 * p + 3 * q) % 5;
}

/* The i-th row from p to q: taken with a stride, so that runs and single rows both occur. */
static int64_t sent_row(int p, int q, int i)
{
    return i % 2 == 0 ? 2 * i + q : 40 - i - p % 3;
}

enum { ROWS = 64, DIM = 13 };

/* What comes to a rank is put down backwards. */
static em_exchange *uneven_plan(void)
{
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    int64_t next = 0;
    for (int r = 0; r < size; r++) {
        for (int i = 0; i < rows_between(rank, r); i++) em_exchange_send(plan, r, sent_row(rank, r, i));
        next += rows_between(r, rank);
    }
    for (int r = 0; r < size; r++)
        for (int i = 0; i < rows_between(r, rank); i++) em_exchange_receive(plan, r, sent_row(r, rank, i), --next);
    return plan;
}

static void rows_arrive_where_the_plan_says(void)
{
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = uneven_plan();
    int64_t next = 0;
    for (int r = 0; r < size; r++) next += rows_between(r, rank);
    float *from = rows_of_rank(rank, ROWS, DIM), *to = em_alloc(next * DIM, sizeof *to);
    carry(plan, DIM, ROWS, from, to);
    for (int r = 0; r < size; r++)
        for (int i = 0; i < rows_between(r, rank); i++) {
            next--;
            for (int64_t d = 0; d < DIM; d++) CU_ASSERT_EQUAL(to[next * DIM + d], element(r, sent_row(r, rank, i), d));
        }
    free(from);
    free(to);
    em_exchange_free(plan);
}

/* No copy is made of a row that lies on this host; every other lies in the arrival's own memory. */
static void rows_of_this_host_stay_where_they_are(void)
{
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = uneven_plan();
    float *from = rows_of_rank(rank, ROWS, DIM);
    em_shared *s = share_rows(DIM, ROWS, from);
    em_arrival arrival = {0};
    em_exchange_deliver(plan, DIM, s, &arrival);
    int64_t next = arrival.num_rows;
    for (int r = 0; r < size; r++)
        for (int i = 0; i < rows_between(r, rank); i++) {
            const float *row = arrival.row[--next];
            if (s->readable[r])
                CU_ASSERT_PTR_EQUAL(row, s->array[r] + sent_row(r, rank, i) * DIM)
            else
                CU_ASSERT(arrival.came <= row && row + DIM <= arrival.came + arrival.came_room)
        }
    CU_ASSERT_EQUAL(next, 0);
    MPI_Barrier(MPI_COMM_WORLD); /* all have read */
    em_arrival_free(&arrival);
    em_shared_close(s);
    free(from);
    em_exchange_free(plan);
}

/* Rank 0 may make no file as large as its array, so that no rank can share: the same rows come by messages. */
static void rows_come_where_memory_cannot_be_shared(void)
{
    enum { WIDE = 64 };
    int rank = suite_rank(), size = suite_size();
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    em_exchange *plan = uneven_plan();
    float *from = rows_of_rank(rank, ROWS, WIDE);
    if (rank == 0) setrlimit(RLIMIT_FSIZE, &small);
    em_shared *s = share_rows(WIDE, ROWS, from);
    setrlimit(RLIMIT_FSIZE, &before);
    em_arrival arrival = {0};
    em_exchange_deliver(plan, WIDE, s, &arrival);
    CU_ASSERT_EQUAL(s->by_message, size > 1);
    int64_t next = arrival.num_rows;
    for (int r = 0; r < size; r++)
        for (int i = 0; i < rows_between(r, rank); i++) {
            const float *row = arrival.row[--next];
            for (int64_t d = 0; d < WIDE; d++) CU_ASSERT_EQUAL(row[d], element(r, sent_row(r, rank, i), d));
        }
    em_arrival_free(&arrival);
    em_shared_close(s);
    free(from);
    em_exchange_free(plan);
}

/* ---- rows that several ranks need ---- */

/* The lowest rank of the host that rank r believes itself on, and how many ranks are there. */
static int host_of(int r, int *members)
{
    const char *asked = getenv("EXPERTMESH_RANKS_PER_HOST");
    int size = suite_size(), per_host = asked ? atoi(asked) : size, first = r / per_host * per_host;
    *members = first + per_host < size ? per_host : size - first;
    return first;
}

/* How often rank q needs row `row` of rank p: two of three rows are, and every seventh of those twice by even ranks. */
static int times_needed(int p, int q, int row)
{
    if ((p + 3 * q + row) % 3 == 0 && q != 1) return 0;
    return row % 7 == 0 && q % 2 == 0 ? 2 : 1;
}

static em_exchange *repeating_plan(int rows)
{
    int rank = suite_rank(), size = suite_size();
    int64_t next = 0;
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    plan->repeats = true;
    for (int r = 0; r < size; r++)
        for (int row = rows - 1; row >= 0; row--) {
            for (int i = 0; i < times_needed(rank, r, row); i++) em_exchange_send(plan, r, row);
            for (int i = 0; i < times_needed(r, rank, row); i++) em_exchange_receive(plan, r, row, next++);
        }
    return plan;
}

/* This rank's rows counted one by one. A row goes to a host's member number row % members, and the others read it there. */
static em_traffic count_naively(int rows, bool once)
{
    em_traffic t = {0, 0};
    int rank = suite_rank(), mine, members, here = host_of(rank, &mine);
    for (int row = 0; row < rows; row++)
        for (int q = 0; q < suite_size(); q++) {
            int host = host_of(q, &members), times = times_needed(rank, q, row), before = 0;
            for (int other = host; other < q; other++) before += times_needed(rank, other, row);
            if (host == here && q != rank) t.inside += times;
            if (host != here && !once) t.between += times;
            if (host != here && once && q != host + row % members) t.inside += times;
            if (host != here && once && times > 0 && before == 0) t.between++;
        }
    return t;
}

static void check_repeated(const em_arrival *arrival, int rows, int64_t dim)
{
    int64_t next = 0;
    for (int r = 0; r < suite_size(); r++)
        for (int row = rows - 1; row >= 0; row--)
            for (int i = 0; i < times_needed(r, suite_rank(), row); i++, next++)
                for (int64_t d = 0; d < dim; d++) CU_ASSERT_EQUAL(arrival->row[next][d], element(r, row, d));
    CU_ASSERT_EQUAL(next, arrival->num_rows);
}

/* Two plans in turn, as those of a layer, into one arrival; what MPI saw is what is counted, and less than flat sends. */
static void repeated_rows_go_once_to_each_host(void)
{
    for (int flat = 0; flat < 2; flat++) {
        em_arrival arrival = {.flat = flat == 1};
        for (int rows = 5; rows <= ROWS; rows += 23) {
            em_exchange *plan = repeating_plan(rows);
            float *from = rows_of_rank(suite_rank(), rows, DIM);
            em_shared *s = share_rows(DIM, rows, from);
            for (int times = 0; times < 3; times++) {
                em_traffic expected = count_naively(rows, flat == 0);
                sent_floats = 0;
                em_exchange_deliver(plan, DIM, s, &arrival);
                check_repeated(&arrival, rows, DIM);
                CU_ASSERT_EQUAL(arrival.traffic.inside, expected.inside);
                CU_ASSERT_EQUAL(arrival.traffic.between, expected.between);
                CU_ASSERT_EQUAL(sent_floats, expected.between * DIM);
            }
            MPI_Barrier(MPI_COMM_WORLD); /* all have read */
            em_shared_close(s);
            free(from);
            em_exchange_free(plan);
        }
        em_arrival_free(&arrival);
    }
}

/* Rank 0 may make no file as large as what lands with it: every row goes to each rank, on all hosts. */
static void repeated_rows_come_where_they_cannot_land(void)
{
    enum { WIDE = 200 };
    struct rlimit before, small;
    getrlimit(RLIMIT_FSIZE, &before);
    small = before;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    em_exchange *plan = repeating_plan(ROWS);
    float *from = rows_of_rank(suite_rank(), ROWS, WIDE);
    em_shared *s = share_rows(WIDE, ROWS, from);
    em_arrival arrival = {0};
    for (int times = 0; times < 2; times++) {
        if (suite_rank() == 0) setrlimit(RLIMIT_FSIZE, &small);
        em_exchange_deliver(plan, WIDE, s, &arrival);
        setrlimit(RLIMIT_FSIZE, &before);
        check_repeated(&arrival, ROWS, WIDE);
        em_traffic expected = count_naively(ROWS, s->by_message && !s->in_place);
        CU_ASSERT_EQUAL(arrival.traffic.inside, expected.inside);
        CU_ASSERT_EQUAL(arrival.traffic.between, expected.between);
    }
    MPI_Barrier(MPI_COMM_WORLD); /* all have read */
    em_arrival_free(&arrival);
    em_shared_close(s);
    free(from);
    em_exchange_free(plan);
}

/* ---- rows that set out while others are made ---- */

enum { MANY = 5 * EM_EXCHANGE_BLOCK - 7 };

/* Each row to two ranks, whole blocks to one, a few to none. What comes is put down backwards. */
static bool goes(int p, int q, int row)
{
    return (row / EM_EXCHANGE_BLOCK + p) % 3 == q % 3 || (row * 7 + p) % suite_size() == q;
}

static em_exchange *ascending_plan(void)
{
    int rank = suite_rank(), size = suite_size();
    int64_t next = 0;
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    for (int r = 0; r < size; r++)
        for (int row = 0; row < MANY; row++) next += goes(r, rank, row);
    for (int r = 0; r < size; r++)
        for (int row = 0; row < MANY; row++) {
            if (goes(rank, r, row)) em_exchange_send(plan, r, row);
            if (goes(r, rank, row)) em_exchange_receive(plan, r, row, --next);
        }
    return plan;
}

/* A row is written only just before it is said to be there, some of them one by one: had it set out before, it would be wrong. */
static void rows_set_out_when_they_are_made(void)
{
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = ascending_plan();
    em_arrival arrival = {0};
    for (int times = 0; times < 3; times++) {
        float *none = em_zeroed(MANY * DIM, sizeof *none), *rows = rows_of_rank(rank, MANY, DIM);
        em_shared *s = share_rows(DIM, MANY, none);
        em_exchange_begin(plan, DIM, s, &arrival);
        sent_floats = 0;
        for (int row = 0; row < MANY; row++) {
            memcpy(s->own + row * DIM, rows + row * DIM, sizeof(float[DIM]));
            if (times == 1 || (times == 2 && row % 40 == rank)) em_exchange_advance(plan, row + 1);
        }
        CU_ASSERT_EQUAL(sent_floats == 0, times == 0 || !s->by_message);
        em_exchange_end(plan, &arrival);
        CU_ASSERT_EQUAL(sent_floats, arrival.traffic.between * DIM);
        int64_t next = arrival.num_rows;
        for (int r = 0; r < size; r++)
            for (int row = 0; row < MANY; row++)
                for (int64_t d = 0; goes(r, rank, row) && d < DIM; d++)
                    CU_ASSERT_EQUAL(arrival.row[d == 0 ? --next : next][d], element(r, row, d));
        CU_ASSERT_EQUAL(next, 0);
        MPI_Barrier(MPI_COMM_WORLD); /* all have read */
        em_shared_close(s);
        free(none);
        free(rows);
    }
    em_arrival_free(&arrival);
    em_exchange_free(plan);
}

/* A plan is used again with rows of another width, and an arrival for another plan. */
static void plans_and_arrivals_are_used_again(void)
{
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = uneven_plan(), *few = em_exchange_new(MPI_COMM_WORLD);
    em_exchange_send(few, (rank + 1) % size, 5);
    em_exchange_receive(few, (rank + size - 1) % size, 5, 0);
    em_arrival arrival = {0};
    for (int64_t dim = 1; dim <= 5; dim += 2) {
        float *from = rows_of_rank(rank, ROWS, dim);
        em_shared *s = share_rows(dim, ROWS, from);
        em_exchange_deliver(plan, dim, s, &arrival);
        int64_t next = arrival.num_rows;
        for (int r = 0; r < size; r++)
            for (int i = 0; i < rows_between(r, rank); i++)
                CU_ASSERT_EQUAL(arrival.row[--next][dim - 1], element(r, sent_row(r, rank, i), dim - 1));
        em_exchange_deliver(few, dim, s, &arrival);
        CU_ASSERT_EQUAL(arrival.num_rows, 1);
        CU_ASSERT_EQUAL(arrival.row[0][0], element((rank + size - 1) % size, 5, 0));
        MPI_Barrier(MPI_COMM_WORLD); /* all have read */
        em_shared_close(s);
        free(from);
    }
    em_arrival_free(&arrival);
    em_exchange_free(plan);
    em_exchange_free(few);
}

static void one_row_goes_to_everyone(void)
{
    enum { WIDE = 6144 };
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    for (int r = 0; r < size; r++) {
        em_exchange_send(plan, r, 1);
        em_exchange_receive(plan, r, 1, r);
    }
    float *from = rows_of_rank(rank, 2, WIDE), *to = em_alloc((int64_t)size * WIDE, sizeof *to);
    carry(plan, WIDE, 2, from, to);
    for (int r = 0; r < size; r++)
        for (int64_t d = 0; d < WIDE; d += 1000) CU_ASSERT_EQUAL(to[r * WIDE + d], element(r, 1, d));
    free(from);
    free(to);
    em_exchange_free(plan);
}

static void an_empty_plan_moves_nothing(void)
{
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    float from = 1, to = 2;
    carry(plan, 1, 1, &from, &to);
    carry(plan, 1, 0, NULL, &to);
    CU_ASSERT_EQUAL(to, 2);
    sent_floats = 0;
    carry(plan, 1, 1, &from, &to);
    CU_ASSERT_EQUAL(sent_floats, 0);
    em_exchange_free(plan);
}

static void only_one_rank_has_rows(void)
{
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    for (int r = 0; rank == size - 1 && r < size; r++) em_exchange_send(plan, r, r);
    em_exchange_receive(plan, size - 1, rank, 0);
    float *from = rows_of_rank(rank, size, DIM), to[DIM];
    carry(plan, DIM, rank == size - 1 ? size : 0, from, to);
    for (int64_t d = 0; d < DIM; d++) CU_ASSERT_EQUAL(to[d], element(size - 1, rank, d));
    free(from);
    em_exchange_free(plan);
}

static void items_of_all_come_in_rank_order(void)
{
    int rank = suite_rank(), size = suite_size();
    int64_t *count = em_alloc(size, sizeof *count), sum = 0;
    for (int r = 0; r < size; r++) sum += count[r] = r % 3;
    int32_t mine[2] = {10 * rank, 10 * rank + 1}, *all = em_alloc(sum, sizeof *all);
    em_exchange_all(MPI_COMM_WORLD, count, (int)sizeof *all, mine, all);
    int64_t next = 0;
    for (int r = 0; r < size; r++)
        for (int i = 0; i < r % 3; i++) CU_ASSERT_EQUAL(all[next++], 10 * r + i);
    free(count);
    free(all);
}

int main(int argc, char **argv)
{
    static const suite_test tests[] = {
        {"rows arrive where the plan says", rows_arrive_where_the_plan_says},
        {"rows of this host stay where they are", rows_of_this_host_stay_where_they_are},
        {"rows come where memory cannot be shared", rows_come_where_memory_cannot_be_shared},
        {"repeated rows go once to each host", repeated_rows_go_once_to_each_host},
        {"repeated rows come where they cannot land", repeated_rows_come_where_they_cannot_land},
        {"rows set out when they are made", rows_set_out_when_they_are_made},
        {"plans and arrivals are used again", plans_and_arrivals_are_used_again},
        {"one row goes to everyone", one_row_goes_to_everyone},
        {"an empty plan moves nothing", an_empty_plan_moves_nothing},
        {"only one rank has rows", only_one_rank_has_rows},
        {"items of all come in rank order", items_of_all_come_in_rank_order},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "exchange", tests);
}
