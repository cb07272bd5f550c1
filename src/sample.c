#include "expertmesh/sample.h"

#include "expertmesh/random.h"

#include <math.h>
#include <stdlib.h>

typedef struct candidate {
    float score;
    int32_t token;
} candidate;

static int better_first(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (isnan(x->score) != isnan(y->score)) return isnan(x->score) ? 1 : -1;
    if (x->score > y->score || x->score < y->score) return x->score > y->score ? -1 : 1;
    return x->token < y->token ? -1 : 1;
}

/* Uniform in [0, 1), 53 bits. Weights draw from the tensors' streams; this is the stream after the last of them. */
static double draw(uint64_t seed, int64_t sequence, int64_t position)
{
    uint16_t part[4];
    uint64_t bits = 0;
    em_random_draws(seed, EM_NUM_TENSORS, sequence, position * 8, 4, part);
    for (int i = 0; i < 4; i++) bits = bits << 16 | part[i];
    return (double)(bits >> 11) / 9007199254740992.0;
}

int32_t em_sample(const em_sampling *sampling, int64_t V, const float *scores, int64_t sequence, int64_t position)
{
    candidate *list = em_alloc(V, sizeof *list);
    for (int64_t i = 0; i < V; i++) list[i] = (candidate){scores[i], (int32_t)i};
    qsort(list, (size_t)V, sizeof *list, better_first);
    int64_t count = sampling->top_k > 0 && sampling->top_k < V ? sampling->top_k : V, kept = 0;
    if (sampling->temperature == 0) count = 1;
    double *weight = em_alloc(count, sizeof *weight), sum = 0, reached = 0;
    for (int64_t i = 0; i < count; i++)
        sum += weight[i] =
            count == 1 ? 1 : exp(((double)list[i].score - (double)list[0].score) / sampling->temperature);
    while (kept < count && (kept == 0 || reached < sampling->top_p * sum)) reached += weight[kept++];
    double target = draw(sampling->seed, sequence, position) * reached;
    int64_t chosen = 0;
    for (double passed = weight[0]; chosen + 1 < kept && passed <= target;) passed += weight[++chosen];
    int32_t token = list[chosen].token;
    free(weight);
    free(list);
    return token;
}
