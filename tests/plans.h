/* plans.h: plans at work. Their two sides are held against each other, and rows are brought through shared arrays. */
#ifndef EXPERTMESH_PLANS_H
#define EXPERTMESH_PLANS_H

#include "suite.h"

#include "expertmesh/exchange.h"

#include <stdlib.h>
#include <string.h>

/* What every rank means to send is what its receivers expect, row number by row number. Collective. */
static inline void check_sides(const em_exchange *plan)
{
    for (int r = 0; r < plan->num_ranks; r++) {
        int to = (plan->rank + r) % plan->num_ranks, from = (plan->rank + plan->num_ranks - r) % plan->num_ranks;
        const em_row_list *out = &plan->send[to], *expected = &plan->source[from];
        int count = -1;
        MPI_Sendrecv(&out->count, 1, MPI_INT, to, 0, &count, 1, MPI_INT, from, 0, plan->comm, MPI_STATUS_IGNORE);
        CU_ASSERT_EQUAL(count, expected->count);
        CU_ASSERT_EQUAL(count, plan->receive[from].count);
        int *row = em_alloc(count, sizeof *row);
        MPI_Sendrecv(out->row, out->count, MPI_INT, to, 0, row, count, MPI_INT, from, 0, plan->comm, MPI_STATUS_IGNORE);
        for (int i = 0; i < count && i < expected->count; i++) CU_ASSERT_EQUAL(row[i], expected->row[i]);
        free(row);
    }
}

/* An array of this rank, filled; here MPI tells how large the others' are. Collective. */
static inline em_shared *share_rows(int64_t dim, int64_t rows, const float *from)
{
    em_status status = {0};
    em_shared *s = em_shared_open(MPI_COMM_WORLD, &status);
    int64_t *all = em_alloc(suite_size(), sizeof *all);
    MPI_Allgather(&rows, 1, MPI_INT64_T, all, 1, MPI_INT64_T, MPI_COMM_WORLD);
    float *own = em_shared_room(s, dim, all);
    if (rows > 0) memcpy(own, from, (size_t)(rows * dim) * sizeof *own);
    free(all);
    return s;
}

/* to = the rows that arrive, beside each other, out of from [rows, dim] on every rank. Collective. */
static inline void carry(em_exchange *plan, int64_t dim, int64_t rows, const float *from, float *to)
{
    check_sides(plan);
    em_shared *s = share_rows(dim, rows, from);
    em_arrival arrival = {0};
    for (int times = 0; times < 2; times++) {
        em_exchange_deliver(plan, dim, s, &arrival);
        for (int64_t i = 0; i < arrival.num_rows; i++)
            memcpy(to + i * dim, arrival.row[i], (size_t)dim * sizeof(float));
    }
    MPI_Barrier(MPI_COMM_WORLD); /* all have read */
    em_arrival_free(&arrival);
    em_shared_close(s);
}

#endif
