/* expertmesh/sample.h: choose the next token from the scores of a vocabulary. Pure arithmetic. */
#ifndef EXPERTMESH_SAMPLE_H
#define EXPERTMESH_SAMPLE_H

#include "expertmesh/base.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct em_sampling {
    double temperature; /* 0: the best one always; else scores are divided by it */
    int64_t top_k;      /* only among the k best; 0: among all */
    double top_p;       /* only among the fewest best whose probabilities reach p; 1: among all */
    uint64_t seed;
} em_sampling;

/* The token that follows `position` of `sequence`. scores [V]. The draw is a pure function of (seed, sequence, position),
 * so it does not depend on what else is in the batch. Equal scores rank by token. */
int32_t em_sample(const em_sampling *sampling, int64_t V, const float *scores, int64_t sequence, int64_t position);

#ifdef __cplusplus
}
#endif
#endif
