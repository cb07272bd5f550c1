#include "expertmesh/tree.h"

#include "expertmesh/kernels.h"

#include <stdlib.h>

static int64_t middle(em_range node)
{
    return node.begin + (node.end - node.begin) / 2;
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

/* ---- covers ---- */

static bool has_one_owner(em_range node, const int *owner)
{
    for (int64_t u = node.begin + 1; u < node.end; u++)
        if (owner[u] != owner[node.begin]) return false;
    return true;
}

/* count [P]: nodes of each rank so far. */
static void add_nodes(em_cover *cover, em_range node, const int *owner, int *count)
{
    if (!has_one_owner(node, owner)) {
        add_nodes(cover, (em_range){node.begin, middle(node)}, owner, count);
        add_nodes(cover, (em_range){middle(node), node.end}, owner, count);
        return;
    }
    int i = cover->num_nodes++, rank = owner[node.begin];
    cover->node[i] = node;
    cover->rank[i] = rank;
    cover->place[i] = count[rank]++;
}

em_cover em_cover_make(int64_t num_leaves, int num_ranks, const int *owner)
{
    em_cover cover = {.node = em_alloc(num_leaves, sizeof(em_range)),
                      .rank = em_alloc(num_leaves, sizeof(int)),
                      .place = em_alloc(num_leaves, sizeof(int))};
    int *count = em_zeroed(num_ranks, sizeof *count);
    add_nodes(&cover, (em_range){0, num_leaves}, owner, count);
    free(count);
    return cover;
}

void em_cover_free(em_cover *cover)
{
    free(cover->node);
    free(cover->rank);
    free(cover->place);
    *cover = (em_cover){0};
}

int em_cover_count(const em_cover *cover, int rank)
{
    int count = 0;
    for (int i = 0; i < cover->num_nodes; i++) count += cover->rank[i] == rank;
    return count;
}

em_covers em_expert_covers(const em_layout *layout)
{
    int64_t E = layout->num_experts, slices = layout->slices_per_expert;
    em_covers covers = {.num_experts = E, .first = em_zeroed(E + 1, sizeof(int64_t))};
    for (int64_t e = 0; e < E; e++) covers.first[e + 1] = covers.first[e] + em_layout_turns(layout, e);
    covers.num_groups = covers.first[E];
    covers.cover = em_alloc(covers.num_groups, sizeof *covers.cover);
    int *owner = em_alloc(slices, sizeof *owner);
    for (int64_t e = 0; e < E; e++)
        for (int64_t g = covers.first[e]; g < covers.first[e + 1]; g++) {
            for (int64_t s = 0; s < slices; s++)
                owner[s] = em_ownership_owner(&layout->ffn, e * slices + s, g - covers.first[e]);
            covers.cover[g] = em_cover_make(slices, layout->num_ranks, owner);
        }
    free(owner);
    return covers;
}

void em_covers_free(em_covers *covers)
{
    for (int64_t g = 0; g < covers->num_groups; g++) em_cover_free(&covers->cover[g]);
    free(covers->cover);
    free(covers->first);
    *covers = (em_covers){0};
}

em_cover em_head_cover(const em_layout *layout)
{
    return em_cover_make(layout->num_q_heads, layout->num_ranks, layout->heads.owner);
}
