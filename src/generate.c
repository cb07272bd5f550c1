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

int64_t em_generation_steps(const em_batch *prompts, const em_generation *generation)
{
    int64_t chunk = chunk_of(prompts, generation);
    return (prompts->num_tokens + chunk - 1) / chunk + generated_rows(generation);
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
    em_state state;
    bool stopped; /* by the keeper */
} em_telling;

int64_t em_state_length(const em_state *state, const em_batch *prompts, int64_t sequence)
{
    int64_t length = prompt_length(prompts, sequence), run = state->rows - prompts->first_token[sequence];
    if (state->chosen[sequence] > 0) return length + state->chosen[sequence] - 1;
    return run < 0 ? 0 : run < length ? run : length;
}

static int32_t newest_of(const em_telling *telling, int64_t sequence)
{
    const em_state *state = &telling->state;
    return state->token[sequence * telling->generation->count + state->chosen[sequence] - 1];
}

static bool has_ended(const em_telling *telling, int64_t sequence)
{
    const em_generation *g = telling->generation;
    return telling->state.chosen[sequence] == g->count || newest_of(telling, sequence) == g->stop_token;
}

/* Token number `place` that was chosen after a prompt. */
static void tell_token(const em_telling *telling, int64_t sequence, int64_t place)
{
    const em_listener *listener = telling->listener;
    if (listener->token)
        listener->token(listener->token_context, sequence, prompt_length(telling->prompts, sequence) + place,
                        telling->state.token[sequence * telling->generation->count + place]);
}

/* In the order in which they were chosen. */
static void tell_again(const em_telling *telling)
{
    bool more = true;
    for (int64_t place = 0; more; place++) {
        more = false;
        for (int64_t s = 0; s < telling->prompts->num_sequences; s++) {
            if (telling->state.chosen[s] <= place) continue;
            tell_token(telling, s, place);
            more = true;
        }
    }
}

static void choose_next(em_telling *telling, int64_t sequence, const em_outcome *outcome, int64_t run)
{
    const em_generation *g = telling->generation;
    int64_t place = telling->state.chosen[sequence]++;
    int64_t position = prompt_length(telling->prompts, sequence) + place;
    int32_t token = outcome->token[run * EM_NUM_BEST];
    if (g->sampling.temperature > 0) {
        if (telling->model->rank == 0) {
            int64_t V = telling->model->config.vocab_size;
            token = em_sample(&g->sampling, V, outcome->scores + run * V, sequence, position - 1);
        }
        em_exchange_share(telling->model->comm, (int64_t)sizeof token, &token);
    }
    telling->state.token[sequence * g->count + place] = token;
    tell_token(telling, sequence, place);
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

/* Of the step that comes next: the prompts' steps, then one for each token that was chosen before. */
static int64_t step_number(const em_telling *telling)
{
    int64_t chunk = chunk_of(telling->prompts, telling->generation), chosen = 1;
    if (telling->state.rows < telling->prompts->num_tokens) return telling->state.rows / chunk;
    for (int64_t s = 0; s < telling->prompts->num_sequences; s++)
        if (telling->state.chosen[s] > chosen) chosen = telling->state.chosen[s];
    return (telling->prompts->num_tokens + chunk - 1) / chunk + chosen - 1;
}

static bool run_step(em_telling *telling, const em_batch *tokens, part_of_prompts *part, em_outcome *outcome,
                     em_status *status)
{
    em_step step = {.tokens = tokens,
                    .number = step_number(telling),
                    .first_row = telling->state.rows,
                    .all_scores = telling->generation->count > 0 && telling->generation->sampling.temperature > 0};
    bool good = em_model_step(telling->model, &step, &telling->cache, telling->trace, telling->profile, outcome,
                              part ? tell_part : NULL, part, status);
    telling->state.rows += tokens->num_tokens;
    return good;
}

/* What may follow a prompt, from the step in which it ended. */
static void keep_outcome(em_outcome *after, int64_t sequence, const em_outcome *outcome, int64_t run)
{
    after->num_best = outcome->num_best;
    memcpy(after->token + sequence * EM_NUM_BEST, outcome->token + run * EM_NUM_BEST, sizeof(int32_t[EM_NUM_BEST]));
    memcpy(after->logit + sequence * EM_NUM_BEST, outcome->logit + run * EM_NUM_BEST, sizeof(float[EM_NUM_BEST]));
}

/* Before each step. False, too, where the run is to stop here. */
static bool goes_on(em_telling *telling, em_status *status)
{
    const em_keeper *keeper = telling->listener->keeper;
    return !keeper || (keeper->between(keeper->context, &telling->state, &telling->cache, telling->trace,
                                       telling->profile, &telling->stopped, status) &&
                       !telling->stopped);
}

static bool run_prompts(em_telling *telling, em_status *status)
{
    const em_batch *prompts = telling->prompts;
    int64_t chunk = chunk_of(prompts, telling->generation);
    bool good = true;
    for (int64_t begin = telling->state.rows, end; good && begin < prompts->num_tokens; begin = end) {
        if (!goes_on(telling, status)) return false;
        end = begin + chunk < prompts->num_tokens ? begin + chunk : prompts->num_tokens;
        em_batch part = em_batch_slice(prompts, begin, end);
        em_outcome outcome = {0};
        double all = (double)prompts->num_tokens;
        part_of_prompts told = {telling->listener, (double)begin / all, (double)(end - begin) / all};
        good = run_step(telling, &part, &told, &outcome, status);
        for (int64_t run = 0; good && run < part.num_sequences; run++) {
            int64_t last = part.first_token[run + 1] - 1, sequence = part.sequence[last];
            if (part.position[last] + 1 < prompt_length(prompts, sequence)) continue;
            keep_outcome(&telling->state.after, sequence, &outcome, run);
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
        if (!has_ended(telling, s))
            em_batch_add_next(&step, newest_of(telling, s), (int32_t)s,
                              (int32_t)(prompt_length(telling->prompts, s) + telling->state.chosen[s] - 1));
    return step;
}

static bool run_generated(em_telling *telling, em_status *status)
{
    bool good = true, more = true;
    while (good && more) {
        em_batch step = next_tokens(telling);
        em_outcome outcome = {0};
        more = step.num_tokens > 0;
        if (more) good = goes_on(telling, status) && run_step(telling, &step, NULL, &outcome, status);
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
    telling->state = (em_state){.chosen = em_zeroed(N, sizeof(int64_t)),
                                .token = em_zeroed(N * telling->generation->count, sizeof(int32_t)),
                                .after = {.num_sequences = N,
                                          .token = em_zeroed(N * EM_NUM_BEST, sizeof(int32_t)),
                                          .logit = em_zeroed(N * EM_NUM_BEST, sizeof(float))}};
    free(capacity);
}

/* The outcome is the caller's. */
static void close_telling(em_telling *telling)
{
    em_cache_close(&telling->cache);
    free(telling->state.chosen);
    free(telling->state.token);
}

/* From where an earlier run stood, if there is one. */
static bool begin(em_telling *telling, em_status *status)
{
    const em_keeper *keeper = telling->listener->keeper;
    if (!keeper || !keeper->begin) return true;
    if (!keeper->begin(keeper->context, &telling->state, &telling->cache, telling->profile, status)) return false;
    tell_again(telling);
    return true;
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
    open_telling(&telling);
    bool good = begin(&telling, status) && run_prompts(&telling, status);
    if (good && generation->count > 0) good = run_generated(&telling, status);
    if (telling.stopped)
        good = em_trace_stop(trace, profile, status);
    else if (good)
        good = em_trace_finish(trace, profile, telling.state.rows, status);
    *after = telling.state.after;
    *rows = telling.state.rows;
    close_telling(&telling);
    return good;
}
