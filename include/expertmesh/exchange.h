/* expertmesh/exchange.h: carry rows between ranks. Sole user of MPI's data calls on activations.
 *
 * One primitive moves everything: a plan says which row of `from` on each rank becomes which row of `to` on which rank.
 *
 *   from [*, D] --move--> to [*, D]
 *
 * Rows are taken from and put to their final places by MPI's indexed datatypes: nothing is packed before or moved after,
 * and counts are in rows, so no count passes INT_MAX at real width. Rows that stay on a rank are copied by it.
 * Advantage: gather, dispatch, combine and the sums' way home are lists, not code. Cost: a list of row numbers a plan,
 * and MPI's datatype engine walks it. */
#ifndef EXPERTMESH_EXCHANGE_H
#define EXPERTMESH_EXCHANGE_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Row numbers, in order. */
typedef struct em_row_list {
    int *row;
    int count, room;
} em_row_list;

/* Read any field; change by the functions below. */
typedef struct em_exchange {
    MPI_Comm comm; /* borrowed; must outlive the plan */
    int num_ranks, rank;
    em_row_list *send;    /* [P] rows of `from` for each rank */
    em_row_list *receive; /* [P] rows of `to` for what comes from each rank, in its sending order */
} em_exchange;

/* An empty plan. Local. Freed with em_exchange_free. */
em_exchange *em_exchange_new(MPI_Comm comm);
void em_exchange_free(em_exchange *plan);

/* Add one row. The i-th row sent by p to q arrives in the i-th row that q receives from p; the lists must agree. Local. */
void em_exchange_send(em_exchange *plan, int to_rank, int64_t row);
void em_exchange_receive(em_exchange *plan, int from_rank, int64_t row);

/* Move rows of dim floats. Collective over plan->comm. A broken precondition ends the job, so there is no status. */
void em_exchange_move(const em_exchange *plan, int64_t dim, const float *from, float *to);

/* Rows that this rank sends to other ranks. */
int64_t em_exchange_rows_to_others(const em_exchange *plan);

/* Everyone's items in rank order, to every rank: mine [count[rank]] to all [sum of count], bytes each. Collective. */
void em_exchange_all(MPI_Comm comm, const int64_t *count, int bytes, const void *mine, void *all);

/* The columns that each rank has of the same rows, put beside each other on rank 0: mine [rows, width[rank]] to
 * all [rows, sum of width], rank by rank. all is used on rank 0 only. Collective. */
void em_exchange_columns(MPI_Comm comm, int64_t rows, const int64_t *width, const float *mine, float *all);

/* Rank 0's bytes for all. Collective. */
void em_exchange_share(MPI_Comm comm, int64_t bytes, void *data);

/* Wait until every rank is here. Collective. */
void em_exchange_wait(MPI_Comm comm);

#ifdef __cplusplus
}
#endif
#endif
