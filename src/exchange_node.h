/* exchange_node.h: a plan's rows once to each host instead of once to each rank. Private to the library.
 *
 * A host's members are its ranks, ascending. Row i of any rank's array is kept, on a host that needs it, by the member
 * number i % members. */
#ifndef EXPERTMESH_EXCHANGE_NODE_H
#define EXPERTMESH_EXCHANGE_NODE_H

#include "expertmesh/exchange.h"

typedef struct em_node_plan {
    int num_ranks;
    em_row_list *send;   /* [P] rows of this rank's array for each keeper on another host, ascending, none twice */
    int *come;           /* [P] rows that this rank keeps of each rank; they land rank by rank, ascending */
    em_row_list *keeper; /* [P] beside em_exchange's source: who keeps that row, a rank of comm ... */
    em_row_list *place;  /* [P] ... and in which row of its landing array */
} em_node_plan;

/* Rows that may land with each rank, rows [P], whatever a plan asks for. Known alike by all. */
void em_node_room(const em_shared *from, int64_t dim, int64_t *rows);

/* Collective over the ranks of a host. */
em_node_plan *em_node_plan_make(const em_exchange *plan, const em_shared *from);
void em_node_plan_free(em_node_plan *node);

/* Of a row list: local. */
void em_row_list_add(em_row_list *list, int64_t row);

#endif
