/* run_again.h: how `run` goes on from a checkpoint, and how it is told to write them. */
#ifndef EXPERTMESH_RUN_AGAIN_H
#define EXPERTMESH_RUN_AGAIN_H

#include "../options.h"
#include "expertmesh/keeper.h"

/* A call of run, with what its checkpoint adds. */
typedef struct em_again {
    em_call call;        /* as if all that the earlier run was told had been given again */
    em_checkpoint *from; /* NULL: the run begins at its beginning */
    em_told *told;       /* [num_told] what its own checkpoints are to say it was told */
    int num_told;
    char *field[EM_NUM_CONFIG_FIELDS]; /* texts that call refers to */
} em_again;

/* What --resume says; without it only the call itself. Options that contradict the checkpoint are refused. Collective; the
 * status is agreed. Freed with em_again_free, in any case. */
bool em_again_read(const em_call *call, em_again *again, em_status *status);
void em_again_free(em_again *again);

/* --checkpoint, --checkpoint-every, --max-hours; path stays NULL where no checkpoint is to be written. Collective; the
 * status is agreed. */
bool em_again_keeping(const em_again *again, em_keeping *keeping, em_status *status);

/* Are these the weights, and the loops, that the earlier run computed with? Local. */
bool em_again_check_source(const em_again *again, const em_source *source, em_status *status);

/* The sum of weights that come from a file, where checkpoints are written or read: what they say, and check. Collective;
 * the status is agreed. */
bool em_again_check_weights(const em_again *again, const em_model *model, const em_source *source, int64_t *sum,
                            em_status *status);

/* What a run writes may replace no file that it reads, nor its other output, however their paths are written.
 * option: "trace". */
void em_again_keep_apart(const em_call *call, const char *option, const char *path, em_status *status);

#endif
