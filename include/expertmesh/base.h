/* expertmesh/base.h: failing well. Statuses agreed over ranks, ending the job on a bug, checked allocation.
 *
 * Two roads for failure. What a user can cause (an option, a file, a model that does not fit) is an em_status: filled by
 * em_fail where it is seen, agreed over the ranks by em_agree before anyone goes on, printed once by main. A bug, exhausted
 * memory or an MPI error ends the job on all ranks through em_die, with the rank and where it stood. */
#ifndef EXPERTMESH_BASE_H
#define EXPERTMESH_BASE_H

#include "expertmesh/standing.h"

#include <mpi.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Exit codes, from sysexits.h. */
enum {
    EM_OK = 0,
    EM_DIFFERENT = 1,    /* compare: the files differ */
    EM_USAGE = 64,       /* an option or argument is wrong */
    EM_BAD_DATA = 65,    /* a file or a model that cannot be used */
    EM_NO_INPUT = 66,    /* an input that is missing or cannot be read */
    EM_INTERNAL = 70,    /* a bug, exhausted memory, an MPI error */
    EM_CANNOT_WRITE = 73 /* an output that cannot be created or written */
};

/* How a call ended. Starts zeroed; keeps the first failure. */
typedef struct em_status {
    int code;        /* one of the above */
    char text[1500]; /* for the user: what, where, found, wanted, what to do; no newline at the end */
} em_status;

/* Note a failure, unless one is noted already. Always returns false, so that `return em_fail(...)` reads well. */
bool em_fail(em_status *status, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Collective over comm: every rank leaves with the status of the lowest rank that failed. True where none did. */
bool em_agree(MPI_Comm comm, em_status *status);

/* End the job on all ranks with exit code 70 and one message that names the rank, its host and where it stood
 * (standing.h). From any thread. */
void em_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* End the job on all ranks with an exit code, in bounded time whatever MPI does. From any thread. */
void em_end_job(int code) __attribute__((noreturn));

/* The name of this host. Written to buffer, which is returned. */
typedef char em_host_text[65];
const char *em_host(em_host_text buffer);

/* An error handler for communicators that ends the job through em_die with MPI's own words. The caller frees it. */
MPI_Errhandler em_mpi_error_handler(void);

/* count items of size bytes, aligned to 64, not zeroed, never NULL (ends the job when memory is exhausted); from 8 MB on in
 * huge pages, where the system has them: filling fresh memory costs a page fault for each 2 MB instead of each 4 kB.
 * Freed with free. */
void *em_alloc(int64_t count, size_t size);
void *em_zeroed(int64_t count, size_t size);
void *em_grow(void *old, int64_t old_count, int64_t count, size_t size);

/* Memory that is kept from one use to the next: it grows and never shrinks, and its contents are lost when it grows.
 * Starts zeroed. */
typedef struct em_room {
    void *memory;
    int64_t bytes;
} em_room;
void *em_room_for(em_room *room, int64_t count, size_t size);
void em_room_free(em_room *room);

/* A formatted string of its own. Freed with free. */
char *em_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Bytes in words: "631.37 GB". Written to buffer, which is returned. */
typedef char em_bytes_text[24];
const char *em_bytes(double bytes, em_bytes_text buffer);

/* A count with thousands separated: "315,684,820,992". */
typedef char em_count_text[32];
const char *em_count(int64_t count, em_count_text buffer);

/* Memory of this host and this process, in bytes. */
int64_t em_memory_available(void);   /* what may still be allocated on the host and in its control group */
int64_t em_memory_left(void);        /* what this process may still allocate (ulimit -v and -d); INT64_MAX: no limit */
int64_t em_address_space_left(void); /* what it may still map (ulimit -v); INT64_MAX: no limit */
int64_t em_memory_peak(void);        /* largest resident size of this process so far */

/* The cores of this host that fall to this rank: each core is shared evenly by the ranks that may run on it, and a limit of
 * the control group counts. At least 1. Collective over comm. */
int em_cores(MPI_Comm comm);

#ifdef __cplusplus
}
#endif
#endif
