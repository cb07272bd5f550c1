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

void em_tree_sum(em_range node, int64_t count, em_leaf *leaf, void *context, float *out)
{
    if (em_range_size(node) == 1) {
        leaf(context, node.begin, out);
        return;
    }
    float *right = em_alloc(count, sizeof(float));
    em_tree_sum((em_range){node.begin, middle(node)}, count, leaf, context, out);
    em_tree_sum((em_range){middle(node), node.end}, count, leaf, context, right);
    em_add(count, right, out);
    free(right);
}

typedef struct finish_walk {
    const em_range *nodes;
    int64_t stride, count;
    float *parts;
    int next; /* the first node not yet used */
} finish_walk;

/* The value of a node, in the place of its leftmost part. */
static float *finish(finish_walk *walk, em_range node)
{
    em_range here = walk->nodes[walk->next];
    if (here.begin == node.begin && here.end == node.end) return walk->parts + walk->stride * walk->next++;
    float *left = finish(walk, (em_range){node.begin, middle(node)});
    float *right = finish(walk, (em_range){middle(node), node.end});
    em_add(walk->count, right, left);
    return left;
}

void em_tree_finish(int64_t num_leaves, const em_range *nodes, int64_t stride, int64_t count, float *parts)
{
    finish(&(finish_walk){nodes, stride, count, parts, 0}, (em_range){0, num_leaves});
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
