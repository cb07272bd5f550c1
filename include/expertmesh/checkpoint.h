/* expertmesh/checkpoint.h: where a run stands, in one HDF5 file from which it can go on.
 *
 * The file holds everything that the rest of the run needs but its weights: what the run was told (options, model, prompts),
 * the tokens chosen so far, what the profile counted, and of each token that was run its keys and values, which the owners
 * of the heads write in place, in parallel. Nothing in it depends on who owned what, so a run goes on on any number of ranks.
 *
 *   rank 0: the structure, F.partial --> all: their parts --> all: read back and compared --> seal (seal.h) --> renamed to F
 *
 * Until the renaming the checkpoint before stays as it was; after it the new one is whole. A file that is cut short, or has
 * one other bit, is refused.
 * Advantage: a run that is killed at any moment goes on from a whole file. Cost: while one is written there are two on the
 * disk, and the run waits for the disk. */
#ifndef EXPERTMESH_CHECKPOINT_H
#define EXPERTMESH_CHECKPOINT_H

#include "expertmesh/generate.h"

#ifdef __cplusplus
extern "C" {
#endif

/* An option that a run was given, and its value as it was typed. */
typedef struct em_told {
    char name[40];
    char *value; /* "" where it takes none */
} em_told;

/* What a run is: the same in all its checkpoints. Borrowed. */
typedef struct em_errand {
    const em_model *model;
    const em_batch *prompts;
    const em_generation *generation;
    const em_told *told;
    int num_told;
    const char *command_line;
    int64_t weights_sum; /* em_weights_sum over all ranks; 0 for random weights, which their options make */
} em_errand;

/* Put a checkpoint in the place of the one before. trace_id: of the run's trace, which must hold all up to here; 0: none.
 * bytes (may be NULL) is its size. Collective over the model's communicator; the status is agreed. On failure
 * (EM_CANNOT_WRITE) the one before stays. */
bool em_checkpoint_save(const em_errand *errand, const char *path, const em_state *state, const em_cache *cache,
                        const em_profile *profile, int64_t trace_id, int64_t *bytes, em_status *status);

/* A checkpoint, open for going on. Read any field. */
typedef struct em_checkpoint {
    char *path;
    em_store *store;
    em_told *told; /* [num_told] */
    int num_told;
    em_config config;
    em_isa isa; /* the loops that computed it */
    em_batch prompts;
    int64_t weights_sum;
    int64_t count;     /* N tokens to add to each prompt */
    int64_t rows;      /* tokens that were run */
    int64_t num_ranks; /* of the run that wrote it */
    int64_t trace_id;  /* 0: it had none */
} em_checkpoint;

/* Open, after a look at the seal and all that is not large. Collective; the status is agreed: EM_NO_INPUT, EM_BAD_DATA.
 * NULL on failure. */
em_checkpoint *em_checkpoint_open(MPI_Comm comm, const char *path, em_status *status);
void em_checkpoint_close(em_checkpoint *checkpoint); /* may be NULL */

/* The value of an option that the run was given; NULL: it was not. */
const char *em_checkpoint_told(const em_checkpoint *checkpoint, const char *name);

/* Put everything where the run stood: state and cache, as em_generate opened them for the same prompts, and profile. On
 * another number of ranks, what rank r of the earlier run counted goes to rank r mod P of this. Collective, agreed. */
bool em_checkpoint_restore(const em_checkpoint *checkpoint, const em_model *model, em_state *state, em_cache *cache,
                           em_profile *profile, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
