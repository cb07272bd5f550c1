/* expertmesh/model.h: the whole model on its ranks, and one batch through it, layer by layer.
 *
 *   h [T_r, D] on the token's owner
 *     norm - gather rows ------> x [T, D] on every owner of heads; head u: q, k, v, RoPE, softmax, attn_output columns
 *     h += norm(sum)  <--------- partial sums home, along the tree
 *     norm - router - top S ---> dispatch: rows to the owners of the chosen experts' slices, by expert, by global token
 *     h += norm(y)    <--------- combine: partial sums home, along the tree, times the router's weights
 *
 * Then the last norm, every row to the vocabulary's owners, and the logits, or the best of them, home. */
#ifndef EXPERTMESH_MODEL_H
#define EXPERTMESH_MODEL_H

#include "expertmesh/cache.h"
#include "expertmesh/numerics.h"
#include "expertmesh/routing.h"
#include "expertmesh/trace.h"
#include "expertmesh/weights.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Arrays of a step, kept for a whole run. */
enum {
    EM_ROOM_H,
    EM_ROOM_DELTA,
    EM_ROOM_ROPE,
    EM_ROOM_HEADS,   /* queries, keys, values and results */
    EM_ROOM_EXPERTS, /* two: hidden states; the tree of sums */
    EM_ROOM_LOGITS = EM_ROOM_EXPERTS + 2,
    EM_NUM_ROOMS
};

typedef struct em_model {
    MPI_Comm comm; /* its own, a duplicate */
    int rank, num_ranks;
    em_config config;
    em_layout layout; /* borrowed */
    em_weights weights;
    em_cover head_cover;     /* how the heads' outputs are summed */
    em_covers expert_covers; /* how each expert's slices are */
    em_compute compute;      /* how products are computed */
    em_numerics numerics;
    em_inputs *inputs; /* [2 + query heads here] rows packed for products */
    em_room room[EM_NUM_ROOMS];
    em_shared *x;     /* [T_r, D] norms of the residual, read by the owners of heads, experts and vocabulary */
    em_shared *parts; /* what goes home: rows of the embedding, the heads' sums, the experts' outputs, in turn with x */
    em_arrival arrival; /* the rows of the last exchange */
    em_arrival home;    /* what experts put out, on its way while others are at work */
} em_model;

/* What a run asks of memory. */
typedef struct em_extent {
    int64_t step_tokens;           /* in its largest step */
    int64_t tokens, num_sequences; /* in all */
    bool lasting;                  /* later steps look back */
    int64_t trace;                 /* bytes that a rank may hold for its trace */
} em_extent;

/* How a run computes. */
typedef struct em_manner {
    em_compute compute;
    int threads; /* of each rank; 0: the cores of its host that fall to it */
    em_numerics numerics;
    bool flat; /* rows go to each rank by itself, not once to each host */
} em_manner;

/* One set of loops for all ranks, the plainest that any of them has chosen; and the threads of this one. em_model_open does
 * it. Collective; the status is agreed. */
bool em_loops_agree(MPI_Comm comm, int threads, em_status *status);

/* What a rank needs for a model and such a run, in bytes. Activations are an estimate from above for a router that loads
 * each expert up to twice its share. Local, allocates nothing. */
typedef struct em_need {
    em_held weights;
    int64_t activations, cache, trace;
} em_need;

em_need em_model_need(const em_source *source, const em_layout *layout, int rank, em_extent extent);

/* Check that the processors can compute so, and that every host has the memory; then make or read the weights.
 * Collective; the status is agreed. On failure the model is closed. The layout must
 * outlive the model. progress (may be NULL) hears of bytes of weights on this rank. */
bool em_model_open(em_model *model, MPI_Comm comm, const em_source *source, const em_layout *layout, em_extent extent,
                   em_manner manner, em_progress *progress, void *context, em_status *status);
void em_model_close(em_model *model);

/* One step: tokens that go through the layers together. */
typedef struct em_step {
    const em_batch *tokens; /* runs of sequences; what came before a run is in the cache */
    int64_t number;         /* of the run's steps, from 0 */
    int64_t first_row;      /* where the trace keeps the first of them */
    bool all_scores;        /* bring the scores of the whole vocabulary home to rank 0 */
} em_step;

/* The likeliest next tokens after the end of each run. */
enum { EM_NUM_BEST = 5 };
typedef struct em_outcome {
    int64_t num_sequences; /* runs of the step */
    int num_best;          /* min(EM_NUM_BEST, V) */
    int32_t *token;        /* [num_sequences, EM_NUM_BEST] best first; on all ranks the same */
    float *logit;          /* [num_sequences, EM_NUM_BEST] */
    float *scores;         /* [num_sequences, V] on rank 0, where they were asked for */
} em_outcome;
void em_outcome_free(em_outcome *outcome);

/* Run one step. Collective; the status is agreed, and fails only where the trace (may be NULL) cannot be written. The
 * cache gains the step's keys and values, profile what it took; outcome is filled; progress (may be NULL) hears of layers. */
bool em_model_step(em_model *model, const em_step *step, em_cache *cache, em_trace *trace, em_profile *profile,
                   em_outcome *outcome, em_progress *progress, void *context, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
