/* expertmesh/tree.h: the fixed summing tree, which makes a sum's bits independent of who computed what.
 *
 * Floating-point addition is not associative, so a sum over units keeps its bits only where its order is fixed. The order
 * here is a balanced binary tree over the unit index: the node [a,b) is the sum of its halves, split at a + (b-a)/2. A
 * rank sums the largest nodes of which it owns all leaves; whoever finishes adds up the nodes of all ranks along the same
 * tree. Advantage: a rank that owns a run of units sends at most 2 log2(n) partial sums instead of one a unit, mostly just
 * one or two. Cost: up to log2(n) buffers while a rank sums its leaves; a rank whose units lie scattered sends more. */
#ifndef EXPERTMESH_TREE_H
#define EXPERTMESH_TREE_H

#include "expertmesh/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Writes the value of leaf i, count numbers, to out. */
typedef void em_leaf(void *context, int64_t i, float *out);

/* out [count] = the sum of the leaves of one node, in tree order. Leaves are asked for left to right. scratch
 * [em_tree_depth(node), count]. */
void em_tree_sum(em_range node, int64_t count, em_leaf *leaf, void *context, float *out, float *scratch);
int em_tree_depth(em_range node); /* levels below it */

/* Finish the sum over [0, num_leaves). nodes covers it left to right; part[i]: the value of nodes[i], count numbers, read
 * where it lies. Returns where the sum is: in sum [count], or the only part there is. */
const float *em_tree_finish(int64_t num_leaves, const em_range *nodes, int64_t count, const float *const *part,
                            float *sum);

/* The nodes in which the units [0, num_leaves) arrive when owner[u], of num_ranks, is the rank of unit u: the largest of
 * which one rank owns all leaves. */
typedef struct em_cover {
    int num_nodes;
    em_range *node; /* [num_nodes] left to right */
    int *rank;      /* [num_nodes] who sums it */
    int *place;     /* [num_nodes] which of that rank's nodes it is, from 0, left to right */
} em_cover;

em_cover em_cover_make(int64_t num_leaves, int num_ranks, const int *owner);
void em_cover_free(em_cover *cover);

/* How many of the nodes a rank sums. */
int em_cover_count(const em_cover *cover, int rank);

/* How the slices of each expert are summed over the ranks: a cover for each turn in which it takes rows (layout.h). An
 * expert in one of its turns is a group: rows of one group go to the same ranks and come home in the same nodes. */
typedef struct em_covers {
    int64_t num_experts; /* E */
    int64_t num_groups;  /* E, where no expert has replicas */
    int64_t *first;      /* [E + 1] the groups of expert e are first[e] to first[e + 1], turn by turn */
    em_cover *cover;     /* [num_groups] */
} em_covers;

em_covers em_expert_covers(const em_layout *layout);
void em_covers_free(em_covers *covers);

/* The group of a row: of an expert, and of a token by its number in the run. */
static inline int64_t em_covers_group(const em_covers *covers, int64_t expert, int64_t token)
{
    return covers->first[expert] + token % (covers->first[expert + 1] - covers->first[expert]);
}

/* The summing of the heads. Freed with em_cover_free. */
em_cover em_head_cover(const em_layout *layout);

#ifdef __cplusplus
}
#endif
#endif
