#include "expertmesh/shared.h"

#include "expertmesh/standing.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- hosts ---- */

/* The ranks that a host is made to have, agreed over ranks; INT_MAX where nobody says. */
static bool agree_on_ranks_per_host(MPI_Comm comm, int *ranks, em_status *status)
{
    const char *asked = getenv("EXPERTMESH_RANKS_PER_HOST");
    long number = INT_MAX;
    if (asked) {
        bool digits = asked[0] && strspn(asked, "0123456789") == strlen(asked);
        number = digits ? strtol(asked, NULL, 10) : 0;
        if (number < 1)
            em_fail(status, EM_USAGE,
                    "EXPERTMESH_RANKS_PER_HOST is \"%.200s\", but must be a number of ranks, 1 or more", asked);
    }
    if (!em_agree(comm, status)) return false;
    *ranks = number < INT_MAX ? (int)number : INT_MAX;
    MPI_Allreduce(MPI_IN_PLACE, ranks, 1, MPI_INT, MPI_MIN, comm);
    return true;
}

/* The ranks that share memory with this one, of comm's order, at most so many. */
static MPI_Comm find_host(MPI_Comm comm, int rank, int ranks_per_host)
{
    MPI_Comm machine, host;
    int place;
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &machine);
    MPI_Comm_rank(machine, &place);
    MPI_Comm_split(machine, place / ranks_per_host, place, &host);
    MPI_Comm_free(&machine);
    return host;
}

/* host [of this rank] becomes the array's own. */
static em_shared *open_on(MPI_Comm comm, MPI_Comm host)
{
    em_shared *s = em_zeroed(1, sizeof *s);
    int smallest, largest;
    s->comm = comm;
    s->host = host;
    MPI_Comm_size(comm, &s->num_ranks);
    MPI_Comm_rank(comm, &s->rank);
    MPI_Comm_size(s->host, &s->host_size);
    s->member = em_alloc(s->host_size, sizeof(int));
    MPI_Allgather(&s->rank, 1, MPI_INT, s->member, 1, MPI_INT, s->host);
    s->host_of = em_alloc(s->num_ranks, sizeof(int));
    MPI_Allgather(&s->member[0], 1, MPI_INT, s->host_of, 1, MPI_INT, s->comm);
    s->array = em_zeroed(s->num_ranks, sizeof *s->array);
    s->room = em_zeroed(s->num_ranks, sizeof *s->room);
    s->readable = em_zeroed(s->num_ranks, sizeof(bool));
    for (int i = 0; i < s->host_size; i++) s->readable[s->member[i]] = true;
    MPI_Allreduce(&s->host_size, &smallest, 1, MPI_INT, MPI_MIN, comm);
    MPI_Allreduce(&s->host_size, &largest, 1, MPI_INT, MPI_MAX, comm);
    s->in_place = largest > 1;
    s->by_message = smallest < s->num_ranks;
    return s;
}

em_shared *em_shared_open(MPI_Comm comm, em_status *status)
{
    int ranks_per_host, rank;
    if (!agree_on_ranks_per_host(comm, &ranks_per_host, status)) return NULL;
    MPI_Comm_rank(comm, &rank);
    return open_on(comm, find_host(comm, rank, ranks_per_host));
}

em_shared *em_shared_like(const em_shared *s)
{
    MPI_Comm host;
    MPI_Comm_dup(s->host, &host);
    return open_on(s->comm, host);
}

/* ---- memory ---- */

/* Where the other ranks of a host find the memory of one. */
typedef struct place {
    int64_t device, inode;
    int process, file; /* file: -1 where there is none */
} place;

static size_t bytes_of(int64_t floats)
{
    if (floats > (INT64_MAX >> 3)) em_die("an array of %lld floats is too large", (long long)floats);
    return (size_t)floats * sizeof(float);
}

/* Memory without a name, taken now rather than when it is touched: what cannot be had is an error here, no signal later. */
static int make_memory(size_t bytes, em_status *status)
{
    int file = memfd_create("expertmesh", MFD_CLOEXEC), error;
    if (file < 0) {
        em_fail(status, EM_INTERNAL, "memfd_create: %s", strerror(errno));
        return -1;
    }
    do error = posix_fallocate(file, 0, (off_t)bytes);
    while (error == EINTR);
    if (error == 0) return file;
    em_fail(status, EM_INTERNAL, "posix_fallocate: %s", strerror(error));
    close(file);
    return -1;
}

static void *map(int file, size_t bytes, int access, em_status *status)
{
    void *memory = mmap(NULL, bytes, access, MAP_SHARED | MAP_POPULATE, file, 0);
    if (memory != MAP_FAILED) return memory;
    em_fail(status, EM_INTERNAL, "mmap: %s", strerror(errno));
    return NULL;
}

/* Map another process's memory for reading. Containers that see other processes under the same number are told apart. */
static const void *map_theirs(const place *theirs, size_t bytes, em_status *status)
{
    if (theirs->file < 0) return NULL; /* that rank says why */
    char path[64];
    struct stat found;
    snprintf(path, sizeof path, "/proc/%d/fd/%d", theirs->process, theirs->file);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    const void *memory = NULL;
    if (file < 0 || fstat(file, &found) != 0)
        em_fail(status, EM_INTERNAL, "%s: %s", path, strerror(errno));
    else if ((int64_t)found.st_dev != theirs->device || (int64_t)found.st_ino != theirs->inode)
        em_fail(status, EM_INTERNAL, "%s is another process's", path);
    else
        memory = map(file, bytes, PROT_READ, status);
    if (file >= 0) close(file);
    return memory;
}

/* Make this rank's memory and map that of its neighbours; true where all ranks of comm could. Collective. */
static bool share_memory(em_shared *s, em_status *status)
{
    struct stat made = {0};
    size_t bytes = bytes_of(s->room[s->rank]);
    place mine = {.process = getpid(), .file = make_memory(bytes, status)}, *all = em_alloc(s->host_size, sizeof *all);
    if (mine.file >= 0) {
        if (fstat(mine.file, &made) != 0) em_fail(status, EM_INTERNAL, "fstat: %s", strerror(errno));
        mine.device = (int64_t)made.st_dev;
        mine.inode = (int64_t)made.st_ino;
        s->own = map(mine.file, bytes, PROT_READ | PROT_WRITE, status);
    }
    MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all, sizeof mine, MPI_BYTE, s->host);
    for (int i = 0; i < s->host_size; i++) {
        int r = s->member[i];
        s->array[r] = r == s->rank ? s->own : map_theirs(&all[i], bytes_of(s->room[r]), status);
    }
    bool shared = em_agree(s->comm, status); /* so all have mapped what they need, too */
    if (mine.file >= 0) close(mine.file);
    free(all);
    return shared;
}

static void give_back(em_shared *s)
{
    if (!s->in_place) free(s->own);
    for (int r = 0; r < s->num_ranks; r++) {
        if (s->in_place && s->array[r]) munmap((void *)(uintptr_t)s->array[r], bytes_of(s->room[r]));
        s->array[r] = NULL;
    }
    s->own = NULL;
}

static void stop_sharing(em_shared *s, const em_status *status)
{
    if (s->rank == 0)
        fprintf(stderr,
                "expertmesh: ranks of one host cannot share memory (%s); their rows go by messages, which is slower\n",
                status->text);
    give_back(s);
    s->in_place = false;
    s->cannot_share = true;
    s->by_message = s->num_ranks > 1;
    for (int r = 0; r < s->num_ranks; r++) s->readable[r] = r == s->rank;
}

/* A quarter more than before at least, so that sizes which creep up cost few growings; and a page, for no array of a run
 * is empty. */
static int64_t next_room(int64_t room, int64_t floats)
{
    enum { PAGE_OF_FLOATS = 1024 };
    if (room > 0 && floats > room && floats < room + room / 4) floats = room + room / 4;
    if (floats < room) floats = room;
    return floats <= PAGE_OF_FLOATS ? PAGE_OF_FLOATS : (floats + PAGE_OF_FLOATS - 1) / PAGE_OF_FLOATS * PAGE_OF_FLOATS;
}

float *em_shared_room(em_shared *s, int64_t dim, const int64_t *rows)
{
    bool enough = true;
    for (int r = 0; r < s->num_ranks; r++) enough = enough && rows[r] * dim <= s->room[r];
    if (enough) return s->own;
    give_back(s);
    for (int r = 0; r < s->num_ranks; r++) s->room[r] = next_room(s->room[r], rows[r] * dim);
    em_status status = {0};
    if (s->in_place && share_memory(s, &status)) return s->own;
    if (s->in_place) stop_sharing(s, &status);
    s->array[s->rank] = s->own = em_alloc(s->room[s->rank], sizeof(float));
    return s->own;
}

void em_shared_publish(const em_shared *s)
{
    if (s->host_size == 1) return; /* else also where this array goes by messages: another may wait for its turn */
    atomic_thread_fence(memory_order_seq_cst);
    em_wait("the ranks of its host");
    MPI_Barrier(s->host);
    em_wait(NULL);
    atomic_thread_fence(memory_order_seq_cst);
}

void em_shared_close(em_shared *s)
{
    if (!s) return;
    give_back(s);
    MPI_Comm_free(&s->host);
    free(s->member);
    free(s->host_of);
    free(s->readable);
    free(s->array);
    free(s->room);
    free(s);
}
