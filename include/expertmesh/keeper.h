/* expertmesh/keeper.h: when a run writes a checkpoint, and when it stops: an em_keeper (generate.h).
 *
 * Before each step the ranks agree, by one small reduction, on what is to be done: what signals asked of any of them
 * (signals.h), what the count of tokens says, and what rank 0's clock says. So a signal may reach one rank or all. */
#ifndef EXPERTMESH_KEEPER_H
#define EXPERTMESH_KEEPER_H

#include "expertmesh/checkpoint.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct em_keeping {
    const em_errand *errand;   /* borrowed, as all here */
    const char *path;          /* of the checkpoints */
    const em_checkpoint *from; /* to go on from; NULL: from the beginning */
    int64_t every_tokens;      /* a checkpoint after so many tokens more; 0: none */
    double every_seconds;      /* or so much time; 0: none */
    double most_seconds;       /* stop before so much time has passed since start; 0: never */
    double start;              /* MPI_Wtime */
    /* What it keeps in mind; zeroed at first. */
    bool stopped;
    int64_t steps;      /* of this run so far */
    int64_t saved_rows; /* in the last checkpoint */
    double saved_time;  /* of it, or of the beginning */
    double resting;     /* when the last step began */
    double longest_step, longest_save;
} em_keeping;

/* The keeper itself. keeping must outlive it. */
em_keeper em_keeper_of(em_keeping *keeping);

#ifdef __cplusplus
}
#endif
#endif
