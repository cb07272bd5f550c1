/* Rows between ranks. Element d of row i on rank r is a formula of (r, i, d), so each rank can say what it must receive. */
#include "suite.h"

#include "expertmesh/exchange.h"

#include <stdlib.h>
#include <string.h>

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

static void rows_arrive_where_the_plan_says(void)
{
    enum { ROWS = 64, DIM = 13 };
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    int64_t arriving = 0;
    for (int r = 0; r < size; r++) {
        for (int i = 0; i < rows_between(rank, r); i++) em_exchange_send(plan, r, sent_row(rank, r, i));
        arriving += rows_between(r, rank);
    }
    /* what comes is put down backwards */
    int64_t next = arriving;
    for (int r = 0; r < size; r++)
        for (int i = 0; i < rows_between(r, rank); i++) em_exchange_receive(plan, r, --next);
    float *from = rows_of_rank(rank, ROWS, DIM), *to = em_alloc((arriving + 1) * DIM, sizeof *to);
    for (int64_t d = 0; d < DIM; d++) to[arriving * DIM + d] = -1;
    em_exchange_move(plan, DIM, from, to);
    next = arriving;
    for (int r = 0; r < size; r++)
        for (int i = 0; i < rows_between(r, rank); i++) {
            next--;
            for (int64_t d = 0; d < DIM; d++) CU_ASSERT_EQUAL(to[next * DIM + d], element(r, sent_row(r, rank, i), d));
        }
    for (int64_t d = 0; d < DIM; d++) CU_ASSERT_EQUAL(to[arriving * DIM + d], -1);
    free(from);
    free(to);
    em_exchange_free(plan);
}

static void one_row_goes_to_everyone(void)
{
    enum { DIM = 6144 };
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    for (int r = 0; r < size; r++) {
        em_exchange_send(plan, r, 1);
        em_exchange_receive(plan, r, r);
    }
    CU_ASSERT_EQUAL(em_exchange_rows_to_others(plan), size - 1);
    float *from = rows_of_rank(rank, 2, DIM), *to = em_alloc((int64_t)size * DIM, sizeof *to);
    em_exchange_move(plan, DIM, from, to);
    for (int r = 0; r < size; r++)
        for (int64_t d = 0; d < DIM; d += 1000) CU_ASSERT_EQUAL(to[r * DIM + d], element(r, 1, d));
    free(from);
    free(to);
    em_exchange_free(plan);
}

static void an_empty_plan_moves_nothing(void)
{
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    float from = 1, to = 2;
    em_exchange_move(plan, 1, &from, &to);
    CU_ASSERT_EQUAL(to, 2);
    CU_ASSERT_EQUAL(em_exchange_rows_to_others(plan), 0);
    em_exchange_free(plan);
}

static void only_one_rank_has_rows(void)
{
    enum { DIM = 3 };
    int rank = suite_rank(), size = suite_size();
    em_exchange *plan = em_exchange_new(MPI_COMM_WORLD);
    for (int r = 0; rank == size - 1 && r < size; r++) em_exchange_send(plan, r, r);
    em_exchange_receive(plan, size - 1, 0);
    float *from = rows_of_rank(rank, size, DIM), to[DIM];
    em_exchange_move(plan, DIM, from, to);
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
        {"one row goes to everyone", one_row_goes_to_everyone},
        {"an empty plan moves nothing", an_empty_plan_moves_nothing},
        {"only one rank has rows", only_one_rank_has_rows},
        {"items of all come in rank order", items_of_all_come_in_rank_order},
        {NULL, NULL},
    };
    return suite_main(argc, argv, "exchange", tests);
}
