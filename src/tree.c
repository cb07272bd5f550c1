#include "expertmesh/tree.h"

#include "expertmesh/kernels.h"

#include <stdlib.h>

static int64_t middle(em_range node)
{
    return node.begin + (node.end - node.begin) / 2;
}

static void cover(em_range node, em_range run, em_range *nodes, int *count)
{
    if (node.begin >= run.end || run.begin >= node.end) return;
    if (run.begin <= node.begin && node.end <= run.end) {
        nodes[(*count)++] = node;
        return;
    }
    cover((em_range){node.begin, middle(node)}, run, nodes, count);
    cover((em_range){middle(node), node.end}, run, nodes, count);
}

int em_tree_cover(int64_t num_leaves, em_range run, em_range nodes[EM_TREE_MAX_NODES])
{
    int count = 0;
    if (em_range_size(run) > 0) cover((em_range){0, num_leaves}, run, nodes, &count);
    return count;
}

int em_tree_depth(em_range node)
{
    int depth = 0;
    for (int64_t leaves = em_range_size(node); leaves > 1; leaves = (leaves + 1) / 2) depth++;
    return depth;
}

void em_tree_sum(em_range node, int64_t count, em_leaf *leaf, void *context, float *out, float *scratch)
{
    if (em_range_size(node) == 1) {
        leaf(context, node.begin, out);
        return;
    }
    em_tree_sum((em_range){node.begin, middle(node)}, count, leaf, context, out, scratch + count);
    em_tree_sum((em_range){middle(node), node.end}, count, leaf, context, scratch, scratch + count);
    em_add(count, scratch, out);
}

typedef struct finish_walk {
    const em_range *nodes;
    const float *const *part;
    int64_t count;
    int next; /* the first node not yet used */
} finish_walk;

static bool is_part(const finish_walk *walk, em_range node)
{
    return walk->nodes[walk->next].begin == node.begin && walk->nodes[walk->next].end == node.end;
}

/* The value of a node: a part as it lies, or else in sum. */
static const float *finish(finish_walk *walk, em_range node, float *sum)
{
    if (is_part(walk, node)) return walk->part[walk->next++];
    em_range right_half = {middle(node), node.end};
    const float *left = finish(walk, (em_range){node.begin, middle(node)}, sum);
    float *right_sum = is_part(walk, right_half) ? NULL : em_alloc(walk->count, sizeof(float));
    const float *right = finish(walk, right_half, right_sum);
    for (int64_t i = 0; i < walk->count; i++) sum[i] = left[i] + right[i];
    free(right_sum);
    return sum;
}

const float *em_tree_finish(int64_t num_leaves, const em_range *nodes, int64_t count, const float *const *part,
                            float *sum)
{
    return finish(&(finish_walk){nodes, part, count, 0}, (em_range){0, num_leaves}, sum);
}

em_cover em_cover_make(int64_t num_leaves, int num_ranks, const em_range *run)
{
    em_cover all = {.num_nodes = 0, .first_node = em_zeroed(num_ranks + 1, sizeof(int))};
    em_range nodes[EM_TREE_MAX_NODES];
    for (int r = 0; r < num_ranks; r++)
        all.first_node[r + 1] = all.first_node[r] + em_tree_cover(num_leaves, run[r], nodes);
    all.num_nodes = all.first_node[num_ranks];
    all.node = em_alloc(all.num_nodes, sizeof(em_range));
    all.rank = em_alloc(all.num_nodes, sizeof(int));
    for (int r = 0; r < num_ranks; r++) {
        int count = em_tree_cover(num_leaves, run[r], nodes);
        for (int i = 0; i < count; i++) {
            all.node[all.first_node[r] + i] = nodes[i];
            all.rank[all.first_node[r] + i] = r;
        }
    }
    return all;
}

void em_cover_free(em_cover *all)
{
    free(all->node);
    free(all->rank);
    free(all->first_node);
    *all = (em_cover){0};
}
