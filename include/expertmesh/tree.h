/* expertmesh/tree.h: the fixed summing tree, which makes a sum's bits independent of who computed what.
 *
 * Floating-point addition is not associative, so a sum over units keeps its bits only where its order is fixed. The order
 * here is a balanced binary tree over the unit index: the node [a,b) is the sum of its halves, split at a + (b-a)/2. A
 * rank that owns a run of units sums the largest nodes inside its run; whoever finishes adds up the nodes of all ranks
 * along the same tree. Advantage: a rank sends at most 2 log2(n) partial sums instead of one a unit, mostly just one or
 * two. Cost: up to log2(n) buffers while a rank sums its leaves. */
#ifndef EXPERTMESH_TREE_H
#define EXPERTMESH_TREE_H

#include "expertmesh/layout.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Most nodes that a run can fall into: two at each of 31 levels. */
enum { EM_TREE_MAX_NODES = 62 };

/* The largest nodes of the tree over [0, num_leaves) inside run, left to right. Returns how many (0 for an empty run). */
int em_tree_cover(int64_t num_leaves, em_range run, em_range nodes[EM_TREE_MAX_NODES]);

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

/* The nodes in which the units [0, num_leaves) arrive when run[r] is what rank r owns: all ranks' covers in order. */
typedef struct em_cover {
    int num_nodes;
    em_range *node;  /* [num_nodes] */
    int *rank;       /* [num_nodes] who sums it */
    int *first_node; /* [P + 1] the nodes of rank r are first_node[r] to first_node[r + 1] */
} em_cover;

em_cover em_cover_make(int64_t num_leaves, int num_ranks, const em_range *run);
void em_cover_free(em_cover *cover);

#ifdef __cplusplus
}
#endif
#endif
