/* The end of a step: scores over the vocabulary, and the best of them. */
#include "pass.h"

#include "expertmesh/embedding.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void em_outcome_free(em_outcome *outcome)
{
    free(outcome->token);
    free(outcome->logit);
    free(outcome->scores);
    *outcome = (em_outcome){0};
}

/* One rank's best next tokens of one run. */
typedef struct best {
    int32_t token[EM_NUM_BEST]; /* -1: fewer than that here */
    float logit[EM_NUM_BEST];
} best;

static best best_of(em_range held, const float *logits)
{
    best found;
    int64_t n = em_range_size(held);
    int32_t index[EM_NUM_BEST];
    em_top(n, logits, EM_NUM_BEST, index);
    for (int i = 0; i < EM_NUM_BEST; i++) {
        found.token[i] = index[i] < 0 ? -1 : (int32_t)held.begin + index[i];
        found.logit[i] = index[i] < 0 ? 0 : logits[index[i]];
    }
    return found;
}

/* Everyone's best of one run, rank by rank, merged; of equals the lower token comes first, as ranks ascend. */
static void merge_best(int num_ranks, int64_t stride, const best *all, int num_best, int32_t *token, float *logit)
{
    int *next = em_zeroed(num_ranks, sizeof *next);
    for (int i = 0; i < num_best; i++) {
        int from = -1;
        for (int r = 0; r < num_ranks; r++) {
            const best *b = &all[r * stride];
            if (next[r] == EM_NUM_BEST || b->token[next[r]] < 0) continue;
            float theirs = b->logit[next[r]], best_so_far = from < 0 ? 0 : all[from * stride].logit[next[from]];
            if (from < 0 || theirs > best_so_far || (isnan(best_so_far) && !isnan(theirs))) from = r;
        }
        token[i] = all[from * stride].token[next[from]];
        logit[i] = all[from * stride].logit[next[from]++];
    }
    free(next);
}

/* logits [T, Vr] of all tokens, or of the last of each sequence: row s lies at last_row[s]. */
static void find_best(em_pass *pass, em_range held, const float *logits, const int64_t *last_row, em_outcome *outcome)
{
    em_model *m = pass->model;
    int64_t N = pass->batch->num_sequences;
    best *mine = em_alloc(N, sizeof *mine), *all = em_alloc(N * m->num_ranks, sizeof *all);
    for (int64_t s = 0; s < N; s++) mine[s] = best_of(held, logits + last_row[s] * em_range_size(held));
    int64_t *count = em_alloc(m->num_ranks, sizeof *count);
    for (int r = 0; r < m->num_ranks; r++) count[r] = N;
    em_exchange_all(m->comm, count, (int)sizeof *mine, mine, all);
    *outcome = (em_outcome){.num_sequences = N};
    outcome->num_best = m->config.vocab_size < EM_NUM_BEST ? (int)m->config.vocab_size : EM_NUM_BEST;
    outcome->token = em_zeroed(N * EM_NUM_BEST, sizeof(int32_t));
    outcome->logit = em_zeroed(N * EM_NUM_BEST, sizeof(float));
    for (int64_t s = 0; s < N; s++)
        merge_best(m->num_ranks, N, all + s, outcome->num_best, outcome->token + s * EM_NUM_BEST,
                   outcome->logit + s * EM_NUM_BEST);
    free(count);
    free(mine);
    free(all);
}

/* The scores of the whole vocabulary after each run, on rank 0. */
static void bring_scores(em_pass *pass, const float *logits, const int64_t *last_row, em_outcome *outcome)
{
    em_model *m = pass->model;
    int64_t N = pass->batch->num_sequences, *width = em_alloc(m->num_ranks, sizeof *width);
    for (int r = 0; r < m->num_ranks; r++) width[r] = em_range_size(em_embedding_held(&m->layout, r));
    float *mine = em_alloc(N * width[m->rank], sizeof *mine);
    for (int64_t s = 0; s < N; s++)
        memcpy(mine + s * width[m->rank], logits + last_row[s] * width[m->rank], (size_t)width[m->rank] * sizeof *mine);
    if (m->rank == 0) outcome->scores = em_alloc(N * m->config.vocab_size, sizeof(float));
    em_exchange_columns(m->comm, N, width, mine, outcome->scores);
    free(mine);
    free(width);
}

void em_pass_output(em_pass *pass, em_outcome *outcome)
{
    em_model *m = pass->model;
    const em_batch *b = pass->batch;
    int64_t outer = m->config.num_layers, D = m->config.emb_size;
    em_range held = em_embedding_held(&m->layout, m->rank);
    em_stand(-1, "output");
    em_pass_norm(pass, EM_FINAL_NORM, 0, pass->h, pass->x);
    em_profile_lap(pass->profile, outer, EM_PHASE_OUTPUT);
    em_pass_record(pass, EM_FINAL_HIDDEN, 0, D, pass->x);
    em_profile_lap(pass->profile, outer, EM_PHASE_TRACE);

    bool *needs = em_alloc(m->num_ranks, sizeof *needs);
    for (int r = 0; r < m->num_ranks; r++) needs[r] = em_range_size(em_layout_vocab_units(&m->layout, r)) > 0;
    em_exchange *plan = em_plan_gather(m->comm, &m->layout, pass->T, needs);
    const float *const *x = em_pass_deliver(pass, outer, EM_PHASE_OUTPUT, plan, m->x);

    bool recorded = em_trace_wants(pass->trace, EM_LOGITS, 0);
    int64_t N = b->num_sequences, rows = recorded ? pass->T : N, *last_row = em_alloc(N, sizeof *last_row);
    const float **last = em_alloc(N, sizeof *last);
    for (int64_t s = 0; s < N; s++) {
        int64_t t = b->first_token[s + 1] - 1;
        last_row[s] = recorded ? t : s;
        last[s] = needs[m->rank] ? x[t] : NULL;
    }
    float *logits = em_room_for(&m->room[EM_ROOM_LOGITS], rows * em_range_size(held), sizeof(float));
    em_embedding_logits(&m->config, &m->layout, m->rank, em_pass_blocks(pass, EM_EMBEDDING, 0), rows,
                        recorded ? x : last, m->compute, &m->inputs[0], logits);
    free(last);
    find_best(pass, held, logits, last_row, outcome);
    if (pass->step->all_scores) bring_scores(pass, logits, last_row, outcome);
    em_profile_lap(pass->profile, outer, EM_PHASE_OUTPUT);
    if (recorded && em_range_size(held) > 0)
        em_trace_put(pass->trace, EM_LOGITS, 0, pass->step->first_row, pass->T, held.begin, em_range_size(held), logits,
                     em_range_size(held));
    em_profile_lap(pass->profile, outer, EM_PHASE_TRACE);
    free(last_row);
    free(needs);
    em_exchange_free(plan);
}
