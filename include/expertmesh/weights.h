/* expertmesh/weights.h: this rank's tensors, generated or read; and writing a whole model to a file.
 *
 * A rank holds blocks: the part of a tensor that belongs to one unit. Which blocks a rank holds is arithmetic
 * (em_weights_blocks), so what it will need can be told before anything is allocated. Only norms and routers, a key/value
 * head split between ranks, and the scales of an int8 group split between units are held more than once, and counted. */
#ifndef EXPERTMESH_WEIGHTS_H
#define EXPERTMESH_WEIGHTS_H

#include "expertmesh/kernels.h"
#include "expertmesh/layout.h"
#include "expertmesh/source.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One unit's part of a tensor. */
typedef struct em_block {
    em_tensor tensor;
    int64_t layer, expert; /* 0 where the tensor has none */
    em_range rows, cols;   /* of that expert's matrix */
    int64_t place;         /* among this rank's blocks of the tensor: the unit, counted from the rank's first */
    bool repeated;         /* another rank counts as its owner */
} em_block;

typedef bool em_block_visit(void *context, const em_block *block);

/* Visit all blocks of a rank, layer by layer; stops and returns false when a visit does. */
bool em_weights_blocks(const em_config *config, const em_layout *layout, int rank, em_block_visit *visit,
                       void *context);

typedef struct em_held {
    int64_t owned;    /* bytes; their sum over ranks is the model's */
    int64_t repeated; /* bytes that another rank owns too */
} em_held;

/* What a rank will hold. Local, allocates nothing of it. */
em_held em_weights_held(const em_source *source, const em_layout *layout, int rank);
/* Bytes of units as stored, for dealing them to ranks. */
em_unit_bytes em_weights_unit_bytes(const em_source *source);
/* Bytes of the whole model as stored. */
int64_t em_weights_model_bytes(const em_source *source);

typedef struct em_weights {
    int64_t num_layers;
    em_matrix **block; /* [EM_NUM_TENSORS, num_layers] -> [places]; a block without data is not held here */
    int64_t *places;   /* [EM_NUM_TENSORS] */
    char **memory;     /* [EM_NUM_TENSORS, num_layers]: the numbers and scales of these blocks, which do not own them */
} em_weights;

/* Hears how much of the work of this rank is done. */
typedef void em_progress(void *context, double done, double all);

/* Make or read this rank's blocks. Local. Fails on a file that cannot be read and on a NaN or infinite weight. progress
 * (may be NULL) hears of bytes. */
bool em_weights_load(em_weights *weights, const em_source *source, const em_layout *layout, int rank,
                     em_progress *progress, void *context, em_status *status);
void em_weights_free(em_weights *weights);

/* This rank's blocks of a tensor, by place. */
static inline const em_matrix *em_weights_of(const em_weights *weights, em_tensor tensor, int64_t layer)
{
    return weights->block[(int64_t)tensor * weights->num_layers + layer];
}

/* The one block of a tensor that every rank holds, as float32: a norm [D] or the router [E, D]. */
static inline const float *em_weights_common(const em_weights *weights, em_tensor tensor, int64_t layer)
{
    return (const float *)em_weights_of(weights, tensor, layer)->data;
}

/* This rank's part of a sum (modulo 2^64) over all blocks of the model, each counted once, by its owner: over all ranks it
 * is the same for the same weights on any layout, and another, but for bad luck, for others. Local; reads them once. */
uint64_t em_weights_sum(const em_weights *weights, const em_config *config, const em_layout *layout, int rank);

/* Write a random model to a file, each rank its part of every tensor, in blocks of a few megabytes. Collective; the status
 * is agreed. The file appears under its name when it is whole. progress (may be NULL) hears of bytes done by this rank. */
bool em_weights_write(MPI_Comm comm, const em_config *config, uint64_t seed, em_storage storage, const char *path,
                      em_progress *progress, void *context, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
