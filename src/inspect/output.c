/* inspect W.h5 neuron --trace T.h5 --token N: the neuron's value computed again, in double precision. */
#include "neuron.h"

#include "expertmesh/numerics.h"

#include <string.h>

/* What the tables of a value are made of. */
typedef struct output {
    em_neuron *n;
    em_table *vectors, *value, *terms; /* NULL: not wanted */
    em_numerics numerics;              /* of the run */
} output;

/* GELU (Hendrycks and Gimpel 2016), in the form that the run used. */
static double gelu(const output *o, double x)
{
    if (o->numerics.gelu_erf) return 0.5 * x * (1 + erf(x / sqrt(2)));
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

/* A line: recorded NAN: nothing to compare with. */
static void put_value(const output *o, const char *what, double computed, double recorded)
{
    if (!o->value) return;
    em_table_cell(o->value, "%s", what);
    em_table_real(o->value, 9, computed);
    em_table_real(o->value, 9, recorded);
    em_table_real(o->value, 3, computed - recorded);
    em_table_real(o->value, 3, recorded != 0 ? fabs(computed - recorded) / fabs(recorded) : (double)NAN);
}

/* The largest terms of a sum. */
static void put_terms(const output *o, em_tensor tensor, const float *w, const float *x, int64_t count)
{
    int64_t top = o->n->in->top < count ? o->n->in->top : count;
    if (!o->terms) return;
    float *size = em_alloc(count, sizeof *size);
    int32_t *index = em_alloc(top, sizeof *index);
    em_tensor_path path;
    for (int64_t i = 0; i < count; i++) size[i] = fabsf(w[i] * x[i]);
    em_top(count, size, top, index);
    for (int64_t i = 0; i < top; i++) {
        em_table_cell(o->terms, "%s", em_tensor_name(tensor, path));
        em_table_whole(o->terms, index[i]);
        em_table_real(o->terms, 6, (double)w[index[i]]);
        em_table_real(o->terms, 6, (double)x[index[i]]);
        em_table_real(o->terms, 6, (double)w[index[i]] * (double)x[index[i]]);
    }
    free(index);
    free(size);
}

static int64_t inputs_of(const em_neuron *n, em_tensor tensor)
{
    return em_tensor_shape_of(&n->source.config, tensor).cols;
}

/* The weighted sum of one row, shown term by term. */
static bool weigh(const output *o, em_tensor tensor, const float *x, double *sum, em_status *status)
{
    const em_neuron *n = o->n;
    int64_t K = inputs_of(n, tensor);
    float *w = em_alloc(K, sizeof *w);
    bool good = em_neuron_weights(n, tensor, n->expert, n->row, 1, 0, K, w, status);
    if (good) put_terms(o, tensor, w, x, K);
    *sum = good ? em_dot(K, w, x) : 0;
    free(w);
    return good;
}

/* y [rows] += factor * (w x) for all rows of a matrix, a few at a time. */
static bool weigh_all(const em_neuron *n, em_tensor tensor, int64_t expert, double factor, const float *x, double *y,
                      em_status *status)
{
    enum { TOGETHER = 1 << 20 };
    int64_t rows = em_tensor_shape_of(&n->source.config, tensor).rows, K = inputs_of(n, tensor), count;
    int64_t most = TOGETHER / K > 0 ? TOGETHER / K : 1;
    most = most < rows ? most : rows;
    float *w = em_alloc(most * K, sizeof *w);
    bool good = true;
    for (int64_t row = 0; good && row < rows; row += count) {
        count = row + most < rows ? most : rows - row;
        good = em_neuron_weights(n, tensor, expert, row, count, 0, K, w, status);
        for (int64_t i = 0; good && i < count; i++) y[row + i] += factor * em_dot(K, w + i * K, x);
    }
    free(w);
    return good;
}

/* ---- what was recorded ---- */

/* A quantity of the token, width numbers. Freed with free; NULL on failure. */
static float *read_quantity(const em_neuron *n, em_quantity quantity, em_status *status)
{
    float *x = em_alloc(em_view_width(&n->trace, quantity), sizeof *x);
    if (em_view_read(&n->trace, quantity, n->layer_place, n->token_place, 1, x, status)) return x;
    free(x);
    return NULL;
}

/* One number of it; NAN where it was not recorded, with a note. */
static double recorded_number(const em_neuron *n, em_quantity quantity, int64_t index, em_status *status)
{
    if (status->code) return (double)NAN;
    float *x = read_quantity(n, quantity, status);
    double number = x ? (double)x[index] : (double)NAN;
    if (!x && !n->trace.recorded[quantity]) em_inspect_excuse(n->in, status);
    free(x);
    return number;
}

/* The token's chosen experts [S]. NULL on failure. */
static int32_t *read_choices(const em_neuron *n, em_status *status)
{
    int32_t *chosen = em_alloc(n->source.config.num_selected_experts, sizeof *chosen);
    if (em_view_read(&n->trace, EM_EXPERT_INDICES, n->layer_place, n->token_place, 1, chosen, status) &&
        em_analysis_check_choices(&n->trace, n->layer_place, chosen, n->source.config.num_selected_experts, status))
        return chosen;
    free(chosen);
    return NULL;
}

/* Which choice of the token the neuron's expert was; -1: none; then also who was, in words. */
static int64_t find_choice(const em_neuron *n, char who[100], em_status *status)
{
    int64_t S = n->source.config.num_selected_experts, choice = -1;
    int32_t *chosen = read_choices(n, status);
    size_t length = 0;
    for (int64_t c = 0; chosen && c < S; c++) {
        if (chosen[c] == n->expert && choice < 0) choice = c;
        if (length < 80) length += (size_t)snprintf(who + length, 100 - length, "%s%d", c > 0 ? ", " : "", chosen[c]);
    }
    free(chosen);
    return choice;
}

static void put_inputs(const output *o, const char *what, const float *x, int64_t count)
{
    char *name = em_text("%s of token %lld", what, (long long)o->n->token);
    if (o->vectors) em_neuron_vector(o->vectors, name, "f32", x, count, (double)NAN);
    free(name);
}

/* x becomes its norm by the scale of a tensor, as em_rms_norm does: x [D]. */
static bool norm(const em_neuron *n, em_tensor tensor, double *x, em_status *status)
{
    int64_t D = n->source.config.emb_size;
    float *scale = em_alloc(D, sizeof *scale);
    double squares = 0;
    bool good = em_neuron_weights(n, tensor, 0, 0, 1, 0, D, scale, status);
    for (int64_t d = 0; d < D; d++) squares += x[d] * x[d];
    double factor = 1 / sqrt(squares / (double)D + n->source.config.rms_norm_eps);
    for (int64_t d = 0; good && d < D; d++) x[d] *= factor * (double)scale[d];
    free(scale);
    return good;
}

/* ---- the kinds of neurons ---- */

static double recorded_output(const output *o, em_status *status)
{
    em_neuron *n = o->n;
    char who[100] = "";
    if (!n->trace.recorded[EM_EXPERT_INDICES] || !n->trace.recorded[EM_FFN_HIDDEN]) {
        em_view_need(&n->trace, EM_EXPERT_INDICES, status);
        em_view_need(&n->trace, EM_FFN_HIDDEN, status);
        em_inspect_excuse(n->in, status);
        return (double)NAN;
    }
    int64_t choice = find_choice(n, who, status);
    if (choice >= 0) return recorded_number(n, EM_FFN_HIDDEN, choice * n->source.config.ffn_size + n->row, status);
    em_book_note(n->in->book, "token %lld chose experts %s of layer %lld, not %lld: there is no recorded value",
                 (long long)n->token, who, (long long)n->layer, (long long)n->expert);
    return (double)NAN;
}

static void first_layer(const output *o, em_status *status)
{
    em_neuron *n = o->n;
    bool gated = n->source.config.ffn_kind == EM_FFN_GLU;
    double gate = 0, up = 0;
    float bias = 0, *x = read_quantity(n, EM_FFN_IN, status);
    if (!x) return;
    put_inputs(o, "ffn_in", x, n->source.config.emb_size);
    bool good = (!gated || weigh(o, EM_FFN_GATE, x, &gate, status)) && weigh(o, EM_FFN_UP, x, &up, status);
    if (good && !gated) good = em_neuron_weights(n, EM_FFN_UP_BIAS, n->expert, 0, 1, n->row, 1, &bias, status);
    free(x);
    if (!good || !o->value) return;
    put_value(o, gated ? "weighted sum of ffn_gate: pre-activation" : "weighted sum", gated ? gate : up, (double)NAN);
    if (!gated) put_value(o, "bias", (double)bias, (double)NAN);
    double before = gated ? gate : up + (double)bias, after = gelu(o, before);
    if (!gated) put_value(o, "pre-activation", before, (double)NAN);
    if (gated) put_value(o, "activation", after, (double)NAN);
    if (gated) put_value(o, "weighted sum of ffn_up", up, (double)NAN);
    put_value(o, "output: ffn_hidden", gated ? after * up : after, recorded_output(o, status));
}

/* What the experts add, for all elements: each chosen one's second layer, weighed, added, and normed. */
static bool add_experts(const em_neuron *n, const float *hidden, double *y, em_status *status)
{
    const em_config *c = &n->source.config;
    int64_t D = c->emb_size, F = c->ffn_size, S = c->num_selected_experts;
    float *weight = read_quantity(n, EM_EXPERT_WEIGHTS, status), *bias = em_alloc(D, sizeof *bias);
    int32_t *chosen = read_choices(n, status);
    bool good = weight && chosen;
    for (int64_t i = 0; good && i < S; i++) {
        good = weigh_all(n, EM_FFN_DOWN, chosen[i], (double)weight[i], hidden + i * F, y, status);
        if (!good || c->ffn_kind != EM_FFN_MLP) continue;
        good = em_neuron_weights(n, EM_FFN_DOWN_BIAS, chosen[i], 0, 1, 0, D, bias, status);
        for (int64_t d = 0; good && d < D; d++) y[d] += (double)weight[i] * (double)bias[d];
    }
    free(chosen);
    free(bias);
    free(weight);
    return good;
}

static void second_layer(const output *o, em_status *status)
{
    em_neuron *n = o->n;
    const em_config *c = &n->source.config;
    char who[100] = "";
    double sum = 0, *y = em_zeroed(c->emb_size, sizeof *y);
    float bias = 0, *hidden = read_quantity(n, EM_FFN_HIDDEN, status);
    int64_t choice = hidden ? find_choice(n, who, status) : -1;
    if (hidden && choice < 0)
        em_fail(status, EM_USAGE,
                "--expert %lld: token %lld chose experts %s of layer %lld: no other has inputs of its second layer",
                (long long)n->expert, (long long)n->token, who, (long long)n->layer);
    if (!status->code) {
        put_inputs(o, "ffn_hidden", hidden + choice * c->ffn_size, c->ffn_size);
        weigh(o, EM_FFN_DOWN, hidden + choice * c->ffn_size, &sum, status);
    }
    if (!status->code && c->ffn_kind == EM_FFN_MLP)
        em_neuron_weights(n, EM_FFN_DOWN_BIAS, n->expert, 0, 1, n->row, 1, &bias, status);
    if (!status->code && o->value && add_experts(n, hidden, y, status)) {
        put_value(o, "weighted sum", sum, (double)NAN);
        if (c->ffn_kind == EM_FFN_MLP) put_value(o, "bias", (double)bias, (double)NAN);
        put_value(o, "output of the expert", sum + (double)bias, (double)NAN);
        put_value(o, "chosen experts, weighed and added", y[n->row], (double)NAN);
        if (norm(n, EM_FFN_NORM_POST, y, status))
            put_value(o, "after the norm: ffn_out", y[n->row], recorded_number(n, EM_FFN_OUT, n->row, status));
    }
    free(hidden);
    free(y);
}

static void router_row(const output *o, em_status *status)
{
    em_neuron *n = o->n;
    int64_t D = n->source.config.emb_size, E = n->source.config.num_experts;
    double logit, all = 0, *logits = em_zeroed(E, sizeof *logits);
    float *x = read_quantity(n, EM_FFN_IN, status);
    if (x) put_inputs(o, "ffn_in", x, D);
    if (x && weigh(o, EM_ROUTER, x, &logit, status) && weigh_all(n, EM_ROUTER, 0, 1, x, logits, status)) {
        double cap = o->numerics.router_softcap;
        if (cap > 0) put_value(o, "weighted sum", logit, (double)NAN);
        if (cap > 0) logit = cap * tanh(logit / cap);
        for (int64_t e = 0; e < E; e++) all += exp((cap > 0 ? cap * tanh(logits[e] / cap) : logits[e]) - logit);
        put_value(o, cap > 0 ? "soft-capped: router_logits" : "weighted sum: router_logits", logit,
                  recorded_number(n, EM_ROUTER_LOGITS, n->row, status));
        put_value(o, "softmax over all experts: router_probs", 1 / all,
                  recorded_number(n, EM_ROUTER_PROBS, n->row, status));
    }
    free(x);
    free(logits);
}

/* The normed input of attention: x [D]. NULL on failure. */
static float *attention_input(const output *o, em_status *status)
{
    int64_t D = o->n->source.config.emb_size;
    double *exact = em_alloc(D, sizeof *exact);
    float *x = read_quantity(o->n, EM_RESID_PRE, status);
    for (int64_t d = 0; x && d < D; d++) exact[d] = (double)x[d];
    bool good = x && norm(o->n, EM_ATTN_NORM_PRE, exact, status);
    for (int64_t d = 0; good && d < D; d++) x[d] = (float)exact[d];
    free(exact);
    if (good) {
        put_inputs(o, "resid_pre, normed,", x, D);
        return x;
    }
    free(x);
    return NULL;
}

/* RoPE (Su et al. 2021) of element i of a head, with its partner half a head away: pairs (i, i + C/2). */
static double turn(const em_neuron *n, double mine, double partner, int32_t position)
{
    int64_t C = n->source.config.key_size, i = n->row % C, pair = i % (C / 2);
    double angle = position * pow(n->source.config.rope_base, -2.0 * (double)pair / (double)C);
    return i < C / 2 ? mine * cos(angle) - partner * sin(angle) : mine * cos(angle) + partner * sin(angle);
}

static void head_row(const output *o, em_status *status)
{
    em_neuron *n = o->n;
    int64_t C = n->source.config.key_size, half = C / 2, D = n->source.config.emb_size;
    em_quantity quantity = n->tensor == EM_ATTN_QUERY ? EM_ATTN_Q : n->tensor == EM_ATTN_KEY ? EM_ATTN_K : EM_ATTN_V;
    double sum;
    float *x = attention_input(o, status), *w = em_alloc(D, sizeof *w);
    if (x && weigh(o, n->tensor, x, &sum, status)) {
        bool turned = n->tensor != EM_ATTN_VALUE;
        int64_t partner = n->row % C < half ? n->row + half : n->row - half;
        int32_t position = 0;
        if (turned && em_view_read(&n->trace, EM_POSITION, 0, n->token_place, 1, &position, status) &&
            em_neuron_weights(n, n->tensor, 0, partner, 1, 0, D, w, status)) {
            double other = em_dot(D, w, x);
            put_value(o, "weighted sum", sum, (double)NAN);
            put_value(o, "weighted sum of its partner in RoPE", other, (double)NAN);
            sum = turn(n, sum, other, position);
        }
        double recorded = recorded_number(n, quantity, n->row, status);
        if (!status->code)
            put_value(o,
                      n->tensor == EM_ATTN_QUERY ? "after RoPE: attn_q"
                      : turned                   ? "after RoPE: attn_k"
                                                 : "weighted sum: attn_v",
                      sum, recorded);
    }
    free(w);
    free(x);
}

static void output_row(const output *o, em_status *status)
{
    em_neuron *n = o->n;
    const em_config *c = &n->source.config;
    double sum, *y = em_zeroed(c->emb_size, sizeof *y),
                factor = o->numerics.scale_attn_output ? c->attn_output_multiplier : 1;
    float *z = read_quantity(n, EM_ATTN_Z, status);
    if (z) put_inputs(o, "attn_z", z, inputs_of(n, EM_ATTN_OUTPUT));
    if (z && weigh(o, EM_ATTN_OUTPUT, z, &sum, status) && weigh_all(n, EM_ATTN_OUTPUT, 0, factor, z, y, status) &&
        norm(n, EM_ATTN_NORM_POST, y, status)) {
        put_value(o, "weighted sum", sum, (double)NAN);
        put_value(o, "after the norm: attn_out", y[n->row], recorded_number(n, EM_ATTN_OUT, n->row, status));
    }
    free(z);
    free(y);
}

void em_neuron_output(em_neuron *n, em_table *vectors, em_status *status)
{
    em_book *book = n->in->book;
    char *numerics = em_view_attribute(&n->trace, "numerics");
    output o = {.n = n, .vectors = vectors, .numerics = em_numerics_of_text(numerics)};
    free(numerics);
    if (em_book_wants(book, "value"))
        o.value = em_book_add(book, "value", "lrrrr", "what,computed,recorded,difference,relative",
                              "layer %lld, token %lld: computed in double precision from the weights and the recorded "
                              "inputs; relative: difference / recorded",
                              (long long)n->layer, (long long)n->token);
    if (em_book_wants(book, "terms"))
        o.terms = em_book_add(book, "terms", "lrrrr", "matrix,input,weight,value,product",
                              "the terms of largest size in its weighted sum, %lld of each matrix (--top)",
                              (long long)n->in->top);
    if (!o.vectors && !o.value && !o.terms) return;
    switch (n->tensor) {
    case EM_FFN_UP: first_layer(&o, status); break;
    case EM_FFN_DOWN: second_layer(&o, status); break;
    case EM_ROUTER: router_row(&o, status); break;
    case EM_ATTN_OUTPUT: output_row(&o, status); break;
    default: head_row(&o, status);
    }
}
