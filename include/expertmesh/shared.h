/* expertmesh/shared.h: arrays that the ranks of one host read in place, where others would have to be sent a copy.
 *
 * Each rank's array is memory without a name (memfd), which the other ranks of its host map for reading. So nothing can
 * be left behind, however a job ends; the size of /dev/shm does not bound it; and every step that can fail fails with an
 * error on the rank it concerns, over which all then agree. (MPI_Win_allocate_shared waits forever in Open MPI 4.1 where
 * one rank alone cannot have its part.) Memory is taken when an array grows, never when it is first touched.
 *
 * Advantage: a row is read where it lies; between ranks of a host nothing is copied at all. Cost: a rule about time, which
 * no call checks: an array may change only when all have read it. Between the reading of an array and its next change lies
 * at least one other exchange (em_shared_publish, of any array), so that arrays which take turns need no more waiting. */
#ifndef EXPERTMESH_SHARED_H
#define EXPERTMESH_SHARED_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One array a rank, kept for a whole run. Read any field; change by the functions below. */
typedef struct em_shared {
    MPI_Comm comm;       /* borrowed; must outlive the array */
    MPI_Comm host;       /* the ranks that share memory with this one */
    int num_ranks, rank; /* in comm */
    int host_size;
    int *member;       /* [host_size] ranks of comm on this host, ascending */
    int *host_of;      /* [P] the host of each rank, numbered by its lowest rank */
    bool in_place;     /* arrays are read in place, on every host that has more than one rank */
    bool cannot_share; /* there are such hosts, but memory could not be shared; the same everywhere */
    bool by_message;   /* some rank cannot read some other's array, so all take part in messages; the same everywhere */
    bool *readable;    /* [P] the array of rank r can be read here; always so of its own */
    const float **array; /* [P] that array; NULL while it is empty or where it cannot be read */
    float *own;          /* this rank's */
    int64_t *room;       /* [P] floats in each rank's array */
} em_shared;

/* An empty array on every rank of comm. NULL where the environment variable EXPERTMESH_RANKS_PER_HOST, which makes each so
 * many neighbouring ranks believe that they are a host of their own, is no such number on some rank; of several numbers
 * the least counts. Collective; closed with em_shared_close. */
em_shared *em_shared_open(MPI_Comm comm, em_status *status);
/* Another one, empty, on the same hosts. Collective. */
em_shared *em_shared_like(const em_shared *s);
void em_shared_close(em_shared *s);

/* This rank's array, with room for rows[rank] rows of dim floats. rows [P]: what every rank asks for, which all must know
 * alike, so that all grow or none does without a word. Never shrinks; the contents of all are lost when one grows. Where
 * memory cannot be shared, rank 0 says so once, and rows go by messages from then on. Collective. */
float *em_shared_room(em_shared *s, int64_t dim, const int64_t *rows);

/* Wait until the ranks of this host have written their arrays, and see what they wrote. Collective. */
void em_shared_publish(const em_shared *s);

#ifdef __cplusplus
}
#endif
#endif
