/* figures.h: what a report shows of one trace, read once. Memory: what is shown; nothing grows with tokens but the text. */
#ifndef EXPERTMESH_REPORT_FIGURES_H
#define EXPERTMESH_REPORT_FIGURES_H

#include "expertmesh/analysis.h"

/* Sizes of the residual state at one place of the layers, over tokens: [L] each. */
typedef struct em_norms {
    double *mean, *least, *most; /* NULL: that place was not recorded */
} em_norms;

enum { EM_NUM_PLACES = 3 }; /* resid_pre, resid_mid, resid_post */

/* Arrays are NULL where the trace does not hold what they are made of; then `missing` says why, and what would have. */
typedef struct em_figures {
    const char *path;
    em_view view;
    int64_t L, E, P;      /* layers of the trace, experts, ranks */
    double *load;         /* [L, E] rows */
    em_balance *balance;  /* [L] of these */
    double *entropy;      /* [L] of the router / log(E) */
    double *best;         /* [L] probability of the first choice */
    double *pairs;        /* [E, E] tokens and layers that chose both; diagonal: NaN */
    double *bytes;        /* [P, P] source, rank: bytes of the dispatches, all layers */
    double *seconds;      /* [P, phases] all layers and outside of them */
    double *memory;       /* [P, 2] weights, and what else there was at the peak */
    double *rms;          /* [L, E] root mean square of the neurons' outputs */
    double *quiet, *dead; /* [L] part of the outputs near zero; part of the neurons near zero for every token */
    em_norms norm[EM_NUM_PLACES];
    int64_t neuron_tokens, norm_tokens; /* of how many tokens of a layer, at most, they are made */
    int64_t text_layer;                 /* place of the layer whose experts colour the text at first */
    int64_t num_shown;                  /* tokens of the text */
    int64_t num_text;                   /* there are in all */
    int32_t *shown_place, *shown_id, *shown_sequence, *shown_position; /* [num_shown] by sequence, then position */
    char **token_text;                    /* [vocab_size] pieces of a tokenizer; NULL: the trace has none */
    int32_t *expert;                      /* [L, num_shown] their first experts; -1: not written yet */
    em_status missing[EM_NUM_QUANTITIES]; /* by what was not recorded */
} em_figures;

/* Open a trace and make them. shown: tokens of the text at most. False: nothing is open. */
bool em_figures_open(em_figures *figures, const char *path, int64_t shown, em_status *status);
void em_figures_close(em_figures *figures);

#endif
