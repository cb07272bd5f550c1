/* expertmesh/exchange.h: carry rows between ranks. Sole user of MPI's data calls on activations.
 *
 * A plan says which row of `from` on each rank becomes which row of `to` on which rank. Gather, dispatch, combine and the
 * sums' way home are such lists, not code.
 *
 *   from [*, D] --deliver--> to: where each row can be read
 *
 * A row whose sender is on this host is not moved at all: it is read in the sender's array, which the sender must leave as
 * it is until all have read it (shared.h). Other rows come by messages, taken by MPI's indexed datatypes from where they
 * lie; counts are in rows, so no count passes INT_MAX at real width.
 *
 * Where a plan repeats rows (several ranks of a host need one, or one rank needs it twice), a row crosses the network once
 * to each host: its keeper there is the host's member number (row % members), whose landing array all of that host read.
 * So network and memory are shared evenly by the ranks of a host, and keepers are arithmetic. Advantage: fewer bytes on the
 * network, and one copy a host where each rank would hold its own. Cost: the ranks of a host tell each other which rows
 * they need, numbers against rows; and a row may lie in a neighbour's memory though only one rank needs it. */
#ifndef EXPERTMESH_EXCHANGE_H
#define EXPERTMESH_EXCHANGE_H

#include "expertmesh/shared.h"

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
    em_row_list *source;  /* [P] the rows of that rank's `from` that they are */
    bool repeats;         /* several ranks may need one row, or one rank twice; set it before the first delivery */
    MPI_Datatype *type;   /* [P] the rows for each rank, of type_dim floats; made when they are first sent */
    int64_t type_dim;
    const em_row_list *type_of; /* the lists that they are of: send, or node's */
    struct em_going *going;     /* between begin and end */
    struct em_node_plan *node;  /* the plan's rows once to each host; made when they are first sent so */
} em_exchange;

/* An empty plan. Local. Freed with em_exchange_free. */
em_exchange *em_exchange_new(MPI_Comm comm);
void em_exchange_free(em_exchange *plan);

/* Add one row. The i-th row sent by p to q arrives in the i-th row that q receives from p, and from_row is its number in
 * p's array; the lists must agree. The rows received are numbered from 0 without a gap, in any order. Local. */
void em_exchange_send(em_exchange *plan, int to_rank, int64_t row);
void em_exchange_receive(em_exchange *plan, int from_rank, int64_t from_row, int64_t row);

/* Rows of one rank's array, by how they came to who reads them. A row is counted each time that a rank reads it in the memory
 * of another rank of its host, and each time that it crosses the network. */
typedef struct em_traffic {
    int64_t inside;  /* hosts */
    int64_t between; /* hosts */
} em_traffic;

/* Where the rows of `to` can be read. Starts zeroed; freed with em_arrival_free; best kept for a whole run, as its memory
 * is. A delivery replaces what the last one left. All deliveries to one must be over one communicator. */
typedef struct em_arrival {
    const float **row; /* [num_rows] of dim floats each: in the sender's array, or in `came`, or in a landing array */
    int64_t num_rows, row_room;
    float *came; /* rows that came by messages for this rank alone */
    int64_t came_room;
    bool flat;          /* set by the caller, alike on all ranks: every row goes to each rank by itself */
    em_shared *landing; /* rows that came by messages for the ranks of this host */
    em_traffic traffic; /* of this rank's rows, by the last delivery */
} em_arrival;

/* Rows of dim floats, from every rank's array to all ranks that the plan names. Returns when they can be read; they can be
 * until their sender changes its array. Collective over plan->comm, which must be that of `from`. */
void em_exchange_deliver(em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to);
/* The same for a plan without repeats while this rank still writes its array, from the first row on. begin; then advance,
 * as often as can be, with the number of first rows that will not change any more; end, after which the rows can be read.
 * Rows by messages set out in fixed blocks of EM_EXCHANGE_BLOCK rows of the array, each as soon as it is whole, and move on
 * whenever someone advances, so that the network works beside the arithmetic. In each list of the plan the sender's rows
 * ascend. Begin and end are collective, advance is local; to must not be delivered to in between. */
enum { EM_EXCHANGE_BLOCK = 64 };
void em_exchange_begin(em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to);
void em_exchange_advance(em_exchange *plan, int64_t rows);
void em_exchange_end(em_exchange *plan, em_arrival *to);

/* Collective where rows have come. */
void em_arrival_free(em_arrival *arrival);

/* What a delivery of the plan makes of this rank's rows when host_of [P] are the hosts (em_shared), and each row crosses the
 * network once a host, or once for each rank. Local: arithmetic on the plan. */
em_traffic em_exchange_traffic(const em_exchange *plan, const int *host_of, bool once);

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
