#include "expertmesh/router.h"

#include <string.h>

/* weight [S] divided by their sum, or by the least that it may be. */
static void renormalise(const em_numerics *numerics, int64_t S, float *weight)
{
    double sum = 0;
    for (int64_t c = 0; c < S; c++) sum += (double)weight[c];
    if (sum < numerics->router_least_sum) sum = numerics->router_least_sum;
    for (int64_t c = 0; c < S; c++) weight[c] = (float)((double)weight[c] / sum);
}

void em_router_choose(const em_config *config, const em_numerics *numerics, int64_t T, const float *x,
                      const float *router, float *logits, float *probs, int32_t *expert, float *weight)
{
    int64_t D = config->emb_size, E = config->num_experts, S = config->num_selected_experts;
#pragma omp parallel for num_threads(T > 1 ? em_threads() : 1)
    for (int64_t t = 0; t < T; t++) {
        for (int64_t e = 0; e < E; e++) logits[t * E + e] = (float)em_dot(D, x + t * D, router + e * D);
        if (numerics->router_softcap > 0) em_soft_cap(E, (float)numerics->router_softcap, logits + t * E);
        memcpy(probs + t * E, logits + t * E, (size_t)E * sizeof(float));
        em_softmax(E, probs + t * E);
        em_top(E, probs + t * E, S, expert + t * S);
        for (int64_t c = 0; c < S; c++) weight[t * S + c] = probs[t * E + expert[t * S + c]];
        if (numerics->router_renormalise) renormalise(numerics, S, weight + t * S);
    }
}
