#include "expertmesh/analysis.h"

#include "expertmesh/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- loads ---- */

em_balance em_balance_of(const int64_t *load, int64_t count)
{
    em_balance b = {.count = count};
    for (int64_t i = 0; i < count; i++) {
        if (__builtin_add_overflow(b.total, load[i], &b.total)) b.total = INT64_MAX; /* of a file that cannot be */
        b.unused += load[i] == 0;
        if (load[i] > b.most) {
            b.most = load[i];
            b.most_at = i;
        }
    }
    double squares = 0, entropy = 0, total = (double)b.total;
    b.mean = total / (double)count;
    for (int64_t i = 0; i < count; i++) {
        double share = (double)load[i] / total, off = (double)load[i] - b.mean;
        squares += off * off;
        if (load[i] > 0) entropy -= share * log(share);
    }
    b.over_mean = b.total > 0 ? (double)b.most / b.mean : (double)NAN;
    b.variation = b.total > 0 ? sqrt(squares / (double)count) / b.mean : (double)NAN;
    b.evenness = b.total == 0 ? (double)NAN : count == 1 ? 1 : entropy / log((double)count);
    return b;
}

void em_rows_by_rank(const int64_t *rows, int num_ranks, int64_t *load)
{
    for (int to = 0; to < num_ranks; to++) {
        load[to] = 0;
        for (int from = 0; from < num_ranks; from++) load[to] += rows[(int64_t)from * num_ranks + to];
    }
}

int64_t em_row_bytes(const em_view *view)
{
    return view->config.emb_size * (int64_t)sizeof(float);
}

/* ---- choices ---- */

bool em_analysis_check_choices(const em_view *view, int64_t layer, const int32_t *expert, int64_t count,
                               em_status *status)
{
    for (int64_t i = 0; i < count; i++)
        if (expert[i] < 0 || expert[i] >= view->config.num_experts)
            return em_fail(status, EM_BAD_DATA, "%s: expert_indices of layer %lld has %d, but experts are 0 to %lld",
                           em_view_path(view), (long long)view->layer[layer], expert[i],
                           (long long)view->config.num_experts - 1);
    return true;
}

/* expert [tokens, S] of a layer, checked; NULL on failure. Freed with free. */
static int32_t *read_choices(const em_view *view, int64_t layer, em_status *status)
{
    int64_t count = em_view_tokens(view, layer) * view->config.num_selected_experts;
    int32_t *expert = em_alloc(count, sizeof *expert);
    if (em_view_read(view, EM_EXPERT_INDICES, layer, 0, em_view_tokens(view, layer), expert, status) &&
        em_analysis_check_choices(view, layer, expert, count, status))
        return expert;
    free(expert);
    return NULL;
}

bool em_analysis_pairs(const em_view *view, int64_t layer, int64_t *pairs, em_status *status)
{
    int64_t tokens = em_view_tokens(view, layer), S = view->config.num_selected_experts, E = view->config.num_experts;
    int32_t *expert = read_choices(view, layer, status);
    if (!expert) return false;
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < S; i++)
            for (int64_t j = 0; j < S; j++) pairs[expert[t * S + i] * E + expert[t * S + j]]++;
    free(expert);
    return true;
}

static int by_expert_and_value(const void *a, const void *b)
{
    const em_value_count *x = a, *y = b;
    if (x->expert != y->expert) return x->expert < y->expert ? -1 : 1;
    return (x->value > y->value) - (x->value < y->value);
}

static int by_expert_and_count(const void *a, const void *b)
{
    const em_value_count *x = a, *y = b;
    if (x->expert == y->expert && x->tokens != y->tokens) return x->tokens > y->tokens ? -1 : 1;
    return by_expert_and_value(a, b);
}

em_value_count *em_analysis_values(const em_view *view, int64_t layer, int64_t *count, em_status *status)
{
    int64_t tokens = em_view_tokens(view, layer), S = view->config.num_selected_experts;
    int32_t *value = em_alloc(tokens, sizeof *value);
    int32_t *expert =
        em_view_read(view, EM_TOKEN_IDS, 0, 0, tokens, value, status) ? read_choices(view, layer, status) : NULL;
    em_value_count *list = NULL;
    *count = 0;
    if (expert) {
        list = em_alloc(tokens * S, sizeof *list);
        for (int64_t i = 0; i < tokens * S; i++) list[i] = (em_value_count){expert[i], value[i / S], 1};
        qsort(list, (size_t)(tokens * S), sizeof *list, by_expert_and_value);
        for (int64_t i = 0; i < tokens * S; i++) {
            em_value_count *last = *count > 0 ? &list[*count - 1] : NULL;
            if (last && by_expert_and_value(last, &list[i]) == 0)
                last->tokens++;
            else
                list[(*count)++] = list[i];
        }
        qsort(list, (size_t)*count, sizeof *list, by_expert_and_count);
    }
    free(expert);
    free(value);
    return list;
}

/* How many tokens to read at once of a quantity that holds width numbers a token: about 16 MB. */
static int64_t block_of(int64_t width)
{
    enum { TOGETHER = 1 << 22 };
    return width < TOGETHER ? TOGETHER / width : 1;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

bool em_analysis_router(const em_view *view, int64_t layer, em_router_figures *figures, em_status *status)
{
    int64_t tokens = em_view_tokens(view, layer), E = view->config.num_experts, block = block_of(E), size;
    float *probs = em_alloc(least(block, tokens) * E, sizeof *probs);
    double entropy = 0, best = 0;
    bool good = em_view_need(view, EM_ROUTER_PROBS, status);
    for (int64_t t = 0; good && t < tokens; t += size) {
        size = least(block, tokens - t);
        good = em_view_read(view, EM_ROUTER_PROBS, layer, t, size, probs, status);
        for (int64_t i = 0; good && i < size; i++) {
            double most = 0;
            for (int64_t e = 0; e < E; e++) {
                double p = (double)probs[i * E + e];
                if (p > 0) entropy -= p * log(p);
                most = p > most ? p : most;
            }
            best += most;
        }
    }
    free(probs);
    double count = (double)tokens;
    *figures = (em_router_figures){tokens, E > 1 ? entropy / count / log((double)E) : 0, best / count};
    return good;
}

/* ---- seconds ---- */

const char *const em_phase_kinds[EM_NUM_KINDS] = {
    [EM_KIND_COMPUTE] = "compute",
    [EM_KIND_TRANSFER] = "transfer",
    [EM_KIND_WAIT] = "wait",
    [EM_KIND_TRACE] = "trace",
};

em_phase_kind em_phase_kind_of(const char *phase)
{
    static const char *const transfers[] = {"gather", "sum", "dispatch", "combine"};
    for (size_t i = 0; i < sizeof transfers / sizeof *transfers; i++)
        if (strcmp(phase, transfers[i]) == 0) return EM_KIND_TRANSFER;
    if (strcmp(phase, "wait") == 0) return EM_KIND_WAIT;
    return strcmp(phase, "trace") == 0 ? EM_KIND_TRACE : EM_KIND_COMPUTE;
}

em_seconds em_seconds_of(const double *seconds, int num_ranks, int64_t stride)
{
    em_seconds s = {seconds[0], 0, seconds[0], 0};
    for (int r = 0; r < num_ranks; r++) {
        double value = seconds[r * stride];
        s.mean += value / num_ranks;
        s.min = value < s.min ? value : s.min;
        if (value <= s.max) continue;
        s.max = value;
        s.slowest = r;
    }
    return s;
}

bool em_analysis_seconds(const em_view *view, int64_t layer, double *seconds, em_status *status)
{
    bool outside = layer == view->num_layers;
    return em_view_read_layer(view, outside ? EM_OUTER_SECONDS : EM_PHASE_SECONDS, outside ? 0 : layer, seconds,
                              status);
}

void em_seconds_by_kind(const em_view *view, const double *seconds, double *kinds)
{
    for (int64_t r = 0; r < view->num_ranks; r++)
        for (int64_t p = 0; p < view->num_phases; p++)
            kinds[r * EM_NUM_KINDS + em_phase_kind_of(view->phase[p])] += seconds[r * view->num_phases + p];
}

/* ---- neurons ---- */

static void open_activity(em_activity *a, const em_view *view)
{
    *a = (em_activity){.E = view->config.num_experts, .F = view->config.ffn_size};
    a->tokens = em_zeroed(a->E, sizeof *a->tokens);
    a->squares = em_zeroed(a->E, sizeof *a->squares);
    a->sizes = em_zeroed(a->E * a->F, sizeof *a->sizes);
    a->largest = em_zeroed(a->E * a->F, sizeof *a->largest);
    a->largest_token = em_alloc(a->E * a->F, sizeof *a->largest_token);
    a->active = em_zeroed(a->E * a->F, sizeof *a->active);
    for (int64_t i = 0; i < a->E * a->F; i++) a->largest_token[i] = -1;
}

void em_activity_free(em_activity *a)
{
    free(a->tokens);
    free(a->squares);
    free(a->sizes);
    free(a->largest);
    free(a->largest_token);
    free(a->active);
    *a = (em_activity){0};
}

/* One token's outputs of one expert's neurons [F]. */
static void add_outputs(em_activity *a, int64_t expert, int64_t token, const float *output)
{
    double *sizes = a->sizes + expert * a->F;
    float *largest = a->largest + expert * a->F;
    int32_t *at = a->largest_token + expert * a->F, *active = a->active + expert * a->F;
    double squares = em_dot(a->F, output, output), limit = EM_NEAR_ZERO * sqrt(squares / (double)a->F);
    a->tokens[expert]++;
    a->squares[expert] += squares;
    for (int64_t n = 0; n < a->F; n++) {
        float size = fabsf(output[n]);
        sizes[n] += (double)size;
        active[n] += (double)size > limit;
        if (at[n] >= 0 && size <= fabsf(largest[n])) continue;
        largest[n] = output[n];
        at[n] = (int32_t)token;
    }
}

bool em_activity_read(em_activity *activity, const em_view *view, int64_t layer, em_status *status)
{
    return em_activity_sample(activity, view, layer, em_view_tokens(view, layer), status);
}

bool em_activity_sample(em_activity *activity, const em_view *view, int64_t layer, int64_t most, em_status *status)
{
    int64_t tokens = em_view_tokens(view, layer), S = view->config.num_selected_experts, F = view->config.ffn_size;
    int64_t count = least(most, tokens), block = count < tokens ? 1 : block_of(S * F), size;
    *activity = (em_activity){0};
    if (!em_view_need(view, EM_FFN_HIDDEN, status)) return false;
    int32_t *expert = read_choices(view, layer, status);
    if (!expert) return false;
    open_activity(activity, view);
    float *output = em_alloc(least(block, tokens) * S * F, sizeof *output);
    bool good = true;
    for (int64_t i = 0; good && i < count; i += size) {
        int64_t t = count < tokens ? i * tokens / count : i;
        size = least(block, count - i);
        good = em_view_read(view, EM_FFN_HIDDEN, layer, t, size, output, status);
        for (int64_t k = 0; good && k < size * S; k++)
            add_outputs(activity, expert[t * S + k], t + k / S, output + k * F);
    }
    free(output);
    free(expert);
    if (!good) em_activity_free(activity);
    return good;
}

em_expert_activity em_activity_of(const em_activity *a, int64_t expert)
{
    em_expert_activity e = {.tokens = a->tokens[expert]};
    double outputs = (double)e.tokens * (double)a->F, sizes = 0, active = 0;
    for (int64_t n = expert * a->F; n < (expert + 1) * a->F; n++) {
        double largest = (double)a->largest[n];
        sizes += a->sizes[n];
        active += (double)a->active[n];
        e.dead += e.tokens > 0 && a->active[n] == 0;
        if (fabs(largest) > fabs(e.largest)) e.largest = largest;
    }
    e.mean_size = sizes / outputs;
    e.rms = sqrt(a->squares[expert] / outputs);
    e.sparsity = 1 - active / outputs;
    if (e.tokens == 0) e.largest = (double)NAN;
    return e;
}

void em_activity_top(const em_activity *a, int64_t expert, int64_t count, int64_t *neuron)
{
    const double *sizes = a->sizes + expert * a->F;
    for (int64_t i = 0; i < count; i++) neuron[i] = -1;
    for (int64_t n = 0; n < a->F; n++) {
        int64_t place = count;
        while (place > 0 && (neuron[place - 1] < 0 || sizes[n] > sizes[neuron[place - 1]])) place--;
        if (place == count) continue;
        memmove(neuron + place + 1, neuron + place, (size_t)(count - place - 1) * sizeof *neuron);
        neuron[place] = n;
    }
}

/* ---- tokens ---- */

bool em_analysis_norms(const em_view *view, em_quantity quantity, int64_t layer, int64_t token, int64_t tokens,
                       double *norm, em_status *status)
{
    if (!em_view_need(view, quantity, status)) return false;
    int64_t width = em_view_width(view, quantity), block = block_of(width), size;
    float *x = em_alloc(least(block, tokens) * width, sizeof *x);
    bool good = true;
    for (int64_t t = 0; good && t < tokens; t += size) {
        size = least(block, tokens - t);
        good = em_view_read(view, quantity, layer, token + t, size, x, status);
        for (int64_t i = 0; good && i < size; i++) norm[t + i] = sqrt(em_dot(width, x + i * width, x + i * width));
    }
    free(x);
    return good;
}

bool em_analysis_next(const em_view *view, int64_t token, int64_t count, int32_t *id, double *logit,
                      double *probability, em_status *status)
{
    int64_t V = view->config.vocab_size;
    float *scores = em_alloc(V, sizeof *scores);
    bool good = em_view_read(view, EM_LOGITS, 0, token, 1, scores, status);
    double sum = 0;
    if (good) em_top(V, scores, count, id);
    for (int64_t v = 0; good && v < V; v++) sum += exp((double)scores[v] - (double)scores[id[0]]);
    for (int64_t i = 0; good && i < count; i++) {
        logit[i] = id[i] < 0 ? (double)NAN : (double)scores[id[i]];
        probability[i] = id[i] < 0 ? (double)NAN : exp(logit[i] - (double)scores[id[0]]) / sum;
    }
    free(scores);
    return good;
}
