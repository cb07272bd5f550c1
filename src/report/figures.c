#include "figures.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bytes that are read at most of ffn_hidden, and of each place of the residual state; what has more is sampled. */
static const int64_t MOST_READ = 1000000000;

/* Was it recorded? What was not is no failure: the page says it in place of the picture. */
static bool has(em_figures *f, em_quantity quantity)
{
    return em_view_need(&f->view, quantity, &f->missing[quantity]);
}

/* The same for what there is of each token. */
static bool has_tokens(em_figures *f, em_quantity quantity)
{
    if (!has(f, quantity)) return false;
    if (em_view_tokens(&f->view, 0) > 0) return true;
    return em_fail(&f->missing[quantity], EM_BAD_DATA, "%s: no token is written yet", f->path);
}

/* Tokens of a layer that may be read of a quantity, at least some. */
static int64_t affordable(const em_figures *f, em_quantity quantity)
{
    int64_t tokens = MOST_READ / (f->L * em_view_width(&f->view, quantity) * (int64_t)sizeof(float));
    return tokens > 16 ? tokens : 16;
}

/* ---- experts ---- */

static bool read_loads(em_figures *f, em_status *status)
{
    if (!has(f, EM_EXPERT_LOAD)) return true;
    int64_t *rows = em_alloc(f->E, sizeof *rows);
    f->load = em_alloc(f->L * f->E, sizeof *f->load);
    f->balance = em_alloc(f->L, sizeof *f->balance);
    bool good = true;
    for (int64_t layer = 0; good && layer < f->L; layer++) {
        good = em_view_read_layer(&f->view, EM_EXPERT_LOAD, layer, rows, status);
        for (int64_t e = 0; good && e < f->E; e++) f->load[layer * f->E + e] = (double)rows[e];
        if (good) f->balance[layer] = em_balance_of(rows, f->E);
    }
    free(rows);
    return good;
}

static bool read_router(em_figures *f, em_status *status)
{
    if (!has_tokens(f, EM_ROUTER_PROBS)) return true;
    f->entropy = em_alloc(f->L, sizeof *f->entropy);
    f->best = em_alloc(f->L, sizeof *f->best);
    for (int64_t layer = 0; layer < f->L; layer++) {
        em_router_figures router;
        if (!em_analysis_router(&f->view, layer, &router, status)) return false;
        f->entropy[layer] = router.entropy;
        f->best[layer] = router.best;
    }
    return true;
}

static bool read_pairs(em_figures *f, em_status *status)
{
    if (!has_tokens(f, EM_EXPERT_INDICES)) return true;
    int64_t *pairs = em_zeroed(f->E * f->E, sizeof *pairs);
    bool good = true;
    for (int64_t layer = 0; good && layer < f->L; layer++) good = em_analysis_pairs(&f->view, layer, pairs, status);
    f->pairs = em_alloc(f->E * f->E, sizeof *f->pairs);
    for (int64_t i = 0; i < f->E * f->E; i++) f->pairs[i] = i / f->E == i % f->E ? (double)NAN : (double)pairs[i];
    free(pairs);
    return good;
}

/* ---- ranks ---- */

static bool read_bytes(em_figures *f, em_status *status)
{
    if (!has(f, EM_DISPATCH_ROWS)) return true;
    int64_t *rows = em_alloc(f->P * f->P, sizeof *rows), row_bytes = em_row_bytes(&f->view);
    f->bytes = em_zeroed(f->P * f->P, sizeof *f->bytes);
    bool good = true;
    for (int64_t layer = 0; good && layer < f->L; layer++) {
        good = em_view_read_layer(&f->view, EM_DISPATCH_ROWS, layer, rows, status);
        for (int64_t i = 0; good && i < f->P * f->P; i++) f->bytes[i] += (double)(rows[i] * row_bytes);
    }
    free(rows);
    return good;
}

/* Is it there? What a run writes at its end is not in a trace that is not complete. */
static bool has_at_end(em_figures *f, em_quantity quantity)
{
    if (!has(f, quantity)) return false;
    if (f->view.complete) return true;
    return em_fail(&f->missing[quantity], EM_BAD_DATA,
                   "%s: %s is not written: a run writes it at its end, and this trace is not complete", f->path,
                   em_quantities[quantity].name);
}

static bool read_seconds(em_figures *f, em_status *status)
{
    if (!has_at_end(f, EM_PHASE_SECONDS)) return true;
    int64_t width = f->P * f->view.num_phases;
    double *seconds = em_alloc(width, sizeof *seconds);
    f->seconds = em_zeroed(width, sizeof *f->seconds);
    bool good = true;
    for (int64_t layer = 0; good && layer < f->L + f->view.recorded[EM_OUTER_SECONDS]; layer++) {
        good = em_analysis_seconds(&f->view, layer, seconds, status);
        for (int64_t i = 0; good && i < width; i++) f->seconds[i] += seconds[i];
    }
    free(seconds);
    return good;
}

static bool read_memory(em_figures *f, em_status *status)
{
    if (!has_at_end(f, EM_MEMORY_BYTES)) return true;
    int64_t *bytes = em_alloc(f->P * EM_NUM_MEMORIES, sizeof *bytes);
    bool good = em_view_read_layer(&f->view, EM_MEMORY_BYTES, 0, bytes, status);
    f->memory = em_alloc(f->P * EM_NUM_MEMORIES, sizeof *f->memory);
    for (int64_t r = 0; good && r < f->P; r++) {
        int64_t weights = bytes[r * EM_NUM_MEMORIES + EM_MEMORY_WEIGHTS],
                peak = bytes[r * EM_NUM_MEMORIES + EM_MEMORY_PEAK];
        f->memory[r * EM_NUM_MEMORIES] = (double)weights;
        f->memory[r * EM_NUM_MEMORIES + 1] = peak > weights ? (double)(peak - weights) : 0;
    }
    free(bytes);
    return good;
}

/* ---- neurons and states ---- */

static bool read_neurons(em_figures *f, em_status *status)
{
    if (!has_tokens(f, EM_FFN_HIDDEN) || !has_tokens(f, EM_EXPERT_INDICES)) return true;
    f->neuron_tokens = affordable(f, EM_FFN_HIDDEN);
    f->rms = em_alloc(f->L * f->E, sizeof *f->rms);
    f->quiet = em_alloc(f->L, sizeof *f->quiet);
    f->dead = em_alloc(f->L, sizeof *f->dead);
    for (int64_t layer = 0; layer < f->L; layer++) {
        em_activity activity;
        double quiet = 0, outputs = 0, dead = 0, used = 0;
        if (!em_activity_sample(&activity, &f->view, layer, f->neuron_tokens, status)) return false;
        for (int64_t e = 0; e < f->E; e++) {
            em_expert_activity one = em_activity_of(&activity, e);
            f->rms[layer * f->E + e] = one.tokens > 0 ? one.rms : (double)NAN;
            if (one.tokens == 0) continue;
            quiet += one.sparsity * (double)one.tokens;
            outputs += (double)one.tokens;
            dead += (double)one.dead;
            used += (double)activity.F;
        }
        f->quiet[layer] = quiet / outputs;
        f->dead[layer] = dead / used;
        em_activity_free(&activity);
    }
    return true;
}

/* The norms of one layer: of all its tokens, or of as many as may be read, evenly apart. */
static bool read_norms_of(em_figures *f, em_quantity quantity, int64_t layer, em_norms *norms, em_status *status)
{
    int64_t tokens = em_view_tokens(&f->view, layer), count = tokens < f->norm_tokens ? tokens : f->norm_tokens;
    double *norm = em_alloc(count, sizeof *norm), sum = 0;
    bool good = true;
    if (count == tokens) good = em_analysis_norms(&f->view, quantity, layer, 0, tokens, norm, status);
    for (int64_t i = 0; good && count < tokens && i < count; i++)
        good = em_analysis_norms(&f->view, quantity, layer, i * tokens / count, 1, norm + i, status);
    norms->least[layer] = norms->most[layer] = good && count > 0 ? norm[0] : (double)NAN;
    for (int64_t i = 0; good && i < count; i++) {
        sum += norm[i];
        norms->least[layer] = fmin(norms->least[layer], norm[i]);
        norms->most[layer] = fmax(norms->most[layer], norm[i]);
    }
    norms->mean[layer] = sum / (double)count;
    free(norm);
    return good;
}

static bool read_norms(em_figures *f, em_status *status)
{
    for (int place = 0; place < EM_NUM_PLACES; place++) {
        em_quantity quantity = EM_RESID_PRE + (em_quantity)place;
        em_norms *norms = &f->norm[place];
        if (!has_tokens(f, quantity)) continue;
        f->norm_tokens = affordable(f, quantity);
        norms->mean = em_alloc(f->L, sizeof(double));
        norms->least = em_alloc(f->L, sizeof(double));
        norms->most = em_alloc(f->L, sizeof(double));
        for (int64_t layer = 0; layer < f->L; layer++)
            if (!read_norms_of(f, quantity, layer, norms, status)) return false;
    }
    return true;
}

/* ---- the text ---- */

/* A token and where it stands: in its sequence, and in the trace. */
typedef struct word {
    int32_t sequence, position, place, id;
} word;

static int by_sequence(const void *a, const void *b)
{
    const word *x = a, *y = b;
    if (x->sequence != y->sequence) return x->sequence < y->sequence ? -1 : 1;
    if (x->position != y->position) return x->position < y->position ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

/* All tokens in the order of reading: a trace has them in the order they were run. NULL on failure. */
static word *read_words(const em_figures *f, int64_t count, em_status *status)
{
    int32_t *id = em_alloc(count, sizeof *id), *sequence = em_alloc(count, sizeof *sequence);
    int32_t *position = em_alloc(count, sizeof *position);
    word *words = NULL;
    if (em_view_read(&f->view, EM_TOKEN_IDS, 0, 0, count, id, status) &&
        em_view_read(&f->view, EM_SEQUENCE, 0, 0, count, sequence, status) &&
        em_view_read(&f->view, EM_POSITION, 0, 0, count, position, status)) {
        words = em_alloc(count, sizeof *words);
        for (int64_t t = 0; t < count; t++) words[t] = (word){sequence[t], position[t], (int32_t)t, id[t]};
        qsort(words, (size_t)count, sizeof *words, by_sequence);
    }
    free(id);
    free(sequence);
    free(position);
    return words;
}

/* The first expert of each token that is shown, in one layer. */
static bool read_first_experts(em_figures *f, int64_t layer, em_status *status)
{
    int64_t tokens = em_view_tokens(&f->view, layer), S = f->view.config.num_selected_experts;
    int32_t *choice = em_alloc(tokens * S, sizeof *choice);
    bool good = em_view_read(&f->view, EM_EXPERT_INDICES, layer, 0, tokens, choice, status);
    for (int64_t i = 0; good && i < f->num_shown; i++) {
        int32_t place = f->shown_place[i];
        f->expert[layer * f->num_shown + i] = place < tokens ? choice[place * S] : -1;
    }
    free(choice);
    return good;
}

static bool read_text(em_figures *f, int64_t shown, em_status *status)
{
    f->num_text = em_view_tokens(&f->view, 0);
    f->num_shown = f->num_text < shown ? f->num_text : shown;
    word *words = read_words(f, f->num_text, status);
    if (!words) return false;
    f->shown_place = em_alloc(f->num_shown, sizeof(int32_t));
    f->shown_id = em_alloc(f->num_shown, sizeof(int32_t));
    f->shown_sequence = em_alloc(f->num_shown, sizeof(int32_t));
    f->shown_position = em_alloc(f->num_shown, sizeof(int32_t));
    for (int64_t i = 0; i < f->num_shown; i++) {
        f->shown_place[i] = words[i].place;
        f->shown_id[i] = words[i].id;
        f->shown_sequence[i] = words[i].sequence;
        f->shown_position[i] = words[i].position;
    }
    free(words);
    if (!has_tokens(f, EM_EXPERT_INDICES)) return true;
    f->expert = em_alloc(f->L * f->num_shown, sizeof *f->expert);
    bool good = true;
    for (int64_t layer = 0; good && layer < f->L; layer++) good = read_first_experts(f, layer, status);
    return good;
}

/* ---- all ---- */

bool em_figures_open(em_figures *f, const char *path, int64_t shown, em_status *status)
{
    *f = (em_figures){.path = path};
    if (!em_view_open(&f->view, path, status)) return false;
    f->L = f->view.num_layers;
    f->E = f->view.config.num_experts;
    f->P = f->view.num_ranks;
    if (read_loads(f, status) && read_router(f, status) && read_pairs(f, status) && read_bytes(f, status) &&
        read_seconds(f, status) && read_memory(f, status) && read_neurons(f, status) && read_norms(f, status) &&
        read_text(f, shown, status)) {
        f->token_text = em_view_token_text(&f->view, status);
        if (status->code == EM_OK) return true;
    }
    em_figures_close(f);
    return false;
}

void em_figures_close(em_figures *f)
{
    free(f->load);
    free(f->balance);
    free(f->entropy);
    free(f->best);
    free(f->pairs);
    free(f->bytes);
    free(f->seconds);
    free(f->memory);
    free(f->rms);
    free(f->quiet);
    free(f->dead);
    for (int place = 0; place < EM_NUM_PLACES; place++) {
        free(f->norm[place].mean);
        free(f->norm[place].least);
        free(f->norm[place].most);
    }
    free(f->shown_place);
    free(f->shown_id);
    free(f->shown_sequence);
    free(f->shown_position);
    for (int64_t i = 0; f->token_text && i < f->view.config.vocab_size; i++) free(f->token_text[i]);
    free(f->token_text);
    free(f->expert);
    em_view_close(&f->view);
    *f = (em_figures){0};
}
