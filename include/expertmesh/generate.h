/* expertmesh/generate.h: continue prompts, token by token.
 *
 * The prompts go through the layers first, whole or in chunks; then each step runs the newest token of every sequence that
 * has not ended, as one batch. A sequence that chose its stop token, or has its count, leaves the batch. The last token of
 * a sequence is chosen, not run. Between two steps a keeper may put away where the run stands, and stop it; from there
 * another run goes on, on any ranks, to the same bits. */
#ifndef EXPERTMESH_GENERATE_H
#define EXPERTMESH_GENERATE_H

#include "expertmesh/model.h"
#include "expertmesh/sample.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct em_generation {
    int64_t count;         /* tokens to add to each prompt; 0: only run the prompts */
    int64_t stop_token;    /* ends its sequence; -1: none */
    int64_t prefill_chunk; /* most tokens of the prompts in one step; 0: all */
    em_sampling sampling;
} em_generation;

/* What such a run asks of memory, and how many tokens it may compute, in how many steps. Pure. */
em_extent em_generation_extent(const em_batch *prompts, const em_generation *generation);
int64_t em_generation_rows(const em_batch *prompts, const em_generation *generation);
int64_t em_generation_steps(const em_batch *prompts, const em_generation *generation);

/* Hears of each token as it is chosen, on every rank. */
typedef void em_token_sink(void *context, int64_t sequence, int64_t position, int32_t token);

/* Where a run stands between two steps; with the cache, all that its other steps need. On all ranks the same. */
typedef struct em_state {
    int64_t rows;     /* tokens that were run */
    int64_t *chosen;  /* [N] tokens chosen so far after each prompt */
    int32_t *token;   /* [N, count] these tokens */
    em_outcome after; /* [N] what could follow each prompt; zeros for one that is not run to its end */
} em_state;

/* Tokens of a sequence that were run, and so are in the cache. Pure. */
int64_t em_state_length(const em_state *state, const em_batch *prompts, int64_t sequence);

/* Looks after a run. Both are collective over the model's communicator, and their statuses agreed. */
typedef struct em_keeper {
    /* Before the first step: puts state, cache and profile where an earlier run stood. May be NULL. */
    bool (*begin)(void *context, em_state *state, em_cache *cache, em_profile *profile, em_status *status);
    /* Before each step: true in stop ends the run here; the trace then says so. */
    bool (*between)(void *context, const em_state *state, const em_cache *cache, em_trace *trace,
                    const em_profile *profile, bool *stop, em_status *status);
    void *context;
} em_keeper;

/* Who hears of a run. It hears again of the tokens that an earlier run chose. */
typedef struct em_listener {
    em_token_sink *token;  /* may be NULL */
    em_progress *progress; /* may be NULL; how much of the prompts is done, of 1 */
    void *token_context, *progress_context;
    const em_keeper *keeper; /* may be NULL */
} em_listener;

/* Run the prompts and generate. Collective; the status is agreed. after [all prompts] is what could follow each prompt;
 * rows is how many tokens were run, by earlier runs too. The trace (may be NULL) is finished, or marked as stopped. */
bool em_generate(em_model *model, const em_batch *prompts, const em_generation *generation, em_trace *trace,
                 em_profile *profile, const em_listener *listener, em_outcome *after, int64_t *rows, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
