/* checkpoint_file.h: the datasets of a checkpoint, for writing and for reading. Private to the library. */
#ifndef EXPERTMESH_CHECKPOINT_FILE_H
#define EXPERTMESH_CHECKPOINT_FILE_H

#include "expertmesh/checkpoint.h"

enum {
    EM_CHECKPOINT_PROMPT_TOKENS, /* [T] */
    EM_CHECKPOINT_PROMPT_ENDS,   /* [N] in prompt_tokens */
    EM_CHECKPOINT_CHOSEN,        /* [N] */
    EM_CHECKPOINT_CHOSEN_TOKENS, /* [N, count] */
    EM_CHECKPOINT_NEXT_TOKENS,   /* [N, EM_NUM_BEST] */
    EM_CHECKPOINT_NEXT_SCORES,   /* [N, EM_NUM_BEST] */
    EM_CHECKPOINT_EXPERT_LOAD,   /* [L, E] */
    EM_CHECKPOINT_DISPATCH_ROWS, /* [L, P, P] */
    EM_CHECKPOINT_ROWS_SENT,     /* [L + 1, P, phases * reaches] */
    EM_CHECKPOINT_SECONDS,       /* [L + 1, P, phases] */
    EM_CHECKPOINT_KEYS,          /* [L, K, tokens, C]; tokens: those of the first sequence, of the second, ... */
    EM_CHECKPOINT_VALUES,
    EM_NUM_CHECKPOINT_DATA
};

/* Numbers that shape them. */
typedef struct em_checkpoint_shape {
    const em_config *config;
    int64_t T, N, count, P;
    int64_t tokens; /* in the cache */
} em_checkpoint_shape;

/* Name, type and dimensions of each: data [EM_NUM_CHECKPOINT_DATA]. Pure. */
void em_checkpoint_shapes(const em_checkpoint_shape *shape, em_dataset *data);

/* Where the tokens of each sequence begin: start [N + 1]. */
void em_checkpoint_starts(const em_state *state, const em_batch *prompts, int64_t *start);

/* All that is not large, without a look at the seal. Local. Never NULL; closed by the caller also on failure. */
em_checkpoint *em_checkpoint_read(const char *path, em_status *status);

/* A dataset that must be of this shape and type. Local. */
bool em_checkpoint_find(const em_checkpoint *checkpoint, const em_dataset *wanted, em_dataset *found,
                        em_status *status);

#endif
