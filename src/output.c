/* The end of a step: scores over the vocabulary, and the best of them. */
#include "pass.h"

#include "expertmesh/embedding.h"
#include "expertmesh/standing.h"

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

/* held [n]: the tokens held here, ascending. */
static best best_of(int64_t n, const int32_t *held, const float *logits)
{
    best found;
    int32_t index[EM_NUM_BEST];
    em_top(n, logits, EM_NUM_BEST, index);
    for (int i = 0; i < EM_NUM_BEST; i++) {
        found.token[i] = index[i] < 0 ? -1 : held[index[i]];
        found.logit[i] = index[i] < 0 ? 0 : logits[index[i]];
    }
    return found;
}

/* Of two scores the larger one is better; any is better than NaN; of equals the lower token is. */
static bool is_better(float logit, int32_t token, float other_logit, int32_t other_token)
{
    if (isnan(logit) != isnan(other_logit)) return isnan(other_logit);
    if (logit > other_logit || logit < other_logit) return logit > other_logit;
    return token < other_token;
}

/* Everyone's best of one run, merged. */
static void merge_best(int num_ranks, int64_t stride, const best *all, int num_best, int32_t *token, float *logit)
{
    int *next = em_zeroed(num_ranks, sizeof *next);
    for (int i = 0; i < num_best; i++) {
        int from = -1;
        for (int r = 0; r < num_ranks; r++) {
            const best *b = &all[r * stride];
            if (next[r] == EM_NUM_BEST || b->token[next[r]] < 0) continue;
            const best *found = from < 0 ? NULL : &all[from * stride];
            if (!found ||
                is_better(b->logit[next[r]], b->token[next[r]], found->logit[next[from]], found->token[next[from]]))
                from = r;
        }
        token[i] = all[from * stride].token[next[from]];
        logit[i] = all[from * stride].logit[next[from]++];
    }
    free(next);
}

/* The tokens whose rows a rank holds, ascending. Freed with free. */
static int32_t *held_by(const em_layout *layout, int rank)
{
    em_units units = em_layout_vocab_units(layout, rank);
    int32_t *held = em_alloc(em_layout_vocab_held(layout, rank), sizeof *held);
    int64_t n = 0;
    for (int64_t i = 0; i < units.count; i++) {
        em_range rows = em_layout_vocab_rows(layout, units.unit[i]);
        for (int64_t token = rows.begin; token < rows.end; token++) held[n++] = (int32_t)token;
    }
    return held;
}

/* logits [T, Vr] of all tokens, or of the last of each sequence: row s lies at last_row[s]. */
static void find_best(em_pass *pass, const float *logits, const int64_t *last_row, em_outcome *outcome)
{
    em_model *m = pass->model;
    int64_t N = pass->batch->num_sequences;
    best *mine = em_alloc(N, sizeof *mine), *all = em_alloc(N * m->num_ranks, sizeof *all);
    int64_t n = em_layout_vocab_held(&m->layout, m->rank);
    int32_t *held = held_by(&m->layout, m->rank);
    for (int64_t s = 0; s < N; s++) mine[s] = best_of(n, held, logits + last_row[s] * n);
    free(held);
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

/* scores [N, V] in the order of the vocabulary, from all [N, V] as the ranks hold it. */
static void order_scores(const em_layout *layout, int64_t N, const float *all, float *scores)
{
    int64_t V = layout->vocab_size, first = 0;
    for (int r = 0; r < layout->num_ranks; r++) {
        int64_t n = em_layout_vocab_held(layout, r);
        int32_t *held = held_by(layout, r);
        for (int64_t s = 0; s < N; s++)
            for (int64_t i = 0; i < n; i++) scores[s * V + held[i]] = all[s * V + first + i];
        first += n;
        free(held);
    }
}

/* The scores of the whole vocabulary after each run, on rank 0. */
static void bring_scores(em_pass *pass, const float *logits, const int64_t *last_row, em_outcome *outcome)
{
    em_model *m = pass->model;
    int64_t N = pass->batch->num_sequences, *width = em_alloc(m->num_ranks, sizeof *width);
    for (int r = 0; r < m->num_ranks; r++) width[r] = em_layout_vocab_held(&m->layout, r);
    float *mine = em_alloc(N * width[m->rank], sizeof *mine);
    for (int64_t s = 0; s < N; s++)
        memcpy(mine + s * width[m->rank], logits + last_row[s] * width[m->rank], (size_t)width[m->rank] * sizeof *mine);
    float *all = m->rank == 0 ? em_alloc(N * m->config.vocab_size, sizeof *all) : NULL;
    em_exchange_columns(m->comm, N, width, mine, all);
    if (m->rank == 0) {
        outcome->scores = em_alloc(N * m->config.vocab_size, sizeof(float));
        order_scores(&m->layout, N, all, outcome->scores);
    }
    free(all);
    free(mine);
    free(width);
}

/* logits [T, Vr]: neighbouring units at once. */
static void record_scores(em_pass *pass, const float *logits)
{
    const em_layout *layout = &pass->model->layout;
    em_units units = em_layout_vocab_units(layout, pass->model->rank);
    int64_t width = em_layout_vocab_held(layout, pass->model->rank), first = 0;
    for (int64_t i = 0, run; i < units.count; i += run) {
        run = em_units_run(units, i);
        em_range rows = {em_layout_vocab_rows(layout, units.unit[i]).begin,
                         em_layout_vocab_rows(layout, units.unit[i + run - 1]).end};
        em_trace_put(pass->trace, EM_LOGITS, 0, pass->step->first_row, pass->T, rows.begin, em_range_size(rows),
                     logits + first, width);
        first += em_range_size(rows);
    }
}

void em_pass_output(em_pass *pass, em_outcome *outcome)
{
    em_model *m = pass->model;
    const em_batch *b = pass->batch;
    int64_t outer = m->config.num_layers, D = m->config.emb_size;
    em_stand(-1, "output");
    em_pass_norm(pass, EM_FINAL_NORM, 0, pass->h, pass->x);
    em_profile_lap(pass->profile, outer, EM_PHASE_OUTPUT);
    em_pass_record(pass, EM_FINAL_HIDDEN, 0, D, pass->x);
    em_profile_lap(pass->profile, outer, EM_PHASE_TRACE);

    bool *needs = em_alloc(m->num_ranks, sizeof *needs);
    for (int r = 0; r < m->num_ranks; r++) needs[r] = em_layout_vocab_units(&m->layout, r).count > 0;
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
    float *logits =
        em_room_for(&m->room[EM_ROOM_LOGITS], rows * em_layout_vocab_held(&m->layout, m->rank), sizeof(float));
    em_embedding_logits(&m->config, &m->layout, m->rank, em_pass_blocks(pass, EM_EMBEDDING, 0), rows,
                        recorded ? x : last, m->compute, &m->inputs[0], logits);
    free(last);
    find_best(pass, logits, last_row, outcome);
    if (pass->step->all_scores) bring_scores(pass, logits, last_row, outcome);
    em_profile_lap(pass->profile, outer, EM_PHASE_OUTPUT);
    if (recorded) record_scores(pass, logits);
    em_profile_lap(pass->profile, outer, EM_PHASE_TRACE);
    free(last_row);
    free(needs);
    em_exchange_free(plan);
}
