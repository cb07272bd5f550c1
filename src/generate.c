#include "expertmesh/generate.h"

#include <stdlib.h>
#include <string.h>

static int64_t prompt_length(const em_batch *prompts, int64_t s)
{
    return prompts->first_token[s + 1] - prompts->first_token[s];
}

static int64_t generated_rows(const em_generation *generation)
{
    return generation->count > 0 ? generation->count - 1 : 0;
}

int64_t em_generation_rows(const em_batch *prompts, const em_generation *generation)
{
    return prompts->num_tokens + prompts->num_sequences * generated_rows(generation);
}

static int64_t chunk_of(const em_batch *prompts, const em_generation *generation)
{
    int64_t chunk = generation->prefill_chunk;
    return chunk > 0 && chunk < prompts->num_tokens ? chunk : prompts->num_tokens;
}

em_extent em_generation_extent(const em_batch *prompts, const em_generation *generation)
{
    int64_t chunk = chunk_of(prompts, generation);
    bool lasting = generation->count > 1 || chunk < prompts->num_tokens;
    int64_t most = lasting && prompts->num_sequences > chunk ? prompts->num_sequences : chunk;
    return (em_extent){most, em_generation_rows(prompts, generation), prompts->num_sequences, lasting, 0};
}

/* One run of prompts and what follows. */
typedef struct em_telling {
    em_model *model;
    const em_batch *prompts;
    const em_generation *generation;
    em_trace *trace;
    em_profile *profile;
    const em_listener *listener;
    em_cache cache;
    int64_t rows;    /* tokens run so far */
    int64_t *chosen; /* [num_sequences] tokens chosen so far */
    int32_t *newest; /* [num_sequences] the last of them */
    bool *ended;     /* [num_sequences] */
} em_telling;

static void choose_next(em_telling *telling, int64_t sequence, const em_outcome *outcome, int64_t run)
{
    const em_generation *g = telling->generation;
    int64_t position = prompt_length(telling->prompts, sequence) + telling->chosen[sequence];
    int32_t token = outcome->token[run * EM_NUM_BEST];
    if (g->sampling.temperature > 0) {
        if (telling->model->rank == 0) {
            int64_t V = telling->model->config.vocab_size;
            token = em_sample(&g->sampling, V, outcome->scores + run * V, sequence, position - 1);
        }
        em_exchange_share(telling->model->comm, (int64_t)sizeof token, &token);
    }
    telling->newest[sequence] = token;
    telling->chosen[sequence]++;
    telling->ended[sequence] = token == g->stop_token || telling->chosen[sequence] == g->count;
    if (telling->listener->token) telling->listener->token(telling->listener->token_context, sequence, position, token);
}

/* Layers of one step, told as a part of all steps of the prompts. */
typedef struct part_of_prompts {
    const em_listener *listener;
    double before, share; /* parts of the whole */
} part_of_prompts;

static void tell_part(void *context, double done, double all)
{
    const part_of_prompts *part = context;
    if (part->listener->progress)
        part->listener->progress(part->listener->progress_context, part->before + part->share * done / all, 1);
}

static bool run_step(em_telling *telling, const em_batch *tokens, part_of_prompts *part, em_outcome *outcome,
                     em_status *status)
{
    em_step step = {.tokens = tokens,
                    .first_row = telling->rows,
                    .all_scores = telling->generation->count > 0 && telling->generation->sampling.temperature > 0};
    bool good = em_model_step(telling->model, &step, &telling->cache, telling->trace, telling->profile, outcome,
                              part ? tell_part : NULL, part, status);
    telling->rows += tokens->num_tokens;
    return good;
}

/* What may follow a prompt, from the step in which it ended. */
static void keep_outcome(em_outcome *after, int64_t sequence, const em_outcome *outcome, int64_t run)
{
    after->num_best = outcome->num_best;
    memcpy(after->token + sequence * EM_NUM_BEST, outcome->token + run * EM_NUM_BEST, sizeof(int32_t[EM_NUM_BEST]));
    memcpy(after->logit + sequence * EM_NUM_BEST, outcome->logit + run * EM_NUM_BEST, sizeof(float[EM_NUM_BEST]));
}

static bool run_prompts(em_telling *telling, em_outcome *after, em_status *status)
{
    const em_batch *prompts = telling->prompts;
    int64_t chunk = chunk_of(prompts, telling->generation);
    bool good = true;
    for (int64_t begin = 0, end; good && begin < prompts->num_tokens; begin = end) {
        end = begin + chunk < prompts->num_tokens ? begin + chunk : prompts->num_tokens;
        em_batch part = em_batch_slice(prompts, begin, end);
        em_outcome outcome = {0};
        double all = (double)prompts->num_tokens;
        part_of_prompts told = {telling->listener, (double)begin / all, (double)(end - begin) / all};
        good = run_step(telling, &part, &told, &outcome, status);
        for (int64_t run = 0; good && run < part.num_sequences; run++) {
            int64_t last = part.first_token[run + 1] - 1, sequence = part.sequence[last];
            if (part.position[last] + 1 < prompt_length(prompts, sequence)) continue;
            keep_outcome(after, sequence, &outcome, run);
            if (telling->generation->count > 0) choose_next(telling, sequence, &outcome, run);
        }
        em_outcome_free(&outcome);
        em_batch_free(&part);
    }
    return good;
}

/* The newest token of every sequence that goes on. */
static em_batch next_tokens(const em_telling *telling)
{
    em_batch step = {0};
    for (int64_t s = 0; s < telling->prompts->num_sequences; s++)
        if (!telling->ended[s])
            em_batch_add_next(&step, telling->newest[s], (int32_t)s,
                              (int32_t)(prompt_length(telling->prompts, s) + telling->chosen[s] - 1));
    return step;
}

static bool run_generated(em_telling *telling, em_status *status)
{
    bool good = true, more = true;
    while (good && more) {
        em_batch step = next_tokens(telling);
        em_outcome outcome = {0};
        more = step.num_tokens > 0;
        if (more) good = run_step(telling, &step, NULL, &outcome, status);
        for (int64_t run = 0; good && run < step.num_tokens; run++)
            choose_next(telling, step.sequence[run], &outcome, run);
        em_outcome_free(&outcome);
        em_batch_free(&step);
    }
    return good;
}

static void open_telling(em_telling *telling)
{
    int64_t N = telling->prompts->num_sequences, *capacity = em_alloc(N, sizeof *capacity);
    for (int64_t s = 0; s < N; s++)
        capacity[s] = prompt_length(telling->prompts, s) + generated_rows(telling->generation);
    em_cache_open(&telling->cache, &telling->model->config, &telling->model->layout, telling->model->rank, N, capacity,
                  em_generation_extent(telling->prompts, telling->generation).lasting);
    telling->chosen = em_zeroed(N, sizeof *telling->chosen);
    telling->newest = em_zeroed(N, sizeof *telling->newest);
    telling->ended = em_zeroed(N, sizeof *telling->ended);
    free(capacity);
}

static void close_telling(em_telling *telling)
{
    em_cache_close(&telling->cache);
    free(telling->chosen);
    free(telling->newest);
    free(telling->ended);
}

bool em_generate(em_model *model, const em_batch *prompts, const em_generation *generation, em_trace *trace,
                 em_profile *profile, const em_listener *listener, em_outcome *after, int64_t *rows, em_status *status)
{
    em_telling telling = {.model = model,
                          .prompts = prompts,
                          .generation = generation,
                          .trace = trace,
                          .profile = profile,
                          .listener = listener};
    int64_t N = prompts->num_sequences;
    *after = (em_outcome){.num_sequences = N,
                          .token = em_zeroed(N * EM_NUM_BEST, sizeof(int32_t)),
                          .logit = em_zeroed(N * EM_NUM_BEST, sizeof(float))};
    open_telling(&telling);
    bool good = run_prompts(&telling, after, status);
    if (good && generation->count > 0) good = run_generated(&telling, status);
    if (good) good = em_trace_finish(trace, profile, telling.rows, status);
    *rows = telling.rows;
    close_telling(&telling);
    return good;
}
