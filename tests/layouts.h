/* layouts.h: layouts that nobody would make: any unit on any rank, slices with replicas, idle ranks. */
#ifndef EXPERTMESH_LAYOUTS_H
#define EXPERTMESH_LAYOUTS_H

#include "draw.h"

#include "expertmesh/layout.h"

/* Each unit, or each few neighbours, to any rank below the last one that owns anything. */
static inline em_ownership draw_ownership(int64_t units, int num_ranks)
{
    int busy = (int)draw_from(1, num_ranks), *owner = em_alloc(units, sizeof *owner);
    int64_t together = draw_from(1, 5);
    for (int64_t u = 0; u < units; u++) owner[u] = u % together == 0 ? (int)draw_below(busy) : owner[u - 1];
    return em_ownership_make(units, num_ranks, NULL, owner);
}

/* Of every few slices, one has several owners, which begin anywhere. */
static inline em_ownership draw_replicas(int64_t units, int num_ranks)
{
    int64_t *first = em_zeroed(units + 1, sizeof *first), together = draw_from(1, 9);
    int *owner = em_alloc(units * num_ranks, sizeof *owner);
    int64_t owners = 1, begin = 0;
    for (int64_t u = 0; u < units; u++) {
        if (u % together == 0) {
            owners = draw_below(3) == 0 ? draw_from(1, num_ranks) : 1;
            begin = draw_below(num_ranks);
        }
        first[u + 1] = first[u] + owners;
        for (int64_t i = 0; i < owners; i++) owner[first[u] + i] = (int)((begin + i) % num_ranks);
    }
    return em_ownership_make(units, num_ranks, first, owner);
}

/* On all ranks the same, as long as all draw alike. Freed with em_layout_free. */
static inline em_layout draw_layout(const em_config *config, int num_ranks)
{
    em_layout layout = em_layout_cut(config, num_ranks);
    layout.heads = draw_ownership(layout.num_q_heads, num_ranks);
    layout.ffn = draw_replicas(layout.num_experts * layout.slices_per_expert, num_ranks);
    layout.vocabulary = draw_ownership(layout.vocab_blocks, num_ranks);
    em_layout_complete(&layout, &(em_layout_plan){.num_ranks = num_ranks, .bytes = {1, 1, 1, 1}});
    return layout;
}

#endif
