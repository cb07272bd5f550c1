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
    plan->repeats = true;
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
    em_range mine = em_layout_tokens(layout, T, plan->rank);
    int64_t own = em_range_size(mine);
    for (int node = 0; node < cover->num_nodes; node++) {
        int64_t first = cover->place[node] * T;
        for (int r = 0; r < plan->num_ranks && cover->rank[node] == plan->rank; r++) {
            em_range theirs = em_layout_tokens(layout, T, r);
            for (int64_t t = theirs.begin; t < theirs.end; t++) em_exchange_send(plan, r, first + t);
        }
        for (int64_t t = 0; t < own; t++)
            em_exchange_receive(plan, cover->rank[node], first + mine.begin + t, node * own + t);
    }
    return plan;
}

/* ---- experts ---- */

/* A batch as its routing is planned. */
typedef struct routed {
    const em_layout *layout;
    const em_covers *covers;
    int64_t T, S;
    em_range own;   /* tokens of this rank */
    int64_t *group; /* [T, S] */
    int64_t *rows;  /* [G] of all keys */
} routed;

/* How many rows each group has here, what it will produce, and where both begin. */
static void place_rows(em_routing *routing, const routed *b, int rank)
{
    for (int64_t g = 0; g < routing->num_groups; g++) {
        int nodes = em_cover_count(&b->covers->cover[g], rank);
        routing->first_row[g + 1] = routing->first_row[g] + (nodes > 0 ? b->rows[g] : 0);
        routing->first_output[g + 1] = routing->first_output[g] + nodes * b->rows[g];
    }
    routing->num_rows = routing->first_row[routing->num_groups];
    routing->num_outputs = routing->first_output[routing->num_groups];
}

/* The ranks of a group each get a token's row once for each choice of its expert. */
static void plan_dispatch(em_routing *routing, const routed *b)
{
    em_exchange *plan = routing->dispatch;
    int64_t *next = em_alloc(routing->num_groups, sizeof *next);
    memcpy(next, routing->first_row, (size_t)routing->num_groups * sizeof *next);
    for (int64_t key = 0; key < b->T * b->S; key++) {
        const em_cover *cover = &b->covers->cover[b->group[key]];
        int64_t t = key / b->S;
        bool mine = b->own.begin <= t && t < b->own.end, here = false;
        for (int node = 0; node < cover->num_nodes; node++) {
            if (mine && cover->place[node] == 0) em_exchange_send(plan, cover->rank[node], t - b->own.begin);
            here = here || cover->rank[node] == plan->rank;
        }
        if (!here) continue;
        int64_t row = next[b->group[key]]++;
        routing->row_key[row] = (int32_t)key;
        int owner = em_layout_token_owner(b->layout, b->T, t);
        em_exchange_receive(plan, owner, t - em_layout_tokens(b->layout, b->T, owner).begin, row);
    }
    free(next);
}

/* What the experts here produced goes home: group by group, node by node, key by key. */
static void plan_outputs(em_routing *routing, const routed *b)
{
    em_exchange *plan = routing->combine;
    for (int64_t g = 0; g < routing->num_groups; g++) {
        int64_t first = routing->first_row[g], rows = routing->first_row[g + 1] - first;
        int nodes = rows > 0 ? em_cover_count(&b->covers->cover[g], plan->rank) : 0;
        for (int node = 0; node < nodes; node++)
            for (int64_t i = 0; i < rows; i++) {
                int owner = em_layout_token_owner(b->layout, b->T, routing->row_key[first + i] / b->S);
                em_exchange_send(plan, owner, routing->first_output[g] + node * rows + i);
            }
    }
}

/* The parts of each own key: as many as its group is summed in. */
static void place_parts(em_routing *routing, const routed *b)
{
    int64_t keys = em_range_size(b->own) * b->S;
    for (int64_t key = 0; key < keys; key++)
        routing->first_part[key + 1] = routing->first_part[key] + b->covers->cover[routing->own_group[key]].num_nodes;
    routing->num_parts = routing->first_part[keys];
}

/* The own keys group by group, in order: list [keys], of group g from first[g] on, and the place of each among all keys of
 * its group. */
static void list_own_keys(const routed *b, int64_t num_groups, int64_t *first, int64_t *list, int64_t *place)
{
    em_range own = {b->own.begin * b->S, b->own.end * b->S};
    int64_t *seen = em_zeroed(num_groups, sizeof *seen), *next = em_alloc(num_groups, sizeof *next);
    for (int64_t key = own.begin; key < own.end; key++) first[b->group[key] + 1]++;
    for (int64_t g = 0; g < num_groups; g++) {
        next[g] = first[g];
        first[g + 1] += first[g];
    }
    for (int64_t key = 0; key < own.end; key++) {
        int64_t g = b->group[key];
        if (key >= own.begin) {
            place[key - own.begin] = seen[g];
            list[next[g]++] = key - own.begin;
        }
        seen[g]++;
    }
    free(seen);
    free(next);
}

/* The same order seen from home: what rank r sends, it has produced group by group, node by node, key by key. */
static void plan_homecoming(em_routing *routing, const routed *b)
{
    int64_t keys = em_range_size(b->own) * b->S, G = routing->num_groups;
    int64_t *first = em_zeroed(G + 1, sizeof *first), *list = em_alloc(keys, sizeof *list);
    int64_t *place = em_alloc(keys, sizeof *place), *produced = routing->outputs; /* of each rank up to here */
    list_own_keys(b, G, first, list, place);
    for (int64_t g = 0; g < G; g++) {
        const em_cover *cover = &b->covers->cover[g];
        for (int node = 0; b->rows[g] > 0 && node < cover->num_nodes; node++) {
            int r = cover->rank[node];
            for (int64_t i = first[g]; i < first[g + 1]; i++)
                em_exchange_receive(routing->combine, r, produced[r] + place[list[i]],
                                    routing->first_part[list[i]] + node);
            produced[r] += b->rows[g];
        }
    }
    free(first);
    free(list);
    free(place);
}

em_routing *em_routing_make(MPI_Comm comm, const em_layout *layout, const em_covers *covers, int64_t first_token,
                            int64_t T, int64_t S, const int32_t *expert)
{
    em_routing *routing = em_zeroed(1, sizeof *routing);
    int64_t G = routing->num_groups = covers->num_groups;
    routing->dispatch = em_exchange_new(comm);
    routing->dispatch->repeats = true;
    routing->combine = em_exchange_new(comm);
    int rank = routing->dispatch->rank;
    routed b = {.layout = layout, .covers = covers, .T = T, .S = S, .own = em_layout_tokens(layout, T, rank)};
    b.group = em_alloc(T * S, sizeof *b.group);
    b.rows = em_zeroed(G, sizeof *b.rows);
    for (int64_t key = 0; key < T * S; key++) {
        b.group[key] = em_covers_group(covers, expert[key], first_token + key / S);
        b.rows[b.group[key]]++;
    }
    int64_t num_own = em_range_size(b.own) * S;
    routing->first_row = em_zeroed(G + 1, sizeof(int64_t));
    routing->first_output = em_zeroed(G + 1, sizeof(int64_t));
    routing->outputs = em_zeroed(layout->num_ranks, sizeof(int64_t));
    routing->first_part = em_zeroed(num_own + 1, sizeof(int64_t));
    routing->own_group = em_alloc(num_own, sizeof(int64_t));
    memcpy(routing->own_group, b.group + b.own.begin * S, (size_t)num_own * sizeof(int64_t));
    place_rows(routing, &b, rank);
    routing->row_key = em_alloc(routing->num_rows, sizeof(int32_t));
    plan_dispatch(routing, &b);
    plan_outputs(routing, &b);
    place_parts(routing, &b);
    plan_homecoming(routing, &b);
    free(b.group);
    free(b.rows);
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
    free(routing->own_group);
    free(routing);
}
