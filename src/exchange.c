#include "exchange_node.h"

#include "expertmesh/standing.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

em_exchange *em_exchange_new(MPI_Comm comm)
{
    em_exchange *plan = em_zeroed(1, sizeof *plan);
    plan->comm = comm;
    MPI_Comm_size(comm, &plan->num_ranks);
    MPI_Comm_rank(comm, &plan->rank);
    plan->send = em_zeroed(plan->num_ranks, sizeof *plan->send);
    plan->receive = em_zeroed(plan->num_ranks, sizeof *plan->receive);
    plan->source = em_zeroed(plan->num_ranks, sizeof *plan->source);
    plan->type = em_alloc(plan->num_ranks, sizeof *plan->type);
    for (int r = 0; r < plan->num_ranks; r++) plan->type[r] = MPI_DATATYPE_NULL;
    return plan;
}

static void forget_types(em_exchange *plan)
{
    for (int r = 0; r < plan->num_ranks; r++)
        if (plan->type[r] != MPI_DATATYPE_NULL) MPI_Type_free(&plan->type[r]); /* leaves MPI_DATATYPE_NULL */
}

void em_exchange_free(em_exchange *plan)
{
    if (!plan) return;
    forget_types(plan);
    em_node_plan_free(plan->node);
    for (int r = 0; r < plan->num_ranks; r++) {
        free(plan->send[r].row);
        free(plan->receive[r].row);
        free(plan->source[r].row);
    }
    free(plan->send);
    free(plan->receive);
    free(plan->source);
    free(plan->type);
    free(plan);
}

void em_row_list_add(em_row_list *list, int64_t row)
{
    if (row < 0 || row > INT_MAX) em_die("row %lld of an exchange is no int", (long long)row);
    if (list->count == list->room) {
        int room = list->room > 0 ? 2 * list->room : 16;
        list->row = em_grow(list->row, list->count, room, sizeof(int));
        list->room = room;
    }
    list->row[list->count++] = (int)row;
}

void em_exchange_send(em_exchange *plan, int to_rank, int64_t row)
{
    em_row_list_add(&plan->send[to_rank], row);
}

void em_exchange_receive(em_exchange *plan, int from_rank, int64_t from_row, int64_t row)
{
    em_row_list_add(&plan->source[from_rank], from_row);
    em_row_list_add(&plan->receive[from_rank], row);
}

/* The length of the run of consecutive rows that begins at place i of a list. */
static int run_length(const em_row_list *list, int i)
{
    int length = 1;
    while (i + length < list->count && list->row[i + length] == list->row[i] + length) length++;
    return length;
}

/* The rows of a list, in its order, as one MPI datatype. Freed with MPI_Type_free. */
static MPI_Datatype rows_type(const em_row_list *list, MPI_Datatype row)
{
    int *begin = em_alloc(list->count, sizeof(int)), *length = em_alloc(list->count, sizeof(int)), runs = 0;
    for (int i = 0; i < list->count; i += length[runs++]) {
        begin[runs] = list->row[i];
        length[runs] = run_length(list, i);
    }
    MPI_Datatype type;
    MPI_Type_indexed(runs, length, begin, row, &type);
    MPI_Type_commit(&type);
    free(begin);
    free(length);
    return type;
}

static void point_at(em_arrival *to, int row, const float *where)
{
    if (row >= to->num_rows) em_die("row %d of an exchange of %lld rows", row, (long long)to->num_rows);
    to->row[row] = where;
}

/* ---- rows of this host ---- */

/* Room for the addresses of all rows that arrive, and those of the rows that need no message. */
static void point_in_place(const em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to)
{
    to->num_rows = 0;
    for (int r = 0; r < plan->num_ranks; r++) to->num_rows += plan->receive[r].count;
    if (to->num_rows > to->row_room) {
        free(to->row);
        to->row = em_alloc(to->num_rows, sizeof *to->row);
        to->row_room = to->num_rows;
    }
    for (int r = 0; r < plan->num_ranks; r++)
        for (int i = 0; from->readable[r] && i < plan->receive[r].count; i++)
            point_at(to, plan->receive[r].row[i], from->array[r] + plan->source[r].row[i] * dim);
}

/* ---- rows by messages ---- */

/* The rows of a list as they lie in this rank's array. Kept with the plan, which may be delivered again. */
static MPI_Datatype type_for(em_exchange *plan, const em_row_list *lists, int rank, int64_t dim, MPI_Datatype row)
{
    if (plan->type_dim != dim || plan->type_of != lists) forget_types(plan);
    plan->type_dim = dim;
    plan->type_of = lists;
    if (plan->type[rank] == MPI_DATATYPE_NULL) plan->type[rank] = rows_type(&lists[rank], row);
    return plan->type[rank];
}

/* Rows of one sender that a request is for. */
typedef struct coming {
    int sender, rows;
} coming;

/* What is still missing, of each rank. The watchdog is told of a few at once: of ranks below `next`, of which `open` miss some. */
typedef struct missing {
    int *rows; /* [P] */
    int num_ranks, next, open;
} missing;

static void tell_missing(missing *m)
{
    for (; m->open < EM_MOST_EXPECTED && m->next < m->num_ranks; m->next++) {
        if (m->rows[m->next] == 0) continue;
        em_expect(m->next, m->rows[m->next]);
        m->open++;
    }
}

static void have_come(missing *m, const coming *what)
{
    m->rows[what->sender] -= what->rows;
    if (what->sender >= m->next) return;
    em_expect(what->sender, m->rows[what->sender]);
    if (m->rows[what->sender] == 0) m->open--;
}

/* Until all requests are done. */
static void wait_for_rows(int num_ranks, int count, const coming *what, MPI_Request *request)
{
    missing m = {em_zeroed(num_ranks, sizeof *m.rows), num_ranks, 0, 0};
    int *done = em_alloc(count, sizeof *done), some;
    for (int i = 0; i < count; i++)
        if (request[i] != MPI_REQUEST_NULL) m.rows[what[i].sender] += what[i].rows;
    em_wait("rows of other hosts");
    do {
        tell_missing(&m);
        MPI_Waitsome(count, request, &some, done, MPI_STATUSES_IGNORE);
        for (int i = 0; i < some; i++) have_come(&m, &what[done[i]]); /* MPI_UNDEFINED is below 0 */
    } while (some != MPI_UNDEFINED);
    free(m.rows);
    free(done);
}

/* Rows to and from ranks that cannot read each other's arrays: lists [P] of `from` to each, so many from each, which come to
 * lie one after another, rank by rank. */
static void carry_rows(em_exchange *plan, int64_t dim, const em_shared *from, const em_row_list *lists, const int *come,
                       float *to)
{
    int started = 0;
    MPI_Datatype row;
    MPI_Type_contiguous((int)dim, MPI_FLOAT, &row);
    MPI_Type_commit(&row);
    MPI_Request *request = em_alloc(2 * plan->num_ranks, sizeof *request);
    coming *what = em_alloc(plan->num_ranks, sizeof *what);
    for (int r = 0; r < plan->num_ranks; r++) {
        if (from->readable[r] || come[r] == 0) continue;
        what[started] = (coming){r, come[r]};
        MPI_Irecv(to, come[r], row, r, 0, plan->comm, &request[started++]);
        to += come[r] * dim;
    }
    int received = started;
    for (int r = 0; r < plan->num_ranks; r++)
        if (!from->readable[r] && lists[r].count > 0)
            MPI_Isend(from->own, 1, type_for(plan, lists, r, dim, row), r, 0, plan->comm, &request[started++]);
    wait_for_rows(plan->num_ranks, received, what, request);
    em_wait("others to take its rows");
    MPI_Waitall(started, request, MPI_STATUSES_IGNORE);
    em_wait(NULL);
    MPI_Type_free(&row);
    free(request);
    free(what);
}

/* Room for the rows that come by messages for this rank alone; come [P]: how many of each rank. */
static void make_room_for(const em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to, int *come)
{
    int64_t rows = 0;
    for (int r = 0; r < plan->num_ranks; r++) rows += come[r] = from->readable[r] ? 0 : plan->receive[r].count;
    if (rows * dim <= to->came_room) return;
    free(to->came);
    to->came = em_alloc(rows * dim, sizeof(float));
    to->came_room = rows * dim;
}

/* They lie one after another, rank by rank. */
static void point_at_came(const em_exchange *plan, int64_t dim, const int *come, em_arrival *to)
{
    const float *next = to->came;
    for (int r = 0; r < plan->num_ranks; r++)
        for (int i = 0; i < come[r]; i++, next += dim) point_at(to, plan->receive[r].row[i], next);
}

/* Each row to each rank that needs it. */
static void carry_to_ranks(em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to)
{
    int *come = em_alloc(plan->num_ranks, sizeof *come);
    make_room_for(plan, dim, from, to, come);
    point_at_came(plan, dim, come, to);
    carry_rows(plan, dim, from, plan->send, come, to->came);
    free(come);
}

/* Each row once to each host, where all who need it read it when it has landed. */
static void carry_to_hosts(em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to)
{
    const em_node_plan *node = plan->node;
    carry_rows(plan, dim, from, node->send, node->come, to->landing->own);
    em_shared_publish(to->landing);
    for (int r = 0; r < plan->num_ranks; r++)
        for (int i = 0; i < node->place[r].count; i++)
            point_at(to, plan->receive[r].row[i],
                     to->landing->array[node->keeper[r].row[i]] + node->place[r].row[i] * dim);
}

/* Where rows go once to each host: room for them, and the plan for it. Collective; all find the same. */
static bool prepare_landing(em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to)
{
    if (to->flat || !plan->repeats || !from->by_message || from->cannot_share) return false;
    if (!to->landing) to->landing = em_shared_like(from);
    int64_t *rows = em_alloc(plan->num_ranks, sizeof *rows);
    em_node_room(from, dim, rows);
    em_shared_room(to->landing, dim, rows);
    free(rows);
    if (to->landing->cannot_share) return false;
    if (!plan->node) plan->node = em_node_plan_make(plan, from);
    return true;
}

void em_exchange_deliver(em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to)
{
    bool once = prepare_landing(plan, dim, from, to);
    em_shared_publish(from); /* now, too, this host has read what landed before */
    point_in_place(plan, dim, from, to);
    if (once)
        carry_to_hosts(plan, dim, from, to);
    else if (from->by_message)
        carry_to_ranks(plan, dim, from, to);
    to->traffic = em_exchange_traffic(plan, from->host_of, once);
}

/* ---- rows that set out while others are still made ---- */

/* One delivery under way. */
typedef struct em_going {
    const em_shared *from;
    int64_t dim;
    MPI_Datatype row;
    MPI_Request *request; /* [room] of blocks: those that come, then those that go */
    coming *what;         /* [received] */
    int started, received;
    int *come; /* [P] rows by messages of each rank */
    int *next; /* [P] where in the list for each rank what has not set out begins */
} em_going;

/* Where the block of a list that begins at place i ends: at the first row of another block of the sender's array. */
static int block_end(const em_row_list *list, int i)
{
    int end = i, block = list->row[i] / EM_EXCHANGE_BLOCK;
    while (end < list->count && list->row[end] / EM_EXCHANGE_BLOCK == block) end++;
    if (end < list->count && list->row[end] / EM_EXCHANGE_BLOCK < block)
        em_die("the rows of an exchange that begins early do not ascend");
    return end;
}

static int count_blocks(const em_exchange *plan, const em_shared *from)
{
    int blocks = 0;
    for (int r = 0; r < plan->num_ranks; r++) {
        if (from->readable[r]) continue;
        for (int i = 0; i < plan->send[r].count; i = block_end(&plan->send[r], i)) blocks++;
        for (int i = 0; i < plan->source[r].count; i = block_end(&plan->source[r], i)) blocks++;
    }
    return blocks;
}

void em_exchange_begin(em_exchange *plan, int64_t dim, const em_shared *from, em_arrival *to)
{
    em_going *going = plan->going = em_zeroed(1, sizeof *going);
    going->from = from;
    going->dim = dim;
    MPI_Type_contiguous((int)dim, MPI_FLOAT, &going->row);
    MPI_Type_commit(&going->row);
    int blocks = count_blocks(plan, from);
    going->request = em_alloc(blocks, sizeof(MPI_Request));
    going->what = em_alloc(blocks, sizeof *going->what);
    going->come = em_alloc(plan->num_ranks, sizeof(int));
    going->next = em_zeroed(plan->num_ranks, sizeof(int));
    make_room_for(plan, dim, from, to, going->come);
    float *next = to->came;
    for (int r = 0; r < plan->num_ranks; r++)
        for (int i = 0, end; i < going->come[r]; next += (end - i) * dim, i = end) {
            end = block_end(&plan->source[r], i);
            going->what[going->started] = (coming){r, end - i};
            MPI_Irecv(next, end - i, going->row, r, 0, plan->comm, &going->request[going->started++]);
        }
    going->received = going->started;
}

/* Blocks whose rows are all among the first. */
static void send_blocks(em_exchange *plan, int rank, int64_t rows)
{
    em_going *going = plan->going;
    const em_row_list *list = &plan->send[rank];
    while (going->next[rank] < list->count) {
        int i = going->next[rank], end = block_end(list, i);
        if ((list->row[i] / EM_EXCHANGE_BLOCK + 1) * (int64_t)EM_EXCHANGE_BLOCK > rows) return;
        em_row_list block = {.row = list->row + i, .count = end - i};
        MPI_Datatype type = rows_type(&block, going->row);
        MPI_Isend(going->from->own, 1, type, rank, 0, plan->comm, &going->request[going->started++]);
        MPI_Type_free(&type); /* when it is sent */
        going->next[rank] = end;
    }
}

void em_exchange_advance(em_exchange *plan, int64_t rows)
{
    em_going *going = plan->going;
    int done;
    if (!going->from->by_message) return;
    for (int r = 0; r < plan->num_ranks; r++)
        if (!going->from->readable[r]) send_blocks(plan, r, rows);
    MPI_Testall(going->started, going->request, &done, MPI_STATUSES_IGNORE); /* MPI moves on only when it is called */
}

void em_exchange_end(em_exchange *plan, em_arrival *to)
{
    em_going *going = plan->going;
    em_exchange_advance(plan, INT64_MAX);
    em_shared_publish(going->from);
    point_in_place(plan, going->dim, going->from, to);
    wait_for_rows(plan->num_ranks, going->received, going->what, going->request);
    em_wait("others to take its rows");
    MPI_Waitall(going->started, going->request, MPI_STATUSES_IGNORE);
    em_wait(NULL);
    point_at_came(plan, going->dim, going->come, to);
    to->traffic = em_exchange_traffic(plan, going->from->host_of, false);
    MPI_Type_free(&going->row);
    free(going->request);
    free(going->what);
    free(going->come);
    free(going->next);
    free(going);
    plan->going = NULL;
}

void em_arrival_free(em_arrival *arrival)
{
    free(arrival->row);
    free(arrival->came);
    em_shared_close(arrival->landing);
    *arrival = (em_arrival){0};
}

/* ---- small things ---- */

void em_exchange_all(MPI_Comm comm, const int64_t *count, int bytes, const void *mine, void *all)
{
    int size, rank;
    MPI_Comm_size(comm, &size);
    MPI_Comm_rank(comm, &rank);
    int *counts = em_alloc(2 * size, sizeof(int)), *begin = counts + size;
    int64_t sum = 0;
    for (int r = 0; r < size; r++) {
        counts[r] = (int)count[r];
        begin[r] = (int)sum;
        sum += count[r];
    }
    if (sum > INT_MAX) em_die("%lld items are too many for one gather", (long long)sum);
    MPI_Datatype item;
    MPI_Type_contiguous(bytes, MPI_BYTE, &item);
    MPI_Type_commit(&item);
    em_wait("all ranks, for their lists");
    MPI_Allgatherv(mine, counts[rank], item, all, counts, begin, item, comm);
    em_wait(NULL);
    MPI_Type_free(&item);
    free(counts);
}

void em_exchange_columns(MPI_Comm comm, int64_t rows, const int64_t *width, const float *mine, float *all)
{
    int size, rank;
    MPI_Comm_size(comm, &size);
    MPI_Comm_rank(comm, &rank);
    int *count = em_alloc(2 * size, sizeof(int)), *begin = count + size;
    int64_t sum = 0;
    for (int r = 0; r < size; r++) {
        count[r] = (int)width[r];
        begin[r] = (int)sum;
        sum += width[r];
    }
    em_wait("all ranks, for their scores");
    for (int64_t i = 0; i < rows; i++)
        MPI_Gatherv(mine + i * width[rank], count[rank], MPI_FLOAT, rank == 0 ? all + i * sum : NULL, count, begin,
                    MPI_FLOAT, 0, comm);
    em_wait(NULL);
    free(count);
}

void em_exchange_share(MPI_Comm comm, int64_t bytes, void *data)
{
    if (bytes > INT_MAX) em_die("%lld bytes are too many to share at once", (long long)bytes);
    em_wait("rank 0");
    MPI_Bcast(data, (int)bytes, MPI_BYTE, 0, comm);
    em_wait(NULL);
}

void em_exchange_wait(MPI_Comm comm)
{
    em_wait("all ranks");
    MPI_Barrier(comm);
    em_wait(NULL);
}
