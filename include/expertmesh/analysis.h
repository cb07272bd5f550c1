/* expertmesh/analysis.h: the figures that a trace holds, as plain numbers: how even loads are, which experts work together,
 * where time goes, how active neurons are. What `inspect` prints and what pictures are drawn from. No MPI.
 *
 * Each call reads one layer (by its place in the trace, view.h) block by block, so memory does not grow with layers, and with
 * tokens only by what the comments say. Only tokens that are whole in the layer count (em_view_tokens). A figure that
 * nothing defines (a mean over no token) is NaN. Failures are view.h's. */
#ifndef EXPERTMESH_ANALYSIS_H
#define EXPERTMESH_ANALYSIS_H

#include "expertmesh/view.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- loads ---- */

/* How evenly a load lies over experts, or over ranks. */
typedef struct em_balance {
    int64_t count;    /* of experts or ranks */
    int64_t total;    /* rows */
    int64_t most;     /* rows of the one that has most */
    int64_t most_at;  /* the first such */
    int64_t unused;   /* how many have none */
    double mean;      /* rows */
    double over_mean; /* most / mean; 1: even */
    double variation; /* standard deviation / mean; 0: even */
    double evenness;  /* entropy of the shares / log(count): 1: even, 0: one has all; of a single one 1 */
} em_balance;

em_balance em_balance_of(const int64_t *load, int64_t count);

/* Rows that arrived at each rank by the dispatch, whoever sent them: from rows [P, P], [source, rank], to load [P]. */
void em_rows_by_rank(const int64_t *rows, int num_ranks, int64_t *load);

/* Bytes of a row that the dispatch sends. */
int64_t em_row_bytes(const em_view *view);

/* ---- choices ---- */

/* Is each of these `count` choices of a layer an expert of the model? */
bool em_analysis_check_choices(const em_view *view, int64_t layer, const int32_t *expert, int64_t count,
                               em_status *status);

/* Tokens of a layer that chose expert e and expert f, added to pairs [E, E]; on the diagonal those that chose e. Holds T * S
 * integers. */
bool em_analysis_pairs(const em_view *view, int64_t layer, int64_t *pairs, em_status *status);

/* A token's value, and how many tokens of that value chose an expert as any of their choices. */
typedef struct em_value_count {
    int32_t expert, value;
    int64_t tokens;
} em_value_count;

/* All that occur in a layer, by expert, then the most frequent first, then the lowest value. Freed with free. Holds T * S of
 * them. NULL on failure. */
em_value_count *em_analysis_values(const em_view *view, int64_t layer, int64_t *count, em_status *status);

/* What the router thought, as means over tokens. */
typedef struct em_router_figures {
    int64_t tokens;
    double entropy; /* of router_probs over all experts / log(E): 1: no idea, 0: sure */
    double best;    /* probability of the first choice */
} em_router_figures;

bool em_analysis_router(const em_view *view, int64_t layer, em_router_figures *figures, em_status *status);

/* ---- seconds ---- */

/* What the seconds of a phase are: work; bringing rows and summing what came; waiting for other ranks before that; recording. */
typedef enum em_phase_kind {
    EM_KIND_COMPUTE,
    EM_KIND_TRANSFER,
    EM_KIND_WAIT,
    EM_KIND_TRACE,
    EM_NUM_KINDS
} em_phase_kind;

extern const char *const em_phase_kinds[EM_NUM_KINDS];
em_phase_kind em_phase_kind_of(const char *phase);

/* Over ranks. */
typedef struct em_seconds {
    double min, mean, max;
    int slowest; /* the first rank that has max */
} em_seconds;

em_seconds em_seconds_of(const double *seconds, int num_ranks, int64_t stride);

/* seconds [P, num_phases] of a layer; with layer == num_layers of what lies outside of the layers. */
bool em_analysis_seconds(const em_view *view, int64_t layer, double *seconds, em_status *status);

/* The same by kind: [P, num_phases] added to kinds [P, EM_NUM_KINDS]. */
void em_seconds_by_kind(const em_view *view, const double *seconds, double *kinds);

/* ---- neurons ---- */

/* A neuron's output for a token is near zero when its size is at most this part of the root mean square of all outputs of the
 * same token, layer and expert. */
#define EM_NEAR_ZERO 0.01

/* What the first-layer neurons of one layer's experts put out (ffn_hidden). Holds E * F of each array. */
typedef struct em_activity {
    int64_t E, F;
    int64_t *tokens;        /* [E] that chose the expert */
    double *squares;        /* [E] sum of the squares of all its neurons' outputs */
    double *sizes;          /* [E, F] sum of |output| over these tokens */
    float *largest;         /* [E, F] the output of largest size, with its sign */
    int32_t *largest_token; /* [E, F] place of the token where it was; -1: no token chose the expert */
    int32_t *active;        /* [E, F] tokens for which it was not near zero */
} em_activity;

bool em_activity_read(em_activity *activity, const em_view *view, int64_t layer, em_status *status);

/* The same of `most` tokens, evenly apart, where there are more. */
bool em_activity_sample(em_activity *activity, const em_view *view, int64_t layer, int64_t most, em_status *status);
void em_activity_free(em_activity *activity);

typedef struct em_expert_activity {
    int64_t tokens;
    double mean_size; /* mean of |output| */
    double rms;
    double largest;  /* the output of largest size, with its sign */
    double sparsity; /* part of all outputs that are near zero */
    int64_t dead;    /* neurons that were near zero for every token; 0 where no token chose the expert */
} em_expert_activity;

em_expert_activity em_activity_of(const em_activity *activity, int64_t expert);

/* The neurons of an expert with the largest mean size, best first, of equals the lower; neuron [count]; -1 past F. */
void em_activity_top(const em_activity *activity, int64_t expert, int64_t count, int64_t *neuron);

/* ---- tokens ---- */

/* The 2-norm of a float quantity for tokens [token, token + tokens): norm [tokens]. */
bool em_analysis_norms(const em_view *view, em_quantity quantity, int64_t layer, int64_t token, int64_t tokens,
                       double *norm, em_status *status);

/* The best next tokens of a token, from its logits: id [count], with -1 past the vocabulary, their scores and
 * probabilities. */
bool em_analysis_next(const em_view *view, int64_t token, int64_t count, int32_t *id, double *logit,
                      double *probability, em_status *status);

#ifdef __cplusplus
}
#endif
#endif
