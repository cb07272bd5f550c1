#include "exchange_node.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- hosts ---- */

/* The ranks of one host, ascending; all of them where host is -1. Returns how many. */
static int members_of(const int *host_of, int num_ranks, int host, int *member)
{
    int count = 0;
    for (int r = 0; r < num_ranks; r++)
        if (host_of[r] == host) member[count++] = r;
    return count;
}

void em_node_room(const em_shared *from, int64_t dim, int64_t *rows)
{
    int P = from->num_ranks, *member = em_alloc(P, sizeof *member);
    for (int host = 0; host < P; host++) {
        int count = members_of(from->host_of, P, host, member);
        int64_t most = 0;
        for (int r = 0; r < P && count > 0; r++)
            if (from->host_of[r] != host) most += (from->room[r] / dim + count - 1) / count;
        for (int i = 0; i < count; i++) rows[member[i]] = most;
    }
    free(member);
}

/* ---- sets of rows ---- */

/* Rows of one array, each there or not. */
typedef struct row_set {
    bool *has; /* [size] */
    int size, room;
} row_set;

static void add_rows(row_set *set, const int *row, int count)
{
    for (int i = 0; i < count; i++) {
        if (row[i] >= set->room) {
            int room = row[i] < INT_MAX / 2 ? 2 * row[i] + 16 : INT_MAX;
            set->has = em_grow(set->has, set->room, room, sizeof(bool));
            memset(set->has + set->room, 0, (size_t)(room - set->room) * sizeof(bool));
            set->room = room;
        }
        if (row[i] >= set->size) set->size = row[i] + 1;
        set->has[row[i]] = true;
    }
}

static void empty(row_set *set)
{
    if (set->size > 0) memset(set->has, 0, (size_t)set->size * sizeof(bool));
    set->size = 0;
}

/* ---- sending ---- */

/* This rank's rows that a host needs. */
static void rows_for(const em_exchange *plan, const int *member, int members, row_set *set)
{
    empty(set);
    for (int i = 0; i < members; i++) add_rows(set, plan->send[member[i]].row, plan->send[member[i]].count);
}

static void plan_sending(em_node_plan *node, const em_exchange *plan, const int *host_of)
{
    int P = plan->num_ranks, *member = em_alloc(P, sizeof *member);
    row_set set = {0};
    for (int host = 0; host < P; host++) {
        int members = host == host_of[plan->rank] ? 0 : members_of(host_of, P, host, member);
        rows_for(plan, member, members, &set);
        for (int row = 0; row < set.size; row++)
            if (set.has[row]) em_row_list_add(&node->send[member[row % members]], row);
    }
    free(set.has);
    free(member);
}

em_traffic em_exchange_traffic(const em_exchange *plan, const int *host_of, bool once)
{
    int P = plan->num_ranks, *member = em_alloc(P, sizeof *member);
    em_traffic traffic = {0, 0};
    row_set set = {0};
    for (int host = 0; host < P; host++) {
        int members = members_of(host_of, P, host, member);
        bool here = host == host_of[plan->rank];
        for (int i = 0; i < members; i++) {
            const em_row_list *list = &plan->send[member[i]];
            if (here && member[i] != plan->rank) traffic.inside += list->count;
            if (!here && !once) traffic.between += list->count;
            for (int k = 0; !here && once && k < list->count; k++)
                traffic.inside += member[list->row[k] % members] != member[i];
        }
        if (here || !once) continue;
        rows_for(plan, member, members, &set);
        for (int row = 0; row < set.size; row++) traffic.between += set.has[row];
    }
    free(set.has);
    free(member);
    return traffic;
}

/* ---- receiving ---- */

/* What every member of this host needs of the ranks of others: count [members, P], and the rows beside each other, member
 * by member, rank by rank. */
typedef struct needs {
    int *count, *row;
} needs;

static needs tell_needs(const em_exchange *plan, const em_shared *from)
{
    int P = plan->num_ranks, mine = 0, all = 0;
    int *own = em_zeroed(P, sizeof *own), *size = em_alloc(2 * from->host_size, sizeof *size);
    int *begin = size + from->host_size;
    needs n = {.count = em_alloc((int64_t)from->host_size * P, sizeof(int))};
    for (int r = 0; r < P; r++)
        if (!from->readable[r]) mine += own[r] = plan->source[r].count;
    MPI_Allgather(own, P, MPI_INT, n.count, P, MPI_INT, from->host);
    for (int i = 0; i < from->host_size; i++) {
        begin[i] = all;
        for (int r = 0; r < P; r++) {
            if (n.count[i * P + r] > INT_MAX - all)
                em_die("the rows that one host needs are too many for one exchange");
            all += n.count[i * P + r];
        }
        size[i] = all - begin[i];
    }
    n.row = em_alloc(all, sizeof(int));
    int *rows = em_alloc(mine, sizeof *rows), *next = rows;
    for (int r = 0; r < P; next += own[r++])
        if (own[r] > 0) memcpy(next, plan->source[r].row, (size_t)own[r] * sizeof *rows);
    MPI_Allgatherv(rows, mine, MPI_INT, n.row, size, begin, MPI_INT, from->host);
    free(rows);
    free(own);
    free(size);
    return n;
}

/* Where the rows of rank r land: [set.size] place of each with its keeper. landed [members] rows so far. */
static int *place_rows(const em_shared *from, const row_set *set, int *landed)
{
    int *place = em_alloc(set->size, sizeof *place);
    for (int row = 0; row < set->size; row++)
        if (set->has[row]) place[row] = landed[row % from->host_size]++;
    return place;
}

static void plan_receiving(em_node_plan *node, const em_exchange *plan, const em_shared *from)
{
    int P = plan->num_ranks, me = 0, members = from->host_size, *landed = em_zeroed(members, sizeof *landed);
    needs n = tell_needs(plan, from);
    const int **next = em_alloc(members, sizeof *next), *row = n.row;
    for (int i = 0; i < members; i++) {
        if (from->member[i] == from->rank) me = i;
        next[i] = row;
        for (int r = 0; r < P; r++) row += n.count[i * P + r];
    }
    row_set set = {0};
    for (int r = 0; r < P; r++) {
        int before = landed[me];
        empty(&set);
        for (int i = 0; i < members; i++) {
            add_rows(&set, next[i], n.count[i * P + r]);
            next[i] += n.count[i * P + r];
        }
        int *place = place_rows(from, &set, landed);
        node->come[r] = landed[me] - before;
        for (int i = 0; !from->readable[r] && i < plan->source[r].count; i++) {
            int wanted = plan->source[r].row[i];
            em_row_list_add(&node->keeper[r], from->member[wanted % members]);
            em_row_list_add(&node->place[r], place[wanted]);
        }
        free(place);
    }
    free(set.has);
    free(n.count);
    free(n.row);
    free(next);
    free(landed);
}

/* ---- both ---- */

em_node_plan *em_node_plan_make(const em_exchange *plan, const em_shared *from)
{
    em_node_plan *node = em_zeroed(1, sizeof *node);
    node->num_ranks = plan->num_ranks;
    node->send = em_zeroed(plan->num_ranks, sizeof *node->send);
    node->come = em_zeroed(plan->num_ranks, sizeof *node->come);
    node->keeper = em_zeroed(plan->num_ranks, sizeof *node->keeper);
    node->place = em_zeroed(plan->num_ranks, sizeof *node->place);
    plan_sending(node, plan, from->host_of);
    plan_receiving(node, plan, from);
    return node;
}

void em_node_plan_free(em_node_plan *node)
{
    if (!node) return;
    for (int r = 0; r < node->num_ranks; r++) {
        free(node->send[r].row);
        free(node->keeper[r].row);
        free(node->place[r].row);
    }
    free(node->send);
    free(node->come);
    free(node->keeper);
    free(node->place);
    free(node);
}
