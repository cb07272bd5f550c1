#include "expertmesh/exchange.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

em_exchange *em_exchange_new(MPI_Comm comm)
{
    em_exchange *plan = em_zeroed(1, sizeof *plan);
    plan->comm = comm;
    MPI_Comm_size(comm, &plan->num_ranks);
    MPI_Comm_rank(comm, &plan->rank);
    plan->send = em_zeroed(plan->num_ranks, sizeof *plan->send);
    plan->receive = em_zeroed(plan->num_ranks, sizeof *plan->receive);
    return plan;
}

void em_exchange_free(em_exchange *plan)
{
    if (!plan) return;
    for (int r = 0; r < plan->num_ranks; r++) {
        free(plan->send[r].row);
        free(plan->receive[r].row);
    }
    free(plan->send);
    free(plan->receive);
    free(plan);
}

static void append(em_row_list *list, int64_t row)
{
    if (row < 0 || row > INT_MAX) em_die("row %lld of an exchange is no int", (long long)row);
    if (list->count == list->room) {
        int room = list->room > 0 ? 2 * list->room : 16;
        list->row = em_grow(list->row, list->count, room, sizeof(int));
        list->room = room;
    }
    list->row[list->count++] = (int)row;
}

void em_exchange_send(em_exchange *plan, int to_rank, int64_t row)
{
    append(&plan->send[to_rank], row);
}

void em_exchange_receive(em_exchange *plan, int from_rank, int64_t row)
{
    append(&plan->receive[from_rank], row);
}

/* The length of the run of consecutive rows that begins at place i of a list. */
static int run_length(const em_row_list *list, int i)
{
    int length = 1;
    while (i + length < list->count && list->row[i + length] == list->row[i] + length) length++;
    return length;
}

/* The rows of a list, in its order, as one MPI datatype. Freed with MPI_Type_free. */
static MPI_Datatype rows_type(const em_row_list *list, MPI_Datatype row)
{
    int *begin = em_alloc(list->count, sizeof(int)), *length = em_alloc(list->count, sizeof(int)), runs = 0;
    for (int i = 0; i < list->count; i += length[runs++]) {
        begin[runs] = list->row[i];
        length[runs] = run_length(list, i);
    }
    MPI_Datatype type;
    MPI_Type_indexed(runs, length, begin, row, &type);
    MPI_Type_commit(&type);
    free(begin);
    free(length);
    return type;
}

/* One datatype a rank; none for this rank itself, whose rows stay here. */
static void types_of(const em_exchange *plan, const em_row_list *lists, MPI_Datatype row, int *count,
                     MPI_Datatype *type)
{
    for (int r = 0; r < plan->num_ranks; r++) {
        count[r] = r != plan->rank && lists[r].count > 0;
        type[r] = count[r] ? rows_type(&lists[r], row) : MPI_FLOAT;
    }
}

static void free_types(int num_ranks, const int *count, MPI_Datatype *type)
{
    for (int r = 0; r < num_ranks; r++)
        if (count[r]) MPI_Type_free(&type[r]);
}

static void copy_own_rows(const em_exchange *plan, int64_t dim, const float *from, float *to)
{
    const em_row_list *out = &plan->send[plan->rank], *in = &plan->receive[plan->rank];
    if (out->count != in->count) em_die("an exchange keeps %d rows but expects %d", out->count, in->count);
    for (int i = 0; i < out->count; i++)
        memcpy(to + in->row[i] * dim, from + out->row[i] * dim, (size_t)dim * sizeof(float));
}

void em_exchange_move(const em_exchange *plan, int64_t dim, const float *from, float *to)
{
    int P = plan->num_ranks;
    copy_own_rows(plan, dim, from, to);
    if (P == 1) return;
    MPI_Datatype row, *type = em_alloc(2 * P, sizeof *type), *in_type = type + P;
    MPI_Type_contiguous((int)dim, MPI_FLOAT, &row);
    int *count = em_alloc(2 * P, sizeof(int)), *in_count = count + P, *zero = em_zeroed(P, sizeof(int));
    types_of(plan, plan->send, row, count, type);
    types_of(plan, plan->receive, row, in_count, in_type);
    MPI_Alltoallw(from, count, zero, type, to, in_count, zero, in_type, plan->comm);
    free_types(P, count, type);
    free_types(P, in_count, in_type);
    MPI_Type_free(&row);
    free(type);
    free(count);
    free(zero);
}

int64_t em_exchange_rows_to_others(const em_exchange *plan)
{
    int64_t rows = 0;
    for (int r = 0; r < plan->num_ranks; r++)
        if (r != plan->rank) rows += plan->send[r].count;
    return rows;
}

void em_exchange_all(MPI_Comm comm, const int64_t *count, int bytes, const void *mine, void *all)
{
    int size, rank;
    MPI_Comm_size(comm, &size);
    MPI_Comm_rank(comm, &rank);
    int *counts = em_alloc(2 * size, sizeof(int)), *begin = counts + size;
    int64_t sum = 0;
    for (int r = 0; r < size; r++) {
        counts[r] = (int)count[r];
        begin[r] = (int)sum;
        sum += count[r];
    }
    if (sum > INT_MAX) em_die("%lld items are too many for one gather", (long long)sum);
    MPI_Datatype item;
    MPI_Type_contiguous(bytes, MPI_BYTE, &item);
    MPI_Type_commit(&item);
    MPI_Allgatherv(mine, counts[rank], item, all, counts, begin, item, comm);
    MPI_Type_free(&item);
    free(counts);
}

void em_exchange_columns(MPI_Comm comm, int64_t rows, const int64_t *width, const float *mine, float *all)
{
    int size, rank;
    MPI_Comm_size(comm, &size);
    MPI_Comm_rank(comm, &rank);
    int *count = em_alloc(2 * size, sizeof(int)), *begin = count + size;
    int64_t sum = 0;
    for (int r = 0; r < size; r++) {
        count[r] = (int)width[r];
        begin[r] = (int)sum;
        sum += width[r];
    }
    for (int64_t i = 0; i < rows; i++)
        MPI_Gatherv(mine + i * width[rank], count[rank], MPI_FLOAT, rank == 0 ? all + i * sum : NULL, count, begin,
                    MPI_FLOAT, 0, comm);
    free(count);
}

void em_exchange_share(MPI_Comm comm, int64_t bytes, void *data)
{
    if (bytes > INT_MAX) em_die("%lld bytes are too many to share at once", (long long)bytes);
    MPI_Bcast(data, (int)bytes, MPI_BYTE, 0, comm);
}

void em_exchange_wait(MPI_Comm comm)
{
    MPI_Barrier(comm);
}
