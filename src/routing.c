#include "expertmesh/routing.h"

#include <stdlib.h>
#include <string.h>

em_exchange *em_plan_embedding(MPI_Comm comm, const em_layout *layout, int64_t T, const int32_t *token_id)
{
    em_exchange *plan = em_exchange_new(comm);
    int64_t *looked_up = em_zeroed(plan->num_ranks, sizeof *looked_up);
    int64_t first = em_layout_tokens(layout, T, plan->rank).begin;
    for (int64_t t = 0; t < T; t++) {
        int holder = em_layout_vocab_owner(layout, token_id[t]), owner = em_layout_token_owner(layout, T, t);
        if (holder == plan->rank) em_exchange_send(plan, owner, looked_up[holder]);
        if (owner == plan->rank) em_exchange_receive(plan, holder, looked_up[holder], t - first);
        looked_up[holder]++;
    }
    free(looked_up);
    return plan;
}

em_exchange *em_plan_gather(MPI_Comm comm, const em_layout *layout, int64_t T, const bool *needs)
{
    em_exchange *plan = em_exchange_new(comm);
    int64_t own = em_range_size(em_layout_tokens(layout, T, plan->rank));
    for (int r = 0; r < plan->num_ranks; r++) {
        em_range theirs = em_layout_tokens(layout, T, r);
        for (int64_t t = 0; needs[r] && t < own; t++) em_exchange_send(plan, r, t);
        for (int64_t t = theirs.begin; needs[plan->rank] && t < theirs.end; t++)
            em_exchange_receive(plan, r, t - theirs.begin, t);
    }
    return plan;
}

em_exchange *em_plan_sum_home(MPI_Comm comm, const em_layout *layout, int64_t T, const em_cover *cover)
{
    em_exchange *plan = em_exchange_new(comm);
    int nodes_here = cover->first_node[plan->rank + 1] - cover->first_node[plan->rank];
    em_range mine = em_layout_tokens(layout, T, plan->rank);
    int64_t own = em_range_size(mine);
    for (int r = 0; r < plan->num_ranks; r++) {
        em_range theirs = em_layout_tokens(layout, T, r);
        for (int node = 0; node < nodes_here; node++)
            for (int64_t t = theirs.begin; t < theirs.end; t++) em_exchange_send(plan, r, node * T + t);
        for (int node = cover->first_node[r]; node < cover->first_node[r + 1]; node++)
            for (int64_t t = 0; t < own; t++)
                em_exchange_receive(plan, r, (node - cover->first_node[r]) * T + mine.begin + t, node * own + t);
    }
    return plan;
}

static int nodes_of(const em_cover *cover, int rank)
{
    return cover->first_node[rank + 1] - cover->first_node[rank];
}

/* How many rows each expert has here, what it will produce, and where both begin. */
static void place_rows(em_routing *routing, const em_cover *covers, int rank, int64_t keys, const int32_t *expert)
{
    int64_t E = routing->num_experts, *rows = em_zeroed(E, sizeof *rows);
    for (int64_t key = 0; key < keys; key++) rows[expert[key]]++;
    for (int64_t e = 0; e < E; e++) {
        int nodes = nodes_of(&covers[e], rank);
        routing->first_row[e + 1] = routing->first_row[e] + (nodes > 0 ? rows[e] : 0);
        routing->first_output[e + 1] = routing->first_output[e] + nodes * rows[e];
    }
    routing->num_rows = routing->first_row[E];
    routing->num_outputs = routing->first_output[E];
    free(rows);
}

/* The ranks of an expert each get a token's row once for each choice of that expert. */
static void plan_dispatch(em_routing *routing, const em_layout *layout, const em_cover *covers, int64_t T, int64_t S,
                          const int32_t *expert)
{
    em_exchange *plan = routing->dispatch;
    em_range own = em_layout_tokens(layout, T, plan->rank);
    int64_t *next = em_alloc(routing->num_experts, sizeof *next);
    memcpy(next, routing->first_row, (size_t)routing->num_experts * sizeof *next);
    for (int64_t key = 0; key < T * S; key++) {
        const em_cover *cover = &covers[expert[key]];
        int64_t t = key / S;
        bool mine = own.begin <= t && t < own.end;
        for (int r = cover->rank[0]; mine && r <= cover->rank[cover->num_nodes - 1]; r++)
            if (nodes_of(cover, r) > 0) em_exchange_send(plan, r, t - own.begin);
        if (nodes_of(cover, plan->rank) == 0) continue;
        int64_t row = next[expert[key]]++;
        routing->row_key[row] = (int32_t)key;
        int owner = em_layout_token_owner(layout, T, t);
        em_exchange_receive(plan, owner, t - em_layout_tokens(layout, T, owner).begin, row);
    }
    free(next);
}

/* What the experts here produced goes home: expert by expert, node by node, key by key. */
static void plan_outputs(em_routing *routing, const em_layout *layout, const em_cover *covers, int64_t T, int64_t S)
{
    em_exchange *plan = routing->combine;
    for (int64_t e = 0; e < routing->num_experts; e++) {
        int64_t first = routing->first_row[e], rows = routing->first_row[e + 1] - first;
        for (int node = 0; node < nodes_of(&covers[e], plan->rank); node++)
            for (int64_t i = 0; i < rows; i++) {
                int owner = em_layout_token_owner(layout, T, routing->row_key[first + i] / S);
                em_exchange_send(plan, owner, routing->first_output[e] + node * rows + i);
            }
    }
}

/* The parts of each own key: as many as its expert is summed in. */
static void place_parts(em_routing *routing, const em_cover *covers, int64_t num_own)
{
    for (int64_t key = 0; key < num_own; key++)
        routing->first_part[key + 1] = routing->first_part[key] + covers[routing->own_expert[key]].num_nodes;
    routing->num_parts = routing->first_part[num_own];
}

/* The rows of each expert [E], and the place of each own key among those of its expert. */
static void count_rows(em_range own_keys, int64_t keys, const int32_t *expert, int64_t *rows, int64_t *place)
{
    for (int64_t key = 0; key < keys; key++) {
        if (own_keys.begin <= key && key < own_keys.end) place[key - own_keys.begin] = rows[expert[key]];
        rows[expert[key]]++;
    }
}

/* The same order seen from home: what rank r sends, it has produced expert by expert, node by node, key by key. */
static void plan_homecoming(em_routing *routing, const em_cover *covers, em_range own_keys, int64_t keys,
                            const int32_t *expert)
{
    em_exchange *plan = routing->combine;
    int64_t own = em_range_size(own_keys), *place = em_alloc(own, sizeof *place);
    int64_t *rows = em_zeroed(routing->num_experts, sizeof *rows);
    int64_t *produced = routing->outputs; /* of each rank up to here */
    count_rows(own_keys, keys, expert, rows, place);
    for (int64_t e = 0; e < routing->num_experts; e++)
        for (int node = 0; node < covers[e].num_nodes; node++) {
            int r = covers[e].rank[node];
            for (int64_t key = 0; key < own; key++)
                if (routing->own_expert[key] == e)
                    em_exchange_receive(plan, r, produced[r] + place[key], routing->first_part[key] + node);
            produced[r] += rows[e];
        }
    free(place);
    free(rows);
}

em_routing *em_routing_make(MPI_Comm comm, const em_layout *layout, const em_cover *covers, int64_t T, int64_t S,
                            const int32_t *expert)
{
    em_routing *routing = em_zeroed(1, sizeof *routing);
    routing->num_experts = layout->num_experts;
    routing->dispatch = em_exchange_new(comm);
    routing->combine = em_exchange_new(comm);
    int rank = routing->dispatch->rank;
    em_range own = em_layout_tokens(layout, T, rank), own_keys = {own.begin * S, own.end * S};
    int64_t num_own = em_range_size(own_keys);
    routing->first_row = em_zeroed(layout->num_experts + 1, sizeof(int64_t));
    routing->first_output = em_zeroed(layout->num_experts + 1, sizeof(int64_t));
    routing->outputs = em_zeroed(layout->num_ranks, sizeof(int64_t));
    routing->first_part = em_zeroed(num_own + 1, sizeof(int64_t));
    routing->own_expert = em_alloc(num_own, sizeof(int32_t));
    memcpy(routing->own_expert, expert + own_keys.begin, (size_t)num_own * sizeof(int32_t));
    place_rows(routing, covers, rank, T * S, expert);
    routing->row_key = em_alloc(routing->num_rows, sizeof(int32_t));
    plan_dispatch(routing, layout, covers, T, S, expert);
    plan_outputs(routing, layout, covers, T, S);
    place_parts(routing, covers, num_own);
    plan_homecoming(routing, covers, own_keys, T * S, expert);
    return routing;
}

void em_routing_free(em_routing *routing)
{
    if (!routing) return;
    em_exchange_free(routing->dispatch);
    em_exchange_free(routing->combine);
    free(routing->first_row);
    free(routing->first_output);
    free(routing->outputs);
    free(routing->first_part);
    free(routing->row_key);
    free(routing->own_expert);
    free(routing);
}

em_cover *em_expert_covers(const em_layout *layout)
{
    em_cover *covers = em_alloc(layout->num_experts, sizeof *covers);
    em_range *run = em_alloc(layout->num_ranks, sizeof *run);
    for (int64_t e = 0; e < layout->num_experts; e++) {
        for (int r = 0; r < layout->num_ranks; r++) run[r] = em_layout_slices(layout, r, e);
        covers[e] = em_cover_make(layout->slices_per_expert, layout->num_ranks, run);
    }
    free(run);
    return covers;
}

em_cover em_head_cover(const em_layout *layout)
{
    em_range *run = em_alloc(layout->num_ranks, sizeof *run);
    for (int r = 0; r < layout->num_ranks; r++) run[r] = em_layout_heads(layout, r);
    em_cover cover = em_cover_make(layout->num_q_heads, layout->num_ranks, run);
    free(run);
    return cover;
}
