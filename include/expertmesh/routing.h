/* expertmesh/routing.h: which row goes where: the plans of one batch, from the layout and the router's choices.
 *
 * Everyone knows the batch and, once the router has chosen, everyone's choices (T*S ints to all: a thousandth of the rows
 * they route). So a plan is arithmetic that every rank does for itself, and no rank asks another what to expect.
 * All functions are local; the exchanges they make are collective when moved, over the communicator given here. */
#ifndef EXPERTMESH_ROUTING_H
#define EXPERTMESH_ROUTING_H

#include "expertmesh/exchange.h"
#include "expertmesh/tree.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Rows of the embedding for T tokens: from the vocabulary's owners, each of which has looked up the rows of its tokens in
 * global order, to the tokens' owners. */
em_exchange *em_plan_embedding(MPI_Comm comm, const em_layout *layout, int64_t T, const int32_t *token_id);

/* Every token's row to each rank that needs them all: from [T_r, D] to [T, D]. needs [P]. */
em_exchange *em_plan_gather(MPI_Comm comm, const em_layout *layout, int64_t T, const bool *needs);

/* Partial sums of every token home to its owner: from [nodes here, T, D] to [all nodes, T_r, D], for em_tree_finish. */
em_exchange *em_plan_sum_home(MPI_Comm comm, const em_layout *layout, int64_t T, const em_cover *cover);

/* The plans of one routed batch. A key is token * S + choice; g is a group of em_covers, G of them. Read any field; change
 * none. */
typedef struct em_routing {
    int64_t num_groups;    /* G */
    int64_t num_rows;      /* R, rows that arrive here; may be 0 */
    int64_t *first_row;    /* [G + 1] rows of group g here: first_row[g] to first_row[g + 1], by key */
    int32_t *row_key;      /* [R] the (token, choice) that a row belongs to */
    int64_t num_outputs;   /* rows that the experts here produce: [nodes here of g, rows of g, D], group by group */
    int64_t *first_output; /* [G + 1] */
    int64_t *outputs;      /* [P] what every rank's num_outputs is */
    int64_t num_parts;     /* rows that come home: for each own key its nodes, in tree order */
    int64_t *first_part;   /* [T_r * S + 1] */
    int64_t *own_group;    /* [T_r * S] the group of each own key */
    em_exchange *dispatch; /* from x [T_r, D] to rows [R, D] */
    em_exchange *combine;  /* from outputs [num_outputs, D] to parts [num_parts, D] */
} em_routing;

/* first_token: the number in the run of the batch's first token. expert [T, S]: everyone's choices. */
em_routing *em_routing_make(MPI_Comm comm, const em_layout *layout, const em_covers *covers, int64_t first_token,
                            int64_t T, int64_t S, const int32_t *expert);
void em_routing_free(em_routing *routing);

#ifdef __cplusplus
}
#endif
#endif
